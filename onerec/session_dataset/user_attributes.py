"""Attributes of users beside the sessions: what the source knows of them, as texts.

They are a snapshot of the moment when the session dataset was made, and no facts of the time of a
session: an attribute that counts what a user did may have counted what happened later.

Shapes: U users.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onerec.schema import SPLITS, USERS
from onerec.session_dataset.reader import read_sessions

USERS_FILE = "users.parquet"
USER = USERS.field("user_id")
COLUMN = "attributes"
FEWEST_USERS = 5
"""A value of fewer users is unknown: too few to learn from, and no checkpoint names one user's."""


def write_user_attributes(delivered: pa.Table | None, directory: Path) -> int:
    """Write `users.parquet`: a row for every user of the sessions, in order of their ids.

    Args:
        delivered: `user_id` and text columns; of several rows of a user the first counts, values of
            users without a row are null. None, or without an attribute: the source knows nothing of
            users, and no file is written.
        directory: Files of a `session_dataset` artifact, its sessions among them.

    Returns:
        How many users of the sessions have a row.
    """
    if delivered is None or delivered.column_names == [USER.name]:
        return 0
    users = read_sessions(directory, SPLITS, ["user_id"]).column("user_id").unique().sort()
    found = _rows_of(delivered, users)
    pq.write_table(found.set_column(0, USER, users), directory / USERS_FILE)
    return len(found) - found.column(0).null_count


def load_user_attributes(directory: Path, user_ids: np.ndarray) -> pa.Table | None:
    """What a session dataset knows of some users.

    Args:
        directory: Files of a `session_dataset` artifact.
        user_ids: (U,).

    Returns:
        U rows in the order of the ids, for every attribute a column of texts (numbered ones, which
        take a fraction of the memory), null where it is unknown; None where the source knew nothing
        of users.
    """
    if not (directory / USERS_FILE).exists():
        return None
    names = list(attribute_names(directory))
    known = pq.read_table(directory / USERS_FILE, read_dictionary=names)
    return _rows_of(known, pa.array(user_ids, pa.string())).drop_columns(USER.name)


def take_rows(attributes: pa.Table | None, rows: np.ndarray) -> pa.Table | None:
    """Attributes of some users, by row numbers or (U,) bools; None where nothing is known."""
    if attributes is None:
        return None
    chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    return attributes.take(pa.array(chosen, pa.int64()))


def with_attributes(table: pa.Table, attributes: pa.Table | None) -> pa.Table:
    """A table of users, for a shard say, with a column of their attributes where they are known."""
    if attributes is None:
        return table
    return table.append_column(COLUMN, attributes.to_struct_array())


def split_attributes(table: pa.Table) -> tuple[pa.Table, pa.Table | None]:
    """What `with_attributes` joined."""
    if COLUMN not in table.column_names:
        return table, None
    return table.drop_columns(COLUMN), pa.Table.from_struct_array(table.column(COLUMN))


def users_with_attributes(directory: Path) -> pa.ChunkedArray | None:
    """Ids of the users that a session dataset keeps attributes of; None without any."""
    file = directory / USERS_FILE
    return pq.read_table(file, columns=[USER.name]).column(USER.name) if file.exists() else None


def attribute_names(directory: Path) -> tuple[str, ...]:
    """Names of the attributes that a session dataset has, in order; none without the file."""
    if not (directory / USERS_FILE).exists():
        return ()
    return tuple(n for n in pq.read_schema(directory / USERS_FILE).names if n != USER.name)


def _rows_of(table: pa.Table, users: pa.Array) -> pa.Table:
    """A row for every user: their first one, nulls where there is none."""
    names = [USER.name, *(n for n in table.column_names if n != USER.name)]
    ids = table.column(USER.name).cast(pa.string()).combine_chunks()
    return table.select(names).take(pc.index_in(users, value_set=ids))
