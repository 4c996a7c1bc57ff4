"""A proposal as a YAML file, with the reasons beside the lines."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onerec.config import SettingError
from onerec.datasets.file_problems import loose
from onerec.datasets.file_search import ENDINGS, find
from onerec.datasets.own_config import EventColumns, ItemColumns
from resources.proposal.csv_style import FALLBACK_ENCODING, TWO_CHARACTERS
from resources.proposal.log_parts import join_parts
from resources.proposal.no_log import why_no_log
from resources.proposal.roles import (
    EVENTS,
    GOOD_RATING,
    REQUIRED,
    ChosenColumn,
    choose,
    find_events,
    find_items,
    find_vectors,
    is_called_event,
    short,
    unused,
)
from resources.proposal.tables import ColumnFacts, FoundTable, find_tables
from resources.proposal.users import FoundUsers, find_users, newest_files

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
    found_tables, not_read = find_tables(data)
    tables = join_parts(found_tables)
    found = find_events(tables)
    if found is None:
        raise SettingError("DATA", data, why_no_log(tables, not_read))
    log, events = found
    rest = [t for t in tables if t is not log]
    users, notes = find_users(rest, log, events["user_id"])
    rest = [t for t in rest if users is None or t is not users.table]
    items = find_items(rest, log, events["item_id"])
    vectors = find_vectors(rest, events["item_id"])
    sections = {"events": found} | ({"items": items} if items else {})
    sections |= {"item_vectors": vectors} if vectors else {}
    parts = [_section(name, sections, beside) for name in sections]
    parts += [_users_section(users, beside)] if users else []
    parts += _feedback(events)
    if events["event_time"].column.whole_days:
        parts.append(
            "# the times are days: what a user did on a day is one session\n"
            "stages:\n  sessions: { session_mode: user_day }\n"
        )
    used = [log, *(found[0] for found in (items, vectors) if found)]
    used += [users.table] if users else []
    unused_tables = [
        f"not used: {', '.join(sorted(f.path for f in t.files)[:3])} "
        f"({', '.join(c.name for c in t.columns)}){_if_of_the_log(t)}"
        for t in tables
        if all(t is not u for u in used)
    ]
    return Proposal("\n".join(parts), (*notes, *unused_tables, *not_read))


def _if_of_the_log(table: FoundTable) -> str:
    """What to do with a further table of users, items and times."""
    if not set(REQUIRED) <= set(choose(table, EVENTS)):
        return ""
    return (
        ". It has users, items and times too: if it is a part of the log, name both files in "
        "events.path by a glob, and columns that are called otherwise there as lists, [name, other]"
    )


_OPTIONAL = {"events": EventColumns.model_fields, "items": ItemColumns.model_fields}
"""Columns of the contract that a section reads by their own name where it does not say null."""


def _section(
    name: str, sections: Mapping[str, tuple[FoundTable, dict[str, ChosenColumn]]], beside: Path
) -> str:
    table, chosen = sections[name]
    newest = _newest(table, beside) if name == "item_vectors" else table
    lines = _head(name, newest, beside)
    if newest is not table:
        lines[1] += " # the newest day's: vectors have no day"
    used = [columns for other, columns in sections.values() if other is table]
    left = [*unused(table, *used)]
    zones = [c for c in left if c.is_zone]
    lines += [f"  {line}" for line in (*_time_lines(chosen, zones), *_number_lines(chosen))]
    lines.append("  columns:")
    optional = _OPTIONAL.get(name, {})
    for contract, choice in chosen.items():
        lines.append(f"    {contract}: {_source(choice)} # {choice.why}")
    for column in left:
        contract = loose(column.name)
        if name == "events" and "event_type" not in chosen and is_called_event(column):
            remedy = "if these are kinds of events, say under feedback which of them count"
            lines.append(f"    # event_type: {_scalar(column.name)} # {_about(column)}: {remedy}")
        elif contract in optional and contract not in chosen:  # else it would be read by its name
            lines.append(f"    {contract}: null # does not fit, and not used: {_about(column)}")
        else:
            lines.append(f"    # not used: {_scalar(column.name)} ({_about(column)})")
    return "\n".join(lines) + "\n"


def _head(name: str, table: FoundTable, beside: Path) -> list[str]:
    """The lines about the files of a table."""
    path = _path(table, beside)
    lines = [f"{name}:", f"  path: {_scalar(path.text)}{path.comment}"]
    lines += [f"  {key}: {_scalar(value)}" for key, value in _format(table).items()]
    if table.files[0].style.encoding == FALLBACK_ENCODING:
        lines[-1] += " # a guess: there are bytes that are not UTF-8"
    style = table.files[0].style
    if style.skip_rows:
        is_header = style.delimiter == TWO_CHARACTERS[0]
        about = "the header, whose names these are" if is_header else "lines before the table"
        lines.append(f"  skip_rows: {style.skip_rows} # {about}")
    if not table.has_header:
        names = ", ".join(map(_scalar, style.names or ()))
        about = "" if style.skip_rows else " # the first row is no header: rename them as you like"
        lines.append(f"  names: [{names}]{about}")
    return lines


def _users_section(users: FoundUsers, beside: Path) -> str:
    """The attributes of users; in comments where none is left."""
    table = _newest(users.table, beside)
    comments = ["# a snapshot: keep what was true before the log, and what you may use of people"]
    if table is not users.table:
        comments.append("# the newest day's: attributes have no day")
    lines = _head("users", table, beside)
    lines.append(
        f"  columns: {{ user_id: {_scalar(users.user_id.column.name)} }} # {users.user_id.why}"
    )
    lines.append("  features:")
    for name, choice in users.attributes.items():
        lines.append(f"    {_scalar(name)}: {_scalar(choice.column.name)} # {choice.why}")
    if not users.attributes:
        lines = [f"# {line}" for line in lines]
        comments.append("# no column of the users' table can be learned from as it is")
    for column, reason in users.left_out:
        about = f"({_about(column)}): {reason}" if column.known else f"({reason})"
        lines.append(f"    # left out: {_scalar(column.name)} {about}")
    return "\n".join([*comments, *lines]) + "\n"


def _newest(table: FoundTable, beside: Path) -> FoundTable:
    """A table; of one with files of days the newest ones."""
    if "{date" not in _path(table, beside).text:
        return table
    return newest_files(table, [_day_of(file.url) for file in table.files])


def _day_of(path: str) -> str:
    """The day in a path of files of days, as text that sorts."""
    found = (re.search(pattern, path) for pattern, _ in _DAYS)
    return next((match[0] for match in found if match), "")


def _source(choice: ChosenColumn) -> str:
    """A column as the YAML file names it."""
    column = _scalar(choice.column.name)
    more = f", scale: {choice.scale:g}" if choice.scale != 1 else ""
    more += f", date: {_scalar(choice.date.name)}" if choice.date is not None else ""
    return f"{{ column: {column}{more} }}" if more else column


def _number_lines(chosen: Mapping[str, ChosenColumn]) -> list[str]:
    """How numbers are written, where not as 1234.5."""
    written = {c.column.decimal for c in chosen.values() if c.column.decimal is not None}
    return [f'decimal: "{sorted(written)[0]}"'] if written else []


def _feedback(events: Mapping[str, ChosenColumn]) -> list[str]:
    """What is positive in ratings of few steps, thumbs say, of which none is 4 or more."""
    rating = events["rating"].column if "rating" in events else None
    if rating is None or rating.largest is None or rating.distinct < 2:
        return []
    best = rating.largest
    if best >= GOOD_RATING or "watch_seconds" in events or "event_type" in events:
        return []
    good = f"{{ rating_at_least: {best:g} }}"
    lines = [f"  watched: {good}", f"  positive: {good}"]
    if rating.least is not None and rating.least < 0:
        lines.append("  negative: { rating_below: 0 }")
    lines.append(f"  signals: {{ liked: {{ when: {good}, of_block: half }} }}")
    about = f"# no rating is above {best:g}: it is what counts as positive"
    return ["\n".join([about, "feedback:", *lines]) + "\n"]


def _format(table: FoundTable) -> dict[str, str]:
    file = table.files[0]
    if file.is_parquet:
        return {}
    ending = Path(re.sub(r"\.(gz|bz2|zst|lz4|xz|zip)$", "", file.path)).suffix
    known = {} if ending in ENDINGS[file.format] else {"format": file.format}
    style = file.style
    known |= {"delimiter": style.delimiter} if style.delimiter else {}
    known |= {"escape": style.escape} if style.escape else {}
    known |= {} if style.quote else {"quote": ""}
    return known | ({"encoding": style.encoding} if style.encoding != "utf8" else {})


_HAS_ZONE = re.compile(r":\d{2}\S*? ?([+-]\d{2}(:?\d{2})?|Z|[A-Z]{3,4}|[A-Za-z]+/\S+)$|T\d{2}.*Z$")


def _time_lines(chosen: Mapping[str, ChosenColumn], zones: Sequence[ColumnFacts] = ()) -> list[str]:
    """Unit or format of the times; the time zone is known where a column of the table names it."""
    times = [chosen[n] for n in ("event_time", "published_at") if n in chosen]
    if not times:
        return []
    time, date = times[0].column, times[0].date
    if time.unit:
        return [f"timestamp_unit: {time.unit}"]
    written = time.time_format
    if date is not None and date.time_format:
        written = f"{date.time_format} {_clock_format(time.frequent[0])}"
    lines = [f'timestamp_format: "{written}"'] if written else []
    if lines and (date or time).also_iso:
        lines = [f'timestamp_format: ["{written}", iso]']
    if lines and (date or time).either_way:
        lines[0] += " # a guess: day and month could be the other way round"
    has_zone = any(_HAS_ZONE.search(value) for value in time.frequent)
    has_zone = has_zone or bool(written and re.search("%[zZ]", written))
    is_text = time.kind == "VARCHAR"
    if not has_zone and zones and zones[0].distinct == 1:
        lines.append(f"time_zone: {zones[0].frequent[0]} # column {zones[0].name} says so")
    elif not has_zone and zones:
        lines.append(
            f"# WRONG DAYS: each row has a zone of its own in column {zones[0].name}, which is not "
            "read: write the times with their offset, 2026-06-01T10:00:00+02:00"
        )
    elif is_text and not has_zone and not time.whole_days:
        lines.append("# time_zone: Europe/Berlin # the times name no zone, and are read as UTC")
    return lines


def _clock_format(value: str) -> str:
    """The strptime format of a time of day."""
    text = value.strip()
    half = re.search(r"( ?)[AaPp][Mm]$", text)
    seconds = ":%S" if text.count(":") > 1 else ""
    return f"{'%I' if half else '%H'}:%M{seconds}{half[1] + '%p' if half else ''}"


@dataclass(frozen=True)
class _Path:
    """A path of the YAML file, and a comment where it is not quite right."""

    text: str
    comment: str = ""


def _path(table: FoundTable, beside: Path) -> _Path:
    """One path for the files of a table: the file, a path with {date}, or a glob of them only."""
    urls = [f.url for f in table.files]
    paths = urls
    if "://" not in paths[0]:
        relative = [os.path.relpath(p, beside) for p in paths]
        paths = relative if not relative[0].startswith("..") else paths
    if len(paths) == 1:
        return _Path(paths[0])
    for pattern, name in _DAYS:
        dated = {re.sub(pattern, name, p, count=1) for p in paths}
        if len(dated) == 1 and name in next(iter(dated)):
            return _Path(next(iter(dated)))
    candidates = _globs(paths)
    for text in candidates:
        found = find(text if "://" in text else str(beside / text)).files
        if {f.url for f in found} == set(urls):
            return _Path(text)
    return _Path(
        candidates[0], " # finds files of another table, too: give each table its own directory"
    )


def _globs(paths: Sequence[str]) -> list[str]:
    """Globs that find the files: all of their directory with their ending, and with the beginning
    that their names share."""
    scheme, separator, _ = paths[0].rpartition("://")
    bare = [p.removeprefix(scheme + separator) for p in paths]
    start = os.path.commonpath(bare)
    names = [p.rsplit("/", 1)[-1] for p in bare]
    endings = {"." + name.partition(".")[2] for name in names}
    ending = next(iter(endings)) if len(endings) == 1 else ""
    is_flat = all("/" not in p.removeprefix(start).strip("/") for p in bare)
    middle = "" if is_flat else "**/"
    beginning = os.path.commonprefix(names).partition(".")[0]  # noqa: RUF071 - of names, no paths
    above = scheme + separator + (f"{start.rstrip('/')}/" if start else "")
    return [f"{above}{middle}*{ending}", f"{above}{middle}{beginning}*{ending}"]


def _about(column: ColumnFacts) -> str:
    if not column.known:
        return "empty"
    few = ", ".join(short(v) for v in column.frequent[:3])
    return f"{column.distinct:,} different values, e.g. {few}"


def _scalar(value: str) -> str:
    """A text as YAML: in quotes where it could be read as something else."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if is_plain else json.dumps(value, ensure_ascii=False)
