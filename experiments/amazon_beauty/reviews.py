"""Amazon Beauty as the literature uses it: sequences, titles, leave-one-out.

The files are those of the S3-Rec preprocessing of Amazon 2014 (5-core): `sequences.txt` holds
`user item item ...`, oldest first, and `items.tsv` holds `item_id, asin, title, attributes` under a
header. A user's last item is the test, the one before validates, the rest is to learn from. That is
no log with a clock, so the nightly pipeline does not read it; `experiments.amazon_beauty`
does.

Shapes: U users, N items, H history items.
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

SEQUENCES_FILE, ITEMS_FILE = "sequences.txt", "items.tsv"
ITEM_FIELDS = ("item_id", "asin", "title", "attributes")
HISTORY_LENGTH = 20
"""TIGER's protocol: a history is capped at its 20 most recent items."""
SHORTEST = 3
"""Items a user needs: one to learn from, one that validates, one that tests."""


class LeaveOneOutCases(NamedTuple):
    """Users with their history and the one item to be predicted.

    Attributes:
        history: (U, H) item indices, oldest first, -1 padded on the right.
        targets: (U, 1) the one item that counts.
        seen: (U, E) everything the user chose before it, -1 padded: what a filter leaves out.
    """

    history: np.ndarray
    targets: np.ndarray
    seen: np.ndarray

    def of(self, rows: np.ndarray | slice) -> "LeaveOneOutCases":
        """The cases of some users."""
        return LeaveOneOutCases(*(column[rows] for column in self))


@dataclass(frozen=True)
class AmazonReviews:
    """Attributes:
    items: All users' item indices one after the other, each user's oldest first.
    starts: (U + 1,) where each user's items begin.
    titles: (N,) strings; some are empty.
    attributes: (N,) strings, brand and categories joined by `|`.
    sha256: Of the two files.
    """

    items: np.ndarray
    starts: np.ndarray
    titles: np.ndarray
    attributes: np.ndarray
    sha256: str

    @property
    def num_users(self) -> int:
        return len(self.starts) - 1

    @property
    def num_items(self) -> int:
        return len(self.titles)

    def learned(self) -> tuple[np.ndarray, np.ndarray]:
        """Items and their users without each user's last two: all that a system may learn from."""
        place = np.arange(len(self.items)) - np.repeat(self.starts[:-1], np.diff(self.starts))
        kept = place < np.repeat(np.diff(self.starts), np.diff(self.starts)) - 2
        users = np.repeat(np.arange(self.num_users), np.diff(self.starts))
        return self.items[kept], users[kept]

    def cases(self, split: str, history_length: int = HISTORY_LENGTH) -> LeaveOneOutCases:
        """Leave-one-out: what a user chose last (`test`), or the one before (`valid`).

        Args:
            split: `valid` or `test`.
            history_length: H; the items right before the target are kept.

        Raises:
            ValueError: Another split.
        """
        if split not in ("valid", "test"):
            raise ValueError(f"split={split!r}: use 'valid' or 'test'")
        target = self.starts[1:] - (1 if split == "test" else 2)
        longest = int((target - self.starts[:-1]).max())
        return LeaveOneOutCases(
            self._before(target, history_length),
            self.items[target][:, None],
            self._before(target, longest),
        )

    def _before(self, target: np.ndarray, length: int) -> np.ndarray:
        """(U, length): each user's items right before a place, -1 padded on the right."""
        first = np.maximum(self.starts[:-1], target - length)
        place = first[:, None] + np.arange(length)
        there = place < target[:, None]
        return np.where(there, self.items[np.where(there, place, 0)], -1)


def read_amazon(directory: Path) -> AmazonReviews:
    """Read both files.

    Raises:
        ValueError: A file is missing or a line is not what it should be; says which and why.
    """
    for name in (SEQUENCES_FILE, ITEMS_FILE):
        if not (directory / name).is_file():
            raise ValueError(
                f"{directory / name}: no such file; point at a directory with {SEQUENCES_FILE} and "
                f"{ITEMS_FILE} (the S3-Rec preprocessing of Amazon reviews)"
            )
    titles, attributes = _read_items(directory / ITEMS_FILE)
    items, starts = _read_sequences(directory / SEQUENCES_FILE, len(titles))
    digest = hashlib.sha256()
    for name in (SEQUENCES_FILE, ITEMS_FILE):
        digest.update((directory / name).read_bytes())
    return AmazonReviews(items, starts, titles, attributes, digest.hexdigest())


def _read_items(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Titles and attributes in the order of item_id, which counts from 1 without a gap."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        head = next(rows, [])
        if tuple(head) != ITEM_FIELDS:
            raise ValueError(
                f"{file}, line 1: the header is {head}; use {' '.join(ITEM_FIELDS)}, tab-separated"
            )
        table = []
        for number, row in enumerate(rows, start=2):
            if len(row) != len(ITEM_FIELDS):
                raise ValueError(
                    f"{file}, line {number}: {len(row)} fields instead of {len(ITEM_FIELDS)}; "
                    "separate them by single tabs and leave tabs out of titles"
                )
            if row[0] != str(number - 1):
                raise ValueError(
                    f"{file}, line {number}: item_id={row[0]!r}; number the items from 1 in the "
                    f"order of the lines, this one is {number - 1}"
                )
            table.append(row)
    if not table:
        raise ValueError(f"{file}: no items after the header; give every item a line")
    columns = np.array(table, dtype=object).T
    return columns[2], columns[3]


def _read_sequences(file: Path, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    items: list[np.ndarray] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        wrong = [field for field in fields if not field.isdecimal()]
        if wrong:
            raise ValueError(
                f"{file}, line {number}: {wrong[0]!r} is no number; a line is a user and its items"
            )
        row = np.array(fields[1:], dtype=np.int64)
        if len(row) < SHORTEST:
            raise ValueError(
                f"{file}, line {number}: {len(row)} items; leave out users with fewer than "
                f"{SHORTEST}, who have nothing to learn from beside validation and test"
            )
        if row.min() < 1 or row.max() > num_items:
            unknown = int(row[(row < 1) | (row > num_items)][0])
            raise ValueError(
                f"{file}, line {number}: item {unknown} is not in {ITEMS_FILE}, which has 1 to "
                f"{num_items}; add it there or leave it out"
            )
        items.append(row - 1)
    if not items:
        raise ValueError(f"{file}: no users; a line is a user and its items, oldest first")
    starts = np.cumsum([0, *(len(row) for row in items)])
    return np.concatenate(items), starts
