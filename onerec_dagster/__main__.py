"""`python -m onerec_dagster COMMAND`: what an operator does, from a shell.

Each one is a run on the instance that `make dev` shows, so that who did what, when and why is
recorded there.
"""

import argparse
import getpass
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from onerec.artifacts import ArtifactError, ArtifactStore, read_json
from onerec.config import CHALLENGER_SERVES, SettingError, require
from onerec.disk import require_free_space
from onerec_dagster.dagster_home import prepare_home
from onerec_dagster.degraded import NIGHTLY_JOBS
from onerec_dagster.job_runner import (
    RESUMED,
    RunRequest,
    full_disk_in_one_line,
    logged,
    run_job,
    run_night,
)
from onerec_dagster.killed_runs import fail_killed_runs
from onerec_dagster.ports import require_free_port
from onerec_dagster.process_end import run_and_exit
from onerec_dagster.state_errors import state_errors_named
from resources.settings import Settings, load_settings

MOST_KEPT = 100_000
_RANGE = "dagster/asset_partition_range"
PARTITION_TAGS = ("dagster/partition", f"{_RANGE}_start", f"{_RANGE}_end")
NEWEST_FAILED = 100
"""Newest failed runs among which `resume` looks for one to go on with."""


@dataclass(frozen=True)
class Operator:
    """What a command works with.

    Attributes:
        settings: Where things live.
        instance: Where runs are recorded.
    """

    settings: Settings
    instance: dg.DagsterInstance

    @property
    def store(self) -> ArtifactStore:
        """The artifacts."""
        return self.settings.artifact_store()

    @property
    def log(self) -> Path:
        """Everything that runs print."""
        return self.settings.root / "commands.log"

    def run(self, request: RunRequest) -> None:
        """Run a job; a nightly run that fails gets its day served in a degraded way."""
        print(f"{request.job} {' '.join(request.tags.values())}")
        run_night(self.instance, request, self.settings.serving_dir, self.log)


@contextmanager
def operator() -> Iterator[Operator]:
    """The data set's state, and its runs that were killed reported as failed."""
    settings = load_settings()
    with full_disk_in_one_line("onerec_dagster", settings.root), state_errors_named(settings):
        prepare_home(settings)
        with dg.DagsterInstance.get() as instance:
            fail_killed_runs(instance)
            yield Operator(settings, instance)


def backfill(args: argparse.Namespace, op: Operator) -> None:
    """Nightly runs of a range of days, oldest first; stops at the first that fails."""
    first, last = args.first, args.last
    if last < first:
        raise SettingError("FROM", str(first), f"lies after TO={last}: name the earlier day first")
    require_day(op.settings, "FROM", first)
    require_day(op.settings, "TO", last)
    require_free_space(op.settings.root, "a nightly run")
    for offset in range((last - first).days + 1):
        night(op, first + timedelta(days=offset), retokenize=False)


def rerun(args: argparse.Namespace, op: Operator) -> None:
    """The nightly run of a day, ingest included."""
    require_day(op.settings, "DAY", args.day)
    require_free_space(op.settings.root, "a nightly run")
    night(op, args.day, retokenize=args.retokenize)


def require_day(settings: Settings, name: str, day: date) -> None:
    """Check that the log has a day, before a run of it begins.

    Raises:
        SettingError: It lies outside of the log, or has not arrived.
    """
    first, last = settings.partition_range()
    remedy = f"name a day from {first} on" + (f", up to {last}" if last else "")
    require(first <= day and (last is None or day <= last), name, str(day), remedy)
    require(
        settings.source.has_arrived(day),
        name,
        str(day),
        "nothing of that day, or of a later one, was delivered yet: deliver it, or its empty file",
    )


def night(op: Operator, day: date, *, retokenize: bool) -> None:
    """One nightly run, of the job that the sensor would request; the first opens a version."""
    from onerec_dagster.nights import job_for

    first = not op.store.partitions("codebook")
    job = "weekly_retokenize" if retokenize or first else job_for(day)
    op.run(RunRequest.of_day(job, day.isoformat()).by(getpass.getuser()))


def resume(args: argparse.Namespace, op: Operator) -> None:
    """Goes on with a failed run: what it made is not made again."""
    run = op.instance.get_run_by_id(args.run_id) if args.run_id else _unrepaired(op.instance)
    if run is None or run.status != dg.DagsterRunStatus.FAILURE:
        remedy = "no failed run of that id: copy it from the UI's page of runs, or leave it out"
        if not args.run_id:
            remedy = (
                f"no run of {', '.join(RESUMED)} has failed and not succeeded since: there is "
                "nothing to go on with"
            )
        raise SettingError("RUN_ID", args.run_id, remedy)
    request = RunRequest(
        job=run.job_name, tags=_days_of(run), config=run.run_config, continues=run.run_id
    )
    op.run(request.by(getpass.getuser()))


def _days_of(run: dg.DagsterRun) -> dict[str, str]:
    """The tags that choose a run's partitions, whoever requested it."""
    return {name: run.tags[name] for name in PARTITION_TAGS if name in run.tags}


def _unrepaired(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """The newest failed run that no later one of its days has made up for, if any."""
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failed, limit=NEWEST_FAILED):
        run = record.dagster_run
        if run.job_name not in RESUMED:
            continue
        of_days = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], tags=_days_of(run))
        if not any(
            later.storage_id > record.storage_id and _makes_up_for(later.dagster_run, run)
            for later in instance.get_run_records(of_days)
        ):
            return run
    return None


def _makes_up_for(later: dg.DagsterRun, run: dg.DagsterRun) -> bool:
    """Whether it is of the same job; either nightly run makes up for the other."""
    return later.job_name == run.job_name or {later.job_name, run.job_name} == set(NIGHTLY_JOBS)


def promote(args: argparse.Namespace, op: Operator) -> None:
    """The challenger of the newest nightly run serves, although the rule refused it."""
    decide_by_hand(op, CHALLENGER_SERVES, args.reason)


def rollback(args: argparse.Namespace, op: Operator) -> None:
    """An earlier day's champion serves again, on the newest nightly run."""
    store, days = op.store, days_with_champion(op)
    day = args.to.isoformat() if args.to else _last_other_champion(store, days)
    if day is None:
        raise SettingError(
            "--to",
            None,
            f"all days with a champion, {days[0]} to {days[-1]}, have the same one: there is none "
            "to go back to; promote serves the newest challenger",
        )
    if day not in days[:-1]:
        have = f"there are {', '.join(days[-6:-1])}"
        if not days[1:]:
            have = f"{days[0]} is the only one; promote serves its challenger"
        raise SettingError("--to", day, f"name a day before {days[-1]} with a champion: {have}")
    decide_by_hand(op, day, args.reason)


def days_with_champion(op: Operator) -> Sequence[str]:
    """Days whose nightly run has decided, at least one.

    Raises:
        SettingError: There is none.
    """
    days = op.store.partitions("champion")
    remedy = (
        f"no nightly run of {op.settings.dataset} has a champion there: make one first, rerun DAY, "
        "or name another home, or another data set"
    )
    require(bool(days), "ONEREC_HOME", str(op.settings.home), remedy)
    return days


def _last_other_champion(store: ArtifactStore, days: Sequence[str]) -> str | None:
    """The newest day with an undamaged champion that is another one than the newest day's."""
    from onerec.promotion.champion import DECISION

    def model(day: str) -> object:
        return read_json(store.latest("champion", day).path / DECISION)["model"]

    newest = model(days[-1])
    for day in reversed(days[:-1]):
        try:
            if model(day) != newest:
                return day
        except ArtifactError as error:
            print(f"warning: the champion of {day} is passed over: {error}", file=sys.stderr)
    return None


def decide_by_hand(op: Operator, serve: str, reason: str) -> None:
    """Run `decide_champion` for the newest nightly run, and serve a later degraded day anew."""
    days = days_with_champion(op)
    config = {"ops": {"champion": {"config": {"by_hand": {"serve": serve, "reason": reason}}}}}
    op.run(RunRequest.of_day("decide_champion", days[-1], config).by(getpass.getuser()))
    newest = op.store.partitions("recommendations")[-1]
    if newest > days[-1]:
        made = op.store.latest("recommendations", newest).manifest["metadata"]
        fields = {"reason": made["degraded"] or reason, "sessions_until": made["sessions_until"]}
        again = {"ops": {"recommendations": {"config": {"degraded": fields}}}}
        op.run(RunRequest.of_day("serve_degraded", newest, again).by(getpass.getuser()))


def pin(args: argparse.Namespace, op: Operator) -> None:
    """The champion of a day stays, whatever challengers do, until `unpin`."""
    days = days_with_champion(op)
    day = args.day.isoformat() if args.day else days[-1]
    have = ", ".join(days[-5:])
    require(day in days, "DAY", day, f"no champion of that day; name one of {have}")
    maintain(op, "pin_champion", "pin", {"day": day, "reason": args.reason})


def unpin(args: argparse.Namespace, op: Operator) -> None:
    """The promotion rule decides again from the next nightly run on."""
    maintain(op, "pin_champion", "pin", {"day": "", "reason": args.reason})


def prune(args: argparse.Namespace, op: Operator) -> None:
    """Removes what no kept nightly run and nothing served depends on; a dry run unless --yes."""
    config = {
        "keep_nights": args.keep_nights,
        "keep_champions": args.keep_champions,
        "keep_days": args.keep_days,
        "dry_run": not args.yes,
    }
    maintain(op, "prune", "prune_state", config)


def forget(args: argparse.Namespace, op: Operator) -> None:
    """Erases users from warehouse, artifacts and recommendations; says what still holds them."""
    maintain(op, "forget", "forget_users", {"users": args.users})


def doctor(args: argparse.Namespace, op: Operator) -> None:
    """Verifies artifacts, warehouse, what consumers read, runs and disk."""
    maintain(op, "doctor", "examine_state", {})


def table(args: argparse.Namespace, op: Operator) -> None:
    """Prints the table of metrics of a nightly run, as make demo does."""
    from onerec.report.nightly import load_report, text_table

    days = days_with_champion(op)
    day = args.day.isoformat() if args.day else days[-1]
    have = ", ".join(days[-5:])
    require(day in days, "DAY", day, f"no nightly run of that day; name one of {have}")
    print(text_table(load_report(op.store, day, op.settings.dataset)))


def serve(args: argparse.Namespace, op: Operator) -> None:
    """An HTTP service over what is current, on localhost: /recommend, /health, /version."""
    try:
        from onerec.serving.http_service import serve_http
    except ModuleNotFoundError as error:
        remedy = f"is not installed: {sys.executable} -m pip install -e '.[serve]'"
        raise SettingError("module", error.name, remedy) from None
    require_free_port(args.port)
    print(f"http://127.0.0.1:{args.port} serves {op.settings.serving_dir}")
    serve_http(op.settings.serving_dir, args.port, op.settings.runtime.torch_device())


def maintain(op: Operator, job: str, name: str, config: Mapping[str, object]) -> None:
    """Run a job of one op, and print what it logged."""
    ops = {"ops": {name: {"config": dict(config)}}} if config else {}
    request = RunRequest(job=job, tags={}, config=ops).by(getpass.getuser())
    try:
        run_job(op.instance, request, op.log)
    finally:
        run = request.run_of(op.instance)
        for message in logged(op.instance, run.run_id) if run else ():
            print(message)


def day_of(text: str) -> date:
    """A day on the command line.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write 2026-06-15 say") from None


def number(text: str) -> int:
    """How many nightly runs, champions or days stay.

    Raises:
        ArgumentTypeError: It is no whole number from 1 on.
    """
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= MOST_KEPT):
        raise argparse.ArgumentTypeError(f"{text!r}: use a whole number from 1 to {MOST_KEPT}")
    return int(text)


def user(text: str) -> str:
    """A user's id.

    Raises:
        ArgumentTypeError: It is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty id is no user")
    return text


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    made = argparse.ArgumentParser(prog="python -m onerec_dagster", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, *arguments: tuple[Sequence[str], dict]) -> None:
        doc = (function.__doc__ or "").strip().splitlines()[0]
        sub = commands.add_parser(function.__name__, help=doc, description=doc)
        for names, options in arguments:
            sub.add_argument(*names, **options)
        sub.set_defaults(function=function)

    day = {"type": day_of}
    command(
        backfill,
        (["first"], {**day, "metavar": "FROM", "help": "first day, 2026-06-15 say"}),
        (["last"], {**day, "metavar": "TO", "help": "last day"}),
    )
    command(
        rerun,
        (["day"], {**day, "metavar": "DAY"}),
        (["--retokenize"], {"action": "store_true", "help": "with a new codebook"}),
    )
    command(resume, (["run_id"], {"nargs": "?", "help": "the failed run; the newest if not given"}))
    reason = (["--reason"], {"default": "by hand", "help": "why; it is recorded"})
    command(promote, reason)
    to = (["--to"], {**day, "metavar": "DAY", "help": "the last other champion if not given"})
    command(rollback, to, reason)
    command(pin, (["day"], {**day, "nargs": "?", "help": "the newest if not given"}), reason)
    command(unpin, reason)
    kept = {"type": number, "metavar": "N", "default": 30}
    command(
        prune,
        (["--keep-nights"], {**kept, "help": "last nightly runs of each asset that stay"}),
        (["--keep-champions"], {**kept, "help": "last champions that stay"}),
        (["--keep-days"], {**kept, "default": 400, "help": "last days of the warehouse's log"}),
        (["--yes"], {"action": "store_true", "help": "remove; without it only say what"}),
    )
    command(forget, (["users"], {"nargs": "+", "metavar": "USER", "type": user}))
    command(doctor)
    command(table, (["day"], {**day, "nargs": "?", "help": "the newest if not given"}))
    command(serve, (["--port"], {"type": int, "default": 8080}))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; an error that the user can correct ends it with a message of one line."""
    args = parser().parse_args(arguments)
    try:
        with operator() as op:
            args.function(args, op)
    except (ValueError, ArtifactError) as error:
        sys.exit(f"{args.command}: {error}")


if __name__ == "__main__":
    run_and_exit(main)
