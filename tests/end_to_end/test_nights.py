"""Whole nights: killed and run again, and with a signal planted on the test day."""

from datetime import date, timedelta
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from onerec.artifacts import ArtifactStore, read_json
from onerec.datasets import open_source
from resources import spark_server
from tests.end_to_end.small_night import (
    DAY,
    EVERYTHING,
    MODELS,
    SMALL,
    content_hashes,
    environment,
    hashes_in,
    kill_when,
    run,
    start,
)
from tests.s3_server import s3_bucket

pytestmark = pytest.mark.slow

FIRST = date(2026, 6, 1)


def _export(directory: Path, *, plant: bool) -> Path:
    """Write the small app's log as files of one's own; `plant` rewrites the test day's events.

    In the planted log every other exposure of the test day is one item, watched to the end and
    liked: popularity, co-watching, histories and rewards would all show it.
    """
    directory.mkdir(parents=True)
    (directory / "simulator.yaml").write_text(SMALL)
    source = open_source("simulated", data_dir=None, config=directory / "simulator.yaml")
    test_day = date.fromisoformat(DAY)
    for offset in range((test_day - FIRST).days + 1):
        day = FIRST + timedelta(days=offset)
        events = source.events(day)
        if plant and day == test_day:
            every_other = pa.array([row % 2 == 0 for row in range(len(events))])
            for name, value in {
                "item_id": events["item_id"][0],
                "watch_seconds": pa.scalar(300.0),
                "is_like": pa.scalar(True),
                "is_follow": pa.scalar(True),
            }.items():
                index = events.column_names.index(name)
                planted = pc.if_else(every_other, value, events[name])
                events = events.set_column(index, name, planted)
        pq.write_table(events, directory / f"{day}.parquet")
    pq.write_table(source.items(test_day), directory / "items.parquet")
    own = {
        "events": {"path": str(directory / "{date}.parquet")},
        "items": {"path": str(directory / "items.parquet")},
        "stages": yaml.safe_load(SMALL)["stages"],
    }
    config = directory / "own.yaml"
    config.write_text(yaml.safe_dump(own))
    return config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(tmp_path_factory.mktemp("log") / "plain", plant=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Path:
    """Home of a night that nobody disturbed."""
    home = tmp_path_factory.mktemp("undisturbed")
    run(environment(home, config), home / "log.txt")
    return home


def _dbt_is_building(family: list[psutil.Process]) -> bool:
    def building(process: psutil.Process) -> bool:
        try:
            # old enough to be past its start-up and inside the models
            return "build" in process.cmdline() and process.cpu_times().user > 2.0
        except psutil.Error:
            return False

    return any(building(p) for p in family)


@pytest.mark.timeout(1200)
def test_a_night_killed_three_times_ends_like_an_undisturbed_one(
    tmp_path: Path, config: Path, undisturbed: Path
):
    env, log = environment(tmp_path, config), tmp_path / "log.txt"
    artifacts = tmp_path / "own" / "artifacts"
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
    assert content_hashes(tmp_path) == content_hashes(undisturbed)
    assert [p for p in (artifacts / ".staging").rglob("*") if p.is_file()] == []


@pytest.mark.timeout(600)
def test_what_happens_on_the_test_day_is_not_learned(tmp_path: Path, undisturbed: Path):
    planted = _export(tmp_path / "log", plant=True)
    home = tmp_path / "home"
    home.mkdir()
    run(environment(home, planted), home / "log.txt")
    assert content_hashes(home, MODELS) == content_hashes(undisturbed, MODELS)
    # the plant is really there: what is tested did change
    assert content_hashes(home, ["session_dataset"]) != content_hashes(
        undisturbed, ["session_dataset"]
    )


@pytest.mark.timeout(600)
def test_a_night_on_object_storage_publishes_the_same(
    tmp_path: Path, config: Path, undisturbed: Path
):
    with s3_bucket() as url:
        env = environment(tmp_path / "home", config) | {"ONEREC_ARTIFACTS": url}
        (tmp_path / "home").mkdir()
        run(env, tmp_path / "home" / "log.txt")
        elsewhere = ArtifactStore(url, cache_dir=str(tmp_path / "elsewhere"))
        assert hashes_in(elsewhere) == content_hashes(undisturbed)
    assert not (tmp_path / "home" / "own" / "artifacts").exists()
    cache = tmp_path / "home" / "cache" / "artifacts"
    assert [p for p in (cache / ".staging").rglob("*") if p.is_file()] == []


def _decision(home: Path) -> dict[str, object]:
    champion = ArtifactStore(str(home / "own" / "artifacts")).latest("champion", DAY)
    decided = read_json(champion.path / "champion.json")
    return {name: decided[name] for name in ("numbers", "gates", "challenger_system", "serves")}


@pytest.mark.timeout(900)
def test_a_night_with_sessions_from_spark_is_the_same(
    tmp_path: Path, config: Path, undisturbed: Path
):
    """Only the files of the session dataset differ, and the versions that the champion names."""
    if lacking := spark_server.missing():
        pytest.skip(f"Spark: {lacking}")
    home = tmp_path / "home"
    home.mkdir()
    with spark_server.thrift_server(tmp_path / "spark") as port:
        env = environment(home, config) | {
            "ONEREC_SQL": "spark",
            "ONEREC_LAKE": str(tmp_path / "lake"),
            "ONEREC_SPARK_PORT": str(port),
        }
        run(env, home / "log.txt")
    made_of_it = [name for name in EVERYTHING if name not in ("session_dataset", "champion")]
    assert content_hashes(home, made_of_it) == content_hashes(undisturbed, made_of_it)
    assert _decision(home) == _decision(undisturbed)
    assert any((tmp_path / "lake").glob("onerec/sessions/session_date=*/*.parquet"))
    assert not (home / "own" / "warehouse.duckdb").exists()
