"""Sections of the benchmark page, and alternating timing of several functions."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page with a cell per column in every row; numbers are rounded when written."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of `docs/benchmarks.md`.

    Attributes:
        title: Its heading.
        text: What was measured and how, in a few sentences.
        tables: Tables in order.
        figures: Named numbers for `bench.json`; names are unique over all sections.
    """

    title: str
    text: str
    tables: Sequence[Table] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def section_from_json(values: Mapping[str, Any]) -> Section:
    """The inverse of `Section.to_json`."""
    return Section(**{**values, "tables": [Table(**table) for table in values["tables"]]})


@dataclass(frozen=True)
class Times:
    """Seconds of repeated runs."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def middle(self) -> float:
        return median(self.seconds)


def side_by_side(
    runs: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1
) -> dict[str, Times]:
    """Time several functions alternately, A B C A B C ..., so that load affects all of them.

    Args:
        runs: Functions by name.
        repeats: Timed rounds.
        warm_up: Untimed rounds before them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return {name: Times(tuple(values)) for name, values in seconds.items()}
