"""The soak's own parts on small cases, and its first nights as a short form of `make soak`."""

from datetime import date
from pathlib import Path

import pytest

from onerec import config
from onerec.evaluation.metric_table import MetricRow, MetricTable
from soak.deliveries import ONE_DAY, Deliveries
from soak.nights import HANDLERS, Soak
from soak.replay import (
    ALIGNED,
    CHAMPION,
    PRETRAINED,
    RECALL,
    REWARD,
    Ledger,
    challenger_of,
    challenger_passes,
)
from soak.schedule import SCHEDULE, SHORT
from soak.small_disk import MIB, NoMountError, filled, small_disk

DAY = date(2026, 6, 6)
DELIVERED = {"first night", "empty day", "rows held back", "late rows", "wrong file"}
DELIVERED |= {"corrected day", "withdrawn catalogue"}


def test_every_incident_of_the_schedule_is_made() -> None:
    assert set(SCHEDULE.values()) | set(SHORT.values()) == DELIVERED | HANDLERS.keys()


def test_deliveries_are_late_cut_and_withdrawn(tmp_path: Path) -> None:
    team = Deliveries.into(tmp_path)
    for offset in range(3):
        team.deliver(DAY + offset * ONE_DAY)
    whole = team.users_between(DAY, DAY + ONE_DAY)
    team.deliver(DAY, share=0.5)
    assert team.users_between(DAY, DAY) < whole
    team.deliver(DAY + ONE_DAY, late=0.5)
    assert team.users_between(DAY, DAY + ONE_DAY) == whole
    erased = sorted(whole)[:2]
    team.take_out(erased)
    assert team.users_between(DAY, DAY + ONE_DAY) == whole - set(erased)
    team.deliver_catalogue(DAY, DAY + ONE_DAY)
    team.deliver_catalogue(DAY + ONE_DAY, DAY + ONE_DAY)
    assert len(team.catalogue(DAY + ONE_DAY)) < 0.4 * len(team.catalogue(DAY))


def table(*, above: float, lost: float = 0.0, reward: float = 0.0) -> MetricTable:
    """Differences with intervals of width 0.02 around them."""

    def row(system: str, metric: str, mean: float, reference: str | None = None) -> MetricRow:
        return MetricRow(system, reference, metric, "all", mean, mean - 0.01, mean + 0.01, 100)

    return MetricTable(
        (
            row(ALIGNED, "legal_share", 1.0),
            row(ALIGNED, "repeat_free_share", 1.0),
            row(ALIGNED, RECALL, 0.2),
            row(CHAMPION, RECALL, 0.2),
            row(ALIGNED, RECALL, above, "popularity"),
            row(ALIGNED, RECALL, lost, CHAMPION),
            row(ALIGNED, REWARD, reward, CHAMPION),
        )
    )


@pytest.mark.parametrize(
    ("metrics", "passes"),
    [
        (table(above=0.05), True),
        (table(above=0.005), False),  # not significantly above the simple system
        (table(above=0.05, lost=-0.015), False),  # a significant loss that nothing pays for
        (table(above=0.05, lost=-0.015, reward=0.05), True),
        (table(above=0.05, lost=-0.03, reward=0.05), False),  # more than a tenth
        (table(above=0.05, reward=-0.05), False),
        (table(above=0.05, lost=0.015, reward=-0.05), True),
    ],
)
def test_the_replayed_rule_is_the_rule(metrics: MetricTable, passes: bool) -> None:
    incumbent = {"asset": "dpo_checkpoint", "partition": "2026-06-05", "version": "1"}
    assert challenger_passes(metrics, ALIGNED, "popularity", 0.1, incumbent) == passes


@pytest.mark.parametrize(
    ("difference", "tolerance", "system"),
    [
        (-0.011, 0.0, PRETRAINED),  # the interval ends at -0.001
        (-0.009, 0.0, ALIGNED),
        (-0.011, 0.1, ALIGNED),  # a tenth of 0.2 may be lost
        (-0.031, 0.1, PRETRAINED),
    ],
)
def test_the_replayed_challenger_is_the_model_that_loses_no_recall(
    difference: float, tolerance: float, system: str
) -> None:
    low, high = difference - 0.01, difference + 0.01
    own = MetricRow(PRETRAINED, None, RECALL, "all", 0.2, 0.19, 0.21, 100)
    paired = MetricRow(ALIGNED, PRETRAINED, RECALL, "all", difference, low, high, 100)
    assert challenger_of(MetricTable((own, paired)), tolerance) == system


def test_the_replay_has_the_names_of_the_metrics() -> None:
    assert (PRETRAINED, ALIGNED, CHAMPION) == (config.PRETRAINED, config.ALIGNED, config.CHAMPION)


def test_a_simple_system_is_no_incumbent() -> None:
    model = {"asset": "dpo_checkpoint", "partition": "2026-06-05", "version": "1"}
    ledger = Ledger({"2026-06-05": model, "2026-06-06": {**model, "system": "popularity"}})
    assert ledger.incumbent(DAY) == model
    assert ledger.incumbent(DAY + ONE_DAY) is None


def test_a_small_disk_really_runs_full_and_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "before").write_bytes(b"x" * 100_000)
    (tmp_path / "state" / "current").symlink_to("before")
    try:
        with small_disk(tmp_path / "state", room=MIB):
            with filled(tmp_path / "state"), pytest.raises(OSError, match="No space left"):
                (tmp_path / "state" / "more").write_bytes(b"x" * 10_000)
            (tmp_path / "state" / "after").write_text("written")
    except NoMountError:
        pytest.skip("this user may not mount")
    assert (tmp_path / "state" / "current").read_bytes() == b"x" * 100_000
    assert (tmp_path / "state" / "after").read_text() == "written"
    assert not list(tmp_path.glob(".state.disk"))


@pytest.mark.slow
@pytest.mark.timeout(560)
def test_the_first_nights_of_a_soak(tmp_path: Path) -> None:
    soak = Soak.at(tmp_path, SHORT)
    rows = [soak.night(number) for number in sorted(SHORT)]
    assert [str(row["served"]).endswith("degraded") for row in rows] == [False, False, True]
