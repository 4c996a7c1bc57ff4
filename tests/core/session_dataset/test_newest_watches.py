"""Counts of the newest days, by hand."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from onerec.session_dataset.newest_watches import newest_watches, split_day
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, session

BEFORE = {back: DAY - timedelta(days=back) for back in range(5)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        session("u1", BEFORE[3], ["i00", "i01"]),
        session("u1", BEFORE[1], ["i00", "i02", "i02"], watched=[True, False, True]),
        session("u2", BEFORE[1], ["i00", "unknown"]),
        session("u2", BEFORE[0], ["i03"]),
    ]
    return small.write_sessions(tmp_path_factory.mktemp("s") / "s", rows)


@pytest.mark.parametrize(
    ("before", "days", "expected"),
    [
        (BEFORE[0], 1, {"i00": 2, "i02": 1}),
        (BEFORE[0], 3, {"i00": 3, "i01": 1, "i02": 1}),
        (BEFORE[1], 1, {"i00": 1, "i01": 1}),  # nobody came two days before: the day before that
        (BEFORE[0] + timedelta(days=1), 1, {"i03": 1}),  # to serve the next day
        (BEFORE[4], 2, {}),
    ],
)
def test_watched_exposures_of_the_last_days_with_sessions(
    dataset: Path, before: date, days: int, expected: dict[str, int]
) -> None:
    ids = small.catalogue()
    found = newest_watches(dataset, ids, before=before, days=days)
    assert found.shape == (len(ids),)
    assert {i: n for i, n in zip(ids.item_ids, found, strict=True) if n} == expected


def test_the_day_of_a_split(dataset: Path, tmp_path: Path) -> None:
    assert split_day(dataset, "valid") == BEFORE[1]
    empty = small.write_sessions(tmp_path / "s", [session("u1", DAY, ["i00"])])
    assert split_day(empty, "valid") is None
