"""The session SQL as Dagster sees it: variables, lineage, checks."""

import dataclasses
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets import raw, sessions
from assets.support import DAILY
from onerec import schema
from onerec.config import SessionConfig
from resources.dbt import PROJECT_DIR, build_command
from resources.log_quality import rejections
from resources.warehouse import Warehouse
from tests.sql import delivered, random_log


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(name)


def test_variables_are_the_settings() -> None:
    project = yaml.safe_load((PROJECT_DIR / "dbt_project.yml").read_text())
    variables = sessions.session_variables(SessionConfig())
    assert variables | {"built_with": ""} == project["vars"]
    longer = sessions.session_variables(SessionConfig(history_length=21))  # cut when it is read
    assert longer["built_with"] == variables["built_with"]
    other = sessions.session_variables(SessionConfig(session_gap_minutes=10.0))
    assert other["built_with"] != variables["built_with"]
    known = {f.name for f in dataclasses.fields(SessionConfig)}
    assert sessions.NOT_FOR_SQL <= known


def test_every_variable_is_used_by_the_sql() -> None:
    sql = "".join(f.read_text() for f in PROJECT_DIR.rglob("*.sql"))
    used = set(re.findall(r"\bvar\(\"(\w+)\"\)", sql))
    project = yaml.safe_load((PROJECT_DIR / "dbt_project.yml").read_text())
    assert used == set(project["vars"])


def test_the_command_leaves_unit_tests_to_the_test_suite() -> None:
    assert build_command({"b": 1, "a": "x"}) == [
        "build",
        "--exclude-resource-type",
        "unit_test",
        "--vars",
        '{"a": "x", "b": 1}',
    ]


def test_examples_have_the_columns_of_the_dataset() -> None:
    file = PROJECT_DIR / "models" / "marts" / "session_examples.yml"
    (model,) = yaml.safe_load(file.read_text())["models"]
    names = [column["name"] for column in model["columns"]]
    assert [*names, "split"] == schema.SESSION_DATASET.names


@pytest.mark.parametrize(
    ("table", "contract"),
    [("base_events", schema.EVENTS), ("base_items", schema.ITEMS)],
)
def test_contract_columns_are_read_by_the_staging_sql(table: str, contract) -> None:
    sql = (PROJECT_DIR / "models" / "staging" / f"{table}.sql").read_text()
    missing = [name for name in contract.names if not re.search(rf"\b{name}\b", sql)]
    assert not missing


def test_every_model_says_its_grain_beside_its_sql() -> None:
    for sql in (PROJECT_DIR / "models").rglob("*.sql"):
        (model,) = yaml.safe_load(sql.with_suffix(".yml").read_text())["models"]
        assert model["name"] == sql.stem
        assert re.search(r"One row per [\w ,_]+\.\s*$", model["description"]), sql.stem


def test_lineage_leads_from_raw_to_sessions() -> None:
    graph = sessions.session_sql
    assert graph.asset_deps[key("base_events")] == {key("raw_events"), key("stg_items")}
    assert graph.asset_deps[key("base_items")] == {key("raw_items")}
    assert graph.asset_deps[key("sessions")] == {key("int_events_sessionized")}
    specs = {spec.key: spec for spec in graph.specs}
    assert {spec.group_name for spec in specs.values()} == {"sessions"}
    assert graph.op.pool == "warehouse"


def test_too_many_refused_rows_stop_what_follows() -> None:
    home = delivered.built_home()
    started = []

    @dg.asset(key="rejected_events", partitions_def=DAILY)
    def already_built() -> None: ...

    @dg.asset(deps=[already_built], partitions_def=DAILY)
    def after() -> None:
        started.append(True)

    share = _rejected_share(home)
    for threshold, passes in ((share - 0.01, False), (share + 0.01, True)):
        config = sessions.RejectionLaunchpad(max_rejected_share=threshold)
        result = dg.materialize(
            [already_built, after, sessions.rejected_share_below_threshold],
            resources=delivered.resources(home),
            partition_key=str(random_log.DAYS[0]),
            run_config=dg.RunConfig({"rejected_events_rejected_share_below_threshold": config}),
            raise_on_error=False,
        )
        assert result.success == passes == bool(started)
        (evaluation,) = result.get_asset_check_evaluations()
        assert evaluation.passed == passes
        assert evaluation.metadata["rejected share"].value == pytest.approx(share)
        table = evaluation.metadata["reasons"]
        assert isinstance(table, dg.TableMetadataValue)
        reasons = [record.data["reason"] for record in table.records]
        assert "watch_seconds is negative" in reasons
        assert str(reasons[0]) in (evaluation.description or "")


def test_rows_that_a_setting_leaves_out_are_no_sign_of_a_broken_log(tmp_path: Path) -> None:
    log = [
        {"user_id": user, "item_id": "i", "event_time": time, "watch_seconds": watch}
        for user, number, watch in (
            ("bot", 2000, "1"),
            *((f"u{n}", 2, "1") for n in range(12)),
            ("v", 1, "much"),
        )
        for time in (
            f"2026-06-01 1{n // 3600}:{n // 60 % 60:02}:{n % 60:02}" for n in range(number)
        )
    ]
    delivered.deliver(tmp_path / "delivered", "events-2026-06-01", log)
    delivered.deliver(tmp_path / "delivered", "items-2026-06-01", [{"item_id": "i"}])
    delivered.materialize(tmp_path, [raw.raw_prior_history], None)
    settings = ((0, "reject_day", 0), (50, "reject_day", 2000), (2, "keep_first", 1998))
    for limit, over, left_out in settings:
        config = dataclasses.replace(
            random_log.CONFIG, max_events_per_user_day=limit, over_max_events=over
        )
        result = delivered.materialize(
            tmp_path,
            [raw.raw_events, raw.raw_items, sessions.session_sql],
            date(2026, 6, 1),
            config=random_log.run_config(config),
        )
        checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
        check = checks["rejected_share_below_threshold"]
        assert checks["no_account_dominates_a_day"].passed == bool(limit)
        share = 1 / (2025 - left_out)
        assert check.metadata["rejected share"].value == pytest.approx(share)
        assert check.metadata["rows left out by a setting"].value == left_out
        assert check.metadata["rows delivered"].value == 2025


def _rejected_share(home: Path) -> float:
    warehouse = Warehouse(path=str(home / "warehouse.duckdb"))
    day = random_log.DAYS[0]
    with warehouse.connect(read_only=True) as connection:
        rejected = sum(rejections(connection, day, day).values())
    return rejected / warehouse.num_delivered("raw_events", day, day)[day]


def test_the_catalogue_is_as_of_its_day() -> None:
    warehouse = Warehouse(path=str(delivered.built_home() / "warehouse.duckdb"))
    first, last = random_log.DAYS[0], random_log.DAYS[-1]
    then, now = warehouse.catalogue(first), warehouse.catalogue(last)
    assert then.schema.names == [*schema.ITEMS.names, "first_seen", "withdrawn_on"]
    assert set(then.column("first_seen").to_pylist()) == {first}
    assert sorted(then.column("item_id").to_pylist()) == [f"item {n}" for n in range(9)]
    assert now.num_rows == 18
    # the duration of every sixth item changes daily: 10 seconds and one more per day
    durations = [
        dict(
            zip(
                t.column("item_id").to_pylist(),
                t.column("duration_seconds").to_pylist(),
                strict=True,
            )
        )
        for t in (then, now)
    ]
    assert [d["item 5"] for d in durations] == [10.0, 13.0]
    assert now.column("first_seen").to_pylist() == sorted(now.column("first_seen").to_pylist())


DESCRIBE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import dagster as dg
from pathlib import Path
from assets import raw, sessions
from resources.dbt import SessionDbt, session_dbt
from resources.warehouse import Warehouse
from tests.sql import random_log
home, started_in = Path(sys.argv[1]), Path.cwd()
if sys.argv[3] == "kept":
    SessionDbt._adapter = None  # types and lineage must not be looked for
result = dg.materialize(
    [sessions.session_sql],
    selection=[dg.AssetKey("sessions")],
    resources={
        "dbt": session_dbt(home / "dbt", home / "warehouse.duckdb"),
        "warehouse": Warehouse(path=str(home / "warehouse.duckdb")),
    },
    partition_key=sys.argv[2],
    # the settings that it was built with
    run_config=dg.RunConfig({"session_sql": random_log.run_config().ops["session_sql"]}),
)
(found,) = result.asset_materializations_for_node("session_sql")
lineage = found.metadata["dagster/column_lineage"].value.deps_by_column
deps = {c: [d.asset_key.path + [d.column_name] for d in x] for c, x in lineage.items()}
schema = [c.name for c in found.metadata["dagster/column_schema"].value.columns]
assert Path.cwd() == started_in
print("FOUND" + json.dumps([found.metadata["dagster/row_count"].value, schema, deps]))
"""


def test_tables_show_row_counts_types_and_column_lineage(tmp_path: Path) -> None:
    # in a process of its own, like a step: describing tables leaves the warehouse open
    home = delivered.copy_of_built_home(tmp_path)
    found = []
    for how in ("found", "kept"):
        done = subprocess.run(
            [sys.executable, "-c", DESCRIBE, str(home), str(random_log.DAYS[-1]), how],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        line = next(x for x in done.stdout.splitlines() if x.startswith("FOUND"))
        found.append(json.loads(line.removeprefix("FOUND")))
    assert found[0] == found[1]
    rows, columns, deps = found[0]
    warehouse = Warehouse(path=str(home / "warehouse.duckdb"))
    with warehouse.connect(read_only=True) as connection:
        assert connection.execute("select count(*) from sessions").fetchall() == [(rows,)]
    assert {"session_id", "is_good"} <= set(columns)
    assert deps["watch_seconds"] == [["int_events_sessionized", "watch_seconds"]]
    assert deps["started_at"] == [["int_events_sessionized", "event_time"]]
    assert {name for _, name in deps["has_enough_interactions"]} == {
        "is_like",
        "is_follow",
        "is_comment",
        "is_share",
    }
