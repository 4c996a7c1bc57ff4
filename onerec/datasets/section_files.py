"""Files of one section of one's own data: where its path leads, and their days."""

import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from onerec.config import SettingError, require
from onerec.datasets import file_search
from onerec.datasets.data_file import DataFile
from onerec.datasets.dated_paths import any_day, day_of_path, is_dated, one_day
from onerec.datasets.file_problems import shown
from onerec.datasets.own_config import LogSection
from onerec.urls import redact_url

WITHOUT_ZEROS = "A month or a day without its zero is {date:%-m} or {date:%-d} in it"


@dataclass(frozen=True)
class SectionFiles:
    """Files of a section.

    Attributes:
        name: Of the section.
        section: What the YAML file says of it.
        base: Where relative paths start.
    """

    name: str
    section: LogSection
    base: str

    @property
    def url(self) -> str:
        """The path, made absolute."""
        path = self.section.path
        is_absolute = "://" in path or Path(path).is_absolute()
        url = path if is_absolute else f"{self.base.rstrip('/')}/{path}"
        return url if "://" in url else os.path.normpath(url)

    @property
    def is_dated(self) -> bool:
        """Whether there is a file, or a directory, per day."""
        return is_dated(self.url)

    @property
    def is_npz(self) -> bool:
        """Whether the path names a NumPy file instead of tables."""
        return self.section.path.endswith(".npz")

    def listed(self) -> file_search.ListedFiles:
        """All that is found, of every day where days have files; maybe nothing.

        Raises:
            SettingError: The path's file system cannot be reached, or too much lies there.
        """
        return self._find(any_day(self.url))

    def of_day(self, day: date) -> tuple[DataFile, ...]:
        """Files of a day of dated ones."""
        return self._find(one_day(self.url, day)).files

    def day_of(self, file: DataFile) -> date | None:
        """The day that a file's path holds; None where it holds none."""
        return day_of_path(self.url, file.path)

    def days(self) -> list[date]:
        """Days for which a file exists, in order.

        Raises:
            SettingError: There is none.
        """
        found = {self.day_of(file) for file in self.every()}
        days = sorted(day for day in found if day is not None)
        require(bool(days), f"{self.name}.path", self.url, "no file name holds a day")
        return days

    def without_day(self) -> list[str]:
        """Files that the wildcards of a dated path find, but that hold no day as it is written."""
        return [file.path for file in self.listed().files if self.day_of(file) is None]

    def every(self) -> list[DataFile]:
        """The files, at least one; for `{date}` paths those of every day.

        Raises:
            SettingError: There is none.
        """
        found = self.listed()
        kept = list(found.files)
        if self.is_dated:  # the wildcard also catches what lies beside the days
            kept = [file for file in kept if self.day_of(file) is not None]
        reason = f"no Parquet, CSV or JSON-lines file is found at {shown(any_day(self.url))}"
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
        path = self.section.path
        require(bool(kept), f"{self.name}.path", path, f"{reason}{_remedy_of_path(path)}")
        return kept

    def _find(self, url: str) -> file_search.ListedFiles:
        section = self.section
        try:
            return file_search.find(url, format=section.format, style=section.style)
        except ValueError as error:
            path = redact_url(section.path)
            raise SettingError(f"{self.name}.path", path, str(error)) from error


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
