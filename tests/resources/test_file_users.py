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


def test_columns_become_texts(tmp_path: Path) -> None:
    write_log(tmp_path)
    pd.DataFrame(
        {
            "uid": [1, 2, 3, None],
            "country": ["DE", " ", "FR", "IT"],
            "since": ["2019", None, "2021", "2022"],
            "plan": [" pro ", "a\x1fyear=1", "free", "pro"],
            "email": ["a@b", "c@d", "e@f", "g@h"],
        }
    ).to_csv(tmp_path / "users.csv", index=False)
    features = {"plan": "plan", "country": "country", "year": "since"}
    users = {"path": "users.csv", "columns": {"user_id": "uid"}, "features": features}
    found = opened(tmp_path, events=section("log.parquet"), users=users).user_attributes()
    assert found is not None
    assert found.to_pylist() == [
        {"user_id": "1", "plan": "pro", "country": "DE", "year": "2019"},
        {"user_id": "2", "plan": "a year=1", "country": None, "year": None},  # no other attribute's
        {"user_id": "3", "plan": "free", "country": "FR", "year": "2021"},
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


def test_how_values_of_parquet_files_are_written(tmp_path: Path) -> None:
    write_log(tmp_path)
    row = {"size": 1.0, "since": pd.Timestamp("2020-01-01"), "member": True, "age": 34}
    pd.DataFrame([{"user_id": "u", **row}]).to_parquet(tmp_path / "users.parquet")
    users = {"path": "users.parquet", "features": list(row)}
    found = opened(tmp_path, events=section("log.parquet"), users=users).user_attributes()
    assert found is not None
    texts = {"size": "1.0", "since": "2020-01-01 00:00:00", "member": "true", "age": "34"}
    assert found.to_pylist() == [{"user_id": "u", **texts}]
