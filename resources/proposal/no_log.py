"""The message of `make init` where no table has users, items and times."""

import re
from collections.abc import Sequence
from pathlib import Path

from onerec.datasets.file_problems import shown
from resources.proposal.roles import EVENTS, REQUIRED, choose
from resources.proposal.tables import ColumnFacts, FoundTable
from resources.unusable_times import remedy_of_time


def why_no_log(tables: Sequence[FoundTable], not_read: Sequence[str]) -> str:
    """What the likeliest table lacks, which files were not read, and which columns were seen."""
    table = max(tables, key=lambda t: sum(bool(_called(t, name)) for name in REQUIRED))
    chosen = choose(table, EVENTS)
    missing = [name for name in REQUIRED if name not in chosen]
    file = Path(table.files[0].path).name
    lacks = f"{file} has a header and no row"
    if any(c.known for c in table.columns):
        named = {name: _called(table, name) for name in missing}
        about = [_why_not(columns[0], name) for name, columns in named.items() if columns]
        lacks = ": ".join([f"{file} has no column that can be {', '.join(missing)}", *about])
    seen = "; ".join(
        f"{Path(t.files[0].path).name}: {shown(', '.join(c.name for c in t.columns))}"
        for t in tables
    )
    texts = [
        "no table has a user, an item and a time",
        *not_read,
        lacks,
        f"Columns are: {seen}",
        "Correct the files, or write the YAML file by hand, see docs/own_data.md",
    ]
    return ". ".join(texts)


def _called(table: FoundTable, contract: str) -> list[ColumnFacts]:
    """Columns that are called as those of a role are."""
    names = next(role.names for role in EVENTS if role.contract == contract)
    return [c for c in table.columns if re.fullmatch(names, c.words)]


def _why_not(column: ColumnFacts, contract: str) -> str:
    if not column.known:
        return f"column {column.name!r} is empty"
    if contract == "event_time" and column.times:
        value = column.no_times[0]
        return (
            f"{column.times:.0%} of the values in column {column.name!r} are times, and others are "
            f"not, e.g. {shown(value)!r}: {remedy_of_time(value)}"
        )
    value = shown(column.frequent[0])
    start = f"column {column.name!r} holds {value!r}"
    if column.is_nested:
        single = "a row for each element" if column.kind.endswith("]") else "the field that is it"
        return f"{start}, {shown(column.kind)}: write {single} to a column of its own"
    if contract != "event_time":
        return start
    return f"{start}: {remedy_of_time(column.frequent[0])}"
