"""Which codebook a run uses: new versions, rejected ones, and other methods."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch

from assets.item_embeddings import EmbeddingLaunchpad, item_embeddings
from assets.tokenizer import (
    TokenizerLaunchpad,
    codebook,
)
from onerec.artifacts import ArtifactStore, read_json
from onerec.config import EmbeddingConfig, TokenizerConfig
from onerec.tokenizer.codebook import fit_codebook
from tests.assets.tokenizer.runs import ALL, DAYS, NIGHT, failed_checks, ids_of, metadata_of, run


def test_a_new_codebook_opens_a_new_version(home: Path, store: ArtifactStore) -> None:
    run(home, store, DAYS[0], *ALL)
    run(home, store, DAYS[1], *ALL)
    first, second = ids_of(store, DAYS[0]), ids_of(store, DAYS[1])
    assert first.tokenizer_version != second.tokenizer_version
    assert len(second) == 72
    assert failed_checks(run(home, store, DAYS[2], *NIGHT)) == []
    assert ids_of(store, DAYS[2]).num_moved_since(second) == 0


def test_a_refit_keeps_numbers_where_the_setting_says_so(home: Path, store: ArtifactStore) -> None:
    run(home, store, DAYS[0], *ALL)
    first = ids_of(store, DAYS[0])
    versions, kept = {}, {}
    for keep in (False, True):
        result = run(home, store, DAYS[1], *ALL, tokenizer={"keep_numbers": keep})
        assert failed_checks(result) == []
        versions[keep] = ids = ids_of(store, DAYS[1])
        shared = torch.from_numpy(ids.index_of(first.item_ids))
        kept[keep] = int((ids.codes[shared, :-1] == first.codes[:, :-1]).sum())
        path = store.latest("codebook", DAYS[1].isoformat()).path
        manifest = read_json(path / "tokenizer_version.json")
        assert manifest["numbered_like"] == (first.tokenizer_version if keep else None)
    assert kept[True] > kept[False]
    assert (
        len({first.tokenizer_version, *(ids.tokenizer_version for ids in versions.values())}) == 3
    )
    assert versions[True].num_invalid() == 0
    # the clusters are those of the fit that keeps no numbers
    together = [(i.codes[:, None, 0] == i.codes[None, :, 0]) for i in versions.values()]
    assert torch.equal(*together)
    # another size has no numbers to keep
    run(home, store, DAYS[2], *ALL, tokenizer={"keep_numbers": True, "codebook_size": 5})
    path = store.latest("codebook", DAYS[2].isoformat()).path
    assert read_json(path / "tokenizer_version.json")["numbered_like"] is None


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
            check.metadata["guarantee on cluster sizes"].value
            for check in result.get_asset_check_evaluations()
            if check.check_name == "codes_are_balanced"
        }
        assert promised == {"none"}
    assert failed_checks(run(home, store, DAYS[1], *NIGHT)) == []
    assert ids_of(store, DAYS[1]).num_moved_since(ids_of(store, DAYS[0])) == 0


def test_catalogue_smaller_than_the_codebook(home: Path, store: ArtifactStore) -> None:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("delete from stg_items where item_id > 'i004'")
    with pytest.raises(ValueError, match=r"codebook_size=6.*only 5 items.*to at most 5"):
        run(home, store, DAYS[0], item_embeddings, codebook)


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


def test_launchpads_have_the_fields_of_the_core() -> None:
    for launchpad, core in (
        (EmbeddingLaunchpad, EmbeddingConfig),
        (TokenizerLaunchpad, TokenizerConfig),
    ):
        assert set(launchpad.model_fields) == set(core.__dataclass_fields__)
