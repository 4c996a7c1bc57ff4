"""The UI starts from the README's command; an asset is materialised through its GraphQL."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.small_night import CHECKOUT, SMALL, environment

pytestmark = pytest.mark.slow

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
LOCATIONS = """query { workspaceOrError { ... on Workspace {
  locationEntries { name locationOrLoadError { __typename } } } } }"""
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _graphql(url: str, query: str, variables: dict) -> dict:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["data"]


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running `make dev`, started as a shell's background job is: with SIGINT ignored."""
    home = tmp_path_factory.mktemp("ui")
    (home / "small.yaml").write_text(SMALL)
    port = _free_port()
    command = [sys.executable, "-m", "onerec_dagster.dev", "--port", str(port)]
    with (home / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
            cwd=CHECKOUT,
            env=environment(home, home / "small.yaml", "simulated"),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 400
        while not _ready(url):
            assert process.poll() is None, (home / "log.txt").read_text()[-4000:]
            assert time.monotonic() < deadline, (home / "log.txt").read_text()[-4000:]
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        # the log a user would see holds no deprecation
        assert "DeprecationWarning" not in (home / "log.txt").read_text()


def test_an_asset_is_materialised_through_graphql(ui: str):
    params = {
        "selector": {
            "repositoryLocationName": "onerec_dagster.definitions",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["raw_items"]}],
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "2026-06-01"}]},
    }
    launched = _graphql(ui, LAUNCH, {"params": params})["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    status, deadline = "", time.monotonic() + 150
    while status not in ("SUCCESS", "FAILURE", "CANCELED") and time.monotonic() < deadline:
        time.sleep(1)
        status = _graphql(ui, STATUS, {"id": run_id})["runOrError"]["status"]
    assert status == "SUCCESS"


def test_both_code_locations_load(ui: str):
    entries = _graphql(ui, LOCATIONS, {})["workspaceOrError"]["locationEntries"]
    loaded = {e["name"]: e["locationOrLoadError"]["__typename"] for e in entries}
    assert loaded == {
        "onerec_dagster.definitions": "RepositoryLocation",
        "experiments.definitions": "RepositoryLocation",
    }


@pytest.mark.parametrize(
    ("asset", "described_as"),
    [
        ("pretrained_checkpoint", "day D - 1 chooses the epoch"),
        ("aligned_variant", "A pretrained variant after preference alignment"),
    ],
)
def test_an_asset_of_each_location_opens_in_a_browser(
    ui: str, tmp_path: Path, asset: str, described_as: str
):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine; Debian's package `chromium` has it")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    quiet = "--disable-background-networking --disable-component-update --disable-sync"
    page = subprocess.run(
        [
            chromium,
            *flags.split(),
            *quiet.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            f"{ui}/assets/{asset}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert described_as in page.stdout
