"""The simulated app: reproducible day by day, plausible, and honest about its ground truth."""

import dataclasses
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from onerec.datasets import open_source
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator import behaviour, log
from onerec.datasets.simulator.behaviour import expected_watch_seconds
from onerec.datasets.simulator.config import SimulatorConfig
from onerec.datasets.simulator.world import NUM_TOPICS
from onerec.schema import EVENTS, ITEMS

FIRST = date(2026, 6, 1)
SMALL = SimulatorConfig(initial_users=300, initial_items=200, new_items_per_day=5)


@pytest.fixture(scope="module")
def week() -> dict[date, object]:
    source = SimulatedSource(SimulatorConfig())
    return {FIRST + timedelta(d): source.events(FIRST + timedelta(d)) for d in range(7)}


def test_a_day_is_the_same_whichever_days_were_asked_before() -> None:
    alone = SimulatedSource(SMALL)
    walked = SimulatedSource(SMALL)
    for number in range(9):
        walked.events(FIRST + timedelta(number))
    day = FIRST + timedelta(9)
    assert alone.events(day).equals(walked.events(day))
    assert alone.items(day).equals(walked.items(day))


def test_another_seed_is_another_app() -> None:
    other = SimulatorConfig(initial_users=300, initial_items=200, new_items_per_day=5, seed=1)
    assert not SimulatedSource(SMALL).events(FIRST).equals(SimulatedSource(other).events(FIRST))


def test_events_keep_the_contract() -> None:
    source = SimulatedSource(SMALL)
    day = FIRST + timedelta(3)
    events = source.events(day)
    missing = {"event_type", "rating", "quantity"}  # an app of watch times has none
    assert set(events.column_names) == set(EVENTS.names) - missing
    assert {n: events.schema.field(n).type for n in events.column_names} == {
        f.name: f.type for f in EVENTS if f.name not in missing
    }
    assert all(c.null_count == 0 for c in events.columns)
    assert pc.count_distinct(events["event_id"]).as_py() == len(events)
    times = events["event_time"].to_numpy()
    assert (np.diff(times) >= np.timedelta64(0)).all()
    assert set(pc.unique(pc.cast(events["event_time"], "date32")).to_pylist()) == {day}
    assert pc.min(events["watch_seconds"]).as_py() >= 0


def test_a_large_app_is_weighed_in_blocks_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    day = FIRST + timedelta(2)
    whole = SimulatedSource(SMALL).events(day)
    monkeypatch.setattr(log, "BLOCK_PAIRS", 10 * 200)  # about ten users at once
    blocks = SimulatedSource(SMALL).events(day)
    assert pc.unique(blocks["user_id"]).sort().equals(pc.unique(whole["user_id"]).sort())
    assert not blocks.equals(whole)  # the policy draws block by block
    pairs = blocks.group_by(["user_id", "item_id"]).aggregate([([], "count_all")])
    assert len(pairs) == len(blocks)  # and still nobody meets an item twice on a day
    explored = pc.mean(pc.equal(blocks["surface"], "explore")).as_py()
    assert abs(explored - SMALL.exploration) < 0.05


def changed(**settings) -> SimulatedSource:
    return SimulatedSource(dataclasses.replace(SMALL, **settings))


@pytest.mark.parametrize(("share", "surfaces"), [(0.0, {"feed"}), (1.0, {"explore"})])
def test_the_app_explores_as_often_as_it_is_set_to(share: float, surfaces: set[str]) -> None:
    assert set(changed(exploration=share).events(FIRST)["surface"].to_pylist()) == surfaces


def test_every_topic_has_its_authors() -> None:
    few, many = (
        len(set(changed(authors_per_topic=n).items(FIRST)["author_id"].to_pylist())) for n in (1, 8)
    )
    assert few == NUM_TOPICS
    assert few < many <= 8 * NUM_TOPICS


def test_users_leave_after_their_lifetime() -> None:
    day = FIRST + timedelta(days=20)
    short, long = (
        changed(new_users_per_day=0, user_lifetime_days=days).events(day)["user_id"]
        for days in (5.0, 1e5)
    )
    assert len(set(short.to_pylist())) < len(set(long.to_pylist())) / 5  # exp(-20 / 5) are left


def test_only_published_items_are_shown() -> None:
    source = SimulatedSource(SMALL)
    day = FIRST + timedelta(5)
    items = source.items(day)
    assert items.schema.equals(ITEMS, check_metadata=False)
    joined = source.events(day).join(items, "item_id")
    assert joined["duration_seconds"].null_count == 0
    early = pc.less(joined["event_time"], joined["published_at"])
    assert not pc.any(early).as_py()


def test_catalogue_only_grows_and_never_changes() -> None:
    source = SimulatedSource(SMALL)
    before, after = source.items(FIRST), source.items(FIRST + timedelta(1))
    assert after.slice(0, len(before)).equals(before)
    assert len(after) == len(before) + 5
    end = datetime(2026, 6, 2, tzinfo=UTC)
    assert pc.max(before["published_at"]).as_py() < end


@pytest.mark.parametrize("first", [0, 121, 400])
def test_in_any_year_an_item_returns_to_a_user_only_after_the_repeat_days(first: int) -> None:
    # `day` and a pair's own day were added in 8 bits: wrong from day 123 on, an error from day 128
    source = SimulatedSource(SMALL)
    days = range(first, first + SMALL.repeat_days)
    shown = pd.concat(
        source.events(FIRST + timedelta(n)).select(["user_id", "item_id"]).to_pandas() for n in days
    )
    assert len(shown) > 500 * len(days)
    assert not shown.duplicated().any()


def test_figures_of_a_week_are_those_of_a_short_video_app(week: dict) -> None:
    tables = [t.to_pandas() for t in week.values()]
    assert all(10_000 < len(t) < 16_000 for t in tables)
    first = tables[0]
    assert 450 < first.user_id.nunique() < 1_200
    share = {n: np.mean([t[n].mean() for t in tables]) for n in ("is_like", "is_follow")}
    assert 0.01 < share["is_like"] < 0.05
    assert 0.001 < share["is_follow"] < 0.01
    assert 0.05 < np.mean([(t.surface == "explore").mean() for t in tables]) < 0.15
    for table in tables:  # no repeat within a day, and no session of one user inside another
        assert not table.duplicated(["user_id", "item_id"]).any()
    gap = first.sort_values(["user_id", "event_time"], kind="stable")
    same = gap.user_id.eq(gap.user_id.shift())
    spent = gap.event_time.diff().dt.total_seconds()[same]
    assert (spent >= gap.watch_seconds.shift()[same] - 0.02).all()


def test_expected_watch_is_the_mean_of_what_is_drawn() -> None:
    rng = np.random.default_rng(0)
    for logit, seconds, position in ((-2.0, 8.0, 0), (0.5, 30.0, 5), (2.5, 120.0, 12)):
        shape = 200_000
        affinity, duration = np.full(shape, logit), np.full(shape, seconds)
        watch, _ = behaviour.draw_watch(rng, affinity, duration, np.full(shape, position))
        expected = expected_watch_seconds(affinity[:1], duration[:1], position)[0]
        assert watch.mean() == pytest.approx(expected, rel=0.02)


def test_watching_follows_the_ground_truth(week: dict) -> None:
    source = SimulatedSource(SimulatorConfig())
    events = week[FIRST].to_pandas()
    users = events.user_id.str[1:].astype(int).to_numpy()
    items = events.item_id.str[1:].astype(int).to_numpy()
    rows, at = np.unique(users, return_inverse=True)
    world = source.world
    affinity = behaviour.affinity(world, world.users(0), rows, world.items(0), 0)
    expected = expected_watch_seconds(affinity, world.items(0).duration[None, :])[at, items]
    long = events.watch_seconds.to_numpy()[expected > np.quantile(expected, 0.8)].mean()
    short = events.watch_seconds.to_numpy()[expected < np.quantile(expected, 0.2)].mean()
    assert long > 3 * short
    # Taste is personal: users disagree about the same items.
    assert np.corrcoef(affinity[:, :500])[np.triu_indices(len(rows), 1)].mean() < 0.6


def test_interests_drift() -> None:
    source = SimulatedSource(SMALL)
    users = source.world.users(60)
    rows = np.arange(200)
    today = source.world.interests(users, rows, 0)

    def likeness(day: int) -> float:
        later = source.world.interests(users, rows, day)
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(today, later, strict=True)]))

    assert likeness(1) > 0.97
    assert 0.3 < likeness(30) < 0.9


def test_yaml_changes_the_size_and_wrong_settings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("simulator: {initial_users: 50, seed: 7, first_day: 2026-01-05}\n")
    source = open_source("simulated", data_dir=None, config=path)
    assert source.first_day == date(2026, 1, 5)
    assert source.last_day is None
    assert source.prior_history().num_rows == 0
    assert source.item_vectors() is None
    assert 0 < len(source.events(date(2026, 1, 6))) < 1_500
    for text, named in (
        ("simulator: {users: 5}", "simulator.users=5: no such setting"),
        ("simulator: {seed: x}", "simulator.seed='x': use a whole number"),
        ("simulator: {activity: 2}", "simulator.activity=2: use a number in"),
        ("simulator: [1]", "simulator=\\[1\\]"),
        ("simulator: {first_day: soon}", "simulator.first_day='soon'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=named):
            open_source("simulated", data_dir=None, config=path)
    with pytest.raises(ValueError, match="begins on 2026-06-01"):
        SimulatedSource(SMALL).events(date(2026, 5, 31))


def test_more_asked_than_there_is_to_show() -> None:
    source = SimulatedSource(
        SimulatorConfig(initial_users=40, initial_items=12, new_items_per_day=0, activity=0.9)
    )
    events = source.events(FIRST).to_pandas()
    assert not events.duplicated(["user_id", "item_id"]).any()
    assert events.item_id.nunique() <= 12
