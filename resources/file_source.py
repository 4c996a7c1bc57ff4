"""One's own files as an event source: DuckDB reads them, so that one parser types every value.

What the files are and which column is which is described by `onerec.datasets.own`.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from onerec import datasets, schema
from onerec.config import SettingError, require
from onerec.config.feedback import VIDEO, Feedback
from onerec.datasets import EventSource, own
from onerec.datasets.file_problems import shown
from onerec.datasets.main_days import main_days
from onerec.datasets.mapped_files import MappedFile
from onerec.datasets.own import SECTIONS, OwnLog
from onerec.datasets.section_files import WITHOUT_ZEROS
from resources.landing import connected, read_parts
from resources.log_times import (
    LogTimes,
    first_days_of_items,
    header_notes,
    part_of,
    read_times,
    require_usable_time,
    zone_note,
)
from resources.parts import LogDays, Part, table_part

MOST_EMPTY_DAYS = timedelta(days=366)  # before or behind a log
NO_LOG_YET = date(1996, 1, 1)
"""A log that ends before it is read wrong: so .NET's, Apple's and Windows' numbers would be."""
HISTORY_DEFAULTS = {"position": "$first_row + row", "is_positive": "true"}


def open_source(
    name: str, *, data_dir: str | None, config: Path | None, opens_damaged: bool = False
) -> EventSource:
    """Open a source by name.

    Args:
        name: A key of `onerec.datasets.DATASETS`.
        data_dir: Directory or URL of its files, where it reads files.
        config: The YAML file of one's own data.
        opens_damaged: Of one's own data, a file that cannot be read stops the runs that read it,
            and not the opening: the code location loads. See `FileSource.require_readable`.

    Raises:
        SettingError: A setting is wrong, or what it names is missing.
        ValueError: A file cannot be read.
    """
    if name != "own":
        source = datasets.open_source(name, data_dir=data_dir, config=config)
        assert not isinstance(source, OwnLog)
        return source
    log = own.open_source(data_dir=data_dir, config=config, opens_damaged=opens_damaged)
    files = FileSource(log)
    files.require_time_formats()
    files.require_days()
    return files


def feedback_of(source: EventSource) -> Feedback:
    """What the events of a source mean: as its files declare it, else those of a video log."""
    return source.log.feedback if isinstance(source, FileSource) else VIDEO


def time_zone_of(source: EventSource) -> str:
    """In which a source's days begin and end."""
    return source.log.config.time_zone if isinstance(source, FileSource) else "UTC"


@dataclass(frozen=True)
class FileSource:
    """An `EventSource` over one's own files."""

    log: OwnLog

    @property
    def first_day(self) -> date:
        """As configured, or the first day that the data has."""
        return self.log.config.first_day or self._range[0]

    @property
    def last_day(self) -> date | None:
        """As configured, or the last day that the data has; None when `open_ended`."""
        if self.log.config.open_ended:
            return None
        return self.log.config.last_day or self._range[1]

    @property
    def last_delivered_day(self) -> date:
        """The last day that the data has, also of a log that goes on."""
        return self._range[1]

    @property
    def has_dated_catalogue(self) -> bool:
        """Whether the catalogue comes as files of days."""
        return self.log.section("items") is not None and self.log.is_dated("items")

    @property
    def delivers_full_catalogue(self) -> bool:
        """As `items.delivery` says. Without an `items` section the log names the items: one that it
        does not show again is not withdrawn."""
        section = self.log.config.items
        return section is not None and section.delivery == "full"

    def holds(self, day: date) -> bool:
        """Whether the log still has something of a day: a file of it, or rows."""
        if self.log.is_dated("events"):
            return day in self.log.days_of_files("events")
        return day in self._rows_of_days

    def has_arrived(self, day: date) -> bool:
        """Whether the log holds the day, or a later one: its file, or rows of it.

        A day without rows, a closed Sunday say, has arrived when its empty file or the next day is
        there.
        """
        return self.last_delivered_day >= day

    def events(self, day: date) -> pa.Table:
        """Exposures of a day as they land: typed, with `unreadable`, `file` and `delivered_row`."""
        return read_parts(self.event_parts(day, day), schema.EVENTS, [day])

    def items(self, day: date) -> pa.Table:
        """The catalogue at the end of a day, as it lands."""
        return read_parts(self.item_parts(day), schema.ITEMS, [day])

    def prior_history(self) -> pa.Table:
        """What was watched before the log begins; empty without such a section."""
        return read_parts(self.history_parts(), schema.PRIOR_HISTORY, [])

    def item_vectors(self) -> pa.Table | None:
        """The user's own embeddings: tables with a list column, or `.npz`.

        Raises:
            ValueError: The file is missing, or its vectors are no lists of numbers.
        """
        section = self.log.config.item_vectors
        if section is None:
            return None
        if self.log.is_npz("item_vectors"):
            from onerec.datasets.kuairand import read_npz_vectors

            table = read_npz_vectors(self.log.url("item_vectors"))
            require(table is not None, "item_vectors.path", section.path, "no such file")
            parts = [table_part(table, schema.ITEM_VECTORS, "item_vectors", None)]
        else:
            parts = [
                part_of(self.log, "item_vectors", f) for f in self.log.every_file("item_vectors")
            ]
        read = read_parts(parts, schema.ITEM_VECTORS, [])
        if len(read) and read["vector"].null_count == len(read):
            column = section.columns.vector.column
            raise ValueError(
                f"{parts[0].name}: column {column!r} holds no lists of numbers; write Parquet with "
                "a list column, or a .npz file"
            )
        return read.select(schema.ITEM_VECTORS.names)

    def user_attributes(self) -> pa.Table | None:
        """The attributes that the section `users` names; None without it.

        Raises:
            ValueError: A file is missing or damaged.
        """
        section = self.log.config.users
        if section is None:
            return None
        parts = [part_of(self.log, "users", file) for file in self.log.every_file("users")]
        read = read_parts(parts, schema.USERS, [])
        read = read.filter(pc.is_valid(read["user_id"]))
        return pa.table(
            {
                "user_id": read["user_id"],
                **{name: _feature(read["features"], name) for name in section.features},
            }
        )

    def event_parts(self, first: date, last: date) -> Iterator[Part]:
        """Files that may hold exposures of a range of days.

        In a log of whole files, rows without a usable time come with the log's first day.
        """
        if self.log.is_dated("events"):
            for file in self.log.files_of_days("events", first, last):
                yield part_of(self.log, "events", file)
            return
        config = self.log.config
        days = LogDays(
            first=self.first_day,
            last=self.last_day,
            keep_before=config.first_day is None,
            keep_after=config.last_day is None and not config.open_ended,
        )
        for file in self.log.every_file("events"):
            yield replace(part_of(self.log, "events", file), log_days=days)

    def item_parts(self, day: date) -> Iterator[Part]:
        """The catalogue at the end of a day: published by then, or without a publication time.

        With `{date}` in the path, the newest file up to the day. Without an `items` section, every
        item of the log up to the day.
        """
        section = self.log.config.items
        if section is None:
            yield self._items_of_the_log(day)
            return
        if self.log.is_dated("items"):
            found = self._newest_catalogue(day)
        else:
            found = self.log.every_file("items")
        parts = [replace(part_of(self.log, "items", file), day=day) for file in found]
        yield from (replace(part, published_by=day) for part in parts)
        if section.unknown_items == "add":
            listed = read_parts(parts, schema.ITEMS, [day])["item_id"]
            yield replace(self._items_of_the_log(day, listed), number=len(parts))

    def _newest_catalogue(self, day: date) -> list[MappedFile]:
        """Files of the newest delivery of the catalogue up to a day; one of an earlier day that is
        damaged is passed over, as a missing one is.

        Raises:
            ValueError: The day's own delivery is damaged, or lacks a column.
        """
        for newest in reversed([d for d in self.log.days_of_files("items") if d <= day]):
            try:
                return list(self.log.files_of_days("items", newest, newest))
            except ValueError:
                if newest == day:
                    raise
        return []

    def _items_of_the_log(self, day: date, listed: pa.ChunkedArray | None = None) -> Part:
        """Items on the log up to a day, without those that the catalogue lists."""
        logged = self._first_days_of_items
        known = logged.filter(pc.less_equal(logged["first_day"], pa.scalar(day)))
        if listed is not None:
            known = known.filter(pc.invert(pc.is_in(known["item_id"], value_set=listed)))
        return table_part(known.select(["item_id"]), schema.ITEMS, "the log's items", day)

    def history_parts(self) -> Iterator[Part]:
        """Files of the prior history; none without such a section.

        Without a `position` the delivered order counts; without `is_positive` all are.
        """
        if self.log.section("prior_history") is not None:
            for file in self.log.every_file("prior_history"):
                yield replace(part_of(self.log, "prior_history", file), defaults=HISTORY_DEFAULTS)

    def rows_outside(self) -> int:
        """Rows of a log of whole files that `first_day` and `last_day` leave out."""
        config = self.log.config
        if self.log.is_dated("events") or not (config.first_day or config.last_day):
            return 0
        first, last = config.first_day or date.min, config.last_day or date.max
        outside = (n for day, n in self._rows_of_days.items() if not first <= day <= last)
        return sum(outside)

    def notes(self) -> list[str]:
        """Warnings about the files, shown when a run starts."""
        found = [n for n in (self.log.feedback_note(), zone_note(self.log)) if n]
        found += [*header_notes(self.log), *self.log.within_tables()]
        if self.log.skipped:
            found.append(
                f"not read, for their endings say neither Parquet nor CSV nor JSON lines, or say "
                f"JSON beside these: {shown(', '.join(self.log.skipped))}. If they hold data, set "
                "format, or name them by a glob"
            )
        if self.log.unreadable:
            found.append(
                "not read, for this user may not list these directories: "
                f"{shown(', '.join(self.log.unreadable))}"
            )
        if self.log.without_day:
            found.append(
                "not read, for their paths hold no day as events.path writes it: "
                f"{shown(', '.join(self.log.without_day))}. {WITHOUT_ZEROS}"
            )
        found += self.log.unseen_columns()
        if self.log.is_dated("events") or (self.log.config.first_day and self.log.config.last_day):
            return found
        if (last := self._range[1]) < NO_LOG_YET:
            found.append(
                f"the log ends on {last}: its numbers may count from another year than 1970, or in "
                "another unit. Set events.timestamp_unit, or write ISO 8601"
            )
        return found + self._times.notes + self._far_from_the_rest()

    def require_readable(self) -> None:
        """Check the files of a log without files of days as the runs do that read all of them.

        Raises:
            ValueError: One is damaged, or lacks a column.
        """
        for name in SECTIONS:
            is_table = self.log.section(name) is not None and not self.log.is_npz(name)
            if is_table and not self.log.is_dated(name):
                self.log.every_file(name)
        config = self.log.config
        complete = config.first_day and (config.last_day or config.open_ended)
        if not self.log.is_dated("events") and not complete and self._times.errors:
            raise self._times.errors[0]

    def require_time_formats(self) -> None:
        """Check that times can be read by the formats that are set for them.

        Raises:
            SettingError: DuckDB's strptime does not know one.
        """
        for name in SECTIONS:
            section = self.log.section(name)
            formats = set(section.timestamp_format or ()) - {"iso"} if section else ()
            for time_format in sorted(formats):
                try:
                    with connected() as connection:
                        connection.execute("select try_strptime('', $1)", [time_format])
                except duckdb.Error as error:
                    remedy = f"is none that strptime knows ({shown(error)}): correct it"
                    raise SettingError(f"{name}.timestamp_format", time_format, remedy) from None

    def require_days(self) -> None:
        """Check that `first_day` and `last_day` meet the log, where its days are known anyway.

        Raises:
            SettingError: They leave all of it out, or add years of empty days.
        """
        config = self.log.config
        complete = config.first_day and (config.last_day or config.open_ended)
        dated = self.log.is_dated("events")
        if not (config.first_day or config.last_day) or (complete and not dated):
            return
        first, last = self._range
        begins, ends = f"the log begins on {first}", f"the log ends on {last}"
        if (day := config.first_day) is not None:
            early = not dated and first - day > MOST_EMPTY_DAYS
            require(not early, "first_day", str(day), begins)
            require(config.open_ended or day <= last, "first_day", str(day), ends)
        if (day := config.last_day) is not None:
            require(day >= first, "last_day", str(day), begins)
            require(day - last <= MOST_EMPTY_DAYS, "last_day", str(day), ends)

    def require_times(self, day: date | None = None) -> None:
        """Check that the times of a log can be read at all: of a day's files, where days have some.

        Raises:
            SettingError: No row has a usable time; the remedy shows a value.
        """
        if day is not None and self.log.is_dated("events"):
            require_usable_time(self.log, self.log.files_of_days("events", day, day))
        else:
            require_usable_time(self.log, self.log.every_file("events"))

    @cached_property
    def _range(self) -> tuple[date, date]:
        if self.log.is_dated("events"):
            days = self.log.days_of_files("events")
            return days[0], days[-1]
        if not self._rows_of_days:
            self.require_times()
        return main_days(self._rows_of_days)

    @property
    def _rows_of_days(self) -> dict[date, int]:
        """Rows with a usable time of each day, in a log of whole files."""
        return self._times.rows

    @cached_property
    def _times(self) -> LogTimes:
        return read_times(self.log)

    @cached_property
    def _first_days_of_items(self) -> pa.Table:
        return first_days_of_items(self.log)

    def _far_from_the_rest(self) -> list[str]:
        config, (first, last) = self.log.config, self._range
        early = [d for d in self._rows_of_days if d < first and not config.first_day]
        late = [d for d in self._rows_of_days if d > last and not config.last_day]
        notes = []
        for key, days in (("first_day", early), ("last_day", late)):
            if days:
                outermost = min(days) if key == "first_day" else max(days)
                notes.append(
                    f"{sum(self._rows_of_days[d] for d in days)} rows lie far from the rest, "
                    f"between {min(days)} and {max(days)}, and are rejected. If they belong to the "
                    f"log, set {key}: {outermost}"
                )
        return notes


def _feature(features: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The values of one feature in texts of `name=value`, null where it is unknown."""
    end = schema.FEATURE_SEPARATOR
    pattern = f"(?:^|{end}){name}=(?P<value>[^{end}]*)"
    return pc.struct_field(pc.extract_regex(features, pattern), "value")
