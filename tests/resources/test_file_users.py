"""Attributes of users in one's own files."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from tests.resources.own_files import NOON_MS, events_frame, opened, section


def write_log(directory: Path) -> None:
    events_frame([NOON_MS]).to_parquet(directory / "log.parquet")


def test_without_a_section_there_are_none(tmp_path: Path) -> None:
    write_log(tmp_path)
    assert opened(tmp_path, events=section("log.parquet")).user_attributes() is None


def test_columns_become_texts_and_numbers_buckets(tmp_path: Path) -> None:
    write_log(tmp_path)
    pd.DataFrame(
        {
            "uid": [1, 2, 3, None],
            "country": ["DE", " ", "FR", "IT"],
            "since": ["2019", None, "2021", "2022"],
            "spent": ["100", "3", "none", "1"],
            "email": ["a@b", "c@d", "e@f", "g@h"],
        }
    ).to_csv(tmp_path / "users.csv", index=False)
    features = {"country": "country", "year": "since"}
    users = {
        "path": "users.csv",
        "columns": {"user_id": "uid"},
        "features": {**features, "spent": {"column": "spent", "numeric": True}},
    }
    found = opened(tmp_path, events=section("log.parquet"), users=users).user_attributes()
    assert found is not None
    assert found.to_pylist() == [
        {"user_id": "1", "country": "DE", "year": "2019", "spent": "13"},  # 2 log2 100 = 13.3
        {"user_id": "2", "country": None, "year": None, "spent": "3"},  # 2 log2 3 = 3.2
        {"user_id": "3", "country": "FR", "year": "2021", "spent": None},
    ]
    assert all(f.type == pa.string() for f in found.schema)


def test_a_list_names_columns_that_keep_their_names(tmp_path: Path) -> None:
    write_log(tmp_path)
    for number, frame in enumerate(({"plan": ["free"]}, {"plan": ["pro"], "team": ["x"]})):
        pd.DataFrame({"user_id": [f"u{number}"], **frame}).to_parquet(
            tmp_path / f"u{number}.parquet"
        )
    users = {"path": "u*.parquet", "features": ["plan", "team"]}
    found = opened(tmp_path, events=section("log.parquet"), users=users).user_attributes()
    assert found is not None
    assert found.to_pylist() == [
        {"user_id": "u0", "plan": "free", "team": None},  # a file may lack one
        {"user_id": "u1", "plan": "pro", "team": "x"},
    ]
