"""Parts of one log that have more columns than others: of earlier and of later days."""

import re
from collections.abc import Iterable
from dataclasses import replace

from onerec.datasets.data_file import DataFile
from resources.proposal.roles import EVENTS, REQUIRED, choose
from resources.proposal.tables import FoundTable


def join_parts(tables: Iterable[FoundTable]) -> list[FoundTable]:
    """The tables, the largest first; a log and its parts that lack some of its columns are one.

    Parts are called alike but for numbers, and have the log's users, items and times: of
    `table_1.csv` and `table_2.csv` the second may hold attributes of users.
    """
    joined: list[FoundTable] = []
    for table in sorted(tables, key=lambda table: -len(_names(table))):
        at = next((n for n, other in enumerate(joined) if _is_part(table, other)), None)
        if at is None:
            joined.append(table)
        else:
            files = sorted((*joined[at].files, *table.files), key=lambda file: file.path)
            joined[at] = replace(joined[at], files=tuple(files))
    return sorted(joined, key=_size, reverse=True)


def _is_part(table: FoundTable, of: FoundTable) -> bool:
    mine, its = table.files[0], of.files[0]
    is_written_alike = (mine.format, mine.style) == (its.format, its.style)
    if not is_written_alike or _called(table.files) != _called(of.files):
        return False
    chosen = choose(of, EVENTS)
    needed = {chosen[name].column.name for name in REQUIRED if name in chosen}
    return len(needed) == len(REQUIRED) and needed <= _names(table) < _names(of)


def _names(table: FoundTable) -> set[str]:
    return {column.name for column in table.columns}


def _called(files: Iterable[DataFile]) -> set[str]:
    return {re.sub(r"\d+", "", file.path) for file in files}


def _size(table: FoundTable) -> int:
    return sum(int(f.filesystem.size(f.path)) for f in table.files)
