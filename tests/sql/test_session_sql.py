"""The session SQL on DuckDB and on Spark against plain Python on random logs; dbt's unit tests.

Spark's tests need the extra `spark` and Java, and skip without.
"""

import dataclasses
import subprocess
from collections import Counter
from datetime import date
from pathlib import Path

import duckdb
import pytest

from assets import raw, sessions
from onerec.config import SessionConfig
from resources.dbt import (
    BUILD,
    PROJECT_DIR,
    build_command,
    dbt_executable,
    dbt_project,
    session_dbt,
)
from tests.sql import brute_force, delivered, random_log

DAYS = random_log.DAYS
ENGINES = ("duckdb", "spark")


def expected(
    config: SessionConfig, changed: dict[str, list[dict]] | None = None
) -> tuple[list[dict], dict[tuple[date, str], int]]:
    files = random_log.deliveries() | (changed or {})
    items = brute_force.accepted_items({d: files[f"items-{d}"] for d in DAYS})
    taken, refused = brute_force.classify({d: files[f"events-{d}"] for d in DAYS}, items, config)
    return brute_force.sessionize(taken, files["prior_history"], config), refused


def read(home: Path, query: str) -> list[dict]:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(query).to_arrow_table().to_pylist()


def examples(home: Path) -> list[dict]:
    return read(home, "select * from session_examples order by started_at, session_id")


def refusals(home: Path) -> dict[tuple[date, str], int]:
    rows = read(home, "select delivered_on, reason, count(*) n from rejected_events group by all")
    return {(row["delivered_on"], row["reason"]): row["n"] for row in rows}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def home(engine: str) -> Path:
    return delivered.built_home(engine)


def test_the_random_log_has_what_it_is_meant_to_have() -> None:
    wanted, refused = expected(random_log.CONFIG)
    assert len({reason for _, reason in refused}) == 14
    assert {e["is_good"] for e in wanted} == {True, False}
    assert max(len(e["target_item_ids"]) for e in wanted) == random_log.CONFIG.session_items
    assert max(len(e["history_item_ids"]) for e in wanted) == random_log.CONFIG.history_length
    per_day = Counter((e["user_id"], e["session_date"]) for e in wanted)
    assert max(per_day.values()) >= 3
    repeats = [e for e in wanted if len(e["item_ids"]) > len(set(e["item_ids"]))]
    assert repeats, "no session repeats an item"


def test_sessions_equal_the_brute_force(home: Path) -> None:
    wanted, _ = expected(random_log.CONFIG)
    assert examples(home) == wanted


def test_every_refused_row_is_kept_with_its_reason(home: Path) -> None:
    _, refused = expected(random_log.CONFIG)
    assert refusals(home) == refused
    delivered_rows = sum(len(random_log.deliveries()[f"events-{d}"]) for d in DAYS)
    (kept,) = read(home, "select count(*) n from stg_events")
    assert kept["n"] + sum(refused.values()) == delivered_rows


def test_refused_items_and_prior_history_are_kept_with_their_reason(home: Path) -> None:
    # raw_items holds changes, so what was refused on the first day is not refused again
    found = read(home, "select reason, count(*) n from rejected_items group by all order by 1")
    assert found == [
        {"reason": "duplicate of another row of the day", "n": 1},
        {"reason": "duration_seconds is not a number", "n": 1},
        {"reason": "missing item_id", "n": 1},
    ]
    found = read(home, "select reason, field, value from rejected_prior_history")
    reason = "position is not a whole number"
    assert found == [{"reason": reason, "field": "position", "value": "x"}]


def test_counts_of_sessions_agree_with_their_lists(home: Path) -> None:
    rows = read(home, "from session_examples join sessions using (session_id)")
    assert rows
    for row in rows:
        assert row["num_exposures"] == len(row["item_ids"])
        assert row["num_positives"] == sum(row["is_positive"])
        assert row["num_likes"] == sum(row["is_like"])
    (good,) = read(home, "select count(*) n from good_sessions")
    assert good["n"] == sum(row["is_good"] for row in rows)


@pytest.mark.parametrize("over", ["reject_day", "keep_first"])
def test_user_days_and_other_thresholds_equal_the_brute_force(
    tmp_path: Path, engine: str, over: str
) -> None:
    config = dataclasses.replace(
        random_log.CONFIG,
        session_mode="user_day",
        watched_min_share=1.0,
        watched_min_seconds=12.0,
        good_min_watch_seconds=40.0,
        good_min_positives=3,
        history_length=3,
        session_items=4,
        max_events_per_user_day=7,
        over_max_events=over,
    )
    home = delivered.home_to_change(tmp_path, engine)
    run = random_log.run_config(config)
    delivered.materialize(home, [sessions.session_sql], DAYS[0], DAYS[-1], config=run)
    wanted, refused = expected(config)
    assert examples(home) == wanted
    assert wanted != expected(dataclasses.replace(config, good_min_positives=0))[0]
    assert refusals(home) == refused
    assert sum(n for (_, reason), n in refused.items() if "max_events_per_user_day" in reason) > 8
    assert max(Counter((e["user_id"], e["session_date"]) for e in wanted).values()) == 1


@pytest.mark.parametrize("order", ["time", "none", "auto"])
def test_declared_orders_equal_the_brute_force(tmp_path: Path, order: str) -> None:
    config = dataclasses.replace(
        random_log.CONFIG,
        session_mode="user_day",
        session_order=order,
        order_seed=3,
        max_tied_share=0.2,
        lateness_days=1,
    )
    home = delivered.copy_of_built_home(tmp_path)
    run = random_log.run_config(config)
    delivered.materialize(home, [sessions.session_sql], DAYS[0], DAYS[-1], config=run)
    wanted, _ = expected(config)
    assert examples(home) == wanted
    in_time, _ = expected(dataclasses.replace(config, session_order="time"))
    assert (wanted == in_time) == (order == "time")


def test_baskets_are_sampled_and_known_orders_are_kept(home: Path) -> None:
    """With the default, only sessions of mostly equal times are shuffled, whoever delivered how."""
    wanted, _ = expected(random_log.CONFIG)
    delivered_order, _ = expected(dataclasses.replace(random_log.CONFIG, session_order="time"))
    rows = read(home, "select session_id, is_ordered, num_tied, num_exposures from sessions")
    known = {r["session_id"]: r["is_ordered"] for r in rows}
    assert {True, False} == set(known.values())
    for row in rows:
        assert row["is_ordered"] == (2 * row["num_tied"] <= row["num_exposures"])
    differ = {
        a["session_id"]
        for a, b in zip(wanted, delivered_order, strict=True)
        if a["item_ids"] != b["item_ids"]
    }
    assert differ
    assert not any(known[s] for s in differ)


def test_a_corrected_day_and_an_emptied_day_replace_what_was_there(
    tmp_path: Path, engine: str
) -> None:
    home = delivered.home_to_change(tmp_path, engine)
    files = random_log.deliveries()
    corrected = [
        {**row, "watch_seconds": "31"} for row in files[f"events-{DAYS[1]}"] if row["user_id"]
    ][::2]
    changed = {f"events-{DAYS[1]}": corrected, f"events-{DAYS[2]}": []}
    delivered.deliver(home / "delivered", f"events-{DAYS[1]}", corrected)
    delivered.deliver(home / "delivered", f"events-{DAYS[2]}", [])
    result = delivered.materialize(
        home,
        [raw.raw_events, sessions.session_sql],
        DAYS[1],
        DAYS[2],
        config=random_log.run_config(),
    )
    wanted, refused = expected(random_log.CONFIG, changed)
    assert examples(home) == wanted
    assert refusals(home) == refused
    # of the emptied day only what came late with the next one is left
    assert not read(home, f"from base_events where delivered_on = '{DAYS[2]}'")
    late = read(home, f"from stg_events where event_date = '{DAYS[2]}'")
    assert {row["delivered_on"] for row in late} == {DAYS[3]}
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks["unique_together_sessions_session_id"]


def test_damaged_tables_fail_their_tests(tmp_path: Path) -> None:
    home = delivered.home_to_change(tmp_path, "duckdb")
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("insert into sessions from sessions limit 1")
        connection.execute("update int_events_sessionized set is_watched = null where position = 1")
        connection.execute("update stg_items set first_seen = null where version_number = 1")
    dbt = session_dbt(home / "dbt", home / "warehouse.duckdb")
    command = ["test", "--exclude-resource-type", "unit_test"]
    done = dbt.cli(command, target_path=tmp_path / "target", raise_on_error=False)
    assert not done.is_successful()
    results = done.get_artifact("run_results.json")["results"]
    failed = {r["unique_id"].split(".")[2] for r in results if r["status"] == "fail"}
    assert failed == {
        "unique_together_sessions_session_id",
        "no_nulls_int_events_sessionized_user_id__session_number__is_watched__is_positive",
        "no_nulls_stg_items_item_id__valid_from__first_seen",
    }
    assert len(results) == 9


def test_dbt_unit_tests_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = delivered.built_home()
    monkeypatch.setenv("ONEREC_WAREHOUSE", str(home / "warehouse.duckdb"))
    monkeypatch.setenv("DBT_TARGET_PATH", str(tmp_path))
    monkeypatch.setenv("DBT_LOG_PATH", str(tmp_path))
    command = [dbt_executable(), "test", "--select", "test_type:unit"]
    done = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "Done. PASS=13 " in done.stdout, done.stdout[-500:]


def test_the_first_build_goes_on_from_the_parse_that_made_the_manifest(tmp_path: Path) -> None:
    variables = sessions.session_variables(SessionConfig())
    project = dbt_project(tmp_path, tmp_path / "warehouse.duckdb", variables)
    assert project.manifest_path.exists()
    dbt = session_dbt(tmp_path, tmp_path / "warehouse.duckdb")
    command = ["parse", *build_command(variables)[-2:]]
    dbt.cli(command, target_path=tmp_path / BUILD).wait()
    assert "full parse" not in (tmp_path / BUILD / "dbt.log").read_text()
