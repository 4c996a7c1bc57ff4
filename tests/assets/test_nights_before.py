"""Which nightly runs before help to choose a weight, and why the others do not."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.nights_before import NightsBefore, as_metadata, nights_before, on_nights_before
from onerec.artifacts import ArtifactStore
from onerec.config import TrainingConfig
from onerec.evaluation.ndcg_by_weight import NOT_MEASURED, NdcgByWeight

BESIDE = ("reward_model", "pretrained_checkpoint")
MEASURED = NdcgByWeight(9, {0.0: 0.1, 1.0: 0.2})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path))


def night(
    store: ArtifactStore, day: str, *, measured: NdcgByWeight = MEASURED, **settings: int
) -> None:
    """A nightly run whose assets were made with setting 1, or with another one."""
    for name in ("offline_metrics", *BESIDE):
        made_with = {"setting": settings.get(name, 1)}
        if name == "offline_metrics":
            made_with["not compared"] = int(day[-2:])
        with store.write(name, day, config=made_with, upstream={}, code_version="1") as draft:
            (draft.path / "weights").write_text(f"{name} {day}")
            if name == "offline_metrics":
                draft.metadata |= as_metadata({"reward": measured, "other": NOT_MEASURED})


def before(
    store: ArtifactStore, day: str, days: int, *, beside: tuple[str, ...] = ()
) -> NightsBefore:
    context = dg.build_asset_context(partition_key=day)
    return nights_before(context, store, "offline_metrics", {"setting": 1}, days, beside=beside)


def days_of(found: NightsBefore) -> list[str]:
    return [artifact.partition for artifact in found.artifacts]


def test_those_of_the_same_settings_and_of_the_last_days_count(store: ArtifactStore):
    night(store, "2026-06-06")
    night(store, "2026-06-07", offline_metrics=2)
    night(store, "2026-06-08", measured=NdcgByWeight(5, {0.0: 0.25}))
    night(store, "2026-06-09")
    found = before(store, "2026-06-09", 4)
    assert days_of(found) == ["2026-06-06", "2026-06-08"]
    assert found.measured == {"reward": (MEASURED, NdcgByWeight(5, {0.0: 0.25}))}
    assert found.upstream == {
        f"offline_metrics[{day}]": store.latest("offline_metrics", day).version
        for day in ("2026-06-06", "2026-06-08")
    }
    assert days_of(before(store, "2026-06-09", 2)) == ["2026-06-08"]
    assert days_of(before(store, "2026-06-09", 1)) == []
    assert days_of(before(store, "2026-06-10", 4)) == ["2026-06-08", "2026-06-09"]
    assert before(store, "2026-06-06", 7).measured == {}


def test_settings_of_other_assets_of_the_nightly_run_can_be_asked_for(store: ArtifactStore):
    for day, setting in (("2026-06-08", 2), ("2026-06-09", 1)):
        night(store, day, reward_model=setting)
    assert days_of(before(store, "2026-06-09", 4)) == ["2026-06-08"]
    assert days_of(before(store, "2026-06-09", 4, beside=BESIDE)) == []
    assert days_of(before(store, "2026-06-09", 4, beside=BESIDE[1:])) == ["2026-06-08"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"offline_metrics": 2}, r"other settings of \['offline_metrics'\]"),
        ({"measured": NOT_MEASURED}, "it measured none"),
        ({}, "manifest.json"),
    ],
)
def test_the_log_says_why_one_is_left_out(
    store: ArtifactStore, capsys: pytest.CaptureFixture[str], spoil: dict[str, Any], reason: str
):
    night(store, "2026-06-08", **spoil)
    if not spoil:
        made = next(p for p in Path(store.root, "offline_metrics", "2026-06-08").iterdir())
        version = store.current_version("offline_metrics", "2026-06-08")
        (made.with_name(version or "") / "manifest.json").write_text("{")
    assert days_of(before(store, "2026-06-09", 7)) == []
    line = rf"offline_metrics\[2026-06-08\] is not counted: .*{reason}"
    assert re.search(line, capsys.readouterr().err)


def test_an_asset_depends_on_as_many_days_of_itself():
    for days in (2, 7):
        settings = TrainingConfig(recency_weight_days=days)
        (dependency,) = on_nights_before("baselines", settings.recency_weight_days)
        mapping = dependency.partition_mapping
        assert isinstance(mapping, dg.TimeWindowPartitionMapping)
        assert (mapping.start_offset, mapping.end_offset) == (1 - days, -1)
    assert on_nights_before("baselines", 1) == []
