"""The files of deploy/: what can be started without containers is started."""

import configparser
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

import dagster as dg
import pytest
import yaml

from resources.settings import CHECKOUT
from tests.deploy.postgres import free_port, postgres
from tests.end_to_end.small_night import SMALL, environment

DEPLOY = CHECKOUT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OURS = ("code", "webserver", "daemon")


def test_every_service_has_limits_and_a_health_check_and_ours_have_no_privileges() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["healthcheck"]["test"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["user"].split(":")[0] not in ("", "0", "root")
        assert service["cap_drop"] == ["ALL"]
        url = service["environment"]["ONEREC_POSTGRES_URL"]
        assert url.startswith("postgresql+psycopg2://")


def test_units_start_the_same_processes_and_come_back() -> None:
    for name in OURS:
        unit = configparser.ConfigParser(strict=False)
        unit.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
        unit.read(DEPLOY / "systemd" / f"onerec-{name}.service")
        service = unit["Service"]
        assert service["User"] == "onerec"
        assert service["Restart"] == "on-failure"
        assert service["ExecStart"].startswith("/opt/onerec/deploy/entrypoint.sh dagster")
        program = service["ExecStart"].split()[1]
        assert COMPOSE["services"][name]["command"].split()[0] == program
        assert "0.0.0.0" not in service["ExecStart"]


def test_what_applies_everywhere_is_the_same_in_both_instances() -> None:
    deployed = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    here = yaml.safe_load((CHECKOUT / "dagster.yaml").read_text())
    assert {key: deployed[key] for key in here} == here


@pytest.mark.slow
def test_the_instance_keeps_its_runs_in_postgres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres() as url:
        monkeypatch.setenv("ONEREC_POSTGRES_URL", url)
        monkeypatch.setenv("ONEREC_HOME", str(tmp_path / "home"))
        (tmp_path / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())

        @dg.asset(pool="warehouse")
        def made() -> int:
            return 1

        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            result = dg.materialize([made], instance=instance)
            assert result.success
        with dg.DagsterInstance.from_config(str(tmp_path)) as again:
            run = again.get_run_by_id(result.run_id)
            assert run is not None
            assert run.is_success
            assert again.get_latest_materialization_event(dg.AssetKey("made")) is not None


LAUNCH = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def ask(url: str, query: str, variables: dict) -> dict:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["data"]


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


@pytest.mark.slow
@pytest.mark.timeout(560)
def test_code_server_webserver_and_daemon_make_a_run_on_postgres(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    grpc, http = free_port(), free_port()
    workspace = tmp_path / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": grpc, "location_name": "onerec_dagster.definitions"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    with ExitStack() as stack:
        env = environment(tmp_path / "home", tmp_path / "small.yaml", "simulated")
        env["ONEREC_POSTGRES_URL"] = stack.enter_context(postgres())
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        code = "dagster code-server start -h 127.0.0.1 -m onerec_dagster.definitions -p"
        stack.enter_context(process([*code.split(), str(grpc)], env, tmp_path / "code.log"))
        healthy = ["dagster", "api", "grpc-health-check", "-p", str(grpc)]
        check = [str(DEPLOY / "entrypoint.sh"), *healthy]
        until(
            lambda: (
                subprocess.run(check, env=env, cwd=CHECKOUT, capture_output=True).returncode == 0
            ),
            "the code server is healthy",
        )
        web = f"dagster-webserver -h 127.0.0.1 -p {http} -w {workspace}"
        stack.enter_context(process(web.split(), env, tmp_path / "web.log"))
        daemon = f"dagster-daemon run -w {workspace}"
        stack.enter_context(process(daemon.split(), env, tmp_path / "daemon.log"))
        url = f"http://127.0.0.1:{http}"
        until(lambda: answers(url), "the webserver answers")
        selector = {
            "repositoryLocationName": "onerec_dagster.definitions",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["raw_items"]}],
        }
        tags = [{"key": "dagster/partition", "value": "2026-06-01"}]
        params = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        launched = ask(url, LAUNCH, {"p": params})["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = {"id": launched["run"]["runId"]}
        ended = ("SUCCESS", "FAILURE", "CANCELED")
        until(lambda: ask(url, STATUS, run)["runOrError"]["status"] in ended, "the run ends", 200)
        assert ask(url, STATUS, run)["runOrError"]["status"] == "SUCCESS"
    # the instance's settings came with the deployment, and its state is not in SQLite
    dagster_home = tmp_path / "home" / "simulated" / "dagster"
    assert (dagster_home / "dagster.yaml").read_text() == (DEPLOY / "dagster.yaml").read_text()
    assert not list(dagster_home.rglob("runs.db"))
