"""Attributes of users beside the sessions."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.session_dataset.user_attributes import (
    USERS_FILE,
    attribute_names,
    load_user_attributes,
    users_with_attributes,
    write_user_attributes,
)
from tests.core.session_dataset.test_readers import random_rows
from tests.core.training.small import write_session_dataset

DELIVERED = pa.table(
    {
        "country": ["DE", "FR", "IT", "XX"],
        "user_id": ["u1", "u3", "elsewhere", "u1"],
        "plan": ["free", None, "pro", "pro"],
    }
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    rows = random_rows(0, num=40)
    for row, user in zip(rows, ["u3", "u1", "u2", "u1"] * 10, strict=True):
        row["user_id"] = user
    write_session_dataset(tmp_path, rows)
    return tmp_path


def test_every_user_of_the_sessions_has_one_row(directory: Path) -> None:
    assert write_user_attributes(DELIVERED, directory) == 2  # u1 and u3 of the three
    assert pq.read_table(directory / USERS_FILE).to_pylist() == [
        {"user_id": "u1", "country": "DE", "plan": "free"},  # the first of two rows
        {"user_id": "u2", "country": None, "plan": None},
        {"user_id": "u3", "country": "FR", "plan": None},
    ]
    users = users_with_attributes(directory)
    assert users is not None
    assert users.to_pylist() == ["u1", "u2", "u3"]
    assert attribute_names(directory) == ("country", "plan")


def test_rows_come_in_the_order_of_the_users_that_are_asked_for(directory: Path) -> None:
    write_user_attributes(DELIVERED, directory)
    found = load_user_attributes(directory, np.array(["u3", "nobody", "u1"], dtype=object))
    assert found is not None
    assert found.to_pylist() == [
        {"country": "FR", "plan": None},
        {"country": None, "plan": None},
        {"country": "DE", "plan": "free"},
    ]
    assert all(pa.types.is_dictionary(column.type) for column in found.columns)
    nobody = load_user_attributes(directory, np.array([], dtype=object))
    assert nobody is not None
    assert nobody.num_rows == 0


def test_a_source_that_knows_nothing_leaves_no_file(directory: Path) -> None:
    assert write_user_attributes(None, directory) == 0
    assert not (directory / USERS_FILE).exists()
    assert attribute_names(directory) == ()
    assert users_with_attributes(directory) is None
    assert load_user_attributes(directory, np.array(["u1"], dtype=object)) is None
