"""One's own log: Parquet or CSV files anywhere fsspec reaches, described by one YAML file.

Nothing is dropped on the way. A row whose time is null, unreadable, before 1970-01-02 or after
tomorrow belongs to no day; in a log of whole files it is delivered with the first day, where
staging rejects and counts it. With `{date}` in the path, every row of a day's file is delivered to
that day.
A column with a value of the wrong type is delivered as text, for the same reason.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pydantic import BaseModel

from onerec.config import require
from onerec.datasets import files, own_config
from onerec.datasets.kuairand import read_npz_vectors
from onerec.schema import EVENTS, FEEDBACK_FLAGS, ITEM_VECTORS, ITEMS, PRIOR_HISTORY

DAY_US = 86_400_000_000
EARLIEST_US = DAY_US
"""Zeros, a log's usual word for an unknown time, land on 1970-01-01: plausible times come later."""
_EPOCH = date(1970, 1, 1)
_Files = own_config.EventFiles | own_config.ItemFiles | own_config.HistoryFiles


def open_source(*, data_dir: str | None, config: Path | None) -> "OwnSource":
    """One's own data; relative paths start at `data_dir` or else beside the YAML file.

    Raises:
        ValueError: The YAML file is missing or wrong, or no file matches `events.path`.
    """
    if config is None:
        raise ValueError(f"config=None: give CONFIG=my_data.yaml; {own_config.HELP}")
    settings = own_config.read_own_config(config)
    base = data_dir if data_dir is not None else str(config.resolve().parent)
    source = OwnSource(settings, base)
    source.check()
    return source


@dataclass(frozen=True)
class OwnSource:
    """An `EventSource` over one's own files."""

    config: own_config.OwnData
    base: str

    def check(self) -> None:
        """Check what can be checked without reading rows: files and columns.

        Raises:
            ValueError: A file or a column is missing.
        """
        for name in ("events", "items", "prior_history"):
            section = getattr(self.config, name)
            if section is not None:
                _columns(self._all_files(name, section)[-1], section.columns, name)

    @property
    def first_day(self) -> date:
        """As configured, or the first day that the data has."""
        return self.config.first_day or self._range[0]

    @property
    def last_day(self) -> date | None:
        """As configured, or the last day that the data has; None when `open_ended`."""
        if self.config.open_ended:
            return None
        return self.config.last_day or self._range[1]

    def events(self, day: date) -> pa.Table:
        """Exposures of a day; on the first day of a whole-file log also those without a day."""
        section = self.config.events
        dated = files.is_dated(section.path)
        found = self._day_files(section, day) if dated else self._all_files("events", section)
        parts, names = [], self._event_names(found)
        for part in found:
            columns = _columns(part, section.columns, "events")
            time = columns["event_time"].column
            table = self._rows_of_day(part, columns, time, None if dated else day)
            parts.append(self._converted_events(table, columns))
        if not found:
            return pa.schema([EVENTS.field(n) for n in names]).empty_table()
        return files.stack(parts, names, EVENTS)

    def items(self, day: date) -> pa.Table:
        """The catalogue at the end of a day: published by then, or without a publication time.

        With `{date}` in the path, the newest file up to the day. Without an `items` section, every
        item of the log up to the day.
        """
        section = self.config.items
        if section is None:
            return self._logged_items(day)
        if files.is_dated(section.path):
            days = [d for d in self._file_days("items", section) if d <= day]
            found = self._day_files(section, max(days)) if days else []
        else:
            found = self._all_files("items", section)
        parts = []
        for part in found:
            columns = _columns(part, section.columns, "items")
            table = part.read(_distinct(columns))
            converted = {n: _plain(table, c, ITEMS.field(n)) for n, c in columns.items()}
            if "published_at" in columns:
                raw = table[columns["published_at"].column]
                times = _times(raw, section, part, "items")
                converted["published_at"] = files.times_or_text(raw, times)
                end = (day - _EPOCH).days * DAY_US + DAY_US
                known = pc.fill_null(pc.less(pc.cast(times, pa.int64()), end), True)
                parts.append(pa.table(converted).filter(known))
            else:
                parts.append(pa.table(converted))
        names = [
            n for n in ITEMS.names if n == "item_id" or any(n in p.column_names for p in parts)
        ]
        return files.stack(parts, names, ITEMS)

    def prior_history(self) -> pa.Table:
        """What was watched before the log begins; empty without such a section.

        Without a `position` the order of the file counts; without `is_positive` all are.
        """
        section = self.config.prior_history
        if section is None:
            return PRIOR_HISTORY.empty_table()
        parts, rows = [], 0
        for part in self._all_files("prior_history", section):
            columns = _columns(part, section.columns, "prior_history")
            table = part.read(_distinct(columns))
            converted = {n: _plain(table, c, PRIOR_HISTORY.field(n)) for n, c in columns.items()}
            converted.setdefault("position", pa.array(range(rows, rows + len(table)), pa.int64()))
            converted.setdefault("is_positive", pc.is_valid(table[columns["item_id"].column]))
            parts.append(pa.table(converted))
            rows += len(table)
        return files.stack(parts, PRIOR_HISTORY.names, PRIOR_HISTORY)

    def item_vectors(self) -> pa.Table | None:
        """The user's own embeddings: Parquet with a list column, or `.npz`.

        Raises:
            ValueError: The file is missing, or its vectors are no lists of numbers.
        """
        section = self.config.item_vectors
        if section is None:
            return None
        if section.path.endswith(".npz"):
            table = read_npz_vectors(self._url(section.path))
            require(table is not None, "item_vectors.path", section.path, "no such file")
            return table
        parts = []
        for part in self._all_files("item_vectors", section):
            item_id, vector = section.columns.item_id.column, section.columns.vector.column
            part.require_columns((item_id, vector), "Set item_vectors.columns.")
            table = part.read(list(dict.fromkeys((item_id, vector))))
            try:
                vectors = pc.cast(table[vector], pa.list_(pa.float32()))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ValueError(
                    f"{part.path}: column {vector!r} holds {table[vector].type}, not lists of "
                    "numbers; write Parquet with a list column, or a .npz file"
                ) from error
            parts.append(pa.table({"item_id": files.as_text(table[item_id]), "vector": vectors}))
        return files.stack(parts, ITEM_VECTORS.names, ITEM_VECTORS)

    @cached_property
    def _range(self) -> tuple[date, date]:
        section = self.config.events
        if files.is_dated(section.path):
            days = self._file_days("events", section)
            return days[0], days[-1]
        bounds: list[int] = []
        for part in self._all_files("events", section):
            time = _columns(part, section.columns, "events")["event_time"].column
            found = part.statistics(time)
            kind = part.dataset().schema.field(time).type
            if found is not None and not pa.types.is_string(kind):
                ends = pa.chunked_array([pa.array(list(found), kind)])
                times = _times(ends, section, part, "events")
                if _plausible(times).to_pylist() == [True, True]:
                    bounds += pc.cast(times, pa.int64()).to_pylist()
                    continue
            for batch in part.scan([time]):
                times = _times(pa.chunked_array([batch.column(0)]), section, part, "events")
                low_high = pc.min_max(pc.cast(times.filter(_plausible(times)), pa.int64()))
                bounds += [v.as_py() for v in low_high.values() if v.is_valid]
        require(
            bool(bounds),
            "events.path",
            section.path,
            "no row has a usable time, so the days of the log are unknown; check events.columns."
            "event_time and events.timestamp_unit, or set first_day and last_day",
        )
        first, last = (_EPOCH + timedelta(days=b // DAY_US) for b in (min(bounds), max(bounds)))
        return first, last

    def _rows_of_day(
        self,
        part: files.DataFile,
        columns: dict[str, own_config.Column],
        time: str,
        day: date | None,
    ) -> pa.Table:
        """Rows of a file that belong to a day; all of them for None."""
        if day is None:
            return part.read(_distinct(columns))
        first = day == self.first_day
        low = (day - _EPOCH).days * DAY_US
        kind = part.dataset().schema.field(time).type
        where = self._pushed_down(kind, time, low, first) if part.is_parquet else None
        kept = []
        for batch in part.scan(_distinct(columns), where):
            table = pa.Table.from_batches([batch])
            times = _times(table[time], self.config.events, part, "events")
            value = pc.cast(times, pa.int64())
            keep = pc.and_(pc.greater_equal(value, low), pc.less(value, low + DAY_US))
            keep = pc.fill_null(keep, False)
            if first:
                keep = pc.or_(keep, pc.invert(_plausible(times)))
            kept.append(table.filter(keep))
        return pa.concat_tables(kept) if kept else part.read(_distinct(columns), ds.scalar(False))

    def _pushed_down(
        self, kind: pa.DataType, time: str, low: int, first: bool
    ) -> pc.Expression | None:
        """The day as a condition on the raw column, so that only its row groups are read."""
        unit = files.MICROSECONDS.get(self.config.events.timestamp_unit or "")
        column = ds.field(time)
        if pa.types.is_timestamp(kind):

            def raw(microseconds: int) -> pa.Scalar:
                naive = pa.scalar(microseconds, pa.int64()).cast(pa.timestamp("us", kind.tz))
                return naive.cast(kind)

        elif unit and (pa.types.is_int64(kind) or pa.types.is_floating(kind)):

            def raw(microseconds: int) -> pa.Scalar:
                return pa.scalar(microseconds // unit, pa.int64()).cast(kind)

        else:
            return None
        # Rounding to the raw unit may let a neighbour in; rows are compared exactly afterwards.
        where = (column >= raw(low)) & (column <= raw(low + DAY_US))
        if first:
            broken = (column < raw(EARLIEST_US)) | (column > raw(_latest_us()))
            where = where | broken | column.is_null(nan_is_null=True)
        return where

    def _converted_events(self, table: pa.Table, columns: dict[str, own_config.Column]) -> pa.Table:
        converted = {}
        for name, source in columns.items():
            if name == "event_time":
                raw = table[source.column]
                times = files.parse_times(raw, self.config.events.timestamp_unit)
                converted[name] = files.times_or_text(raw, times)
            else:
                converted[name] = _plain(table, source, EVENTS.field(name))
        return pa.table(converted)

    def _event_names(self, found: list[files.DataFile]) -> list[str]:
        """Columns every day delivers: those mapped, and those any file has under its own name."""
        section = self.config.events
        known = found or self._all_files("events", section)[-1:]
        present = {n for part in known for n in _columns(part, section.columns, "events")}
        return [n for n in EVENTS.names if n in present]

    def _logged_items(self, day: date) -> pa.Table:
        section = self.config.events
        column = section.columns.item_id.column
        dated = files.is_dated(section.path)
        ids = []
        if dated:
            days = [d for d in self._file_days("events", section) if d <= day]
            for part in [p for d in days for p in self._day_files(section, d)]:
                ids.append(files.as_text(part.read([column])[column]))
        else:
            time, end = section.columns.event_time.column, (day - _EPOCH).days * DAY_US + DAY_US
            for part in self._all_files("events", section):
                table = part.read(list(dict.fromkeys((column, time))))
                value = pc.cast(_times(table[time], section, part, "events"), pa.int64())
                known = pc.fill_null(pc.less(value, end), False)
                ids.append(files.as_text(table[column].filter(known)))
        everything = pa.chunked_array([c for i in ids for c in i.chunks], pa.string())
        unique = pc.unique(everything.drop_null())
        return pa.table({"item_id": unique.take(pc.array_sort_indices(unique))})

    def _url(self, path: str) -> str:
        is_absolute = "://" in path or Path(path).is_absolute()
        url = path if is_absolute else f"{self.base.rstrip('/')}/{path}"
        return url if "://" in url else os.path.normpath(url)

    def _all_files(
        self, name: str, section: "_Files | own_config.VectorFiles"
    ) -> list[files.DataFile]:
        """Files of a section, at least one; for `{date}` paths those of every day.

        Raises:
            ValueError: There is none.
        """
        url = files.any_day(self._url(section.path))
        found = files.find(url, parquet=_is_parquet(section), style=section.style)
        if files.is_dated(section.path):  # the wildcard also catches what lies beside the days
            pattern = self._url(section.path)
            found = [f for f in found if files.day_of_path(pattern, f.path) is not None]
        require(
            bool(found), f"{name}.path", section.path, f"no Parquet or CSV file is found at {url}"
        )
        return found

    def _day_files(self, section: "_Files", day: date) -> list[files.DataFile]:
        url = files.one_day(self._url(section.path), day)
        return files.find(url, parquet=_is_parquet(section), style=section.style)

    def _file_days(self, name: str, section: "_Files") -> list[date]:
        """Days for which a file exists, in order.

        Raises:
            ValueError: There is none.
        """
        found = [
            files.day_of_path(self._url(section.path), part.path)
            for part in self._all_files(name, section)
        ]
        days = sorted({day for day in found if day is not None})
        require(bool(days), f"{name}.path", section.path, "no file name holds a day")
        return days


def _columns(
    part: files.DataFile, mapping: BaseModel, section: str
) -> dict[str, own_config.Column]:
    """Contract name -> column to read, of what is mapped, required, or present under its own name.

    Raises:
        ValueError: A mapped or required column is missing.
    """
    present = set(part.dataset().schema.names)
    chosen: dict[str, own_config.Column] = {}
    for name in type(mapping).model_fields:
        source = getattr(mapping, name)
        if source is not None:
            chosen[name] = source
        elif name in present:
            chosen[name] = own_config.Column(column=name)
    for name, source in chosen.items():
        part.require_columns(
            [source.column], f"Set {section}.columns.{name} to the column that holds it."
        )
    return chosen


def _distinct(columns: dict[str, own_config.Column]) -> list[str]:
    return list(dict.fromkeys(c.column for c in columns.values()))


def _plain(table: pa.Table, source: own_config.Column, target: pa.Field) -> files.Column:
    """A column in the contract's type, or as text where a value does not fit."""
    column = table[source.column]
    if target.name in FEEDBACK_FLAGS or target.name == "is_positive":
        return files.booleans_or_text(column)
    if pa.types.is_floating(target.type):
        return files.scaled_or_text(column, source.scale)
    if pa.types.is_string(target.type):
        return files.as_text(column)
    return files.cast_or_text(column, target.type)


def _times(
    column: files.Column, section: "_Files", part: files.DataFile, name: str
) -> files.Column:
    try:
        return files.parse_times(column, section.timestamp_unit)
    except ValueError as error:
        raise ValueError(f"{part.path}: {name}.{error}") from error


def _plausible(times: files.Column) -> files.Column:
    value = pc.cast(times, pa.int64())
    inside = pc.and_(pc.greater_equal(value, EARLIEST_US), pc.less_equal(value, _latest_us()))
    return pc.fill_null(inside, False)


def _latest_us() -> int:
    """The end of tomorrow: clocks differ, but not by more."""
    today = (datetime.now(UTC).date() - _EPOCH).days
    return (today + 2) * DAY_US


def _is_parquet(section: "_Files | own_config.VectorFiles") -> bool | None:
    return None if section.format is None else section.format == "parquet"
