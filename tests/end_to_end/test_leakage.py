"""A planted signal on the test day changes nothing that is learned."""

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from onerec.artifacts import ArtifactStore
from onerec.datasets import open_source
from tests.end_to_end.small_night import DAY, MODELS, SMALL, content_hashes, environment, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("leakage")]

FIRST = date(2026, 6, 1)


def _export(directory: Path, *, plant: bool) -> Path:
    """Write the small app's log as Parquet files; `plant` rewrites the test day's events.

    In the planted log, on the test day everybody watches and likes the same few items to the end:
    popularity, co-watching, histories and rewards would all show it.
    """
    directory.mkdir(parents=True)
    (directory / "small.yaml").write_text(SMALL)
    source = open_source("simulated", data_dir=None, config=directory / "small.yaml")
    test_day = date.fromisoformat(DAY)
    for offset in range((test_day - FIRST).days + 1):
        day = FIRST + timedelta(days=offset)
        events = source.events(day)
        if plant and day == test_day:
            for name, value in {
                "item_id": events["item_id"][0],
                "watch_seconds": pa.scalar(300.0),
                "is_like": pa.scalar(True),
                "is_follow": pa.scalar(True),
            }.items():
                index = events.column_names.index(name)
                constant = pa.repeat(value, len(events))
                events = events.set_column(index, name, constant)
        pq.write_table(events, directory / f"{day}.parquet")
    pq.write_table(source.items(test_day), directory / "items.parquet")
    config = yaml.safe_load(SMALL)
    own = {
        "events": {"path": str(directory / "{date}.parquet")},
        "items": {"path": str(directory / "items.parquet")},
        "stages": config["stages"],
    }
    (directory / "own.yaml").write_text(yaml.safe_dump(own))
    return directory / "own.yaml"


def _night(home: Path, *, plant: bool) -> dict[str, str]:
    config = _export(home / "log", plant=plant)
    run(environment(home, config, ONEREC_DATASET="own"), home / "log.txt")
    return content_hashes(home, MODELS, dataset="own")


def test_what_happens_on_the_test_day_is_not_learned(tmp_path: Path):
    plain = _night(tmp_path / "plain", plant=False)
    planted = _night(tmp_path / "planted", plant=True)
    assert planted == plain

    def test_split(home: Path) -> bytes:
        store = ArtifactStore(str(home / "own" / "artifacts"))
        return next(
            (store.latest("session_dataset", DAY).path / "split=test").iterdir()
        ).read_bytes()

    # the plant is really there: it changed what is tested
    assert test_split(tmp_path / "plain") != test_split(tmp_path / "planted")
