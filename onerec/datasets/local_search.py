"""Looking for files below a directory of this machine, without walking through a whole disk."""

import os
import time
from collections.abc import Iterable
from typing import Any

from fsspec.implementations.local import LocalFileSystem

MOST_ENTRIES = 200_000
"""Files and directories that one search looks at: a year of 500 files a day is fewer."""
LONGEST_SECONDS = 60.0
"""A search on a slow network drive ends, too."""


class TooManyFilesError(ValueError):
    """A directory that holds much more than a log: `/`, or a home directory."""


class BoundedLocalFileSystem(LocalFileSystem):
    """This machine's files for one search, which ends after so many entries or seconds.

    Symbolic links to directories are followed, each target once and never to a directory above.

    Attributes:
        unreadable: Directories that this user may not list.
        follows_links: Whether a link to a directory was followed.
    """

    cachable = False  # each search counts for itself

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: list[str] = []
        self.follows_links = False
        self._targets: set[str] = set()
        self._entries = 0
        self._ends = time.monotonic() + LONGEST_SECONDS

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> list[Any]:
        """Entries of a directory; none of one that may not be listed.

        Raises:
            TooManyFilesError: The search has looked at too many by now, or for too long.
        """
        try:
            found = super().ls(path, detail=detail, **kwargs)
        except PermissionError:
            self.unreadable.append(path)
            return []
        self._entries += len(found)
        if self._entries > MOST_ENTRIES or time.monotonic() > self._ends:
            raise TooManyFilesError(
                f"{self._entries:,} files and directories were looked at, the last ones in {path}: "
                f"a search ends after {MOST_ENTRIES:,} of them or {LONGEST_SECONDS:.0f} s. Name "
                "the directory that holds the log, and nothing else"
            )
        if detail:
            for entry in found:
                if entry["islink"] and self._leads_on(path, entry["name"]):
                    entry["type"] = "directory"
        return found

    def _leads_on(self, directory: str, link: str) -> bool:
        """Whether a link in a directory is to be followed, as one to a directory."""
        if not os.path.isdir(link):
            return False
        target, here = os.path.realpath(link), os.path.realpath(directory)
        if target in self._targets or f"{here}/".startswith(f"{target.rstrip('/')}/"):
            return False
        self._targets.add(target)
        self.follows_links = True
        return True


def without_second_ways(paths: Iterable[str]) -> set[str]:
    """The paths without those that lead by a link to a file which stands among them itself.

    Of several links to one file, the first path in order is kept.
    """
    ways: dict[str, str] = {}
    for path in sorted(paths):
        real = os.path.realpath(path)
        if real not in ways or path == real:
            ways[real] = path
    return set(ways.values())
