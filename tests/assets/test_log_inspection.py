"""The look at the log as an asset: findings in the UI, no other asset needed or changed."""

from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from assets.log_inspection import log_inspection
from resources.stores import Source
from tests.sql import delivered


def test_the_findings_are_tables_of_the_asset(tmp_path: Path) -> None:
    rows = [
        f"u{user},i{k},{date(2026, 6, 1) + timedelta(days=day)} 10:0{k}:00,{'40' if k else 'x'}"
        for day in range(4)
        for user in range(20)
        for k in range(5)
    ]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["user_id,item_id,event_time,watch_seconds", *rows]))
    (tmp_path / "my.yaml").write_text("events: {path: log.csv}\n")
    own = Source(dataset="own", config=str(tmp_path / "my.yaml"))
    resources = delivered.resources(tmp_path) | {"source": own}
    result = dg.materialize([log_inspection], resources=resources)
    (done,) = result.asset_materializations_for_node("log_inspection")
    found = [record.data for record in done.metadata["findings"].records]
    (rejected,) = [
        f for f in found if str(f["found"]).startswith("80 of 400 rows are rejected (20")
    ]
    assert rejected["level"] == "error"
    (reason,) = [f for f in found if str(f["found"]).startswith("80 rows: ")]
    examples = [r.data for r in done.metadata[f"rows of finding {reason['number']}"].records]
    assert {"x", str(log), "1"} <= set(map(str, examples[0].values()))
    # too many rejected rows; all that is left is positive
    assert done.metadata["stop a nightly run"].value == 2
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_a_log_that_cannot_be_read_fails_with_the_message(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item_id,event_time,watch_seconds\n1,2,3,4\n")
    (tmp_path / "my.yaml").write_text("events: {path: log.csv}\n")
    own = Source(dataset="own", config=str(tmp_path / "my.yaml"))
    resources = delivered.resources(tmp_path) | {"source": own}
    result = dg.materialize([log_inspection], resources=resources, raise_on_error=False)
    assert not result.success
    assert "no column 'user_id'" in delivered.failures(result)
