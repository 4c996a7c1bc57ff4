"""What may be removed, on a store of ten nights made by hand."""

from pathlib import Path

import pytest

from onerec.artifacts import ArtifactError, ArtifactStore, write_json
from onerec.retention.pruning import Version, lineage, removals, versions

DAYS = [f"2026-06-{day:02d}" for day in range(1, 11)]
PROMOTED = 3
"""The champion of all nights is the checkpoint of this one (from 0)."""


def publish(store: ArtifactStore, asset: str, day: str, content: object, **upstream: str) -> str:
    with store.write(asset, day, config={}, upstream=upstream, code_version="1") as draft:
        write_json(draft.path / "content.json", content)
        if asset == "champion":
            write_json(draft.path / "champion.json", {"model": content})
    return draft.artifact.version


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """Nights with a codebook once, checkpoints warm-started from the night before."""
    store = ArtifactStore(str(tmp_path))
    codebook = publish(store, "codebook", DAYS[0], "codebook")
    before: dict[str, str] = {}
    model = None
    for number, day in enumerate(DAYS):
        sessions = publish(store, "session_dataset", day, day)
        warm = {} if number == 0 else {"dpo_checkpoint": before["dpo_checkpoint"]}
        if number == 2:
            publish(store, "dpo_checkpoint", day, "made again later")
        dpo = publish(
            store, "dpo_checkpoint", day, day, codebook=codebook, session_dataset=sessions, **warm
        )
        if number == PROMOTED:
            model = {"asset": "dpo_checkpoint", "partition": day, "version": dpo}
        earlier = {"champion": before["champion"]} if "champion" in before else {}
        metrics = publish(store, "offline_metrics", day, day, dpo_checkpoint=dpo, **earlier)
        champion = publish(store, "champion", day, model, offline_metrics=metrics, **earlier)
        before = {"dpo_checkpoint": dpo, "champion": champion}
        publish(store, "recommendations", day, day, champion=champion, session_dataset=sessions)
    publish(store, "result_table", "walk_forward", "an experiment's")
    return store


def served(store: ArtifactStore, day: str) -> Version:
    return Version("recommendations", day, store.latest("recommendations", day).version)


def remaining(store: ArtifactStore) -> dict[str, list[str]]:
    kept: dict[str, list[str]] = {}
    for asset, partition, _ in versions(store):
        kept.setdefault(asset, []).append(partition)
    return kept


def test_the_last_nights_and_the_lineage_of_what_is_served_stay(store: ArtifactStore) -> None:
    found = removals(store, keep_nights=2, keep_champions=4, served=[served(store, DAYS[-1])])
    for removal in found:
        store.remove(*removal.what)
    kept = remaining(store)
    assert kept["recommendations"] == DAYS[-2:]
    assert kept["champion"] == DAYS[-4:]
    # the served checkpoint and all that it was warm-started from, and the last nights' own
    lineage_days = DAYS[: PROMOTED + 1]
    assert set(lineage_days) <= set(kept["dpo_checkpoint"])
    assert DAYS[5] not in kept["dpo_checkpoint"]
    assert set(lineage_days) <= set(kept["session_dataset"])
    assert kept["codebook"] == DAYS[:1]  # one partition, and the newest of its asset
    assert kept["dpo_checkpoint"].count(DAYS[2]) == 1  # the superseded version went
    assert store.latest("recommendations", DAYS[-1]).verify()
    assert store.partitions("result_table") == ["walk_forward"]
    with pytest.raises(ArtifactError, match="not there yet"):
        store.latest("recommendations", DAYS[0])


def test_removing_twice_removes_nothing_more(store: ArtifactStore) -> None:
    arguments = {"keep_nights": 3, "keep_champions": 3, "served": [served(store, DAYS[-1])]}
    for removal in removals(store, **arguments):
        store.remove(*removal.what)
    assert removals(store, **arguments) == []


def test_what_compares_with_a_champion_does_not_stand_on_it(store: ArtifactStore) -> None:
    by_version = {(v.asset, v.version): v for v in versions(store)}
    found = lineage(store, [served(store, DAYS[-1])], by_version)
    assert {v.partition for v in found if v.asset == "champion"} == {DAYS[-1]}


def test_a_pretrained_champion_keeps_its_own_checkpoint(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    first, day = DAYS[:2]
    old = publish(store, "pretrained_checkpoint", first, first)
    pretrained = publish(store, "pretrained_checkpoint", day, day, pretrained_checkpoint=old)
    aligned = publish(store, "dpo_checkpoint", day, day, pretrained_checkpoint=pretrained)
    model = {"asset": "pretrained_checkpoint", "partition": day, "version": pretrained}
    made_from = {"pretrained_checkpoint": pretrained, "dpo_checkpoint": aligned}
    champion = publish(store, "champion", day, model, **made_from)
    by_version = {(v.asset, v.version): v for v in versions(store)}
    found = lineage(store, [Version("champion", day, champion)], by_version)
    kept = {(v.asset, v.partition) for v in found}
    learned = {("pretrained_checkpoint", first), ("pretrained_checkpoint", day)}
    assert kept == learned | {("champion", day)}


@pytest.mark.parametrize("name", ["keep_nights", "keep_champions"])
def test_something_is_always_kept(store: ArtifactStore, name: str) -> None:
    arguments = {"keep_nights": 1, "keep_champions": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name}=0: use at least 1"):
        removals(store, served=[], **arguments)
