"""The table of users beside a log, and which of its columns the generator may learn from."""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

import pyarrow.compute as pc

from onerec.datasets.own_config import FEATURE_NAME
from onerec.session_dataset.user_attributes import FEWEST_USERS
from resources.proposal.roles import EVENTS, REQUIRED, ChosenColumn, choose, ids_of, short, unused
from resources.proposal.tables import MOST, ColumnFacts, FoundTable

OF_USERS = (
    r"\b(users?|customers?|members?|visitors?|accounts?|clients?|persons?|people|readers?|"
    r"viewers?|profiles?)\b"
)
"""How files of users are called."""
MOST_NUMBERS = 30
"""Different numbers of a column that are still categories: codes of jobs, not ages or incomes."""
_LAST = r"\b(last|latest|recent|recency|since last)\b"
_DONE = (
    r"\b(likes?|liked|follows?|followers?|following|fans?|friends?|comments?|shares?|orders?|"
    r"purchases?|bought|views?|viewed|plays?|played|clicks?|sessions?|visits?|logins?|watch|"
    r"watched|reviews?|ratings?|posts?|uploads?|events?|activity|active|lowactive|inactive|spent|"
    r"spend|spending|revenue|ltv|lifetime|churn|churned|engagement|streak|downloads?|listens?|"
    r"count|counts|cnt|frequency)\b"
)
SNAPSHOT = "it may know the day that a model is tested on"


@dataclass(frozen=True, kw_only=True)
class FoundUsers:
    """A table of users.

    Attributes:
        table: Its files and columns.
        user_id: The column of the id.
        attributes: What may be learned from, by the name that each gets.
        left_out: The other columns, each with the reason.
    """

    table: FoundTable
    user_id: ChosenColumn
    attributes: dict[str, ChosenColumn]
    left_out: tuple[tuple[ColumnFacts, str], ...]


def find_users(
    tables: Iterable[FoundTable], log: FoundTable, logged: ChosenColumn
) -> tuple[FoundUsers | None, tuple[str, ...]]:
    """The table with one row for each user of the log; of several the one that says most of them.

    Args:
        tables: Those beside the log.
        log: The events.
        logged: Their column of users.

    Returns:
        The table, and notes about others that look like it but are not of the log's users.
    """
    ids = ids_of(log, logged.column.name)
    if ids is None:
        return None, ()
    found, notes = [], []
    for table in tables:
        key = _key(table, logged)
        if key is None:
            continue
        if key.distinct < MOST * key.known:
            notes.append(
                f"{table.files[0].path} looks like a table of users, but has {key.known:,} rows of "
                f"{key.distinct:,} users: write one row for each, and name it in the section users"
            )
            continue
        own = ids_of(table, key.name)
        shared = pc.sum(pc.is_in(own, value_set=ids)).as_py() or 0
        if shared:
            why = f"one row a user; {shared:,} of them are in the first rows of the log"
            found.append(_described(table, ChosenColumn(contract="user_id", column=key, why=why)))
        else:
            notes.append(
                f"{table.files[0].path} looks like a table of users, but none of the ids in its "
                f"column {key.name} is among the first rows of the log: {short(key.frequent[0])!r} "
                f"there, {short(logged.column.frequent[0])!r} in the log. Write them alike"
            )
    return max(found, key=lambda users: len(users.attributes), default=None), tuple(notes)


def _key(table: FoundTable, logged: ChosenColumn) -> ColumnFacts | None:
    """The column of ids in a table of users; None if it is another table."""
    is_called_users = re.search(OF_USERS, _called(table.files[0].path)) is not None
    roles = choose(table, EVENTS)
    is_log = set(REQUIRED) <= set(roles)
    if is_log or "item_id" in roles or any(c.vectors for c in table.columns):
        return None
    named = [c for c in table.columns if c.name == logged.column.name and table.has_header]
    named += [roles["user_id"].column] if "user_id" in roles else []
    if is_called_users:
        named += [c for c in table.columns if c.words == "id"]
        named += [] if table.has_header else list(table.columns[:1])
    keys = [c for c in named if c.known and not c.is_nested and ids_of(table, c.name) is not None]
    one_row_each = next((c for c in keys if c.distinct >= MOST * c.known), None)
    return one_row_each or (keys[0] if keys and is_called_users else None)


def _called(path: str) -> str:
    """The words of a file's name; of a part or a day, those of its directory."""
    *_, above, name = ["", *path.lower().split("/")]
    words = re.sub(r"[^a-z]+", " ", name.partition(".")[0]).strip()
    return re.sub(r"[^a-z]+", " ", above) if words in ("", "part", "data") else words


def _described(table: FoundTable, user_id: ChosenColumn) -> FoundUsers:
    attributes: dict[str, ChosenColumn] = {}
    left_out = []
    for column in unused(table, {"user_id": user_id}):
        if (reason := why_left_out(column)) is not None:
            left_out.append((column, reason))
            continue
        name = _name(column, attributes)
        values = ", ".join(short(value) for value in column.frequent[:6])
        attributes[name] = ChosenColumn(contract=name, column=column, why=f"values {values}")
    return FoundUsers(table=table, user_id=user_id, attributes=attributes, left_out=tuple(left_out))


def why_left_out(column: ColumnFacts) -> str | None:
    """Why the generator should not learn from a column of users; None if it may.

    What is learned is a vector for each value of several users, and the table is a snapshot: what
    counts what users did knows the days after it.
    """
    if not column.known:
        return "empty"
    if column.is_nested or column.vectors:
        return "lists or records: write a column of its own for each value"
    if after := after_the_fact(column.words):
        return after
    if column.distinct == 1:
        return "one value only"
    is_number = column.numbers >= MOST and column.distinct > MOST_NUMBERS
    if column.times >= MOST:
        return "times: write a column of years, say"
    if is_number and column.distinct < column.known:
        return "many different numbers: write a column of ranges, 30-39 say"
    if column.distinct * FEWEST_USERS > column.known:
        return f"nearly unique: the generator learns values of at least {FEWEST_USERS} users"
    return None


def after_the_fact(words: str) -> str | None:
    """What a column counts by its name that users did, and when; None if it seems to count nothing.

    >>> after_the_fact("last login")
    'by its name it says when users were last there: it may know the day that a model is tested on'
    >>> after_the_fact("age range")
    """
    if re.search(_LAST, words):
        return f"by its name it says when users were last there: {SNAPSHOT}"
    if re.search(_DONE, words):
        return f"by its name it counts what users did: {SNAPSHOT}"
    return None


def _name(column: ColumnFacts, taken: dict[str, ChosenColumn]) -> str:
    """What a request calls the attribute."""
    name = column.words.replace(" ", "_")[:32]
    if re.fullmatch(FEATURE_NAME, name) and name not in ("user_id", *taken):
        return name
    return next(n for k in count(len(taken) + 1) if (n := f"attribute_{k}") not in taken)


def newest_files(table: FoundTable, day: Sequence[str]) -> FoundTable:
    """Of a table with files of days those of the newest one: attributes have no day.

    Args:
        table: The table.
        day: The text of the day in the path of each file.
    """
    newest = max(day)
    kept = tuple(file for file, of in zip(table.files, day, strict=True) if of == newest)
    return replace(table, files=kept)
