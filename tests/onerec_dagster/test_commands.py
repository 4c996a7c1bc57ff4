"""The operator's commands: which runs they ask for, in which order."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from onerec.artifacts import ArtifactStore, write_json
from onerec_dagster import __main__ as commands
from onerec_dagster.definitions import defs
from onerec_dagster.job_runner import RunFailedError, RunRequest

FIRST_DAY, LAST_DELIVERED = date(2026, 6, 1), date(2026, 7, 31)


@dataclass
class Recorded:
    """An operator that only notes what it would run; runs of `failing` days fail."""

    store: ArtifactStore
    instance: dg.DagsterInstance | None = None
    failing: tuple[str, ...] = ()
    requests: list[RunRequest] = field(default_factory=list)
    settings: Any = None

    def run(self, request: RunRequest) -> None:
        self.requests.append(request)
        if request.tags["dagster/partition"] in self.failing:
            raise RunFailedError("run", "it failed")

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(r.job, r.tags["dagster/partition"]) for r in self.requests]


@pytest.fixture
def op(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr(commands, "require_free_space", lambda path, what: None)

    class Log:
        def has_arrived(self, day: date) -> bool:
            return day <= LAST_DELIVERED

    @dataclass
    class Home:
        home: Path = tmp_path
        dataset: str = "shop"
        root: Path = tmp_path / "shop"
        source: Log = field(default_factory=Log)

        def partition_range(self) -> tuple[date, None]:
            return FIRST_DAY, None

    return Recorded(ArtifactStore(str(tmp_path / "artifacts")), settings=Home())


def call(op: Recorded, *arguments: str) -> None:
    args = commands.parser().parse_args(arguments)
    args.function(args, op)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rerun", "2026-05-31"), "DAY='2026-05-31': name a day from 2026-06-01 on"),
        (("rerun", "2027-05-01"), "DAY='2027-05-01': nothing of that day, or of a later one"),
        (("backfill", "2026-05-31", "2026-06-02"), "FROM='2026-05-31': name a day from"),
        (("backfill", "2026-07-30", "2026-08-01"), "TO='2026-08-01': nothing of that day"),
    ],
)
def test_a_day_that_the_log_lacks_is_refused_before_a_run(
    op: Recorded, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(op, *arguments)
    assert not op.requests


def test_what_is_no_day_is_named(op: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(op, "rerun", "2026-6-9")
    assert "'2026-6-9' is no day: write 2026-06-15 say" in capsys.readouterr().err


def publish_champion(store: ArtifactStore, day: str, model: str) -> None:
    with store.write("champion", day, config={}, upstream={}, code_version="1") as draft:
        write_json(draft.path / "champion.json", {"model": {"version": model}, "day": day})


def publish_recommendations(store: ArtifactStore, day: str, degraded: str | None) -> None:
    with store.write("recommendations", day, config={}, upstream={}, code_version="1") as draft:
        draft.metadata.update(degraded=degraded, sessions_until=day)


def test_a_backfill_goes_from_the_oldest_day_and_stops_where_one_fails(op: Recorded) -> None:
    with op.store.write("codebook", "2026-06-01", config={}, upstream={}, code_version="1"):
        pass
    op.failing = ("2026-06-17",)
    with pytest.raises(RunFailedError):
        call(op, "backfill", "2026-06-16", "2026-06-19")
    assert op.asked == [("nightly", "2026-06-16"), ("nightly", "2026-06-17")]
    assert all(request.tags["onerec/by"] for request in op.requests)


def test_the_first_night_of_all_opens_a_tokenizer_version(op: Recorded) -> None:
    call(op, "rerun", "2026-06-16")
    assert op.asked == [("weekly_retokenize", "2026-06-16")]


def test_a_night_that_is_due_on_a_sunday_refits_the_tokenizer(op: Recorded) -> None:
    with op.store.write("codebook", "2026-06-01", config={}, upstream={}, code_version="1"):
        pass
    call(op, "backfill", "2026-06-12", "2026-06-14")
    jobs = ["nightly", "weekly_retokenize", "nightly"]
    assert [job for job, _ in op.asked] == jobs


def test_a_backfill_backwards_is_refused(op: Recorded) -> None:
    with pytest.raises(ValueError, match="name the earlier day first"):
        call(op, "backfill", "2026-06-19", "2026-06-16")


def test_a_rollback_takes_the_last_other_champion_on_the_newest_night(op: Recorded) -> None:
    for day, model in (("2026-06-10", "a"), ("2026-06-11", "b"), ("2026-06-12", "b")):
        publish_champion(op.store, day, model)
    publish_recommendations(op.store, "2026-06-12", None)
    call(op, "rollback", "--reason", "complaints")
    (request,) = op.requests
    assert op.asked == [("decide_champion", "2026-06-12")]
    by_hand = request.config["ops"]["champion"]["config"]["by_hand"]
    assert by_hand == {"serve": "2026-06-10", "reason": "complaints"}


def test_a_rollback_passes_over_a_damaged_champion_and_reads_no_older_one_than_it_needs(
    op: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    days = ["2026-06-09", "2026-06-10", "2026-06-11", "2026-06-12"]
    for day, model in zip(days, "abcd", strict=True):
        publish_champion(op.store, day, model)
    publish_recommendations(op.store, days[-1], None)
    for day in (days[0], days[2]):
        (op.store.latest("champion", day).path / "champion.json").write_text("{}")
    call(op, "rollback")
    (request,) = op.requests
    assert request.config["ops"]["champion"]["config"]["by_hand"]["serve"] == "2026-06-10"
    warned = capsys.readouterr().err
    assert "the champion of 2026-06-11 is passed over" in warned
    assert "2026-06-09" not in warned


def test_a_later_degraded_day_is_served_by_the_new_decision_too(op: Recorded) -> None:
    publish_champion(op.store, "2026-06-12", "a")
    publish_recommendations(op.store, "2026-06-13", "no memory")
    call(op, "promote")
    assert op.asked == [("decide_champion", "2026-06-12"), ("serve_degraded", "2026-06-13")]
    degraded = op.requests[1].config["ops"]["recommendations"]["config"]["degraded"]
    assert degraded == {"reason": "no memory", "sessions_until": "2026-06-13"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rollback"], "--to=None: all days with a champion, .* have the same one.*promote"),
        (["rollback", "--to", "2026-01-01"], "--to='2026-01-01': name a day before .* only one"),
        (["rollback", "--to", "2026-06-12"], "name a day before 2026-06-12 with a champion"),
        (["pin", "2026-01-01"], "no champion of that day; name one of 2026-06-12"),
        (["table", "2026-01-01"], "no nightly run of that day; name one of 2026-06-12"),
    ],
)
def test_a_champion_that_is_not_there_is_named(
    op: Recorded, arguments: list[str], message: str
) -> None:
    publish_champion(op.store, "2026-06-12", "a")
    with pytest.raises(ValueError, match=message):
        call(op, *arguments)
    assert op.requests == []


@pytest.mark.parametrize("command", ["promote", "rollback", "pin", "table"])
def test_without_a_nightly_run_the_home_is_named(op: Recorded, command: str) -> None:
    about = f"ONEREC_HOME='{op.settings.home}': no nightly run of shop has a champion there"
    with pytest.raises(ValueError, match=re.escape(about)):
        call(op, command)


def test_earlier_days_to_go_back_to_are_named(op: Recorded) -> None:
    for number in range(1, 9):
        publish_champion(op.store, f"2026-06-0{number}", "m")
    with pytest.raises(ValueError, match=r"there are 2026-06-03, .*, 2026-06-07$"):
        call(op, "rollback", "--to", "2026-06-08")


def test_serve_names_what_is_not_installed(op: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "onerec.serving.http_service", raising=False)
    with pytest.raises(ValueError, match=r"module='fastapi': is not installed: .*\.\[serve\]"):
        call(op, "serve")


def test_nothing_is_pruned_without_being_asked_twice(
    op: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict]] = []
    monkeypatch.setattr(
        commands, "maintain", lambda op, job, name, config: asked.append((job, config))
    )
    call(op, "prune", "--keep-nights", "7")
    call(op, "prune", "--yes")
    assert [config["dry_run"] for _, config in asked] == [True, False]
    assert asked[0][1]["keep_nights"] == 7


def test_resume_takes_the_newest_failed_run_and_its_configuration(op: Recorded) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        op.instance = instance
        for number, status in enumerate(("FAILURE", "FAILURE", "SUCCESS")):
            instance.add_run(
                dg.DagsterRun(
                    job_name="nightly",
                    run_id=f"0000000{number}-0000-0000-0000-000000000000",
                    status=dg.DagsterRunStatus(status),
                    tags={"dagster/partition": f"2026-06-1{number}", "onerec/lock": "l"},
                    run_config={"ops": {"x": number}},
                )
            )
        call(op, "resume")
        (request,) = op.requests
        assert request.continues == "00000001-0000-0000-0000-000000000000"
        assert request.config == {"ops": {"x": 1}}
        assert request.tags["dagster/partition"] == "2026-06-11"
        assert "onerec/lock" not in request.tags
        with pytest.raises(ValueError, match="no failed run of that id"):
            call(op, "resume", "00000002-0000-0000-0000-000000000000")


def test_resume_leaves_alone_what_a_later_run_of_the_day_has_repaired(op: Recorded) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        op.instance = instance
        for job, status, day in (
            ("nightly", "FAILURE", "2026-06-10"),
            ("nightly", "SUCCESS", "2026-06-11"),  # of another day
            ("ingest", "SUCCESS", "2026-06-10"),  # of another job
            ("nightly", "FAILURE", "2026-06-12"),
            ("weekly_retokenize", "SUCCESS", "2026-06-12"),
            ("nightly", "FAILURE", "2026-06-13"),
            ("nightly", "SUCCESS", "2026-06-13"),
        ):
            tags = {"dagster/partition": day}
            if status == "FAILURE":  # requested by the daemon
                tags["dagster/partition_set"] = f"{job}_partition_set"
            found = dg.DagsterRunStatus(status)
            instance.add_run(dg.DagsterRun(job_name=job, status=found, tags=tags))
        call(op, "resume")
        assert op.asked == [("nightly", "2026-06-10")]
        instance.add_run(
            dg.DagsterRun(
                job_name="nightly",
                status=dg.DagsterRunStatus.SUCCESS,
                tags={"dagster/partition": "2026-06-10"},
            )
        )
        with pytest.raises(ValueError, match="nothing to go on with"):
            call(op, "resume")


def test_what_a_user_can_correct_ends_a_command_in_one_line(
    monkeypatch: pytest.MonkeyPatch, op: Recorded
) -> None:
    from contextlib import nullcontext

    publish_champion(op.store, "2026-06-12", "a")
    monkeypatch.setattr(commands, "operator", lambda: nullcontext(op))
    with pytest.raises(SystemExit, match=r"^pin: DAY='2026-01-01': no champion of that day"):
        commands.main(["pin", "2026-01-01"])


@pytest.mark.parametrize(
    "arguments",
    [("pin", "2026-06-16"), ("unpin",), ("prune", "--yes"), ("forget", "u1", "u2"), ("doctor",)],
)
def test_what_a_maintenance_command_asks_for_is_a_job_with_that_config(
    op: Recorded, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(commands, "maintain", lambda _, *request: asked.append(request))
    publish_champion(op.store, "2026-06-16", "m")
    call(op, *arguments)
    ((job, name, config),) = asked
    ops = {"ops": {name: {"config": dict(config)}}} if config else {}
    assert dg.validate_run_config(defs.resolve_job_def(job), ops)


@pytest.mark.parametrize(
    ("command", "status", "lines"),
    [
        ("prune", 0, ["would remove 0 versions of artifacts", "would remove 0 runs of days"]),
        ("doctor", 1, [" PROBLEM  warehouse", "      ok  runs: 0 under way"]),  # but its own
    ],
)
def test_what_maintenance_found_is_printed_line_by_line(
    tmp_path: Path, command: str, status: int, lines: list[str]
) -> None:
    environment = {**os.environ, "ONEREC_HOME": str(tmp_path), "DAGSTER_HOME": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "onerec_dagster", command],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == status, ended.stderr
    printed = ended.stdout.splitlines()
    for wanted in lines:
        assert any(line.startswith(wanted) for line in printed), ended.stdout
