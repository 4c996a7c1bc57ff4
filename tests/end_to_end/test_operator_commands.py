"""An operator's work in one go: a nightly run, a failed one, and every command on their state."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from onerec.artifacts import ArtifactStore, read_json
from tests.end_to_end.small_night import CHECKOUT, DAY, SMALL, environment, run

pytestmark = pytest.mark.slow

NEXT_DAY = "2026-06-07"


class Operator:
    """A home, and the commands over it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.serving = home / "simulated" / "serving" / "current"
        self.store = ArtifactStore(str(home / "simulated" / "artifacts"))
        (home / "good.yaml").write_text(SMALL)
        strict = SMALL.replace("sessions: {", "sessions: {min_positive_share: 0.98, ")
        (home / "strict.yaml").write_text(strict)

    def environment(self, config: str = "good.yaml") -> dict[str, str]:
        return environment(self.home, self.home / config, "simulated")

    def command(self, *arguments: str, config: str = "good.yaml") -> tuple[int, str]:
        """Exit status and what it printed."""
        ended = subprocess.run(
            [sys.executable, "-m", "onerec_dagster", *arguments], cwd=CHECKOUT,
            env=self.environment(config), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        return ended.returncode, ended.stdout + ended.stderr

    def served(self) -> dict:
        return json.loads((self.serving / "served.json").read_text())

    def users(self) -> set[str]:
        table = pq.read_table(self.serving / "recommendations.parquet", columns=["user_id"])
        return set(table.column(0).to_pylist())


@pytest.mark.timeout(1200)
def test_a_failed_night_is_served_resumed_and_cleaned_up_after(tmp_path: Path) -> None:
    op = Operator(tmp_path)
    run(op.environment(), tmp_path / "log.txt")
    assert op.served()["degraded"] is None
    first = op.served()["model_version"]

    # a blocking check fails: the terminal says why, and the day is served nevertheless
    status, text = op.command("rerun", NEXT_DAY, config="strict.yaml")
    assert status == 1, text
    assert "failed" in text
    assert "min_positive_share" in text
    assert "python -m onerec_dagster resume" in text
    assert op.served()["day"] == NEXT_DAY
    assert op.served()["model_version"] == first
    assert "check" in op.served()["degraded"]

    # it goes on from where it failed, ingest is not made again, and replaces what was degraded
    status, text = op.command("resume")
    assert status == 0, text
    assert "raw_events\n" not in text
    assert op.served()["degraded"] is None
    assert op.store.partitions("nightly_report") == [DAY, NEXT_DAY]

    # commands on the champion
    status, text = op.command("promote", "--reason", "to see it")
    assert status == 0, text
    decision = read_json(op.store.latest("champion", NEXT_DAY).path / "champion.json")
    assert decision["serves"] == "challenger"
    assert op.served()["model_version"] == decision["challenger"]["version"]
    status, text = op.command("rollback", "--to", DAY)
    assert status == 0, text
    assert op.served()["model_version"] == first

    # pruning: first only in words
    before = list(op.store.versions("champion"))
    status, text = op.command("prune", "--keep-nights", "1", "--keep-champions", "1")
    assert status == 0, text
    assert "would remove" in text
    assert list(op.store.versions("champion")) == before
    status, text = op.command("prune", "--keep-nights", "1", "--keep-champions", "1", "--yes")
    assert status == 0, text
    assert len(list(op.store.versions("champion"))) < len(before)

    # a user is forgotten everywhere, and everything still verifies
    user = sorted(op.users())[0]
    status, text = op.command("forget", user)
    assert status == 0, text
    assert "still holds them" in text
    assert user not in op.users()
    for file in (tmp_path / "simulated").rglob("*.parquet"):
        if "user_id" in pq.read_schema(file).names:
            assert user not in pq.read_table(file, columns=["user_id"]).column(0).to_pylist(), file
    for page in (tmp_path / "simulated").rglob("user_examples.md"):
        assert f"## {user}\n" not in page.read_text(), page
    status, text = op.command("doctor")
    assert status == 0, text
    assert "PROBLEM" not in text
