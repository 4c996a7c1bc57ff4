"""The processes of a deployment, started from the files of deploy/ and asked through GraphQL."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from resources.settings import CHECKOUT
from tests.deploy.postgres import free_port, postgres

DEPLOY = CHECKOUT / "deploy"
LOCATION = "onerec_dagster.definitions"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
LAUNCH = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
BACKFILL = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
RUNS = """query { runsOrError { ... on Runs { results {
  runId jobName status startTime endTime tags { key value } } } } }"""


class Deployment:
    """Postgres, code server, webserver and daemon.

    Attributes:
        url: Of the webserver.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def graphql(self, query: str, variables: dict | None = None) -> dict:
        """The data of an answer."""
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["data"]

    def launch(self, job: str, day: str, assets: tuple[str, ...] = ()) -> str:
        """Launch a run of a partition; its id."""
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "pipelineName": job,
            "assetSelection": [{"path": [asset]} for asset in assets] or None,
        }
        tags = [{"key": "dagster/partition", "value": day}]
        params = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        launched = self.graphql(LAUNCH, {"p": params})["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def backfill(self, job: str, days: list[str]) -> str:
        """Launch a backfill of a job, as its page in the UI does; its id."""
        where = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}
        selector = {"partitionSetName": f"{job}_partition_set", "repositorySelector": where}
        params = {"selector": selector, "partitionNames": days, "forceSynchronousSubmission": True}
        launched = self.graphql(BACKFILL, {"p": params})["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def runs(self) -> list[dict]:
        """All runs, newest first; tags as a mapping."""
        found = self.graphql(RUNS)["runsOrError"]["results"]
        return [run | {"tags": {t["key"]: t["value"] for t in run["tags"]}} for run in found]

    def ended(self, run_id: str, seconds: float) -> str:
        """Wait for a run; its status."""

        def status() -> str:
            return next(run["status"] for run in self.runs() if run["runId"] == run_id)

        until(lambda: status() in ENDED, f"run {run_id} ends", seconds)
        return status()


@contextmanager
def deployment(directory: Path, env: dict[str, str]) -> Iterator[Deployment]:
    """Start it; logs and workspace stand in `directory`.

    Args:
        directory: Scratch.
        env: Of every process; `ONEREC_POSTGRES_URL` is added.
    """
    grpc, http = free_port(), free_port()
    workspace = directory / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": grpc, "location_name": LOCATION}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    url = f"http://127.0.0.1:{http}"
    with ExitStack() as stack:
        env = env | {
            "ONEREC_POSTGRES_URL": stack.enter_context(postgres()),
            "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
        }
        code = f"dagster code-server start -h 127.0.0.1 -m {LOCATION} -p {grpc}"
        stack.enter_context(process(code.split(), env, directory / "code.log"))
        healthy = ["dagster", "api", "grpc-health-check", "-p", str(grpc)]
        check = [str(DEPLOY / "entrypoint.sh"), *healthy]
        until(
            lambda: (
                subprocess.run(check, env=env, cwd=CHECKOUT, capture_output=True).returncode == 0
            ),
            "the code server is healthy",
        )
        web = f"dagster-webserver -h 127.0.0.1 -p {http} -w {workspace}"
        stack.enter_context(process(web.split(), env, directory / "web.log"))
        daemon = f"dagster-daemon run -w {workspace}"
        stack.enter_context(process(daemon.split(), env, directory / "daemon.log"))
        until(lambda: answers(url), "the webserver answers")
        yield Deployment(url)


@contextmanager
def process(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """A process of the deployment, started as its container or unit starts it."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            [str(DEPLOY / "entrypoint.sh"), *command], cwd=CHECKOUT, env=env,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield started
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def until(reached, what: str, seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(1)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=2):
            return True
    except OSError:
        return False
