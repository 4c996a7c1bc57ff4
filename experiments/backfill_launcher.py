"""Jobs and backfills launched through a Dagster UI of its own, as from a browser.

They go through the instance's queue, pools and retries.
"""

import fcntl
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import requests

from onerec_dagster.dagster_home import prepare_home
from resources.settings import CHECKOUT, load_settings

CODE_VERSIONS = "query { assetNodes { assetKey { path } opVersion } }"
LINEAGE = "query { assetNodes { assetKey { path } jobNames dependencyKeys { path } } }"
LAUNCH_RUN = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  ... on LaunchRunSuccess { run { runId } } ... on Error { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
LAUNCH_BACKFILL = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
  ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""
STARTS_WITHIN_SECONDS = 240
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Launcher:
    """A running Dagster UI, and the instance that it shows.

    Attributes:
        port: Of the UI, on this machine.
        instance: Of the same home.
        process: The UI.
    """

    port: int
    instance: dg.DagsterInstance
    process: subprocess.Popen
    _shown: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where to watch."""
        return f"http://127.0.0.1:{self.port}"

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """Run a GraphQL query and return its data; dagster-graphql's client has no backfills.

        Raises:
            RuntimeError: The answer holds an error.
        """
        body = {"query": query, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=body, timeout=120).json()
        data = answer.get("data") or {}
        refused = any("message" in part or "errors" in part for part in data.values())
        if answer.get("errors") or refused:
            raise RuntimeError(f"Dagster refused: {str(answer)[:2000]}")
        return data

    def code_versions(self) -> dict[str, str]:
        """Present code version by asset, of those that have one."""
        nodes = self.query(CODE_VERSIONS)["assetNodes"]
        return {"/".join(n["assetKey"]["path"]): n["opVersion"] for n in nodes if n["opVersion"]}

    def upstream_of(self, names: Sequence[str], job: str) -> list[str]:
        """These assets of a job and all of its assets that they depend on, in order of name."""
        nodes = [n for n in self.query(LINEAGE)["assetNodes"] if job in n["jobNames"]]
        above = {
            "/".join(node["assetKey"]["path"]): [
                "/".join(key["path"]) for key in node["dependencyKeys"]
            ]
            for node in nodes
        }
        found, seen = [name for name in names if name in above], set()
        while found:
            name = found.pop()
            if name not in seen:
                seen.add(name)
                found += [key for key in above[name] if key in above]
        return sorted(seen)

    def run_job(
        self,
        location: str,
        job: str,
        tags: Mapping[str, str],
        assets: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> bool:
        """Run a job, or some assets of it, to its end; returns whether it succeeded.

        Args:
            location: Code location.
            job: Its job.
            tags: Of the run.
            assets: All of the job if not given.
            config: Run configuration.
        """
        selector: dict[str, Any] = {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "pipelineName": job,
        }
        if assets:
            selector["assetSelection"] = [{"path": [name]} for name in assets]
        given = [{"key": key, "value": value} for key, value in tags.items()]
        params = {
            "selector": selector,
            "runConfigData": dict(config or {}),
            "executionMetadata": {"tags": given},
        }
        run_id = self.query(LAUNCH_RUN, params=params)["launchRun"]["run"]["runId"]
        while True:
            (run,) = self._show_ended(dg.RunsFilter(run_ids=[run_id]))
            if run.is_finished:
                return run.is_success
            self._wait()

    def backfill(self, partitions: Mapping[str, Sequence[str]]) -> None:
        """Backfill partitions of assets to its end; those that failed are shown, and no error.

        Args:
            partitions: Keys by asset. An asset's partition waits for those it depends on.
        """
        wanted = [
            {
                "assetKey": {"path": [asset]},
                "partitions": {"ranges": [{"start": key, "end": key} for key in keys]},
            }
            for asset, keys in partitions.items()
        ]
        launched = self.query(LAUNCH_BACKFILL, params={"partitionsByAssets": wanted})
        backfill_id = launched["launchPartitionBackfill"]["backfillId"]
        while True:
            found = self.instance.get_backfill(backfill_id)
            self._show_ended(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
            if found is not None and found.status.name.startswith(("COMPLETED", "FAILED", "CANC")):
                return
            self._wait()

    def _wait(self) -> None:
        """Pause before the next look.

        Raises:
            RuntimeError: The UI has ended, and its runs with it.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"the Dagster UI ended (exit status {self.process.returncode})")
        time.sleep(POLL_SECONDS)

    def _show_ended(self, wanted: dg.RunsFilter) -> list[dg.DagsterRun]:
        """Print the runs that have ended and were not shown yet; returns all of them."""
        records = self.instance.get_run_records(wanted)
        for record in records:
            run = record.dagster_run
            if run.is_finished and run.run_id not in self._shown:
                self._shown.add(run.run_id)
                assets = ", ".join(key.to_user_string() for key in run.asset_selection or ())
                seconds = (record.end_time or 0.0) - (record.start_time or record.end_time or 0.0)
                print(
                    f"  {'ok' if run.is_success else 'FAILED':>6}  {seconds:6.1f} s  "
                    f"{assets or run.job_name} {run.tags.get('dagster/partition', '')}",
                    flush=True,
                )
        return [record.dagster_run for record in records]


def cancel_unfinished(instance: dg.DagsterInstance) -> None:
    """Cancel the runs and backfills that an earlier, killed command left unfinished."""
    for backfill in instance.get_backfills():
        if backfill.status.name == "REQUESTED":
            instance.update_backfill(backfill.with_status(type(backfill.status).CANCELED))
    for run in instance.get_runs():
        if not run.is_finished:
            instance.report_run_canceled(run)


@contextmanager
def running_ui(environ: Mapping[str, str], directory: Path) -> Iterator[Launcher]:
    """`make dev` with an environment of its own, for the time of the block.

    Args:
        environ: Says which home.
        directory: Gets its log, and a lock: one command at a time works on a home.

    Raises:
        ValueError: Another one works on it.
        RuntimeError: The UI does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (directory / "lock").open("w") as lock, (directory / "dagster.log").open("ab") as log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{directory}: another make tables works on it; wait for it. Where none does, the "
                f"Dagster UI of one that was killed still runs: end it (fuser {lock.name} names it)"
            ) from None
        prepare_home(load_settings(environ))
        with dg.DagsterInstance.get() as instance:
            cancel_unfinished(instance)
            process = subprocess.Popen(
                [sys.executable, "-m", "onerec_dagster.dev", "--port", str(port)],
                cwd=CHECKOUT,
                env=dict(environ),
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno()],  # a UI that outlives this process keeps the lock
            )
            launcher = Launcher(port, instance, process)
            try:
                _wait_for(launcher, directory / "dagster.log")
                yield launcher
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait_for(launcher: Launcher, log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while True:
        try:
            launcher.code_versions()
            return
        except (OSError, RuntimeError):  # those of requests are OSErrors
            if launcher.process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the Dagster UI did not start ({log}):\n{end}") from None
        time.sleep(0.5)
