"""The day in a path."""

from datetime import date

import pytest

from onerec.datasets.dated_paths import day_of_path, names_days


@pytest.mark.parametrize(
    ("pattern", "path", "day"),
    [
        ("/x/{date}.csv", "/x/2026-03-02.csv", date(2026, 3, 2)),
        ("/x/day={date:%Y%m%d}/*.csv", "/x/day=20260302/part.csv", date(2026, 3, 2)),
        ("/x/{date:%Y/%m/%d}", "/x/2026/03/02/part.csv", date(2026, 3, 2)),
        ("/x/y={date:%Y}/m={date:%m}/d={date:%d}/*", "/x/y=2026/m=03/d=02/a.csv", date(2026, 3, 2)),
        ("/x/y={date:%Y}/m={date:%m}/d={date:%d}/*", "/x/y=2026/m=3/d=2/a.csv", None),
        ("/x/m={date:%-m}/d={date:%-d}/{date:%Y}.csv", "/x/m=3/d=2/2026.csv", date(2026, 3, 2)),
        ("/x/{date}-*.csv", "/x/2026-03-02-0.csv", date(2026, 3, 2)),
        ("/x/*-{date}-*.csv", "/x/a-1-2026-03-02-0-1.csv", date(2026, 3, 2)),
        ("/x/{date}/{date}.csv", "/x/2026-03-02/2026-03-02.csv", date(2026, 3, 2)),
        ("/x/{date}/{date}.csv", "/x/2026-03-02/2026-03-03.csv", None),
        ("/x/{date:%Y/%m}/{date}.csv", "/x/2026/03/2026-03-02.csv", date(2026, 3, 2)),
        ("/x/*{date:%Y%m%d}*.csv", "/x/log20260302_1.csv", date(2026, 3, 2)),
        ("s3://b/{date}", "b/2026-03-02/part.csv", date(2026, 3, 2)),
        ("/x/{date}.csv", "/x/latest.csv", None),
        ("/x/log.csv", "/x/log.csv", None),
    ],
)
def test_the_day_of_a_path(pattern: str, path: str, day: date | None) -> None:
    assert day_of_path(pattern, path) == day


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("log/{date}.csv", True),
        ("s3://b/*/{date:%Y}/{date:%-m}/{date:%-d}/part-?.csv", True),
        ("{date:%G-W%V-%u}.csv", True),
        ("{date:%Y-%j}.csv", True),
        ("*{date:%Y%m%d}*.csv", True),
        ("log/{date:%Y-%m}.csv", False),
        ("log/{date:%Y}/{date:%W}.csv", False),
        ("log/{date:%G-W%V}.csv", False),
        ("log/{date:%Y}.csv", False),
        ("log/{date:%m-%d}.csv", False),
        ("log/{date:day}.csv", False),
    ],
)
def test_formats_that_name_days(pattern: str, named: bool) -> None:
    assert names_days(pattern) == named
