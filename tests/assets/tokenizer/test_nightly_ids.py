"""Embeddings and semantic IDs, nightly run after nightly run, over a real store and warehouse."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from assets.item_embeddings import item_embeddings
from assets.tokenizer import (
    codebook,
)
from onerec.artifacts import ArtifactError, ArtifactStore
from onerec.embeddings.item_embeddings import ItemEmbeddings
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from tests.assets.tokenizer.runs import (
    ALL,
    DAYS,
    ITEMS_A_DAY,
    NIGHT,
    failed_checks,
    ids_of,
    metadata_of,
    run,
)


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
