"""The files of deploy/: what can be started without containers is started."""

import configparser
import os
import subprocess
from pathlib import Path

import dagster as dg
import pytest
import yaml
from sqlalchemy import make_url

from resources.settings import CHECKOUT
from tests.deploy.postgres import postgres
from tests.deploy.processes import DEPLOY, deployment
from tests.end_to_end.small_night import SMALL, environment

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


def test_every_variable_of_the_file_beside_it_reaches_our_containers() -> None:
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["env_file"] == [{"path": ".env", "required": False}]
        for variable, value in service["environment"].items():
            # another value than that of the file would win over it
            assert value.startswith(f"${{{variable}:-") or variable == "ONEREC_POSTGRES_URL"
    assert "**/.env" in (CHECKOUT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize(
    ("password", "status"), [("a/b+c=", 0), ("a%40b", 0), ("a@b", 2), ("a@b@c", 2)]
)
def test_a_password_that_would_change_the_url_is_refused(
    tmp_path: Path, password: str, status: int
) -> None:
    url = f"postgresql+psycopg2://onerec:{password}@postgres:5432/dagster"
    env = os.environ | {"ONEREC_HOME": str(tmp_path), "ONEREC_POSTGRES_URL": url}
    started = subprocess.run(
        [str(DEPLOY / "entrypoint.sh"), "true"], env=env, capture_output=True, text=True
    )
    assert started.returncode == status, started.stderr
    assert ("POSTGRES_PASSWORD" in started.stderr) is bool(status)
    assert password not in started.stderr
    if not status:
        assert make_url(url).host == "postgres"


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
    del here["event_log_storage"]  # in Postgres, which stores batches by itself
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


@pytest.mark.slow
@pytest.mark.timeout(560)
def test_code_server_webserver_and_daemon_make_a_run_on_postgres(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    env = environment(tmp_path / "home", tmp_path / "small.yaml", "simulated")
    with deployment(tmp_path, env) as started:
        run = started.launch("__ASSET_JOB", "2026-06-01", assets=("raw_items",))
        assert started.ended(run, seconds=200) == "SUCCESS"
    # the instance's settings came with the deployment, and its state is not in SQLite
    dagster_home = tmp_path / "home" / "simulated" / "dagster"
    assert (dagster_home / "dagster.yaml").read_text() == (DEPLOY / "dagster.yaml").read_text()
    assert not list(dagster_home.rglob("runs.db"))
