"""A proposal as a YAML file, with the reasons beside the lines."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onerec.config import SettingError
from onerec.datasets.own_config import EventColumns
from resources.proposal.roles import (
    ChosenColumn,
    find_events,
    find_items,
    find_vectors,
    short,
    unused,
)
from resources.proposal.tables import ColumnFacts, FoundTable, find_tables

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
_DAYS = ((r"\d{4}-\d{2}-\d{2}", "{date}"), (r"20\d{6}", "{date:%Y%m%d}"))


@dataclass(frozen=True)
class Proposal:
    """What `make init` proposes.

    Attributes:
        text: The YAML file.
        notes: What to look at by hand.
    """

    text: str
    notes: tuple[str, ...]


def propose(data: str, beside: Path) -> Proposal:
    """A YAML file for the files behind a directory, a glob or a file.

    Args:
        data: Where they are.
        beside: Directory of the YAML file; paths below it are written relative to it.

    Raises:
        ValueError: There is no file, or none with users, items and times; the message says which
            columns were seen.
    """
    tables, not_read = find_tables(data)
    found = find_events(tables)
    if found is None:
        seen = "; ".join(
            f"{Path(t.files[0].path).name}: {', '.join(c.name for c in t.columns)}" for t in tables
        )
        remedy = (
            f"no table has a user, an item and a time. Columns are: {seen}. Write it by hand, see "
            "docs/own_data.md"
        )
        raise SettingError("DATA", data, remedy)
    log, events = found
    rest = [t for t in tables if t is not log]
    items = find_items(rest, log, events["item_id"])
    vectors = find_vectors(rest)
    parts = [_section("events", log, events, beside)]
    parts += [_section("items", *items, beside)] if items else []
    parts += [_section("item_vectors", *vectors, beside)] if vectors else []
    if events["event_time"].column.whole_days:
        parts.append(
            "# the times are days: what a user did on a day is one session\n"
            "stages:\n  sessions: { session_mode: user_day }\n"
        )
    used = [
        t for found in ((log,), items and items[:1], vectors and vectors[:1]) for t in found or ()
    ]
    notes = [
        f"not used: {', '.join(sorted(f.path for f in t.files)[:3])} "
        f"({', '.join(c.name for c in t.columns)})"
        for t in tables
        if all(t is not u for u in used)
    ]
    return Proposal("\n".join(parts), (*notes, *not_read))


def _section(name: str, table: FoundTable, chosen: Mapping[str, ChosenColumn], beside: Path) -> str:
    path = _path(table, beside)
    lines = [f"{name}:", f"  path: {_scalar(path)}"]
    lines += [f"  {key}: {_scalar(value)}" for key, value in _format(table).items()]
    if not table.has_header:
        names = ", ".join(c.name for c in table.columns)
        lines.append(f"  names: [{names}] # the first row is no header: rename them as you like")
    lines += [f"  {line}" for line in _time_lines(chosen)]
    lines.append("  columns:")
    known = EventColumns.model_fields if name == "events" else chosen
    for contract, choice in chosen.items():
        column = _scalar(choice.column.name)
        value = column if choice.scale == 1 else f"{{ column: {column}, scale: {choice.scale:g} }}"
        mark = "" if contract in known else "# "
        lines.append(f"    {mark}{contract}: {value} # {choice.why}")
    for column in unused(table, dict(chosen)):
        lines.append(f"    # not used: {column.name} ({_about(column)})")
    return "\n".join(lines) + "\n"


def _format(table: FoundTable) -> dict[str, str]:
    file = table.files[0]
    if file.is_parquet:
        return {}
    ending = Path(re.sub(r"\.(gz|bz2|zst|lz4|xz|zip)$", "", file.path)).suffix
    known = {} if ending in (".csv", ".tsv", ".txt", ".tab") else {"format": "csv"}
    style = file.style
    known |= {"delimiter": style.delimiter} if style.delimiter else {}
    return known | ({"encoding": style.encoding} if style.encoding != "utf8" else {})


def _time_lines(chosen: Mapping[str, ChosenColumn]) -> list[str]:
    """Unit or format of the times; the time zone cannot be detected."""
    times = [chosen[n].column for n in ("event_time", "published_at") if n in chosen]
    if not times:
        return []
    time = times[0]
    if time.unit:
        return [f"timestamp_unit: {time.unit}"]
    lines = [f'timestamp_format: "{time.time_format}"'] if time.time_format else []
    has_zone = any(re.search(r"(Z|UTC|[+-]\d{2}:?\d{2})$", value) for value in time.frequent)
    is_text = time.kind == "VARCHAR"
    if is_text and not has_zone and not time.whole_days:
        lines.append("# time_zone: Europe/Berlin # the times name no zone, and are read as UTC")
    return lines


def _path(table: FoundTable, beside: Path) -> str:
    """One path for the files of a table: the file, a path with {date}, or a glob."""
    paths = [f.url for f in table.files]
    if "://" not in paths[0]:
        relative = [os.path.relpath(p, beside) for p in paths]
        paths = relative if not relative[0].startswith("..") else paths
    if len(paths) == 1:
        return paths[0]
    for pattern, name in _DAYS:
        dated = {re.sub(pattern, name, p, count=1) for p in paths}
        if len(dated) == 1 and name in next(iter(dated)):
            return next(iter(dated))
    scheme, separator, _ = paths[0].rpartition("://")
    bare = [p.removeprefix(scheme + separator) for p in paths]
    start = os.path.commonpath(bare)
    endings = {"." + p.rsplit("/", 1)[-1].partition(".")[2] for p in paths}
    ending = next(iter(endings)) if len(endings) == 1 else ""
    is_flat = all("/" not in p.removeprefix(start).strip("/") for p in bare)
    files = ("*" if is_flat else "**/*") + ending
    return scheme + separator + (f"{start.rstrip('/')}/{files}" if start else files)


def _about(column: ColumnFacts) -> str:
    if not column.known:
        return "empty"
    few = ", ".join(short(v) for v in column.frequent[:3])
    return f"{column.distinct:,} different values, e.g. {few}"


def _scalar(value: str) -> str:
    """A text as YAML: in quotes where it could be read as something else."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if is_plain else json.dumps(value, ensure_ascii=False)
