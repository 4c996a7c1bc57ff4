"""`kill -9` in a dbt build, an artifact write and a training; each time the night is run again."""

from pathlib import Path

import psutil
import pytest

from onerec.artifacts import ArtifactStore
from tests.end_to_end.small_night import (
    DAY,
    EVERYTHING,
    SMALL,
    content_hashes,
    environment,
    kill_when,
    run,
    start,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("night")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: Path) -> dict[str, str]:
    home = tmp_path_factory.mktemp("undisturbed")
    run(environment(home, config), home / "log.txt")
    return content_hashes(home)


def _dbt_is_building(family: list[psutil.Process]) -> bool:
    def building(process: psutil.Process) -> bool:
        try:
            # old enough to be past its start-up and inside the models
            return "build" in process.cmdline() and process.cpu_times().user > 2.0
        except psutil.Error:
            return False

    return any(building(p) for p in family)


def test_a_night_killed_three_times_ends_like_an_undisturbed_one(
    tmp_path: Path, config: Path, undisturbed: dict[str, str]
):
    env, log = environment(tmp_path, config), tmp_path / "log.txt"
    artifacts = tmp_path / "simulated" / "artifacts"
    store = ArtifactStore(str(artifacts))

    def visible() -> list[str]:
        return [name for name in EVERYTHING if DAY in store.partitions(name)]

    kill_when(start(env, log), _dbt_is_building)
    assert visible() == []

    staging = artifacts / ".staging" / "item_embeddings" / DAY
    kill_when(start(env, log), lambda _: any(staging.glob("*")))
    assert any(staging.glob("*")), "the kill came after the artifact was published"
    assert visible() == ["session_dataset"]

    scratch = artifacts / ".scratch" / "pretrained_checkpoint" / DAY
    kill_when(start(env, log), lambda _: any(scratch.rglob("*.ckpt")))
    assert "pretrained_checkpoint" not in visible()

    run(env, log)
    assert content_hashes(tmp_path) == undisturbed
    left = [p for p in (artifacts / ".staging").rglob("*") if p.is_file()]
    assert left == []
