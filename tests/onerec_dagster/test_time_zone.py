"""The log's time zone decides all at once: its days, the cut of its sessions, when a run is due."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
CHAIN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from datetime import date
import duckdb
from assets.support import DAILY, SETTINGS
from onerec_dagster.definitions import defs
from onerec_dagster.nights import due_at

days = sys.argv[1:]
ends = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
tags = dict(zip(ends, (days[0], days[-1])))
defs.resolve_job_def("ingest").execute_in_process(tags=tags)
with duckdb.connect(str(SETTINGS.warehouse_path), read_only=True) as warehouse:
    sessions = warehouse.execute(
        "select cast(session_date as varchar), item_ids from session_examples order by started_at"
    ).fetchall()
windows = [DAILY.time_window_for_partition_key(day) for day in days]
print(json.dumps({
    "sessions": sessions,
    "begin": [w.start.timestamp() for w in windows],
    "end": [w.end.timestamp() for w in windows],
    "due": [due_at(date.fromisoformat(day)).timestamp() for day in days],
}))
"""


def chain(home: Path, zone: str, days: list[str]) -> dict[str, Any]:
    """Ingest a log with the job of the code location; what it says of days, sessions and runs."""
    config = home / "my.yaml"
    sections = {"events": {"path": "log.csv"}, "time_zone": zone, "feedback": {"kind": "actions"}}
    config.write_text(json.dumps(sections))  # JSON is YAML
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ONEREC_", "DAGSTER_"))}
    env = {**kept, "ONEREC_HOME": str(home / "home"), "ONEREC_CONFIG": str(config)}
    done = subprocess.run(
        [sys.executable, "-c", CHAIN, *days], cwd=CHECKOUT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("zone", "midnight", "hours"),
    [
        ("Asia/Shanghai", datetime(2026, 6, 2, 16, tzinfo=UTC), 24),
        # the night in which the clocks go forward: the day that begins has 23 hours
        ("Europe/Berlin", datetime(2026, 3, 28, 23, tzinfo=UTC), 23),
    ],
)
def test_days_sessions_and_nightly_runs_agree(
    tmp_path: Path, zone: str, midnight: datetime, hours: int
) -> None:
    """Two events five minutes before the zone's midnight, two five minutes after it."""
    minutes = {"a": -6, "b": -5, "c": 5, "d": 6}
    times = {item: midnight + timedelta(minutes=m) for item, m in minutes.items()}
    rows = "".join(f"u,{item},{at:%Y-%m-%dT%H:%M:%SZ}\n" for item, at in times.items())
    (tmp_path / "log.csv").write_text(f"user_id,item_id,event_time\n{rows}")
    local = midnight + timedelta(hours=12)
    days = [f"{local - timedelta(days=1):%Y-%m-%d}", f"{local:%Y-%m-%d}"]
    found = chain(tmp_path, zone, days)
    # one visit, cut at the zone's midnight
    assert found["sessions"] == [[days[0], ["a", "b"]], [days[1], ["c", "d"]]]
    assert found["end"][0] == found["begin"][1] == midnight.timestamp()
    assert found["end"][1] == (midnight + timedelta(hours=hours)).timestamp()
    # a day's nightly run is due at a quarter past three of the day after, by the zone's clocks
    three_hours_later = 3.25 - (24 - hours)
    assert found["due"][0] == (midnight + timedelta(hours=three_hours_later)).timestamp()
    assert found["due"][1] == found["end"][1] + 3.25 * 3600
