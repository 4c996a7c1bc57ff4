"""Embeddings, codebook and semantic IDs over a real store and a real warehouse."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import Field
from safetensors.numpy import load_file

from assets.item_embeddings import EmbeddingLaunchpad, item_embeddings, item_embeddings_checks
from assets.tokenizer import (
    TokenizerLaunchpad,
    codebook,
    codebook_checks,
    semantic_ids,
    semantic_ids_checks,
)
from onerec.artifacts import ArtifactError, ArtifactStore, read_json
from onerec.config import EmbeddingConfig, TokenizerConfig
from onerec.datasets import EventSource
from onerec.embeddings.item_embeddings import ItemEmbeddings
from onerec.tokenizer.codebook import fit_codebook
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from resources.stores import Artifacts, Source
from resources.warehouse import Warehouse
from tests.core.embeddings.test_item_embeddings import write_sessions

DAYS = [date(2026, 6, 10) + timedelta(days=n) for n in range(5)]
ITEMS_A_DAY = 12
TOPICS = ("slow pasta recipe", "fast ski slope", "jazz guitar lesson")
SETTINGS: dict[str, Any] = {
    "item_embeddings": {
        "config": {
            "text_encoder": "hashed",
            "text_dim": 12,
            "collaborative_dim": 6,
            "attributes_dim": 4,
        }
    },
    # with so few items every refit differs by more than any sensible tolerance
    "codebook": {
        "config": {"num_levels": 2, "codebook_size": 6, "iterations": 5, "quality_tolerance": 1.0}
    },
}


class Supplied(Source):
    """A source that has nothing but vectors, or not even those."""

    vectors: list[float] = Field(default_factory=list)

    def open(self) -> EventSource:  # pyright: ignore[reportIncompatibleMethodOverride]
        @dataclass
        class Vectors:
            rows: list[float]

            def item_vectors(self) -> pa.Table | None:
                ids = [f"i{n:03d}" for n in range(len(self.rows))]
                vectors = pa.array([[v, 1.0] for v in self.rows], pa.list_(pa.float32()))
                return pa.table({"item_id": ids, "vector": vectors}) if ids else None

        return Vectors(self.vectors)  # pyright: ignore[reportReturnType]


def first_seen(item: int) -> date:
    """Two thirds of the items are there from the start, the rest arrive day by day."""
    return DAYS[0] - timedelta(days=3) if item < 48 else DAYS[(item - 48) // ITEMS_A_DAY]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    rows = [
        (f"i{n:03d}", f"{TOPICS[n % 3]} {n}", f"c{n % 3}", f"a{n % 7}", first_seen(n))
        for n in range(48 + ITEMS_A_DAY * len(DAYS))
    ]
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute(
            "create table stg_items (item_id varchar, duration_seconds double, title varchar, "
            "category varchar, author_id varchar, published_at timestamptz, first_seen date, "
            "valid_from date)"
        )
        connection.executemany(
            "insert into stg_items values ($1, 30, $2, $3, $4, null, $5, $5)", rows
        )
    return tmp_path


@pytest.fixture
def store(home: Path) -> ArtifactStore:
    store = ArtifactStore(str(home / "artifacts"))
    for turn, day in enumerate(DAYS):
        with store.write(
            "session_dataset", day.isoformat(), config={}, upstream={}, code_version="1"
        ) as draft:
            generator = np.random.default_rng(turn)
            sessions = [
                [f"i{3 * n + s % 3:03d}" for n in generator.permutation(16)[:4]] for s in range(60)
            ]
            write_sessions(draft.path, "train", sessions)
    return store


def run(
    home: Path,
    store: ArtifactStore,
    day: date,
    *assets: dg.AssetsDefinition,
    vectors: list[float] | None = None,
    raise_on_error: bool = True,
    tokenizer: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    checks = [item_embeddings_checks, codebook_checks, semantic_ids_checks]
    names = [a.key.to_user_string() for a in assets]
    codebook_config = SETTINGS["codebook"]["config"] | (tokenizer or {})
    settings = SETTINGS | {"codebook": {"config": codebook_config}}
    return dg.materialize(
        [item_embeddings, codebook, semantic_ids, *checks],
        selection=dg.AssetSelection.assets(*names),
        partition_key=day.isoformat(),
        run_config={"ops": {n: c for n, c in settings.items() if n in names}},
        resources={
            "artifacts": Artifacts(url=store.root),
            "warehouse": Warehouse(path=str(home / "warehouse.duckdb")),
            "source": Supplied(dataset="own", vectors=vectors or []),
        },
        raise_on_error=raise_on_error,
    )


ALL = (item_embeddings, codebook, semantic_ids)
NIGHT = (item_embeddings, semantic_ids)


def ids_of(store: ArtifactStore, day: date) -> SemanticIds:
    return load_semantic_ids(store.latest("semantic_ids", day.isoformat()).verify().path)


def failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    return sorted(c.check_name for c in result.get_asset_check_evaluations() if not c.passed)


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def test_first_night(home: Path, store: ArtifactStore) -> None:
    result = run(home, store, DAYS[0], *ALL)
    assert len(result.get_asset_check_evaluations()) == 8
    assert failed_checks(result) == []
    day = DAYS[0].isoformat()
    book, ids = store.latest("codebook", day), ids_of(store, DAYS[0])
    assert sorted(book.manifest["files"]) == [
        "codebook.safetensors",
        "diagnostics.json",
        "semantic_ids.parquet",
        "tokenizer_version.json",
        "vectors.safetensors",
    ]
    # fitted on what was seen before the day; the day's own items are appended
    assert len(load_semantic_ids(book.path)) == 48
    assert len(ids) == 60
    assert (ids.first_seen[48:] == np.datetime64(DAYS[0])).all()
    assert ids.tokenizer_version == book.manifest["metadata"]["tokenizer_version"]
    artifact = store.latest("semantic_ids", day)
    vectors = load_file(artifact.path / "vectors.safetensors")["vectors"]
    assert vectors.shape[0] == 60
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert set(artifact.manifest["upstream"]) == {"item_embeddings", "codebook"}
    shown = metadata_of(result, "semantic_ids")
    assert shown["tokenizer_version"] == ids.tokenizer_version
    assert shown["dagster/row_count"] == 60
    assert shown["pictures"].count("data:image/svg+xml") == 4
    neighbours = [row.data for row in shown["neighbours by ID prefix"].records]
    assert "pasta recipe" in neighbours[0]["item"]
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        table = connection.sql(
            "select item_id, codes, partition_date from semantic_ids order by item_index"
        ).fetchall()
    assert [row[0] for row in table] == ids.item_ids.tolist()
    assert [list(row[1]) for row in table] == ids.codes.tolist()
    assert {row[2] for row in table} == {DAYS[0]}


def test_nights_append_and_never_move(home: Path, store: ArtifactStore) -> None:
    run(home, store, DAYS[0], *ALL)
    for number, day in enumerate(DAYS[1:], start=1):
        earlier = ids_of(store, DAYS[number - 1])
        assert failed_checks(run(home, store, day, *NIGHT)) == []
        ids = ids_of(store, day)
        assert len(ids) == len(earlier) + ITEMS_A_DAY
        assert ids.num_moved_since(earlier) == 0
        upstream = store.latest("semantic_ids", day.isoformat()).manifest["upstream"]
        assert set(upstream) == {"item_embeddings", "codebook", "semantic_ids"}


def test_vectors_stay_in_the_space_of_the_codebook(home: Path, store: ArtifactStore) -> None:
    # sessions differ from night to night, so the axes of the co-watching block turn
    run(home, store, DAYS[0], *ALL)
    run(home, store, DAYS[1], *NIGHT)
    first, second = (
        load_file(store.latest("semantic_ids", d.isoformat()).path / "vectors.safetensors")[
            "vectors"
        ][:48]
        for d in DAYS[:2]
    )
    raw = load_file(
        store.latest("item_embeddings", DAYS[1].isoformat()).path / "vectors.safetensors"
    )["vectors"][:48]
    kept, turned = ((first * other).sum(1).mean() for other in (second, raw))
    assert kept > 0.9
    assert kept > turned
    # new items find the codes of their topic
    ids = ids_of(store, DAYS[1])
    topic = np.array([int(item[1:]) % 3 for item in ids.item_ids])
    by_code = [
        torch.bincount(ids.codes[:48, 0][torch.from_numpy(topic[:48] == t)], minlength=6)
        for t in range(3)
    ]
    likely = torch.stack(by_code).argmax(0).numpy()
    assert (likely[ids.codes[48:, 0].numpy()] == topic[48:]).mean() > 0.8


def test_a_repeated_night_gives_the_same_artifacts(home: Path, store: ArtifactStore) -> None:
    run(home, store, DAYS[0], *ALL)
    run(home, store, DAYS[1], *NIGHT)
    run(home, store, DAYS[2], *NIGHT)
    before = {
        (asset, day): store.latest(asset, day).version
        for asset in ("item_embeddings", "codebook", "semantic_ids")
        for day in store.partitions(asset)
    }
    run(home, store, DAYS[1], *NIGHT)
    run(home, store, DAYS[0], *ALL)
    assert before == {(a, d): store.latest(a, d).version for a, d in before}


def test_a_new_codebook_opens_a_new_generation(home: Path, store: ArtifactStore) -> None:
    run(home, store, DAYS[0], *ALL)
    run(home, store, DAYS[1], *ALL)
    first, second = ids_of(store, DAYS[0]), ids_of(store, DAYS[1])
    assert first.tokenizer_version != second.tokenizer_version
    assert len(second) == 72
    assert failed_checks(run(home, store, DAYS[2], *NIGHT)) == []
    assert ids_of(store, DAYS[2]).num_moved_since(second) == 0


def spoil_the_refit(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a codebook is fitted on noise: valid, balanced, and bad."""

    def fitted_on_noise(vectors: torch.Tensor, config: TokenizerConfig, **options: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(vectors.shape, generator=generator)
        return fit_codebook(noise, config, **options)

    monkeypatch.setattr("onerec.tokenizer.tokenized_catalogue.fit_codebook", fitted_on_noise)


def test_after_a_refused_refit_the_same_run_goes_on_in_the_current_version(
    home: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(home, store, DAYS[0], *ALL)
    old = ids_of(store, DAYS[0])
    before = store.latest("codebook", DAYS[0].isoformat())
    spoil_the_refit(monkeypatch)
    result = run(home, store, DAYS[1], *ALL, tokenizer={"quality_tolerance": 0.01})
    assert result.success
    assert failed_checks(result) == ["no_worse_than_previous_version"]
    # nothing is lost: the refused codebook is there, with its reasons and both qualities
    refused = store.latest("codebook", DAYS[1].isoformat())
    manifest = read_json(refused.path / "tokenizer_version.json")
    assert refused.manifest["metadata"]["accepted"] is False
    assert manifest["parent"] == old.tokenizer_version != manifest["tokenizer_version"]
    assert manifest["quality"]["relative_mse"] > manifest["parent_quality"]["relative_mse"]
    assert any("relative_mse rises from" in reason for reason in manifest["refused_because"])
    assert manifest["settings"]["quality_tolerance"] == 0.01
    assert manifest["day"] == DAYS[1].isoformat()
    # the IDs of that day and of the next are of the current version
    assert failed_checks(run(home, store, DAYS[2], *NIGHT)) == []
    for day in DAYS[1:3]:
        assert ids_of(store, day).tokenizer_version == old.tokenizer_version
        assert ids_of(store, day).num_moved_since(old) == 0
        upstream = store.latest("semantic_ids", day.isoformat()).manifest["upstream"]
        assert upstream["codebook"] == before.version


def test_a_refused_codebook_does_not_replace_one_of_the_same_day(
    home: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(home, store, DAYS[0], *ALL)
    run(home, store, DAYS[1], *ALL)
    second = ids_of(store, DAYS[1])
    spoil_the_refit(monkeypatch)
    strict = {"quality_tolerance": 0.0}
    for _ in range(2):  # refused twice, the first one still stands
        run(home, store, DAYS[1], *ALL, tokenizer=strict)
        assert ids_of(store, DAYS[1]).tokenizer_version == second.tokenizer_version
    run(home, store, DAYS[2], *NIGHT)
    assert ids_of(store, DAYS[2]).tokenizer_version == second.tokenizer_version
    # accepted on purpose
    accepted = run(home, store, DAYS[1], *ALL)
    assert failed_checks(accepted) == []
    assert ids_of(store, DAYS[1]).tokenizer_version != second.tokenizer_version


@pytest.mark.parametrize("method", ["algorithm_1", "kmeans", "rqvae"])
def test_other_methods_run_the_same_night(method: str, home: Path, store: ArtifactStore) -> None:
    result = run(home, store, DAYS[0], *ALL, tokenizer={"method": method, "rqvae_epochs": 3})
    assert result.success
    assert set(failed_checks(result)) <= {"codes_are_balanced", "every_code_is_used"}
    if method == "algorithm_1":
        assert failed_checks(result) == []
    else:  # warnings only, which say that nothing was promised
        promised = {
            check.metadata["what the method promises"].value
            for check in result.get_asset_check_evaluations()
            if check.check_name == "codes_are_balanced"
        }
        assert promised == {"nothing"}
    assert failed_checks(run(home, store, DAYS[1], *NIGHT)) == []
    assert ids_of(store, DAYS[1]).num_moved_since(ids_of(store, DAYS[0])) == 0


def test_items_of_the_test_day_and_later_do_not_reach_the_codebook(
    home: Path, store: ArtifactStore
) -> None:
    run(home, store, DAYS[0], item_embeddings, codebook)
    before = load_semantic_ids(store.latest("codebook", DAYS[0].isoformat()).path)
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute(
            "insert into stg_items select 'planted' || i, 1, 'slow pasta', 'c0', 'a0', null, "
            f"date '{DAYS[0]}', date '{DAYS[0]}' from range(50) t(i)"
        )
    run(home, store, DAYS[0], item_embeddings, codebook)
    after = load_semantic_ids(store.latest("codebook", DAYS[0].isoformat()).path)
    assert after.tokenizer_version == before.tokenizer_version
    assert torch.equal(after.codes, before.codes)


def test_without_a_codebook_the_error_says_what_to_run(home: Path, store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"materialise codebook for 2026-06-10.*weekly"):
        run(home, store, DAYS[0], *NIGHT)


def test_catalogue_smaller_than_the_codebook(home: Path, store: ArtifactStore) -> None:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("delete from stg_items where item_id > 'i004'")
    with pytest.raises(ValueError, match=r"codebook_size=6.*only 5 items.*to at most 5"):
        run(home, store, DAYS[0], item_embeddings, codebook)


def test_supplied_vectors_are_in_the_lineage(home: Path, store: ArtifactStore) -> None:
    run(home, store, DAYS[0], item_embeddings)
    plain = store.latest("item_embeddings", DAYS[0].isoformat())
    run(home, store, DAYS[0], item_embeddings, vectors=[0.0, 1.0, 5.0])
    supplied = store.latest("item_embeddings", DAYS[0].isoformat())
    assert plain.manifest["metadata"]["has_supplied"] == 0
    assert supplied.manifest["metadata"]["has_supplied"] == 3
    assert set(supplied.manifest["upstream"]) - set(plain.manifest["upstream"]) == {"item_vectors"}


@pytest.fixture
def corrupted(home: Path, store: ArtifactStore) -> Path:
    """A first night; what the tokenizer writes from now on is spoilt."""
    run(home, store, DAYS[0], *ALL)
    return home


def test_an_id_that_moved_stops_the_night(
    corrupted: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SemanticIds.save

    def swapped(ids: SemanticIds, directory: Path) -> None:
        ids.codes[[0, 1]] = ids.codes[[1, 0]]
        save(ids, directory)

    monkeypatch.setattr(SemanticIds, "save", swapped)
    result = run(corrupted, store, DAYS[1], *NIGHT, raise_on_error=False)
    assert not result.success
    assert failed_checks(result) == ["published_ids_did_not_move"]


def test_a_repeated_id_stops_the_night(
    corrupted: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SemanticIds.save

    def repeated(ids: SemanticIds, directory: Path) -> None:
        ids.codes[-1] = ids.codes[-2]
        save(ids, directory)

    monkeypatch.setattr(SemanticIds, "save", repeated)
    result = run(corrupted, store, DAYS[1], *NIGHT, raise_on_error=False)
    assert not result.success
    assert failed_checks(result) == ["ids_are_unique"]


def unbalanced(*_: Any) -> dict[str, Any]:
    return {"utilisation": [0.9, 1.0], "size_spread": [2, 1], "overflowed_items": 0}


def test_an_unbalanced_first_version_is_better_than_none_an_unbalanced_refit_is_refused(
    home: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onerec.tokenizer.versions.fit_balance", unbalanced)
    first = run(home, store, DAYS[0], *ALL)
    assert failed_checks(first) == ["codes_are_balanced", "every_code_is_used"]
    refit = run(home, store, DAYS[1], *ALL, tokenizer={"quality_tolerance": 0.9})
    assert failed_checks(refit) == [
        "codes_are_balanced",
        "every_code_is_used",
        "no_worse_than_previous_version",
    ]
    first_version = ids_of(store, DAYS[0]).tokenizer_version
    assert ids_of(store, DAYS[1]).tokenizer_version == first_version


def test_items_that_nothing_distinguishes_do_not_stop_the_first_night(
    home: Path, store: ArtifactStore
) -> None:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute(
            "insert into stg_items select 'copy' || i, 1, 'Untitled', 'misc', 'a0', null, "
            f"date '{DAYS[0]}' - 1, date '{DAYS[0]}' - 1 from range(120) t(i)"
        )
    result = run(home, store, DAYS[0], *ALL)
    assert failed_checks(result) == []
    shown = metadata_of(result, "codebook")
    assert shown["items moved from a full leaf"] > 0  # reported, not refused
    assert ids_of(store, DAYS[0]).num_invalid() == 0


def test_a_codebook_without_a_size_gets_the_catalogues_and_may_grow_with_it(
    home: Path, store: ArtifactStore
) -> None:
    automatic = {"codebook_size": 0, "quality_tolerance": 0.3}
    first = run(home, store, DAYS[0], *ALL, tokenizer=automatic)
    assert metadata_of(first, "codebook")["codes per level"] == 8  # 512 IDs for 48 items
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute(
            "insert into stg_items select 'more' || i, 1, 'slow pasta ' || (i * 7919 % 1000), "
            "'c' || i % 40, 'a' || i, null, "
            f"date '{DAYS[0]}', date '{DAYS[0]}' from range(300) t(i)"
        )
    second = run(home, store, DAYS[1], *ALL, tokenizer=automatic)
    assert metadata_of(second, "codebook")["codes per level"] == 16
    # the first code of more codes is shared by fewer neighbours: no reason to refuse it
    assert "no_worse_than_previous_version" not in failed_checks(second)


@pytest.mark.parametrize("spoilt", [np.nan, 2.0])
def test_vectors_that_are_not_unit_length_stop_the_run(
    spoilt: float, home: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = ItemEmbeddings.save

    def spoil(embeddings: ItemEmbeddings, directory: Path) -> None:
        embeddings.vectors[3, 0] = spoilt
        save(embeddings, directory)

    monkeypatch.setattr(ItemEmbeddings, "save", spoil)
    result = run(home, store, DAYS[0], *ALL, raise_on_error=False)
    assert failed_checks(result) == ["vectors_are_unit_length"]
    assert store.partitions("codebook") == []


def test_launchpads_have_the_fields_of_the_core() -> None:
    for launchpad, core in (
        (EmbeddingLaunchpad, EmbeddingConfig),
        (TokenizerLaunchpad, TokenizerConfig),
    ):
        assert set(launchpad.model_fields) == set(core.__dataclass_fields__)
