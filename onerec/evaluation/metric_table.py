"""Metrics as one tidy table (`schema.OFFLINE_METRICS`), and the values per user behind it.

Shapes: C cases.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from onerec.schema import CASE_METRICS, OFFLINE_METRICS
from onerec.statistics import NO_VALUE, Interval

METRICS_FILE = "metrics.parquet"
CASES_FILE = "case_metrics.parquet"
ALL = "all"
"""The slice of every case and target."""


class Metric(NamedTuple):
    """A metric and the slice that it is taken over."""

    name: str
    slice: str = ALL


class TableColumn(NamedTuple):
    """What the cells of a column show of each system: a metric, or its difference to a system."""

    metric: str
    slice: str = ALL
    reference: str | None = None


CaseValues = Mapping[Metric, np.ndarray]
"""(C,) per metric; NaN where a case has no value."""


class MetricRow(NamedTuple):
    """A row of `schema.OFFLINE_METRICS`."""

    system: str
    reference: str | None
    metric: str
    slice: str
    value: float
    low: float | None = None
    high: float | None = None
    cases: int | None = None

    @classmethod
    def of(cls, system: str, column: TableColumn, found: Interval) -> "MetricRow":
        """A number with its interval; without ends where these are NaN."""
        low, high = (None if np.isnan(end) else end for end in (found.low, found.high))
        return cls(system, column.reference, column.metric, column.slice, found.mean, low, high)

    @property
    def column(self) -> TableColumn:
        """What it is a number of."""
        return TableColumn(self.metric, self.slice, self.reference)

    @property
    def interval(self) -> Interval:
        """The value with its interval, NaN ends where it has none."""
        return Interval(self.value, *(np.nan if e is None else e for e in (self.low, self.high)))


@dataclass(frozen=True)
class MetricTable:
    """`schema.OFFLINE_METRICS` with look-ups.

    Attributes:
        rows: One number each, in the order in which they were measured.
    """

    rows: tuple[MetricRow, ...]

    @cached_property
    def _by_key(self) -> dict[tuple[str, str | None, str, str], MetricRow]:
        return {row[:4]: row for row in self.rows}

    def find(
        self, system: str, metric: str, *, slice: str = ALL, reference: str | None = None
    ) -> Interval:
        """One number with its interval; `NO_VALUE` where there is no such row."""
        row = self._by_key.get((system, reference, metric, slice))
        return NO_VALUE if row is None else row.interval

    def cell(self, system: str, column: TableColumn) -> Interval:
        """The same by column."""
        return self.find(system, column.metric, slice=column.slice, reference=column.reference)

    def systems(self, metric: str) -> list[str]:
        """Systems with a value of their own of a metric, in the order of the rows."""
        found = (r.system for r in self.rows if r.reference is None and r.metric == metric)
        return list(dict.fromkeys(found))

    def pairs(self) -> list[tuple[str, str]]:
        """The systems that are compared, each with its reference, in alphabetical order."""
        return sorted({(r.system, r.reference) for r in self.rows if r.reference is not None})

    def lowest(self, metric: str) -> float:
        """The lowest value of all systems; NaN where none has one."""
        return min((self.find(s, metric).mean for s in self.systems(metric)), default=np.nan)

    def save(self, directory: Path, file: str = METRICS_FILE) -> None:
        """Write a Parquet file."""
        records = [row._asdict() for row in self.rows]
        pq.write_table(pa.Table.from_pylist(records, schema=OFFLINE_METRICS), directory / file)

    @staticmethod
    def load(directory: Path, file: str = METRICS_FILE) -> "MetricTable":
        """Read what `save` wrote.

        Raises:
            ValueError: The directory holds no such table.
        """
        path = directory / file
        if not path.exists():
            raise ValueError(
                f"{directory}: no {file}; it was made by an earlier version of this "
                "project, so materialise the asset of its partition again"
            )
        return MetricTable(tuple(MetricRow(**row) for row in pq.read_table(path).to_pylist()))


def write_case_metrics(
    directory: Path, user_ids: Sequence[str] | np.ndarray, values: Mapping[str, CaseValues]
) -> int:
    """Write `case_metrics.parquet` (`schema.CASE_METRICS`), a row group per system.

    Args:
        directory: Of the artifact.
        user_ids: (C,).
        values: By system.

    Returns:
        Rows written.
    """
    users, rows = pa.array(user_ids, pa.string()), 0
    with pq.ParquetWriter(directory / CASES_FILE, CASE_METRICS) as writer:
        for system, metrics in values.items():
            table = pa.concat_tables(_case_rows(system, users, metrics))
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            rows += table.num_rows
    return rows


def _case_rows(system: str, users: pa.Array, metrics: CaseValues) -> Iterable[pa.Table]:
    for metric, values in metrics.items():
        columns = [
            *(pa.repeat(text, len(users)) for text in (system, *metric)),
            users,
            pa.array(values, pa.float64(), from_pandas=True),  # NaN becomes null
        ]
        yield pa.table(columns, schema=CASE_METRICS)


def read_case_metrics(
    directory: Path,
    *,
    system: str | None = None,
    metric: str | None = None,
    slice: str | None = ALL,
) -> pa.Table:
    """Rows of `case_metrics.parquet`, in the order in which they were written.

    Args:
        directory: Of the artifact.
        system: One system; None: all of them.
        metric: One metric; None: all of them.
        slice: One slice; None: all of them.

    Raises:
        ValueError: There is no such row.
    """
    wanted = {"system": system, "metric": metric, "slice": slice}
    conditions = [pads.field(name) == value for name, value in wanted.items() if value is not None]
    condition = reduce(operator.and_, conditions) if conditions else None
    texts = [name for name in CASE_METRICS.names if name != "value"]
    found = pq.read_table(directory / CASES_FILE, filters=condition, read_dictionary=texts)
    if not found.num_rows:
        key = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value)
        known = pq.read_table(directory / CASES_FILE, columns=["system"]).column(0).unique()
        raise ValueError(
            f"{directory / CASES_FILE}: no row of {key}; its systems are "
            f"{', '.join(known.to_pylist())}"
        )
    return found
