"""Daily files delivered by the simulated app: late, truncated, empty and corrected ones too.

    <directory>/log/2026-06-06.parquet      the events delivered on a day
    <directory>/items/2026-06-06.parquet    the whole catalogue as of a day

Expected users and catalogues are computed here from these files, without the product's SQL.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator.config import SimulatorConfig

APP = SimulatorConfig(
    initial_users=260, new_users_per_day=4, initial_items=220, new_items_per_day=6
)
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Deliveries:
    """The directory of deliveries.

    Attributes:
        directory: Path of the directory.
        app: Source of the rows.
    """

    directory: Path
    app: SimulatedSource

    @classmethod
    def into(cls, directory: Path) -> "Deliveries":
        """Of the soak's app."""
        return cls(directory, SimulatedSource(APP))

    def events_file(self, day: date) -> Path:
        """The events delivered on a day."""
        return self.directory / "log" / f"{day}.parquet"

    def items_file(self, day: date) -> Path:
        """The catalogue delivered on a day."""
        return self.directory / "items" / f"{day}.parquet"

    def deliver(
        self, day: date, *, share: float = 1.0, late: float = 0.0, without: Iterable[str] = ()
    ) -> None:
        """Write a day's file of events.

        Args:
            day: The day.
            share: Share of the day's rows that is delivered, the earliest ones; 0: an empty file.
            late: Share of the previous day's rows, the latest ones, that this file contains too.
            without: Ids of erased users, whose rows are left out.
        """
        rows = self.app.events(day)
        rows = rows.slice(0, round(len(rows) * share))
        if late:
            before = self.app.events(day - ONE_DAY)
            rows = pa.concat_tables([before.slice(len(before) - round(len(before) * late)), rows])
        self._write(_without(rows, without), self.events_file(day))

    def deliver_catalogue(self, day: date, withdrawn_on: date | None) -> None:
        """Write the catalogue; from `withdrawn_on` on two thirds of the older items are missing."""
        items = self.app.items(day)
        if withdrawn_on is not None and day >= withdrawn_on:
            old = set(self.app.items(withdrawn_on)["item_id"].to_pylist()[::3])
            kept = set(self.app.items(withdrawn_on)["item_id"].to_pylist()) - old
            gone = pc.is_in(items["item_id"], value_set=pa.array(sorted(kept), pa.string()))
            items = items.filter(pc.invert(gone))
        self._write(items, self.items_file(day))

    def take_out(self, users: Iterable[str]) -> None:
        """Write every day's events again without some users."""
        for file in sorted((self.directory / "log").glob("*.parquet")):
            self._write(_without(pq.read_table(file), users), file)

    def users_between(self, first: date, last: date) -> set[str]:
        """Users with an event in a range of days, by the deliveries up to the last day."""
        users: set[str] = set()
        begin, end = _midnight(first), _midnight(last + ONE_DAY)
        day = first
        while day <= last:
            rows = pq.read_table(self.events_file(day), columns=["user_id", "event_time"])
            inside = pc.and_(
                pc.greater_equal(rows["event_time"], begin), pc.less(rows["event_time"], end)
            )
            users |= set(rows.filter(inside)["user_id"].to_pylist())
            day += ONE_DAY
        return users

    def catalogue(self, day: date) -> set[str]:
        """Ids of the items in the day's delivery."""
        return set(pq.read_table(self.items_file(day), columns=["item_id"])["item_id"].to_pylist())

    def _write(self, rows: pa.Table, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{file.name}.aside")
        pq.write_table(rows, aside)
        os.replace(aside, file)


def _without(rows: pa.Table, users: Iterable[str]) -> pa.Table:
    erased = pa.array(sorted(users), pa.string())
    return rows.filter(pc.invert(pc.is_in(rows["user_id"], value_set=erased)))


def _midnight(day: date) -> pa.Scalar:
    return pa.scalar(datetime.combine(day, time(), UTC), pa.timestamp("us", "UTC"))
