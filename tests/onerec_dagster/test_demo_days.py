"""The days of `make demo`: one that nothing could be learned for is named before anything runs."""

from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from onerec.config import SettingError
from onerec_dagster.demo import DEMO_DAYS, demo_days

FIRST = date(2026, 6, 1)


@dataclass(frozen=True)
class Log:
    last: date | None

    def partition_range(self) -> tuple[date, date | None]:
        return FIRST, self.last


def days(last: date | None) -> tuple[date, date]:
    log: Any = Log(last)
    return demo_days(log)


@pytest.fixture(autouse=True)
def _no_test_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEREC_TEST_DAY", raising=False)


def test_the_whole_log_or_the_beginning_of_one_that_goes_on() -> None:
    assert days(date(2026, 6, 3)) == (FIRST, date(2026, 6, 3))
    assert days(None) == (FIRST, date(2026, 6, DEMO_DAYS))


@pytest.mark.parametrize("last", [FIRST, date(2026, 6, 2)])
def test_a_log_of_one_or_two_days_is_too_short(last: date) -> None:
    with pytest.raises(SettingError, match=f"last_day='{last}': the log begins on 2026-06-01"):
        days(last)


@pytest.mark.parametrize("given", ["2026-06-02", "2026-05-01", "tomorrow"])
def test_a_test_day_without_two_days_before_it(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEREC_TEST_DAY", given)
    with pytest.raises(SettingError, match=f"ONEREC_TEST_DAY='{given}': use a day"):
        days(None)
    monkeypatch.setenv("ONEREC_TEST_DAY", "2026-06-03")
    assert days(None) == (FIRST, date(2026, 6, 3))
