"""Nightly runs through Postgres, webserver, daemon and code server, as deploy/ starts them."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from onerec.artifacts import ArtifactStore
from soak.commands import Commands
from soak.deliveries import ONE_DAY, Deliveries
from soak.schedule import FIRST_LOG_DAY, FIRST_NIGHT
from tests.deploy.processes import ENDED, Deployment, deployment, until
from tests.end_to_end.small_night import environment

NIGHTS = [str(FIRST_NIGHT + number * ONE_DAY) for number in range(5)]
FIRST, SECOND, BROKEN, AFTER, LAST = NIGHTS


def deliver(team: Deliveries) -> None:
    """Five nights; the third day's log holds 8 % of its rows."""
    day = FIRST_LOG_DAY
    while str(day) <= LAST:
        team.deliver(day, share=0.08 if str(day) == BROKEN else 1.0)
        team.deliver_catalogue(day, withdrawn_on=None)
        day += ONE_DAY


def nights(started: Deployment, backfill: str) -> dict[str, dict]:
    """The runs of a backfill by day."""
    runs = [run for run in started.runs() if run["tags"].get("dagster/backfill") == backfill]
    return {run["tags"]["dagster/partition"]: run for run in runs}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_backfill_of_nights_keeps_their_order_and_stops_where_one_fails(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "home")
    commands.prepare()
    deliver(Deliveries.into(commands.deliveries))
    env = environment(commands.home, commands.home / "plain.yaml") | {"ONEREC_STEPS_AT_ONCE": "1"}
    with deployment(tmp_path, env) as started:
        first = started.launch("weekly_retokenize", FIRST)
        assert started.ended(first, seconds=300) == "SUCCESS"
        backfill = started.backfill("nightly", NIGHTS[1:])

        def all_ended() -> bool:
            found = nights(started, backfill)
            return len(found) == 4 and all(run["status"] in ENDED for run in found.values())

        until(all_ended, "the nights of the backfill end", 400)
        found = nights(started, backfill)
        ended = {day: run["status"] for day, run in found.items()}
        failed = dict.fromkeys((BROKEN, AFTER, LAST), "FAILURE")
        assert ended == {SECOND: "SUCCESS", **failed}
        for day, after in pairwise(NIGHTS[1:]):
            assert found[after]["startTime"] >= found[day]["endTime"]

        def all_served() -> bool:  # recommendations are published after they are stored
            found = [run for run in started.runs() if run["jobName"] == "serve_degraded"]
            return [run["status"] for run in found] == ["SUCCESS"] * len(failed)

        until(all_served, "the last champion serves the days that failed")
        served = json.loads((commands.root / "serving" / "current" / "served.json").read_text())
    store = ArtifactStore(str(commands.root / "artifacts"))
    assert set(store.partitions("recommendations")) == set(NIGHTS)
    assert store.partitions("champion") == [FIRST, SECOND]
    assert store.partitions("pretrained_checkpoint") == [FIRST, SECOND]
    assert served["day"] == LAST
    assert served["degraded"]
