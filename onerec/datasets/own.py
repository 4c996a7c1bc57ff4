"""One's own log: which Parquet, CSV or JSON files hold it, and which column is which.

One YAML file describes it (`own_config`). Rows are read by the SQL engine of `resources`: the core
knows files, columns and days, and no database.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
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
from onerec.urls import redact_url

LogSection: TypeAlias = (
    own_config.EventFiles
    | own_config.ItemFiles
    | own_config.HistoryFiles
    | own_config.VectorFiles
    | own_config.UserFiles
)
SECTIONS = ("events", "items", "prior_history", "item_vectors", "users")
WHAT_COUNTS = {
    "ratings": "ratings of at least 4 are positive",
    "shop": "purchases and carts are positive",
    "actions": "every event is positive",
}
"""Descriptions of the feedback (`onerec.config.feedback.FEEDBACK`) of logs without watch times."""
COLUMN_OF_KIND = {"ratings": "rating", "shop": "event_type"}
"""The column that makes a log one of a kind; for videos each file is checked."""
REMEDY_OF_SOME = (
    "Other files of {}.path have it: name only those there, if this one is another table; else "
    "list both names, [name, name in this file]."
)
WITHOUT_ZEROS = "A month or a day without its zero is {date:%-m} or {date:%-d} in it"
LOOKED_THROUGH = 64 << 20
"""Bytes of JSON lines in which a key is looked for that the first lines lack."""
GAP_DAYS = 180
SLIVER = 0.01
"""What `main_days` leaves out: days beyond such a gap with at most such a share of the rows."""


def open_source(
    *, data_dir: str | None, config: Path | None, opens_damaged: bool = False
) -> "OwnLog":
    """One's own data; relative paths start at `data_dir` or else beside the YAML file.

    Args:
        data_dir: Where relative paths start.
        config: The YAML file.
        opens_damaged: A file that cannot be read stops what reads its rows, not the opening.

    Raises:
        SettingError: The YAML file is missing or wrong, or a file or column is missing.
        ValueError: A file cannot be read.
    """
    if config is None:
        raise SettingError("CONFIG", None, f"give CONFIG=my_data.yaml; {own_config.HELP}")
    settings = own_config.read_own_config(config)
    base = data_dir if data_dir is not None else str(config.resolve().parent)
    source = OwnLog(settings, base, opens_damaged)
    source.check()
    return source


@dataclass(frozen=True)
class MappedFile:
    """A file, and which of its columns fills which column of the contract.

    Attributes:
        file: Where the rows are.
        number: Its place in the delivered order.
        columns: Contract name -> the file's column.
        features: Further columns of a catalogue or of users, by the name that they get.
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
        opens_damaged: Files that cannot be read, of which others can, are left to what reads rows.
    """

    config: own_config.OwnData
    base: str
    opens_damaged: bool = False

    def check(self) -> None:
        """Check what can be checked without reading rows: files and columns.

        Raises:
            SettingError: A file or a column is missing.
            ValueError: A file cannot be read.
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
                    has_some = self.is_dated(name) and "watch_seconds" in self.event_columns
                    self._require_watch_seconds([] if has_some else filled)
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
        try:
            return declared.resolve(declared.kind or kind_of(set(self.event_columns)))
        except SettingError as error:
            raise error.within("feedback") from None

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
        """Files beside the log's whose ending says no format that is read."""
        names = [n for n in SECTIONS if self.section(n) is not None and not self.is_npz(n)]
        return tuple(p for n in names for p in self._find(n, any_day(self.url(n))).skipped)

    @cached_property
    def unreadable(self) -> tuple[str, ...]:
        """Directories among the log's that this user may not list."""
        names = [n for n in SECTIONS if self.section(n) is not None]
        return tuple(p for n in names for p in self._find(n, any_day(self.url(n))).unreadable)

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
            ValueError: There is no file, or one is damaged or lacks a required column; where each
                day has its own, such a one is left out.
        """
        found, unusable = self._sorted_out(name)
        if unusable is not None and not self.is_dated(name):
            raise unusable
        return self._numbered(name, found)

    def readable_files(self, name: str) -> Iterator[MappedFile]:
        """As `every_file`; where damaged files are opened, without them."""
        return self._numbered(name, self._with_columns(name))

    def _numbered(self, name: str, found: Sequence[files.DataFile]) -> Iterator[MappedFile]:
        url = self.url(name)
        for number, file in enumerate(found):
            yield self._mapped(name, file, number, day_of_path(url, file.path))

    def files_of_days(self, name: str, first: date, last: date) -> Iterator[MappedFile]:
        """Files of a dated section for a range of days; an empty file has no rows, and is left out.

        Raises:
            ValueError: A file lacks a required column.
        """
        url, skipped = self.url(name), None
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            found = self._find(name, one_day(url, day)).files
            if skipped is None and any(file.is_json for file in found):
                # the manifest of a day without rows is known by the tables of other days
                skipped = {*self._find(name, any_day(url)).skipped}
            for number, file in enumerate(found):
                if file.path in (skipped or ()) or not file.names:
                    continue
                if name == "events" and self.feedback.needs_watch_seconds:
                    self._require_watch_seconds([file])
                yield self._mapped(name, file, number, day)

    def _find(self, name: str, url: str) -> files.ListedFiles:
        section = self.section(name)
        assert section is not None, f"{name} is not configured"
        try:
            return files.find(url, format=section.format, style=section.style)
        except ValueError as error:
            raise SettingError(f"{name}.path", redact_url(section.path), str(error)) from error

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
        reason = f"no Parquet, CSV or JSON-lines file is found at {shown(any_day(url))}"
        if found.files and not kept:
            reason = (
                "no file's path holds a day as it is written here, e.g. "
                f"{shown(found.files[0].path)}. {WITHOUT_ZEROS}"
            )
        elif found.skipped:
            reason += (
                f", but files of other endings: {shown(', '.join(found.skipped))}. If they "
                "hold CSV, JSON lines or Parquet, set format: csv, json or parquet"
            )
        if found.unreadable:
            reason += f". This user may not list {shown(', '.join(found.unreadable))}"
        section = self.section(name)
        path = section.path if section else ""
        require(bool(kept), f"{name}.path", path, f"{reason}{_remedy_of_path(path)}")
        return kept

    def _with_columns(self, name: str) -> list[files.DataFile]:
        """Files of a section that have the columns it needs; an empty file has none at all.

        Where each day has its own file, one that is damaged or lacks a column stops its own day
        and nothing else.

        Raises:
            ValueError: There is no file, or none that can be read.
        """
        found, unusable = self._sorted_out(name)
        if unusable is not None and not (self.is_dated(name) or self.opens_damaged):
            raise unusable
        return found

    def _sorted_out(self, name: str) -> tuple[list[files.DataFile], ValueError | None]:
        """Files that have the columns, and the error of the first that cannot be used.

        Raises:
            ValueError: There is no file, or none that can be read.
        """
        found, errors = [], []
        every = self._files(name)
        for file in every:
            try:
                if file.names:
                    self._mapped(name, file, 0, others=every)
                    found.append(file)
            except ValueError as error:
                errors.append(error)
        if errors and not found:
            raise errors[0]
        return found, errors[0] if errors else None

    def _mapped(
        self,
        name: str,
        file: files.DataFile,
        number: int,
        day: date | None = None,
        others: Sequence[files.DataFile] | None = None,
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
            source = source.as_named_in(present)
            # a key of JSON may come after the first lines, or not at all
            is_late = file.is_json and contract in _optional(mapping)
            if is_late and source.column not in present:
                columns[contract] = source
            elif set(source.names) <= present:
                _require_columns(file, _key(name, contract), source.names)
                columns[contract] = source
            elif contract not in _optional(mapping):
                every = self._files(name) if others is None else others
                is_elsewhere = _may_have(every, source)
                remedy = REMEDY_OF_SOME.format(name) if is_elsewhere else None
                _require_columns(file, _key(name, contract), source.names, remedy)
        features = {
            n: f for n, f in self._features(name).items() if f.column in present or file.is_json
        }
        return MappedFile(file, number, columns, day, features)

    def _features(self, name: str) -> Mapping[str, own_config.Feature]:
        section = self.section(name)
        has_some = isinstance(section, own_config.ItemFiles | own_config.UserFiles)
        return section.features if has_some else {}

    def _require_watch_seconds(self, known: list[files.DataFile]) -> None:
        column = self.config.events.columns.watch_seconds
        wanted = ("watch_seconds",) if column is None else column.names
        for file in known:
            if "watch_seconds" not in self._mapped("events", file, 0).columns:
                key = _key("events", "watch_seconds")
                remedy = f"{_remedy(key)[:-1]}, or feedback.kind to another one."
                if "watch_seconds" in self.event_columns:
                    remedy = REMEDY_OF_SOME.format("events")
                _require_columns(file, key, wanted, remedy)

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
            if source is not None and not _may_have(known, source):
                _require_columns(known[0], _key(name, contract), source.names)
        for feature, source in self._features(name).items():
            if not _may_have(known, own_config.Column(column=source.column)):
                _require_columns(known[0], f"{name}.features.{feature}", (source.column,))

    def _mapping(self, name: str) -> BaseModel:
        section = self.section(name)
        assert section is not None, f"{name} is not configured"
        return section.columns


def _remedy_of_path(path: str) -> str:
    """What is likely wrong with a path where nothing lies."""
    if path != path.strip():
        return ". It has blanks around it: remove them"
    if "://" in path:
        return ". Correct it"
    if re.search(r"^~|\$|%\w+%", re.sub(r"\{date[^}]*\}", "", path)):
        return ". ~ and variables are not filled in: write the directory out"
    if "\\" in path:
        return ". Part directories by /, not by a backslash"
    if Path(path).is_absolute():
        return ". Correct it"
    return ". A relative path starts beside the YAML file, or at DATA_DIR: correct it"


def _may_have(known: Sequence[files.DataFile], column: own_config.Column) -> bool:
    """Whether some file has a column, itself or in its path; a damaged one has none.

    A key of JSON may come after the first lines of all files: the newest ones are looked through,
    up to `LOOKED_THROUGH` bytes. What lies beyond may have it.
    """
    if any(_lacks(file, column) == set() for file in known):
        return True
    left = LOOKED_THROUGH
    for file in sorted((f for f in known if f.is_json), key=lambda f: f.path, reverse=True):
        left -= file.filesystem.size(file.path)
        if left < 0:
            return True
        lacking = _lacks(file, column)
        if lacking is not None and all(file.mentions(name) for name in lacking):
            return True
    return False


def _lacks(file: files.DataFile, column: own_config.Column) -> set[str] | None:
    """Names of a column that a file does not show; None of a damaged one."""
    try:
        present = {*file.names, *file.path_columns}
    except ValueError:
        return None
    return set(column.as_named_in(present).names) - present


def _optional(mapping: BaseModel) -> list[str]:
    return [n for n, kind in type(mapping).model_fields.items() if kind.default is None]


def _key(section: str, contract: str) -> str:
    """Where the YAML file says which column holds one of the contract's."""
    return f"{section}.columns.{contract}"


def _remedy(key: str) -> str:
    lists = ", as lists: not a column for each dimension" if key.endswith(".vector") else ""
    return f"Set {key} to the column that holds it{lists}."


def _require_columns(
    file: files.DataFile, key: str, names: tuple[str, ...], remedy: str | None = None
) -> None:
    """Check that a file, whose header can be read, has the columns that a key of the YAML names.

    Raises:
        SettingError: It lacks one, or has two of that name.
    """
    try:
        file.require_columns(names, remedy or _remedy(key))
    except ValueError as error:
        raise SettingError(key, names[-1], str(error)) from None


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
