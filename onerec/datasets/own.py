"""One's own log: which Parquet, CSV or JSON files hold it, and what its events mean.

One YAML file describes it (`own_config`). Rows are read by the SQL engine of `resources`: the core
knows files, columns and days, and no database.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

from onerec.config import SettingError, require
from onerec.config.feedback import Feedback, kind_of
from onerec.datasets import own_config
from onerec.datasets.data_file import DataFile
from onerec.datasets.dated_paths import any_day
from onerec.datasets.file_problems import shown
from onerec.datasets.mapped_files import MappedFile, MappedSection
from onerec.datasets.section_files import SectionFiles
from onerec.datasets.table_formats import about_table_around

SECTIONS = ("events", "items", "prior_history", "item_vectors", "users")
WHAT_COUNTS = {
    "ratings": "ratings of at least 4 are positive",
    "shop": "purchases and carts are positive",
    "actions": "every event is positive",
}
"""Descriptions of the feedback (`onerec.config.feedback.FEEDBACK`) of logs without watch times."""
COLUMN_OF_KIND = {"ratings": "rating", "shop": "event_type"}
"""The column that makes a log one of a kind; for videos each file is checked."""


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
            if self.section(name) is None or self.is_npz(name):
                continue
            filled = self._with_columns(name)[::-1]
            if filled:
                columns = MappedSection(self._files(name))
                columns.mapped(filled[0])
                columns.require_optional(filled)
                if name == "events" and self.feedback.needs_watch_seconds:
                    has_some = self.is_dated(name) and "watch_seconds" in self.event_columns
                    self._require_watch_seconds([] if has_some else filled)
        self._require_declared_columns()
        if self.is_npz("item_vectors"):
            found = self._files("item_vectors").listed().files
            require(bool(found), "item_vectors.path", self.url("item_vectors"), "no such file")

    @cached_property
    def event_columns(self) -> frozenset[str]:
        """Columns of the contract that a file of the events fills."""
        filled, events = self._with_columns("events"), MappedSection(self._files("events"))
        return frozenset(name for file in filled for name in events.mapped(file).columns)

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
        filled, events = self._with_columns("events"), MappedSection(self._files("events"))
        mapped = {n for f in filled for c in events.mapped(f).columns.values() for n in c.names}
        unused = sorted({n for f in filled for n in f.names} - mapped)
        beside = f" Columns not used: {shown(', '.join(unused))}." if unused else ""
        return (
            f"events.columns names no watch_seconds: read as a log of kind {self.feedback.kind}, "
            f"of which {WHAT_COUNTS[self.feedback.kind]}.{beside} Map watch_seconds, event_type or "
            f"rating if there is one, or confirm with feedback.kind: {self.feedback.kind}"
        )

    def section(self, name: str) -> own_config.LogSection | None:
        """A section of the YAML file."""
        return getattr(self.config, name)

    def is_npz(self, name: str) -> bool:
        """Whether a section names a NumPy file instead of tables."""
        return self.section(name) is not None and self._files(name).is_npz

    def url(self, name: str) -> str:
        """The path of a section, made absolute."""
        return self._files(name).url

    def is_dated(self, name: str) -> bool:
        """Whether a section has a file, or a directory, per day."""
        return self._files(name).is_dated

    @cached_property
    def skipped(self) -> tuple[str, ...]:
        """Files beside the log's whose ending says no format that is read."""
        tables = [files for files in self._configured if not files.is_npz]
        return tuple(path for files in tables for path in files.listed().skipped)

    @cached_property
    def unreadable(self) -> tuple[str, ...]:
        """Directories among the log's that this user may not list."""
        return tuple(path for files in self._configured for path in files.listed().unreadable)

    @cached_property
    def without_day(self) -> tuple[str, ...]:
        """Files that the wildcards of a dated path find, but that hold no day as it is written."""
        dated = [files for files in self._configured if files.is_dated]
        return tuple(path for files in dated for path in files.without_day())

    def within_tables(self) -> list[str]:
        """Warnings about globs and files within tables of Delta, Iceberg and Hudi."""
        tables = [files for files in self._configured if not files.is_npz]
        about = (about_table_around(any_day(files.url)) for files in tables)
        return [f"all files that are named are read, but {said}" for said in about if said]

    def unseen_columns(self) -> list[str]:
        """Warnings about columns of long files of JSON lines that nothing has so far."""
        tables = [files for files in self._configured if not files.is_npz]
        return [
            warning
            for files in tables
            for warning in MappedSection(files).unseen(self._with_columns(files.name))
        ]

    def days_of_files(self, name: str) -> list[date]:
        """Days for which a file exists, in order.

        Raises:
            ValueError: There is none.
        """
        return self._files(name).days()

    def every_file(self, name: str) -> Iterator[MappedFile]:
        """Every file of a section with rows, in the order of their paths.

        Raises:
            ValueError: There is no file, or one is damaged or lacks a required column; where each
                day has its own, such a one is left out.
        """
        section = MappedSection(self._files(name))
        found, unusable = section.usable()
        if unusable is not None and not self.is_dated(name):
            raise unusable
        return section.numbered(found)

    def readable_files(self, name: str) -> Iterator[MappedFile]:
        """As `every_file`; where damaged files are opened, without them."""
        return MappedSection(self._files(name)).numbered(self._with_columns(name))

    def files_of_days(self, name: str, first: date, last: date) -> Iterator[MappedFile]:
        """Files of a dated section for a range of days; an empty file has no rows, and is left out.

        Raises:
            ValueError: A file lacks a required column.
        """
        files, skipped = self._files(name), None
        section = MappedSection(files)
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            found = files.of_day(day)
            if skipped is None and any(file.is_json for file in found):
                # the manifest of a day without rows is known by the tables of other days
                skipped = {*files.listed().skipped}
            for number, file in enumerate(found):
                if file.path in (skipped or ()) or not file.names:
                    continue
                if name == "events" and self.feedback.needs_watch_seconds:
                    self._require_watch_seconds([file])
                yield section.mapped(file, number, day)

    @property
    def _configured(self) -> list[SectionFiles]:
        return [self._files(name) for name in SECTIONS if self.section(name) is not None]

    def _files(self, name: str) -> SectionFiles:
        section = self.section(name)
        assert section is not None, f"{name} is not configured"
        return SectionFiles(name, section, self.base)

    def _with_columns(self, name: str) -> list[DataFile]:
        """Files of a section that have the columns it needs; an empty file has none at all.

        Where each day has its own file, one that is damaged or lacks a column stops its own day
        and nothing else.

        Raises:
            ValueError: There is no file, or none that can be read.
        """
        found, unusable = MappedSection(self._files(name)).usable()
        if unusable is not None and not (self.is_dated(name) or self.opens_damaged):
            raise unusable
        return found

    def _require_watch_seconds(self, known: list[DataFile]) -> None:
        column = self.config.events.columns.watch_seconds
        wanted = ("watch_seconds",) if column is None else column.names
        events = MappedSection(self._files("events"))
        for file in known:
            if "watch_seconds" not in events.mapped(file).columns:
                events.require_columns(
                    file,
                    "watch_seconds",
                    wanted,
                    is_elsewhere="watch_seconds" in self.event_columns,
                    or_else=", or feedback.kind to another one",
                )

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
