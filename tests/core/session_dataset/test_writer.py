"""What is written, whatever the batches; which day is which split; what the manifest says."""

import dataclasses
import doctest
import json
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from onerec.config import SessionConfig
from onerec.schema import SESSION_DATASET, SPLITS
from onerec.session_dataset import padding, splits, user_sequences, usual_volume, writer
from onerec.session_dataset.reader import read_session_config, read_sessions
from onerec.session_dataset.splits import split_of, validation_day, window
from onerec.session_dataset.writer import write_session_dataset, write_split
from tests.core.session_dataset.test_readers import TEST_DAY, random_rows

VALID_DAY = TEST_DAY - timedelta(days=1)
COLUMNS = [name for name in SESSION_DATASET.names if name != "split"]


@pytest.mark.parametrize("module", [padding, splits, user_sequences, usual_volume])
def test_the_examples_of_the_docstrings(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.fixture
def sessions() -> pa.Table:
    return pa.Table.from_pylist(random_rows(0), schema=SESSION_DATASET)


def test_sessions_are_split_by_day_and_counted(tmp_path: Path, sessions: pa.Table) -> None:
    written = write_session_dataset(
        sessions.select(COLUMNS).to_batches(), TEST_DAY, tmp_path, valid_day=VALID_DAY
    )
    rows = sessions.to_pylist()
    for split in SPLITS:
        kept = [row for row in rows if row["split"] == split]
        assert read_sessions(tmp_path, [split], SESSION_DATASET.names).to_pylist() == kept
        assert written.sessions[split] == len(kept) > 0
    good = [row for row in rows if row["is_good"]]
    assert written.funnel == {
        "exposures": sum(len(row["item_ids"]) for row in rows),
        "sessions": len(rows),
        "good sessions": len(good),
        "target items": sum(len(row["target_item_ids"]) for row in good),
    }
    history_items = sum(len(row["history_item_ids"] or []) for row in rows)
    assert written.per_session()["history items per session"] == history_items / len(rows)


def test_batches_of_any_size_are_written_alike(
    tmp_path: Path, sessions: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BATCH_ROWS", 16)
    files = set()
    for rows in (1, 7, 10_000):
        directory = tmp_path / str(rows)
        batches = sessions.select(COLUMNS).to_batches(max_chunksize=rows)
        write_session_dataset(batches, TEST_DAY, directory, valid_day=VALID_DAY)
        files.add(tuple(file.read_bytes() for file in sorted(directory.rglob("*.parquet"))))
    assert len(files) == 1
    assert len(files.pop()) == len(SPLITS)


def test_no_session_at_all_is_three_empty_splits(tmp_path: Path) -> None:
    written = write_session_dataset([], TEST_DAY, tmp_path, valid_day=None)
    assert written.sessions == dict.fromkeys(SPLITS, 0)
    assert written.per_session()["good share"] == 0
    assert read_sessions(tmp_path, SPLITS, SESSION_DATASET.names).equals(
        SESSION_DATASET.empty_table()
    )


def test_a_split_of_its_own_is_read_back(tmp_path: Path, sessions: pa.Table) -> None:
    write_split(sessions, "train", tmp_path)
    assert read_sessions(tmp_path, ["train"], SESSION_DATASET.names).equals(sessions)
    assert read_sessions(tmp_path, ["valid"], ["user_id"]).num_rows == 0


def test_the_last_day_with_sessions_validates() -> None:
    first, last = window(TEST_DAY, 3)
    days = [first + timedelta(n) for n in range(4)]
    assert days[-2:] == [last, TEST_DAY]
    for sessions, splits_of_days in (
        ((5, 5, 5, 5), ["train", "train", "valid", "test"]),
        ((5, 5, 0, 0), ["train", "valid", "train", "test"]),  # the third has no row to be split
        ((0, 0, 0, 5), ["train", "train", "train", "test"]),
    ):
        valid_day = validation_day(dict(zip(days, sessions, strict=True)), TEST_DAY)
        assert split_of(pa.array(days), TEST_DAY, valid_day).to_pylist() == splits_of_days


def test_settings_come_from_the_manifest(tmp_path: Path) -> None:
    built_with = SessionConfig(history_length=7, session_items=2)
    sections = {"sessions": dataclasses.asdict(built_with) | {"a_setting_of_another_version": 1}}
    (tmp_path / "manifest.json").write_text(json.dumps({"config": sections}))
    assert read_session_config(tmp_path) == built_with


def test_time_order_reads_what_it_needs_and_breaks_ties_by_session(tmp_path: Path) -> None:
    rows = random_rows(1)
    for row in rows:
        row["started_at"] = row["started_at"].replace(hour=0)
    write_split(pa.Table.from_pylist(rows[::-1], schema=SESSION_DATASET), "train", tmp_path)
    found = read_sessions(tmp_path, ["train"], ["user_id"], in_time_order=True)
    rows.sort(key=lambda row: (row["started_at"], row["session_id"]))
    assert found.column("session_id").to_pylist() == [row["session_id"] for row in rows]
