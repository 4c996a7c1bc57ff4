"""The session dataset: what is written, and what stops the night."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from assets import raw, session_dataset, session_dataset_checks
from assets import sessions as sessions_sql
from assets.support import DAILY, DAY_BY_DAY
from onerec import schema
from onerec.artifacts import Artifact, ArtifactStore
from onerec.session_dataset.reader import read_sessions
from tests.sql import delivered, random_log
from tests.sql.test_session_sql import expected

DAY = random_log.DAYS[-1]
WINDOW_DAYS = 2
CONFIG = dataclasses.replace(
    random_log.CONFIG, max_volume_ratio=3.0, min_positive_share=0.05, max_positive_share=0.95
)


def launchpad() -> dg.RunConfig:
    config = session_dataset.SessionDatasetLaunchpad(
        window_days=WINDOW_DAYS, **dataclasses.asdict(CONFIG)
    )
    limits = session_dataset_checks.SuitesLaunchpad(
        min_positive_share=0.05, max_positive_share=0.95
    )
    return dg.RunConfig({"session_dataset": config, "session_dataset_suites": limits})


def write(home: Path, **options) -> dg.ExecuteInProcessResult:
    return delivered.materialize(
        home, [session_dataset.session_dataset], DAY, config=launchpad(), **options
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = delivered.copy_of_built_home(tmp_path_factory.mktemp("dataset"))
    write(home)
    return home


@pytest.fixture(scope="module")
def artifact(home: Path) -> Artifact:
    return ArtifactStore(str(home / "artifacts")).latest("session_dataset", str(DAY)).verify()


@pytest.fixture(scope="module")
def sessions(artifact: Artifact) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(artifact.path / f"split={s}", partitioning=None) for s in schema.SPLITS]
    )


def test_it_holds_the_sessions_of_the_window_split_by_day(sessions: pa.Table) -> None:
    wanted, _ = expected(random_log.CONFIG)
    first = DAY - timedelta(days=WINDOW_DAYS)
    splits = {DAY: "test", DAY - timedelta(days=1): "valid"}
    rows = [
        {**e, "split": splits.get(e["session_date"], "train")}
        for e in wanted
        if first <= e["session_date"] <= DAY
    ]
    found = sessions.to_pylist()
    for row in found:
        row["started_at"] = row["started_at"].replace(tzinfo=None)
    assert found == rows


def test_stats_count_the_funnel(artifact: Artifact, sessions: pa.Table) -> None:
    stats = json.loads((artifact.path / "stats.json").read_text())
    good = [row for row in sessions.to_pylist() if row["is_good"]]
    files = random_log.deliveries()
    assert stats["funnel"] == {
        "delivered rows": sum(len(files[f"events-{d}"]) for d in random_log.DAYS[1:]),
        "exposures": sum(len(r) for r in sessions.column("item_ids").to_pylist()),
        "sessions": sessions.num_rows,
        "good sessions": len(good),
        "target items": sum(len(row["target_item_ids"]) for row in good),
    }
    counts = {s: sessions.column("split").to_pylist().count(s) for s in schema.SPLITS}
    assert stats["sessions"] == counts
    assert artifact.manifest["row_counts"] == counts | {"rows": sessions.num_rows}


def test_the_same_rows_give_the_same_version(tmp_path: Path, artifact: Artifact) -> None:
    home = delivered.copy_of_built_home(tmp_path)
    write(home)
    again = ArtifactStore(str(home / "artifacts")).latest("session_dataset", str(DAY))
    assert again.version == artifact.version


def test_attributes_of_its_users_stand_beside_the_sessions(
    tmp_path: Path, sessions: pa.Table
) -> None:
    home = delivered.copy_of_built_home(tmp_path)
    wanted = sorted(set(sessions["user_id"].to_pylist()))
    known = [{"user_id": user, "plan": "free"} for user in (wanted[1], "somebody else")]
    delivered.deliver(home / "delivered", "users", known)
    result = write(home)
    found = ArtifactStore(str(home / "artifacts")).latest("session_dataset", str(DAY)).verify()
    users = pq.read_table(found.path / "users.parquet").to_pylist()
    assert [row["user_id"] for row in users] == wanted
    assert [row["user_id"] for row in users if row["plan"] == "free"] == wanted[1:2]
    assert json.loads((found.path / "stats.json").read_text())["users_with_attributes"] == 1
    assert "attributes_are_of_its_users" in [
        e.check_name for e in result.get_asset_check_evaluations() if e.passed
    ]


@pytest.mark.parametrize("damage", ["one is missing", "one is too many", "one comes twice"])
def test_attributes_of_other_users_fail_the_check(sessions: pa.Table, damage: str) -> None:
    users = sessions.column("user_id").unique().to_pylist()
    changed = {
        "one is missing": users[1:],
        "one is too many": [*users, "nobody"],
        "one comes twice": [*users, users[0]],
    }
    check = "attributes_are_of_its_users"
    assert suites(sessions, users=pa.chunked_array([users]))[check].passed
    assert not suites(sessions, users=pa.chunked_array([changed[damage]]))[check].passed


def suites(
    table: pa.Table, config=CONFIG, users: pa.ChunkedArray | None = None
) -> dict[str, dg.AssetCheckResult]:
    counted = Counter(table.column("session_date").to_pylist())
    results = session_dataset_checks.suite_results(
        pads.dataset(table), config, DAY, WINDOW_DAYS, counted, users=users
    )
    return {str(r.check_name): r for r in results}


def test_a_sound_dataset_passes_every_suite(sessions: pa.Table) -> None:
    found = suites(sessions)
    assert list(found) == list(session_dataset_checks.CHECKS)
    assert {n: r.description for n, r in found.items() if not r.passed} == {}


Rows = list[dict]


def first_row(rows: Rows, condition: Callable[[dict], bool]) -> dict:
    return next(row for row in rows if condition(row))


def repeated_session(rows: Rows) -> Rows:
    return [rows[0], *rows]


def target_never_watched(rows: Rows) -> Rows:
    first_row(rows, lambda r: r["is_good"])["target_item_ids"][-1] = "item 999"
    return rows


def no_target(rows: Rows) -> Rows:
    first_row(rows, lambda r: r["is_good"])["target_item_ids"] = []
    return rows


def history_knows_its_own_session(rows: Rows) -> Rows:
    later = first_row(
        rows, lambda r: any(r["is_positive"]) and r["split"] != "train" and r["history_item_ids"]
    )
    # as a window function without an upper bound would: the last n positives, its own included
    own = [i for i, p in zip(later["item_ids"], later["is_positive"], strict=True) if p]
    later["history_item_ids"] = (later["history_item_ids"] + own)[-CONFIG.history_length :]
    return rows


def wrong_split(rows: Rows) -> Rows:
    first_row(rows, lambda r: r["split"] == "test")["split"] = "train"
    return rows


def threshold_not_met(rows: Rows) -> Rows:
    first_row(rows, lambda r: not r["is_good"])["is_good"] = True
    return rows


def day_almost_lost(rows: Rows) -> Rows:
    lost = [r for r in rows if r["split"] == "test"][1:]
    return [r for r in rows if r not in lost]


def nothing_positive(rows: Rows) -> Rows:
    for row in rows:
        row["is_positive"] = [False] * len(row["is_positive"])
    return rows


@pytest.mark.parametrize(
    ("damage", "check", "expectation"),
    [
        (repeated_session, "sessions_are_unique", "expect_column_values_to_be_unique"),
        (target_never_watched, "targets_are_watched_items", "num_unwatched_targets"),
        (no_target, "targets_are_watched_items", "num_targets"),
        (history_knows_its_own_session, "nothing_comes_from_the_future", "history_follows"),
        (wrong_split, "nothing_comes_from_the_future", "expected_split"),
        (threshold_not_met, "good_sessions_meet_thresholds", "meets_criteria"),
        (day_almost_lost, "volume_is_usual", "num_today"),
        (nothing_positive, "positive_rates_in_range", "positive_share"),
    ],
)
def test_each_damage_is_named_with_sample_rows(
    sessions: pa.Table, damage: Callable[[Rows], Rows], check: str, expectation: str
) -> None:
    rows = damage(sessions.to_pylist())
    result = suites(pa.Table.from_pylist(rows, schema.SESSION_DATASET))[check]
    assert not result.passed
    assert expectation in (result.description or "")
    table = (result.metadata or {})["sample rows"]
    assert isinstance(table, dg.TableMetadataValue)
    assert table.records


def test_a_missing_column_is_named(sessions: pa.Table) -> None:
    found = suites(sessions.drop_columns(["is_share"]))
    assert "is_share" in (found["schema_is_the_contract"].description or "")
    assert not any(result.passed for result in found.values())


def volume(sessions: pa.Table, counted: dict[date, int]) -> dg.AssetCheckResult:
    results = session_dataset_checks.suite_results(
        pads.dataset(sessions), CONFIG, DAY, WINDOW_DAYS, counted
    )
    return next(r for r in results if r.check_name == "volume_is_usual")


def test_a_broken_day_fails_with_figures_and_the_normal_day_after_it_passes(
    sessions: pa.Table,
) -> None:
    today = sum(day == DAY for day in sessions.column("session_date").to_pylist())
    before = {DAY - timedelta(days=n): today for n in range(2, 9)}
    broken = pa.Table.from_pylist(day_almost_lost(sessions.to_pylist()), sessions.schema)
    result = volume(broken, before)
    assert not result.passed
    wanted = f"{DAY} has 1 sessions, usual are {today} (median of 7 days up to"
    assert wanted in (result.description or "")
    assert f"allowed are {today / 3:g} to {today * 3:g}" in (result.description or "")
    after = volume(sessions, before | {DAY - timedelta(days=1): 1})
    assert after.passed
    assert after.metadata["usual sessions"].value == today


def test_a_closed_day_is_legal_but_not_a_window_without_sessions(sessions: pa.Table) -> None:
    rows = sessions.to_pylist()
    counted = Counter(r["session_date"] for r in rows)
    closed = pa.Table.from_pylist([r for r in rows if r["split"] != "test"], sessions.schema)
    assert volume(closed, counted).passed
    nothing_else = pa.Table.from_pylist([r for r in rows if r["split"] == "test"], sessions.schema)
    result = volume(nothing_else, {})
    assert not result.passed
    assert "num_train" in (result.description or "")
    assert "num_valid" in (result.description or "")


def test_after_a_closed_day_the_one_before_it_validates(tmp_path: Path) -> None:
    home = delivered.copy_of_built_home(tmp_path)
    yesterday = DAY - timedelta(days=1)
    today = random_log.deliveries()[f"events-{DAY}"]
    no_late_rows = [r for r in today if not str(r["event_time"]).startswith(str(yesterday))]
    assert len(no_late_rows) < len(today)
    delivered.deliver(home / "delivered", f"events-{yesterday}", [])
    delivered.deliver(home / "delivered", f"events-{DAY}", no_late_rows)
    selection = [raw.raw_events, sessions_sql.session_sql]
    for day in (yesterday, DAY):
        delivered.materialize(home, selection, day, config=random_log.run_config())
    write(home, succeeds=False)  # nothing is left of this short window to train on
    dataset = ArtifactStore(str(home / "artifacts")).latest("session_dataset", str(DAY)).path
    days = {
        split: set(read_sessions(dataset, [split], ["session_date"])["session_date"].to_pylist())
        for split in schema.SPLITS
    }
    assert days == {"train": set(), "valid": {DAY - timedelta(days=2)}, "test": {DAY}}
    table = pa.concat_tables(
        [read_sessions(dataset, [s], schema.SESSION_DATASET.names) for s in schema.SPLITS]
    )
    assert suites(table)["nothing_comes_from_the_future"].passed


def test_a_failing_suite_stops_what_follows_in_the_same_run(home: Path, artifact: Artifact) -> None:
    started = []

    @dg.asset(
        deps=[session_dataset.session_dataset], partitions_def=DAILY, backfill_policy=DAY_BY_DAY
    )
    def training() -> None:
        started.append(True)

    selection = dg.AssetSelection.assets(session_dataset.session_dataset, training)
    run = {"more": (training,), "config": launchpad()}
    delivered.materialize(home, selection, DAY, **run)
    assert started == [True]

    strict = session_dataset_checks.SuitesLaunchpad(min_positive_share=0.9)
    run["config"] = dg.RunConfig({**launchpad().ops, "session_dataset_suites": strict})
    result = delivered.materialize(home, selection, DAY, succeeds=False, **run)
    assert started == [True]
    failed = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert [e.check_name for e in failed] == ["positive_rates_in_range"]
    assert failed[0].blocking
    assert "positive_share" in (failed[0].description or "")
