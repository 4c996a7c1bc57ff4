"""The one parser of delivered values: times above all, ids, numbers, flags, blanks."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.schema import EVENTS, PRIOR_HISTORY
from resources.casts import NumberStyle, RawColumn, TimeStyle, typed
from resources.sql_macros import create_macros

TEN = datetime(2026, 6, 1, 10)
MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as opened:
        create_macros(opened)
        opened.execute("set TimeZone = 'UTC'")
        yield opened


def cast(
    connection: duckdb.DuckDBPyConnection, column: str, values: Any, **options: Any
) -> list[Any]:
    """Values of a column as they land; the values are texts unless an Arrow array is given."""
    array = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    field = (PRIOR_HISTORY if column == "position" else EVENTS).field(column)
    connection.register("given", pa.table({"x": array}))
    ((_, kind, *_),) = connection.execute("describe given").fetchall()
    sql = typed(field, RawColumn("x", kind), **options)
    return [row[0] for row in connection.execute(f"select {sql} from given").fetchall()]


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-01T10:00:00Z",
        "2026-06-01 10:00:00",
        " 2026-06-01 10:00 ",
        "2026-06-01 10:00:00 UTC",
        "2026-06-01 10:00:00.000000 UTC",
        "2026-06-01 10:00:00UTC",
        "2026-06-01T10:00:00z",
        "2026-06-01 10:00:00 GMT",
        "2026-06-01 12:00:00+02:00",
        "2026-06-01 12:00:00 +0200",
        "2026-06-01T05:30:00.000-0430",
        "2026-06-01 06:00:00,000-04",
        "20260601T060000-04",
        "2026-06-01 12:00:00 Europe/Berlin",
        "2026-06-01T12:00:00+02:00[Europe/Berlin]",
        "2026-06-01 05:00:00 EST",
        "2026-06-01 12:00:00 CEST",
        "2026-06-01 03:00:00 PDT",
        "2026-06-01 20:00:00 AEST",
        "2026-06-01T10",
        "2026-06-01T12+02:00",
        "2026\u5e7406\u670801\u65e5 10:00:00",
        "'2026-06-01 10:00:00",
        "2026/06/01 10:00:00",
        "2026-6-1 10:00:00",
        "2026-06-01 10:00:00,000",
        "2026-06-01 10:00:00 AM",
        "2026-06-01 10:00 a.m.",
        "20260601T100000Z",
        "20260601 100000",
        "20260601100000",
        "202606011000",
        "1780308000",
        "1780308000.0",
        "1.780308e9",
        "1780308000000",
        "1780308000000000",
        "1780308000000000000",
    ],
)
def test_one_moment_in_many_spellings(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    assert cast(connection, "event_time", [text]) == [TEN]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-06-01 10:00:00.5 PM", datetime(2026, 6, 1, 22, 0, 0, 500_000)),
        ("2026-06-01 12:30 AM", datetime(2026, 6, 1, 0, 30)),
        ("2026-06-01 12:30 PM", datetime(2026, 6, 1, 12, 30)),
        ("2026-06-01 24:00:00", datetime(2026, 6, 2)),
        ("2026-06-30T23:59:60Z", datetime(2026, 6, 30, 23, 59, 59)),  # a leap second
        ("2026-06-01", datetime(2026, 6, 1)),
        ("20260601", datetime(2026, 6, 1)),
        ("0", datetime(1970, 1, 1)),
    ],
)
def test_other_moments(connection: duckdb.DuckDBPyConnection, text: str, moment: datetime) -> None:
    assert cast(connection, "event_time", [text]) == [moment]


NO_TIMES = [
    "soon",
    "10:00:00",
    "9:05 AM",
    "06/01/2026 10:00:00",
    "01.06.2026",
    "2026-06-31",
    "2026-06-01 25:00:00",
    "2026-06-01 10:00:00 garbage",
    "2026-06-01 10:00:00 PM PM",
    "infinity",
    "1e300",
    "99999999999999999999999999",
    "nan",
    "--",
    *(f"2026-06-01 10:00:00 {zone}" for zone in ("BST", "IST", "CST", "AST", "XYZ", "noon")),
]
"""The last ones name a zone that is none, or stands for several: ICU takes BST for Bangladesh."""


def test_what_is_no_time(connection: duckdb.DuckDBPyConnection) -> None:
    assert cast(connection, "event_time", NO_TIMES) == [None] * len(NO_TIMES)


def test_a_value_is_read_by_itself_whatever_stands_beside_it(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    texts = [
        "2026-06-01T10:00:00Z",
        "1780308000000",
        *NO_TIMES,
        "2026-06-01 10:00 AM",
        "1780308000",
    ]
    found = cast(connection, "event_time", texts)
    assert found == [TEN, TEN, *[None] * len(NO_TIMES), TEN, TEN]


@settings(deadline=None)
@given(
    st.datetimes(datetime(1971, 1, 2), datetime(2100, 1, 1)),
    st.integers(-14 * 4, 14 * 4).map(lambda quarters: timedelta(minutes=15 * quarters)),
)
def test_iso_8601_is_read_as_python_reads_it(
    connection: duckdb.DuckDBPyConnection, moment: datetime, offset: timedelta
) -> None:
    local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo("UTC")) + offset
    sign, minutes = ("-", -offset) if offset < timedelta(0) else ("+", offset)
    hours, rest = divmod(int(minutes.total_seconds()) // 60, 60)
    text = f"{local.replace(tzinfo=None).isoformat()}{sign}{hours:02d}:{rest:02d}"
    assert datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None) == moment
    assert cast(connection, "event_time", [text]) == [moment]


@settings(deadline=None)
@given(st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1)), st.sampled_from(["s", "ms", "us"]))
def test_numbers_tell_their_unit_by_their_size(
    connection: duckdb.DuckDBPyConnection, moment: datetime, unit: str
) -> None:
    exact = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    number = exact // MICROSECONDS[unit]
    wanted = datetime(1970, 1, 1) + timedelta(microseconds=number * MICROSECONDS[unit])
    whole = pa.array([number], pa.int64())
    for values in ([str(number)], whole, pa.array([float(number)])):
        assert cast(connection, "event_time", values) == [wanted]
        assert cast(connection, "event_time", values, times=TimeStyle(unit=unit)) == [wanted]


def test_a_given_unit_is_kept_and_the_sliver_in_another_one_lands_in_1970(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    times = TimeStyle(unit="ms")
    found = cast(connection, "event_time", ["1780308000000", "1780308000"], times=times)
    assert found[0] == TEN
    assert found[1].year == 1970


def test_a_format_is_the_only_spelling(connection: duckdb.DuckDBPyConnection) -> None:
    times = TimeStyle(formats=("%m/%d/%Y %I:%M:%S %p",))
    texts = ["6/1/2026 10:00:00 AM", "2026-06-01T10:00:00Z", "13/01/2026 10:00:00 AM"]
    assert cast(connection, "event_time", texts, times=times) == [TEN, None, None]
    both = TimeStyle(formats=("iso", "%m/%d/%Y %I:%M:%S %p"))
    assert cast(connection, "event_time", texts, times=both) == [TEN, TEN, None]
    times = TimeStyle(formats=("%d/%b/%Y:%H:%M:%S %z",))
    assert cast(connection, "event_time", ["01/Jun/2026:12:00:00 +0200"], times=times) == [TEN]


def test_times_without_an_offset_are_of_the_log_s_zone(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    times = TimeStyle(zone="Europe/Berlin")
    noon = datetime(2026, 6, 1, 12)
    typed_columns = [
        pa.array([noon], pa.timestamp("us")),
        pa.array([noon], pa.timestamp("s")),
        pa.array(
            [noon.replace(tzinfo=ZoneInfo("Europe/Berlin"))], pa.timestamp("ns", "Asia/Tokyo")
        ),
        pa.array(["2026-06-01 12:00:00", "20260601120000", "2026-06-01T10:00:00Z"]),
    ]
    connection.execute("set TimeZone = 'Europe/Berlin'")
    try:
        for values in typed_columns:
            assert set(cast(connection, "event_time", values, times=times)) == {TEN}
    finally:
        connection.execute("set TimeZone = 'UTC'")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([TEN], pa.timestamp("ms", "UTC")),
        pa.array([TEN], pa.timestamp("ns")),
        pa.array([20_260_601_100_000], pa.int64()),
        pa.array([1_780_308_000], pa.uint32()),
        pa.array([Decimal("1780308000.0")], pa.decimal128(18, 1)),
        pa.array([b"2026-06-01T10:00:00Z"], pa.binary()),
        pa.array(["2026-06-01T10:00:00Z"]).dictionary_encode(),
        pa.array(["2026-06-01T10:00:00Z"], pa.string_view()),
    ],
)
def test_times_of_every_type(connection: duckdb.DuckDBPyConnection, values: pa.Array) -> None:
    assert cast(connection, "event_time", values) == [TEN]


def test_dates_are_midnights_and_times_of_day_are_nothing(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    assert cast(connection, "event_time", pa.array([date(2026, 6, 1)])) == [datetime(2026, 6, 1)]
    assert cast(connection, "event_time", pa.array([time(10)])) == [None]
    assert cast(connection, "event_time", pa.array([True])) == [None]


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (["17", "17.0", "-17.0", "017", " a", "v1.0"], ["17", "17", "-17", "017", " a", "v1.0"]),
        (pa.array([17.0, 1e10, 1.5, None, float("nan")]), ["17", "10000000000", "1.5", None, None]),
        (pa.array([2**63 + 11], pa.uint64()), ["9223372036854775819"]),
        # a float beyond 2**53 has lost digits: no other id may look like it
        (pa.array([2.0**53 - 1, 2.0**60]), ["9007199254740991", "1.152921504606847e+18"]),
        (pa.array([Decimal("17.00"), Decimal("0.50")], pa.decimal128(18, 2)), ["17", "0.50"]),
        (pa.array([b"17.0", b"caf\xe9"], pa.binary()), ["17", "636166e9"]),
        (pa.array(["17.0"]).dictionary_encode(), ["17"]),
        (pa.array([True]), ["true"]),
    ],
)
def test_ids_are_the_same_text_whatever_type_they_come_in(
    connection: duckdb.DuckDBPyConnection, values: Any, ids: list
) -> None:
    assert cast(connection, "user_id", values) == ids


BLANK = ["", " ", "\t\n", "nan", "NaN", "NAN", "None", "none", "NULL", "null", "<NA>", "NaT", "\\N"]
BLANK += ["#N/A", "-nan", "(none)", "NA", " null ", "-", "?", "0000-00-00 00:00:00"]


@pytest.mark.parametrize("column", ["user_id", "item_id", "event_time", "watch_seconds", "is_like"])
def test_nothing_in_whatever_form_is_null(
    connection: duckdb.DuckDBPyConnection, column: str
) -> None:
    assert cast(connection, column, BLANK) == [None] * len(BLANK)
    blank = connection.execute(
        "select bool_and(is_blank(x)) from unnest($1) as t(x)", [BLANK]
    ).fetchall()
    assert blank == [(True,)]


def test_numbers(connection: duckdb.DuckDBPyConnection) -> None:
    texts = ["3", " 3.5 ", "-1", "1e2", "much", "inf", "1,5"]
    assert cast(connection, "watch_seconds", texts) == [3.0, 3.5, -1.0, 100.0, None, None, None]
    scaled = cast(
        connection, "watch_seconds", pa.array([1500], pa.int32()), numbers=NumberStyle(0.001)
    )
    assert scaled == [1.5]
    nan = pa.array([Decimal("2.50"), None], pa.decimal128(9, 2))
    assert cast(connection, "watch_seconds", nan) == [2.5, None]
    assert cast(connection, "watch_seconds", pa.array([float("nan"), float("inf")])) == [None] * 2
    assert cast(connection, "position", ["3", "3.0", "3.5", "x"]) == [3, 3, None, None]


@pytest.mark.parametrize(
    ("decimal", "texts", "numbers"),
    [
        (",", ["74,5", "1.234,5", "1 234", "1'234,0", "-3"], [74.5, 1234.5, 1234.0, 1234.0, -3.0]),
        (".", ["74.5", "1,234.5", "1 234", "x"], [74.5, 1234.5, 1234.0, None]),
    ],
)
def test_numbers_with_a_decimal_comma_or_with_grouped_digits(
    connection: duckdb.DuckDBPyConnection, decimal: str, texts: list[str], numbers: list
) -> None:
    style = NumberStyle(decimal=decimal)
    assert cast(connection, "watch_seconds", texts, numbers=style) == numbers
    plain = pa.array([1234.5])
    assert cast(connection, "watch_seconds", plain, numbers=style) == [1234.5]


def test_spans_of_time_are_seconds(connection: duckdb.DuckDBPyConnection) -> None:
    texts = ["0:20", "1:02:03", "00:01:23.5", "PT1M20S", "PT2H", "12.5s", "5 min", "1h 2m 3s"]
    seconds = [20.0, 3723.0, 83.5, 80.0, 7200.0, 12.5, 300.0, 3723.0]
    assert cast(connection, "watch_seconds", texts) == seconds
    texts = [
        "0 days 00:01:23.500000",
        "1 day, 0:00:05",
        "P0D",
        "P1DT2M",
        "1 hour 30 minutes",
        "90 mins",
    ]
    assert cast(connection, "watch_seconds", texts) == [
        83.5,
        86_405.0,
        0.0,
        86_520.0,
        5400.0,
        5400.0,
    ]
    # of a column in milliseconds, too: a span names its unit
    scaled = cast(connection, "watch_seconds", ["1500", "0:20"], numbers=NumberStyle(0.001))
    assert scaled == [1.5, 20.0]
    nothing = ["85%", "PT", "P", "P1M", "-1 days +23:59:59", "abc", "1200ms", "1:2", ":20", ""]
    assert cast(connection, "watch_seconds", nothing) == [None] * len(nothing)
    assert cast(connection, "rating", ["4:30"]) == [None]


def test_ratings_in_words_and_stars(connection: duckdb.DuckDBPyConnection) -> None:
    texts = [
        "4.5/5",
        "3 / 5",
        "4,5/5",
        "2.0 out of 5 stars",
        "5 stars",
        "80%",
        "\u2605\u2605\u2606",
    ]
    assert cast(connection, "rating", texts) == [4.5, 3.0, 4.5, 2.0, 5.0, 80.0, 2.0]
    assert cast(connection, "rating", ["80%"], numbers=NumberStyle(0.05)) == [4.0]
    assert cast(connection, "rating", ["1/2/3", "5 apples", "\u2606", "/5"]) == [None] * 4


def test_codes_of_event_types_are_texts(connection: duckdb.DuckDBPyConnection) -> None:
    assert cast(connection, "event_type", ["3", "3.0", "cart", ""]) == ["3", "3", "cart", None]
    assert cast(connection, "event_type", pa.array([3, 4])) == ["3", "4"]
    assert cast(connection, "event_type", pa.array([3.0, None])) == ["3", None]


def test_flags_by_the_values_that_mean_yes(connection: duckdb.DuckDBPyConnection) -> None:
    words = cast(connection, "is_like", ["Ja", " ja ", "nein", "", None], true_values=("ja",))
    assert words == [True, True, False, None, None]
    codes = cast(connection, "is_like", pa.array([0, 1, 2, None]), true_values=("1", "2"))
    assert codes == [False, True, True, None]
    # whatever is there: a time, a count
    there = cast(connection, "is_like", ["2026-06-01 10:00", "3", "0", "NaN"], true_values=())
    assert there == [True, True, False, None]


def test_flags(connection: duckdb.DuckDBPyConnection) -> None:
    yes = ["1", "true", "TRUE", "True", "t", "yes", "Y", " y ", "on", "1.0"]
    no = ["0", "false", "FALSE", "F", "no", "N", "OFF", "0.0"]
    assert cast(connection, "is_like", yes) == [True] * len(yes)
    assert cast(connection, "is_like", no) == [False] * len(no)
    assert cast(connection, "is_like", ["perhaps", "2", "-1"]) == [None] * 3
    assert cast(connection, "is_like", pa.array([1.0, 0.0, 2.0, float("nan")])) == [
        True,
        False,
        None,
        None,
    ]
    assert cast(connection, "is_like", pa.array([b"true", b"N"])) == [True, False]
    assert cast(connection, "is_like", pa.nulls(1)) == [None]


def test_texts(connection: duckdb.DuckDBPyConnection) -> None:
    lists = pa.array([["home", "feed"], None])
    assert cast(connection, "surface", lists) == ["home,feed", None]
    assert cast(connection, "surface", ["None", " a "]) == ["None", " a "]
