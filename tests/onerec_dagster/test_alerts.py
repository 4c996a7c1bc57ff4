"""What an alert says, and when one is due."""

from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from onerec.artifacts import ArtifactStore, write_json
from onerec_dagster.alerts import UI_URL, failure_text, late_day, late_night_alert, night_texts
from onerec_dagster.run_findings import FailedCheck, FailedStep, RunFindings

DAY = "2026-06-14"
RUN = dg.DagsterRun(job_name="nightly", run_id="abc", tags={"dagster/partition": DAY})
NOTHING = RunFindings(steps=(), checks=())


def check(severity: str, *, blocking: bool = False) -> FailedCheck:
    return FailedCheck(
        name="rejected_share_below_threshold",
        asset="rejected_events",
        severity=severity,
        blocking=blocking,
        finding="8.00% of the rows were rejected (threshold 5.00%)",
        metadata={},
    )


def test_a_failed_run_names_check_finding_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(UI_URL, raising=False)
    findings = RunFindings(steps=(), checks=(check("ERROR", blocking=True),))
    assert failure_text(RUN, findings) == (
        "nightly for 2026-06-14 failed: check rejected_share_below_threshold of rejected_events "
        "failed: 8.00% of the rows were rejected (threshold 5.00%) (run abc)"
    )
    monkeypatch.setenv(UI_URL, "https://dagster.example/")
    step = FailedStep(step="codebook", error="ValueError: too few items\nsecond line")
    text = failure_text(RUN, RunFindings(steps=(step,), checks=()))
    assert text.endswith(
        "codebook: ValueError: too few items second line (https://dagster.example/runs/abc)"
    )


def test_a_run_that_was_killed_has_an_alert_too() -> None:
    assert "the process of the run ended without a report" in failure_text(RUN, NOTHING)


def test_a_successful_run_tells_of_failed_checks_and_a_refused_challenger(
    tmp_path: Path,
) -> None:
    store = ArtifactStore(str(tmp_path))
    assert list(night_texts(RUN, NOTHING, store)) == []
    with store.write("champion", DAY, config={}, upstream={}, code_version="1") as draft:
        model = {"asset": "dpo_checkpoint", "partition": "2026-06-13", "version": "v"}
        decision = {"promoted": False, "serves": "incumbent", "reasons": ["its Recall@10 fell"]}
        write_json(draft.path / "champion.json", decision | {"model": model})
    findings = RunFindings(steps=(), checks=(check("ERROR"), check("WARN")))
    failed, refused = night_texts(RUN, findings, store)
    assert "succeeded with 1 failed checks: rejected_share_below_threshold" in failed
    assert "the challenger is refused, incumbent serves: its Recall@10 fell" in refused


def test_what_serves_in_a_challenger_s_place_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))

    def alert(**decision: object) -> str:
        with store.write("champion", DAY, config={}, upstream={}, code_version="1") as draft:
            write_json(draft.path / "champion.json", {"promoted": False, **decision})
        (text,) = night_texts(RUN, NOTHING, store)
        return text

    simple = {"model": {"system": "itemknn"}, "serves": "simple system", "reasons": ["a draw"]}
    assert "the challenger is refused, itemknn serves: a draw" in alert(**simple)
    pinned = {"rule_said": "challenger", "by_hand": "pinned: calm", "reasons": []}
    pinned |= {"serves": "earlier champion", "model": {"version": "v"}}
    assert (
        "earlier champion serves by hand (pinned: calm); the promotion rule said challenger"
        in alert(**pinned)
    )


@pytest.mark.parametrize(
    ("hour", "served", "late"),
    [
        (7, "2026-06-13", False),  # not due yet: eight hours after the end of the day
        (9, "2026-06-13", True),
        (9, None, True),
        (9, DAY, False),
    ],
)
def test_a_night_is_late_eight_hours_after_the_end_of_its_day(
    hour: int, served: str | None, late: bool
) -> None:
    now = datetime(2026, 6, 15, hour, tzinfo=UTC)
    newest = None if served is None else date.fromisoformat(served)
    assert late_day(now, newest, DAY) == (DAY if late else None)
    assert late_day(now, newest, None) is None
    assert "not there 8 hours after its end" in (late_night_alert.description or "")
