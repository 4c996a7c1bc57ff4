"""Dead sensors are found by what their last evaluations left on the instance."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_shared.error import SerializableErrorInfo

from onerec_dagster import alerts
from onerec_dagster.alerts import EMAIL_TO, dead_sensor_alert, email_alerts
from onerec_dagster.sensor_health import SILENT_AFTER, dead_sensors

NOW = datetime.now(UTC)
BROKEN = SerializableErrorInfo("OSError: the log cannot be listed\n", [], "OSError")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as found:
        yield found


def evaluated(
    instance: dg.DagsterInstance,
    name: str,
    *statuses: TickStatus,
    last: datetime = NOW,
    state: InstigatorStatus = InstigatorStatus.RUNNING,
) -> None:
    """A sensor with ticks, the newest last."""
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="m"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "repository"), name)
    data = SensorInstigatorData(min_interval=60)
    sensor = InstigatorState(origin, InstigatorType.SENSOR, state, data)
    instance.add_instigator_state(sensor)
    for age, status in enumerate(reversed(statuses)):
        at = (last - timedelta(minutes=age)).timestamp()
        error = BROKEN if status is TickStatus.FAILURE else None
        tick = TickData(
            origin.get_id(),
            name,
            InstigatorType.SENSOR,
            status,
            at,
            error=error,
            selector_id=sensor.selector_id,
        )
        instance.create_tick(tick)


def test_a_sensor_that_fails_three_times_in_a_row_is_dead(instance: dg.DagsterInstance) -> None:
    good, bad = TickStatus.SKIPPED, TickStatus.FAILURE
    evaluated(instance, "broken", good, bad, bad, bad)
    evaluated(instance, "recovered", bad, bad, bad, good)
    evaluated(instance, "twice", good, bad, bad)
    assert dead_sensors(instance, NOW) == {
        "broken": "failed 3 times in a row: OSError: the log cannot be listed"
    }


def test_a_sensor_that_nobody_evaluates_is_dead_unless_it_is_stopped(
    instance: dg.DagsterInstance,
) -> None:
    long_ago = NOW - SILENT_AFTER - timedelta(minutes=1)
    evaluated(instance, "silent", TickStatus.SKIPPED, last=long_ago)
    stopped = InstigatorStatus.STOPPED
    evaluated(instance, "stopped", TickStatus.SKIPPED, last=long_ago, state=stopped)
    assert list(dead_sensors(instance, NOW)) == ["silent"]


def test_the_alert_comes_once_and_again_after_a_recovery(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(alerts, "send", lambda log, text: sent.append(text))
    found = {"nights": "failed 3 times in a row: OSError"}
    cursor = None
    for dead in (found, found, {}, found):
        monkeypatch.setattr(alerts, "dead_sensors", lambda instance, now, dead=dead: dead)
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        dead_sensor_alert(context)
        cursor = context.cursor
    assert len(sent) == 2
    assert "the sensor nights is dead: failed 3 times in a row: OSError" in sent[0]


def test_failed_runs_are_mailed_where_an_address_is_set() -> None:
    assert email_alerts({}) == []
    (sensor,) = email_alerts({EMAIL_TO: "team@example.com"})
    assert sensor.name == "run_failure_email"
