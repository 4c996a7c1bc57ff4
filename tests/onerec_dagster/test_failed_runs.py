"""A failed run says why, and its day is served nevertheless."""

from pathlib import Path

import dagster as dg
import pytest

from onerec.artifacts import write_json
from onerec.serving.current import CURRENT, SERVED
from onerec_dagster import alerts, sensors
from onerec_dagster.definitions import defs
from onerec_dagster.degraded import degraded_run
from onerec_dagster.run_findings import run_findings

DAY, DAY_BEFORE = "2026-06-15", "2026-06-14"
DAILY = dg.DailyPartitionsDefinition("2026-06-01")


def failed_night(instance: dg.DagsterInstance, *, asset: str, by_check: bool) -> dg.DagsterRun:
    """A run named `nightly` in which an asset, or a blocking check of it, failed."""

    @dg.asset(name=asset, partitions_def=DAILY)
    def made() -> None:
        if not by_check:
            raise ValueError("loss became NaN or inf\nin epoch 2")

    @dg.asset_check(asset=made, blocking=True)
    def share_below_threshold() -> dg.AssetCheckResult:
        rows = [dg.TableRecord({"reason": f"r{n}", "rows": n}) for n in range(7)]
        return dg.AssetCheckResult(
            passed=not by_check,
            description="8.00% of the rows (threshold 5.00%); raise sessions.max_rejected_share",
            metadata={
                "threshold": 0.05,
                "reasons": dg.MetadataValue.table(rows),
                "picture": dg.MetadataValue.md("![x](data:image/svg+xml;base64,AAAA)"),
            },
        )

    @dg.asset_check(asset=made)
    def is_a_warning() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    job = dg.define_asset_job("nightly", selection=dg.AssetSelection.all())
    checks = [share_below_threshold, is_a_warning]
    defs = dg.Definitions(assets=[made], asset_checks=checks, jobs=[job])
    result = defs.resolve_job_def("nightly").execute_in_process(
        partition_key=DAY, instance=instance, raise_on_error=False
    )
    assert not result.success
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return run


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_a_failed_check_is_shown_with_finding_limit_setting_and_sample_rows(instance) -> None:
    run = failed_night(instance, asset="rejected_events", by_check=True)
    findings = run_findings(instance, run.run_id)
    text = "\n".join(findings.lines())
    assert "check share_below_threshold of rejected_events failed" in text
    assert "raise sessions.max_rejected_share" in text
    assert "threshold: 0.05" in text
    assert "reason=r4, rows=4" in text
    assert "reason=r5" not in text
    assert "and 2 more" in text
    assert "svg" not in text
    assert "is_a_warning" not in text
    assert findings.steps == ()  # the step only stopped for the check
    assert findings.first().startswith(
        "check share_below_threshold of rejected_events failed: 8.00% of the rows"
    )


def test_a_failed_step_is_shown_with_its_error(instance) -> None:
    run = failed_night(instance, asset="pretrained_checkpoint", by_check=False)
    findings = run_findings(instance, run.run_id)
    assert findings.first() == (
        "pretrained_checkpoint: ValueError: loss became NaN or inf in epoch 2"
    )


@pytest.mark.parametrize(
    ("asset", "by_check", "until"),
    [
        ("pretrained_checkpoint", False, DAY),
        # the sessions of the day are not valid
        ("rejected_events", True, DAY_BEFORE),
    ],
)
def test_a_failed_night_is_made_up_for_on_the_newest_valid_sessions(
    instance, tmp_path: Path, asset: str, by_check: bool, until: str
) -> None:
    run = failed_night(instance, asset=asset, by_check=by_check)
    found = degraded_run(instance, run, tmp_path)
    assert found is not None
    day, config = found
    assert day == DAY
    fields = config["ops"]["recommendations"]["config"]["degraded"]
    assert fields["sessions_until"] == until
    assert fields["reason"].startswith("nightly: ")
    assert asset in fields["reason"]


def serve(serving: Path, day: str) -> None:
    """What consumers read is of a day."""
    (serving / CURRENT).mkdir(parents=True, exist_ok=True)
    facts = {"day": day, "serve_date": day, "version": "v", "model_version": "m", "degraded": None}
    write_json(serving / CURRENT / SERVED, facts)


@pytest.mark.parametrize(
    ("served", "is_made_up_for"), [(DAY_BEFORE, True), (DAY, False), ("2026-06-16", False)]
)
def test_a_day_is_made_up_for_unless_consumers_read_it_already(
    instance, tmp_path: Path, served: str, is_made_up_for: bool
) -> None:
    run = failed_night(instance, asset="recommendations", by_check=False)
    serve(tmp_path, served)
    assert (degraded_run(instance, run, tmp_path) is not None) == is_made_up_for
    (tmp_path / CURRENT / SERVED).write_text("{")
    assert degraded_run(instance, run, tmp_path) is not None


def requested(instance: dg.DagsterInstance, run: dg.DagsterRun) -> object:
    """What the daemon's sensor answers to a failed run."""
    (failure,) = [
        entry.dagster_event
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    ]
    context = dg.build_run_status_sensor_context(
        sensor_name="serve_after_failure",
        dagster_instance=instance,
        dagster_run=run,
        dagster_event=failure,
    ).for_run_failure()
    return sensors.serve_after_failure(context)


def test_the_daemon_s_sensor_requests_the_run_that_makes_up_for_it(
    instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere:
        serving_dir = tmp_path

    monkeypatch.setattr(sensors, "SETTINGS", Elsewhere())
    run = failed_night(instance, asset="pretrained_checkpoint", by_check=False)
    request = requested(instance, run)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == DAY
    assert request.run_config["ops"]["recommendations"]["config"]["degraded"]["reason"]
    job = defs.resolve_job_def("serve_degraded")
    assert dg.validate_run_config(job, request.run_config)
    serve(tmp_path, DAY)
    assert isinstance(requested(instance, run), dg.SkipReason)


def test_a_store_that_cannot_be_reached_loses_no_run_that_makes_up_for_a_failed_one(
    instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster does not evaluate the sensor for that run again: the asset tries several times."""

    class Unreachable:
        serving_dir = tmp_path

        def artifact_store(self) -> None:
            raise OSError("the store cannot be reached")

    monkeypatch.setattr(sensors, "SETTINGS", Unreachable())
    run = failed_night(instance, asset="pretrained_checkpoint", by_check=False)
    assert isinstance(requested(instance, run), dg.RunRequest)
    node = defs.resolve_job_def("serve_degraded").get_node_named("recommendations")
    assert node.definition.retry_policy.max_retries > 0


def test_a_terminated_night_is_made_up_for_and_alerted_of(
    instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere:
        serving_dir = tmp_path

    monkeypatch.setattr(sensors, "SETTINGS", Elsewhere())
    tags = {"dagster/partition": DAY}
    run = dg.DagsterRun(job_name="nightly", status=dg.DagsterRunStatus.CANCELED, tags=tags)
    instance.add_run(run)
    context = dg.build_run_status_sensor_context(
        sensor_name="serve_after_cancellation",
        dagster_instance=instance,
        dagster_run=run,
        dagster_event=dg.DagsterEvent(dg.DagsterEventType.RUN_CANCELED.value, "nightly"),
    )
    request = sensors.serve_after_cancellation(context)
    assert isinstance(request, dg.RunRequest)
    degraded = request.run_config["ops"]["recommendations"]["config"]["degraded"]
    assert degraded == {"reason": "nightly: it was terminated", "sessions_until": DAY}
    sent: list[str] = []
    monkeypatch.setattr(alerts, "send", lambda _, text: sent.append(text))
    alerts.run_cancellation_alert(context)
    assert sent == [f"nightly for {DAY} failed: it was terminated (run {run.run_id})"]
    names = {sensor.name for sensor in defs.sensors or ()}
    assert {"serve_after_cancellation", "run_cancellation_alert"} <= names
