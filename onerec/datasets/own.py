"""One's own log: which Parquet or CSV files hold it, and which column is which.

One YAML file describes it (`own_config`). Rows are read by the SQL engine of `resources`: the core
knows files, columns and days, and no database.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel

from onerec.config import SettingError, require
from onerec.config.feedback import Feedback, kind_of
from onerec.datasets import files, own_config
from onerec.datasets.dated_paths import any_day, day_of_path, is_dated, one_day
from onerec.datasets.file_problems import loose, shown

LogSection: TypeAlias = (
    own_config.EventFiles | own_config.ItemFiles | own_config.HistoryFiles | own_config.VectorFiles
)
SECTIONS = ("events", "items", "prior_history", "item_vectors")
WHAT_COUNTS = {
    "ratings": "ratings of at least 4 are positive",
    "shop": "purchases and carts are positive",
    "actions": "every event is positive",
}
"""Descriptions of the feedback (`onerec.config.feedback.FEEDBACK`) of logs without watch times."""
COLUMN_OF_KIND = {"ratings": "rating", "shop": "event_type"}
"""The column that makes a log one of a kind; for videos each file is checked."""
WITHOUT_ZEROS = "A month or a day without its zero is {date:%-m} or {date:%-d} in it"
GAP_DAYS = 180
SLIVER = 0.01
"""What `main_days` leaves out: days beyond such a gap with at most such a share of the rows."""


def open_source(*, data_dir: str | None, config: Path | None) -> "OwnLog":
    """One's own data; relative paths start at `data_dir` or else beside the YAML file.

    Raises:
        ValueError: The YAML file is missing or wrong, or a file or column is missing.
    """
    if config is None:
        raise ValueError(f"config=None: give CONFIG=my_data.yaml; {own_config.HELP}")
    settings = own_config.read_own_config(config)
    base = data_dir if data_dir is not None else str(config.resolve().parent)
    source = OwnLog(settings, base)
    source.check()
    return source


@dataclass(frozen=True)
class MappedFile:
    """A file, and which of its columns fills which column of the contract.

    Attributes:
        file: Where the rows are.
        number: Its place in the delivered order.
        columns: Contract name -> the file's column.
        features: Further columns of a catalogue, by the name that they get.
        day: Of the path, where the path holds one: every row belongs to its delivery.
    """

    file: files.DataFile
    number: int
    columns: Mapping[str, own_config.Column]
    day: date | None
    features: Mapping[str, own_config.Feature] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnLog:
    """The files of one's own data.

    Attributes:
        config: The YAML file.
        base: Where relative paths start.
    """

    config: own_config.OwnData
    base: str

    def check(self) -> None:
        """Check what can be checked without reading rows: files and columns.

        Raises:
            ValueError: A file or a column is missing.
        """
        for name in SECTIONS:
            section = self.section(name)
            if section is None or self.is_npz(name):
                continue
            filled = self._with_columns(name)[::-1]
            if filled:
                self._mapped(name, filled[0], 0)
                self._require_optional(name, filled)
                if name == "events" and self.feedback.needs_watch_seconds:
                    self._require_watch_seconds(filled)
        self._require_declared_columns()
        if self.is_npz("item_vectors"):
            found = self._find("item_vectors", self.url("item_vectors")).files
            require(bool(found), "item_vectors.path", self.url("item_vectors"), "no such file")

    @cached_property
    def event_columns(self) -> frozenset[str]:
        """Columns of the contract that a file of the events fills."""
        filled = self._with_columns("events")
        return frozenset(name for f in filled for name in self._mapped("events", f, 0).columns)

    @cached_property
    def feedback(self) -> Feedback:
        """What the events mean: as declared, else by the kind of log that its columns make it."""
        declared = self.config.feedback
        return declared.resolve(declared.kind or kind_of(set(self.event_columns)))

    def feedback_note(self) -> str | None:
        """What was assumed about the events, where the file does not declare it."""
        if self.config.feedback.kind is not None or self.feedback.kind == "video":
            return None
        filled = self._with_columns("events")
        mapped = {n for f in filled for n in self._columns_used(f)}
        unused = sorted({n for f in filled for n in f.names} - mapped)
        beside = f" Columns not used: {shown(', '.join(unused))}." if unused else ""
        return (
            f"events.columns names no watch_seconds: read as a log of kind {self.feedback.kind}, "
            f"of which {WHAT_COUNTS[self.feedback.kind]}.{beside} Map watch_seconds, event_type or "
            f"rating if there is one, or confirm with feedback.kind: {self.feedback.kind}"
        )

    def section(self, name: str) -> LogSection | None:
        """A section of the YAML file."""
        return getattr(self.config, name)

    def is_npz(self, name: str) -> bool:
        """Whether a section names a NumPy file instead of tables."""
        section = self.section(name)
        return section is not None and section.path.endswith(".npz")

    def url(self, name: str) -> str:
        """The path of a section, made absolute."""
        section = self.section(name)
        assert section is not None, f"{name} is not configured"
        path = section.path
        is_absolute = "://" in path or Path(path).is_absolute()
        url = path if is_absolute else f"{self.base.rstrip('/')}/{path}"
        return url if "://" in url else os.path.normpath(url)

    def is_dated(self, name: str) -> bool:
        """Whether a section has a file, or a directory, per day."""
        return is_dated(self.url(name))

    @cached_property
    def skipped(self) -> tuple[str, ...]:
        """Files beside the log's whose ending says neither Parquet nor CSV."""
        names = [n for n in SECTIONS if self.section(n) is not None and not self.is_npz(n)]
        return tuple(p for n in names for p in self._find(n, any_day(self.url(n))).skipped)

    @cached_property
    def without_day(self) -> tuple[str, ...]:
        """Files that the wildcards of a dated path find, but that hold no day as it is written."""
        names = [n for n in SECTIONS if self.section(n) is not None and self.is_dated(n)]
        return tuple(
            file.path
            for name in names
            for file in self._find(name, any_day(self.url(name))).files
            if day_of_path(self.url(name), file.path) is None
        )

    def days_of_files(self, name: str) -> list[date]:
        """Days for which a file exists, in order.

        Raises:
            ValueError: There is none.
        """
        url = self.url(name)
        found = {day_of_path(url, f.path) for f in self._files(name)}
        days = sorted(day for day in found if day is not None)
        require(bool(days), f"{name}.path", url, "no file name holds a day")
        return days

    def every_file(self, name: str) -> Iterator[MappedFile]:
        """Every file of a section with rows, in the order of their paths.

        Raises:
            ValueError: There is no file, or one lacks a required column.
        """
        url = self.url(name)
        for number, file in enumerate(self._files(name)):
            if file.names:
                yield self._mapped(name, file, number, day_of_path(url, file.path))

    def files_of_days(self, name: str, first: date, last: date) -> Iterator[MappedFile]:
        """Files of a dated section for a range of days; an empty file has no rows, and is left out.

        Raises:
            ValueError: A file lacks a required column.
        """
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            found = self._find(name, one_day(self.url(name), day)).files
            for number, file in enumerate(found):
                if file.names:
                    yield self._mapped(name, file, number, day)

    def _find(self, name: str, url: str) -> files.ListedFiles:
        section = self.section(name)
        assert section is not None, f"{name} is not configured"
        is_parquet = None if section.format is None else section.format == "parquet"
        return files.find(url, parquet=is_parquet, style=section.style)

    def _files(self, name: str) -> list[files.DataFile]:
        """Files of a section, at least one; for `{date}` paths those of every day.

        Raises:
            ValueError: There is none.
        """
        url = self.url(name)
        found = self._find(name, any_day(url))
        kept = list(found.files)
        if is_dated(url):  # the wildcard also catches what lies beside the days
            kept = [f for f in kept if day_of_path(url, f.path) is not None]
        reason = f"no Parquet or CSV file is found at {shown(any_day(url))}"
        if found.files and not kept:
            reason = (
                "no file's path holds a day as it is written here, e.g. "
                f"{shown(found.files[0].path)}. {WITHOUT_ZEROS}"
            )
        elif found.skipped:
            reason += (
                f", but files of other endings: {shown(', '.join(found.skipped))}. If they "
                "hold CSV or Parquet, set format: csv or format: parquet"
            )
        section = self.section(name)
        require(bool(kept), f"{name}.path", section.path if section else None, reason)
        return kept

    def _with_columns(self, name: str) -> list[files.DataFile]:
        """Files of a section that have columns; an empty file has none.

        Where each day has its own file, a damaged one stops its own day and nothing else.

        Raises:
            ValueError: There is no file, or none that can be read.
        """
        found, damaged = [], None
        for file in self._files(name):
            try:
                found += [file] if file.names else []
            except ValueError as error:
                if not self.is_dated(name):
                    raise
                damaged = error
        if damaged is not None and not found:
            raise damaged
        return found

    def _mapped(
        self, name: str, file: files.DataFile, number: int, day: date | None = None
    ) -> MappedFile:
        mapping = self._mapping(name)
        present = {*file.names, *file.path_columns}
        alike = {loose(n): n for n in reversed((*file.names, *file.path_columns))}
        columns = {}
        for contract in type(mapping).model_fields:
            source = getattr(mapping, contract)
            if contract not in mapping.model_fields_set and contract in alike:
                own = contract if contract in present else alike[contract]
                source = own_config.Column(column=own)
            if source is None:
                continue
            if set(source.names) <= present:
                file.require_columns(source.names, _remedy(name, contract))
                columns[contract] = source
            elif contract not in _optional(mapping):
                file.require_columns(source.names, self._remedy_of_some(name, contract, source))
        features = {n: f for n, f in self._features(name).items() if f.column in present}
        return MappedFile(file, number, columns, day, features)

    def _remedy_of_some(self, name: str, contract: str, source: own_config.Column) -> str:
        """The remedy for a column that a file lacks; others of the section may have it."""
        files = self._files(name)
        if not any(set(source.names) <= {*f.names, *f.path_columns} for f in files):
            return _remedy(name, contract)
        return (
            f"Other files of {name}.path have it: name only those there, if this one is another "
            "table; else write it under that name, too."
        )

    def _features(self, name: str) -> Mapping[str, own_config.Feature]:
        section = self.section(name)
        return section.features if isinstance(section, own_config.ItemFiles) else {}

    def _require_watch_seconds(self, known: list[files.DataFile]) -> None:
        column = self.config.events.columns.watch_seconds
        wanted = ("watch_seconds",) if column is None else column.names
        for file in known:
            if "watch_seconds" not in self._mapped("events", file, 0).columns:
                remedy = _remedy("events", "watch_seconds")
                file.require_columns(wanted, f"{remedy[:-1]}, or feedback.kind to another one.")

    def _require_declared_columns(self) -> None:
        """Check that what the section `feedback` compares is there to be compared."""
        declared, present = self.config.feedback, self.event_columns
        if declared.kind in COLUMN_OF_KIND and COLUMN_OF_KIND[declared.kind] not in present:
            column = COLUMN_OF_KIND[declared.kind]
            remedy = f"has no {column}: set events.columns.{column}, or another kind"
            raise SettingError("feedback.kind", declared.kind, remedy)
        for name in ("exposure", "watched", "positive"):
            conditions = getattr(declared, name) or ()
            wanted = [condition.columns() for condition in conditions]
            if wanted and all(columns and not columns & present for columns in wanted):
                columns = sorted(set.union(*wanted))
                remedy = f"the events have no {' or '.join(columns)}: set events.columns"
                texts = " or ".join(condition.text() for condition in conditions)
                raise SettingError(f"feedback.{name}", texts, remedy)

    def _columns_used(self, file: files.DataFile) -> set[str]:
        if not file.names:
            return set()
        found = self._mapped("events", file, 0).columns.values()
        return {name for column in found for name in column.names}

    def _require_optional(self, name: str, known: list[files.DataFile]) -> None:
        """A column that some files lack is empty there; one that all lack is a wrong name."""
        mapping = self._mapping(name)
        for contract in _optional(mapping):
            source = getattr(mapping, contract)
            if source is not None and not any(
                set(source.names) <= {*f.names, *f.path_columns} for f in known
            ):
                known[0].require_columns(source.names, _remedy(name, contract))
        for feature, source in self._features(name).items():
            if not any(source.column in {*f.names, *f.path_columns} for f in known):
                remedy = f"Set {name}.features.{feature} to the column that holds it."
                known[0].require_columns((source.column,), remedy)

    def _mapping(self, name: str) -> BaseModel:
        section = self.section(name)
        assert section is not None, f"{name} is not configured"
        return section.columns


def _optional(mapping: BaseModel) -> list[str]:
    return [n for n, kind in type(mapping).model_fields.items() if kind.default is None]


def _remedy(section: str, contract: str) -> str:
    lists = ", as lists: not a column for each dimension" if contract == "vector" else ""
    return f"Set {section}.columns.{contract} to the column that holds it{lists}."


def main_days(rows: Mapping[date, int]) -> tuple[date, date]:
    """First and last day of a log, without the days that a wrong clock invents.

    A few rows far before or after all others would make thousands of empty days: what lies beyond a
    gap of more than `GAP_DAYS` and holds at most the share `SLIVER` of the rows is left out.

    Args:
        rows: Rows of each day, at least one day.
    """
    days = sorted(rows)
    allowed = SLIVER * sum(rows.values())
    blocks = [[days[0]]]
    for before, day in pairwise(days):
        if (day - before).days > GAP_DAYS:
            blocks.append([])
        blocks[-1].append(day)
    for end in (0, -1):
        while len(blocks) > 1 and sum(rows[day] for day in blocks[end]) <= allowed:
            allowed -= sum(rows[day] for day in blocks.pop(end))
    return blocks[0][0], blocks[-1][-1]
