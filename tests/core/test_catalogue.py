"""The catalogue: indices of ids in whatever array they come, and what was known on a day."""

import doctest
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from onerec import catalogue
from onerec.catalogue import Catalogue

DAYS = np.datetime64("2026-06-01") + np.arange(30) // 10
ITEMS = Catalogue(np.array([f"i{n}" for n in range(30)], object), DAYS)
ASKED = ["i3", "unknown", None, "i29", "i3"]


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(catalogue).failed == 0


@pytest.mark.parametrize(
    "asked",
    [
        np.array(ASKED, object),
        pa.array(ASKED),
        pa.array(ASKED, pa.large_string()),
        pa.chunked_array([ASKED[:2], ASKED[2:]]),
        pa.array(ASKED).dictionary_encode(),
    ],
    ids=lambda asked: type(asked).__name__,
)
def test_index_of(asked: object) -> None:
    assert ITEMS.index_of(asked).tolist() == [3, -1, -1, 29, 3]


def test_nothing_asked_is_no_index() -> None:
    found = ITEMS.index_of(np.array([], object))
    assert (found.dtype, found.tolist()) == (np.int64, [])


@pytest.mark.parametrize("withdrawn_on", [None, np.full(30, "NaT", "datetime64[D]")])
def test_an_item_that_a_corrected_catalogue_does_not_hold_is_no_candidate(withdrawn_on) -> None:
    today = Catalogue(ITEMS.item_ids, DAYS, withdrawn_on=withdrawn_on)
    wider = np.array([*ITEMS.item_ids, "delivered by mistake"], object)
    days = today.withdrawn_days(wider)
    first_seen = np.full(31, "2026-06-01", "datetime64[D]")
    extended = Catalogue(wider, first_seen, withdrawn_on=days)
    for day in (date(2026, 6, 2), date(2026, 6, 9)):
        assert extended.candidates(day).tolist() == [True] * 30 + [False]
    nothing = Catalogue(
        np.empty(0, object), DAYS[:0], withdrawn_on=None if withdrawn_on is None else DAYS[:0]
    )
    assert not np.isnat(nothing.withdrawn_days(wider)).any()


def test_an_item_is_known_from_the_day_after_its_first() -> None:
    assert not ITEMS.known_before(date(2026, 6, 1)).any()
    assert ITEMS.known_before(date(2026, 6, 2)).tolist() == [True] * 10 + [False] * 20
    assert ITEMS.known_before(date(2026, 6, 4)).all()
