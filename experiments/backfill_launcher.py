"""Runs and backfills launched through a Dagster UI of its own, as from a browser.

They go through the instance's queue, pools and retries.
"""

import fcntl
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resources.settings import CHECKOUT

LAUNCH_RUN = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
LAUNCH_BACKFILL = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
CANCEL_BACKFILL = """mutation($id: String!) { cancelPartitionBackfill(backfillId: $id) {
  __typename ... on PythonError { message } } }"""
CANCEL_RUNS = """mutation($ids: [String!]!) {
  terminateRuns(runIds: $ids, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) {
  __typename ... on PythonError { message } } }"""
RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
  runId status tags { key value } stepStats { stepKey status startTime endTime } } } } }"""
BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } } }"""
REQUESTED_BACKFILLS = """query { partitionBackfillsOrError(status: REQUESTED) {
  ... on PartitionBackfills { results { id } } } }"""
CODE_VERSIONS = "query { assetNodes { assetKey { path } opVersion } }"
ENDED_RUN = {"SUCCESS", "FAILURE", "CANCELED"}
ENDED_BACKFILL = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
STARTS_WITHIN_SECONDS = 240
POLL_SECONDS = 2.0


class DagsterUI:
    """A running UI, through its GraphQL API.

    Args:
        url: Where it listens, on this machine.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._shown: set[tuple[str, str]] = set()

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """Run a GraphQL query and return its data.

        Raises:
            RuntimeError: The answer holds an error.
        """
        body = json.dumps({"query": query, "variables": variables}).encode()
        header = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", body, header)
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = json.load(response)
        data = answer.get("data") or {}
        failed = [part["message"] for part in data.values() if "message" in part]
        if failed or answer.get("errors"):
            raise RuntimeError(f"Dagster refused: {str(failed or answer['errors'])[:2000]}")
        return data

    def code_versions(self) -> dict[str, str]:
        """Present code version by asset, of those that have one."""
        nodes = self.query(CODE_VERSIONS)["assetNodes"]
        return {"/".join(n["assetKey"]["path"]): n["opVersion"] for n in nodes if n["opVersion"]}

    def cancel_unfinished(self, before: float) -> None:
        """Cancel the runs and backfills that an earlier, killed command left unfinished.

        Args:
            before: Unix seconds; runs that changed later are not an earlier command's.
        """
        for left in self.query(REQUESTED_BACKFILLS)["partitionBackfillsOrError"]["results"]:
            self.query(CANCEL_BACKFILL, id=left["id"])
        unfinished = ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]
        ids = [run["runId"] for run in self._runs(statuses=unfinished, updatedBefore=before)]
        if ids:
            self.query(CANCEL_RUNS, ids=ids)

    def run_job(
        self, location: str, job: str, tags: Mapping[str, str], assets: Sequence[str] = ()
    ) -> bool:
        """Run a job, or some assets of it, to its end; returns whether it succeeded."""
        selected = {"assetSelection": [{"path": [name]} for name in assets]} if assets else {}
        selector = {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "pipelineName": job,
            **selected,
        }
        given = [{"key": key, "value": value} for key, value in tags.items()]
        params = {
            "selector": selector,
            "runConfigData": {},
            "executionMetadata": {"tags": given},
        }
        run_id = self.query(LAUNCH_RUN, params=params)["launchRun"]["run"]["runId"]
        while True:
            (run,) = self._show_steps(runIds=[run_id])
            if run["status"] in ENDED_RUN:
                return run["status"] == "SUCCESS"
            time.sleep(POLL_SECONDS)

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
            found = self.query(BACKFILL, id=backfill_id)
            self._show_steps(tags=[{"key": "dagster/backfill", "value": backfill_id}])
            if found["partitionBackfillOrError"]["status"] in ENDED_BACKFILL:
                return
            time.sleep(POLL_SECONDS)

    def _runs(self, **wanted: Any) -> list[dict[str, Any]]:
        return self.query(RUNS, filter=wanted)["runsOrError"]["results"]

    def _show_steps(self, **wanted: Any) -> list[dict[str, Any]]:
        """Print the steps of some runs that have ended and were not shown yet."""
        runs = self._runs(**wanted)
        for run in runs:
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            partition = tags.get("dagster/partition", "")
            for step in run["stepStats"]:
                key = run["runId"], step["stepKey"]
                if key in self._shown or not (step["startTime"] and step["endTime"]):
                    continue
                self._shown.add(key)
                mark = "ok" if step["status"] == "SUCCESS" else "FAILED"
                seconds = step["endTime"] - step["startTime"]
                print(f"  {mark:>6}  {seconds:6.1f} s  {step['stepKey']} {partition}", flush=True)
        return runs


@contextmanager
def running_ui(environ: Mapping[str, str], directory: Path) -> Iterator[DagsterUI]:
    """`make dev` with an environment of its own, for the time of the block.

    Args:
        environ: Says which home.
        directory: Gets its log, and a lock: one command at a time works on a home.

    Raises:
        ValueError: Another one works on it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began, log = time.time(), directory / "dagster.log"
    with (directory / "lock").open("w") as lock, log.open("ab") as output:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{directory}: another make tables works on it; wait for it") from None
        process = subprocess.Popen(
            [sys.executable, "-m", "onerec_dagster.dev", "--port", str(port)],
            cwd=CHECKOUT,
            env=dict(environ),
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],  # a UI that outlives this process keeps the lock
        )
        try:
            ui = DagsterUI(f"http://127.0.0.1:{port}")
            _wait_for(ui, process, log)
            ui.cancel_unfinished(began)
            yield ui
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(ui: DagsterUI, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while True:
        try:
            ui.code_versions()
            return
        except (OSError, RuntimeError):
            if process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the Dagster UI did not start ({log}):\n{end}") from None
        time.sleep(0.5)
