"""SQL that types a delivered column, whatever it holds: a value that does not fit becomes null.

One macro per kind of value, in DuckDB's SQL: missing values, ids, numbers, flags, times. Reading a
log's days and landing its rows both use them, so that there is one parser of times. Every text that
is no time, number or flag is distinguished from an empty one (`is_blank`).
"""

from dataclasses import dataclass

import duckdb
import pyarrow as pa

NULL_WORDS = (
    *("", "nan", "-nan", "none", "null", "nil", "n/a", "#n/a", "#na", "<na>", "nat", "undefined"),
    *("(null)", "(none)", "\\n"),
)
"""What data frames, databases and scripts write where nothing is known, in any case."""
TRUE_WORDS = ("1", "true", "t", "yes", "y", "on", "1.0")
FALSE_WORDS = ("0", "false", "f", "no", "n", "off", "0.0")

_BLANKS = "' ' || chr(9) || chr(10) || chr(13) || chr(160)"
_NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
_COMPACT = r"(19|20)[0-9]{6}([0-9]{4}([0-9]{2})?)?"
_CLOCK = r"([0-9]{1,2}):?([0-9]{2})(?::?([0-9]{2})(?:[.,:]([0-9]+))?)?\s*([AaPp]?)\.?[Mm]?\.?"
_ZONE = r"([Zz]|[-+][0-9]{2}:?[0-9]{2}|[A-Za-z][A-Za-z_/+0-9-]*)?(?:\[.*\])?"
_TIME = rf"([0-9]{{4}})[-/.]([0-9]{{1,2}})[-/.]([0-9]{{1,2}})(?:[T _,]*{_CLOCK})?\s*{_ZONE}"
_PARTS = "['year', 'month', 'day', 'hour', 'minute', 'second', 'fraction', 'half', 'zone']"
# microseconds that timestamps can hold: the years 1 to 9999
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


def _spellings(words: tuple[str, ...]) -> str:
    """An SQL list of words in the usual cases: a comparison with it costs next to nothing."""
    spelled = {w: None for word in words for w in (word, word.upper(), word.title())}
    spelled |= {"NaN": None, "NaT": None} if "nan" in spelled else {}
    return ", ".join(f"'{w}'" for w in spelled)


MACROS = (
    rf"""
    is_blank(x) as
        x is null or x in ({_spellings(NULL_WORDS)}) or regexp_full_match(x, '[\s\x{{00A0}}]*')
    """,
    # a data frame with a gap makes 17.0 out of 17, also in the text that it writes
    r"""
    text_id(x) as case
        when is_blank(x) then null
        when suffix(x, '.0') and regexp_full_match(x, '[-+]?[0-9]+\.0') then left(x, -2)
        else x
    end
    """,
    """
    real_id(x) as case
        when not isfinite(x) then null
        when x = trunc(x) and abs(x) < 1e38 then cast(cast(x as hugeint) as varchar)
        else cast(x as varchar)
    end
    """,
    "finite(x) as case when isfinite(x) then x end",
    f"""
    text_flag(x) as case
        when x in ({_spellings(TRUE_WORDS)}) then true
        when x in ({_spellings(FALSE_WORDS)}) then false
        else try_cast(trim(x, {_BLANKS}) as boolean)
    end
    """,
    f"""
    moment_of_us(us) as
        case
            when us between {_FIRST_US} and {_LAST_US} then make_timestamp(try_cast(us as bigint))
        end
    """,
    # the unit of a number shows in its size: the ranges of the years 1973 to 5138 do not touch
    """
    unit_of(x, unit) as coalesce(
        unit,
        case
            when abs(x) < 1e11 then 's'
            when abs(x) < 1e14 then 'ms'
            when abs(x) < 1e17 then 'us'
            else 'ns'
        end
    )
    """,
    """
    whole_moment(x, unit) as case
        when abs(x) < 1e20 then moment_of_us(
            case unit_of(x, unit)
                when 's' then x * 1000000
                when 'ms' then x * 1000
                when 'us' then x
                else x // 1000
            end
        )
    end
    """,
    """
    real_moment(x, unit) as case
        when isfinite(x) and abs(x) < 1e20 then moment_of_us(
            try_cast(
                round(
                    case unit_of(x, unit)
                        when 's' then x * 1e6
                        when 'ms' then x * 1e3
                        when 'us' then x
                        else x / 1e3
                    end
                ) as hugeint
            )
        )
    end
    """,
    # a text without an offset is read in the connection's time zone
    "iso_moment(x) as make_timestamp(epoch_us(try_cast(x as timestamptz)))",
    # what the cast refuses, written as it likes it: 12-hour clocks, +0200, no separators, 10:00UTC
    """
    rewritten(p) as iso_moment(
        p.year || '-' || p.month || '-' || p.day
        || case
            when p.hour = '' then ''
            else
                ' ' || lpad(
                    cast(
                        case lower(p.half)
                            when 'p' then try_cast(p.hour as integer) % 12 + 12
                            when 'a' then try_cast(p.hour as integer) % 12
                            else try_cast(p.hour as integer)
                        end as varchar
                    ), 2, '0'
                ) || ':' || p.minute || ':' || if(p.second = '', '00', p.second)
                || if(p.fraction = '', '', '.' || p.fraction)
        end
        || case
            when p.zone = '' then ''
            when p.zone[1] in ('+', '-')
                then p.zone[1:3] || ':' || right(p.zone, 2)
            when p.zone in ('Z', 'z') then ' UTC'
            else ' ' || if(contains(p.zone, '/'), p.zone, upper(p.zone))
        end
    )
    """,
    f"""
    unusual_moment(x) as list_transform(
        [
            regexp_extract(
                regexp_replace(x, '^([0-9]{{4}})([0-9]{{2}})([0-9]{{2}})', '\\1-\\2-\\3 '),
                '^{_TIME}$',
                {_PARTS}
            )
        ],
        lambda p: rewritten(p)
    )[1]
    """,
    f"""
    number_moment(x, unit) as coalesce(
        case when unit is null and regexp_full_match(x, '{_COMPACT}') then unusual_moment(x) end,
        case
            when regexp_full_match(x, '[-+]?[0-9]+') then whole_moment(try_cast(x as hugeint), unit)
            else real_moment(try_cast(x as double), unit)
        end
    )
    """,
    # the usual first: ISO 8601, then plain whole numbers. An expression that stands twice would be
    # computed for every row, wanted or not; the lambda keeps the rest for the rows that are left
    f"""
    text_moment(x, unit) as coalesce(
        iso_moment(x),
        case
            when regexp_full_match(x, '[0-9]{{9,11}}|[0-9]{{13}}|[0-9]{{15,19}}')
                then whole_moment(try_cast(x as hugeint), unit)
        end,
        list_transform(
            [trim(x, {_BLANKS})],
            lambda t: case
                when regexp_full_match(t, '{_NUMBER}') then number_moment(t, unit)
                else unusual_moment(t)
            end
        )[1]
    )
    """,
    """
    formatted_moment(x, format) as
        make_timestamp(epoch_us(cast(try_strptime(trim(x), format) as timestamptz)))
    """,
)

_TEXT = ("VARCHAR", "JSON")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "BIGNUM")
_REAL = ("FLOAT", "DOUBLE")


def create_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the macros known to a connection, and to it alone."""
    for macro in MACROS:
        connection.execute(f"create or replace temp macro {macro}")


@dataclass(frozen=True)
class RawColumn:
    """A delivered column.

    Attributes:
        sql: An expression.
        kind: DuckDB's name of its type.
    """

    sql: str
    kind: str

    def as_text_where_needed(self) -> "RawColumn":
        """Bytes, lists and other types that are no value of their own, as text."""
        if self.kind == "BLOB":
            return RawColumn(f"decode({self.sql}, 'replace')", "VARCHAR")
        if self.kind.endswith("]"):
            return RawColumn(f"array_to_string(cast({self.sql} as varchar[]), ',')", "VARCHAR")
        if self.kind.startswith(("ENUM", "STRUCT", "MAP", "UNION", "UUID", "BIT", "INTERVAL")):
            return RawColumn(f"cast({self.sql} as varchar)", "VARCHAR")
        return self

    @property
    def is_text(self) -> bool:
        return self.kind in _TEXT

    @property
    def is_whole(self) -> bool:
        return self.kind in _WHOLE or self.kind.removeprefix("U") in _WHOLE

    @property
    def is_real(self) -> bool:
        return self.kind in _REAL or self.kind.startswith("DECIMAL")

    @property
    def is_temporal(self) -> bool:
        return self.kind == "DATE" or self.kind.startswith("TIMESTAMP")

    @property
    def has_zone(self) -> bool:
        return self.kind.startswith(("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"))

    @property
    def is_blank(self) -> str:
        """SQL: nothing is known."""
        if self.is_text:
            return f"is_blank({self.sql})"
        if self.kind in _REAL:
            return f"({self.sql} is null or isnan({self.sql}))"
        return f"{self.sql} is null"


@dataclass(frozen=True)
class TimeStyle:
    """How a log writes times.

    Attributes:
        unit: Of numbers since 1970: `s`, `ms`, `us` or `ns`; None: detected by the size of each.
        format: strptime format of texts; None reads ISO 8601 and its unambiguous relatives.
        zone: Of times that name none; the connection's TimeZone must be set to it.
    """

    unit: str | None = None
    format: str | None = None
    zone: str = "UTC"


def sql_type(field: pa.Field) -> str:
    """DuckDB's type of a contract column; times are UTC without a label."""
    kind = field.type
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_floating(kind):
        return "double"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "bigint"
    return "float[]" if pa.types.is_list(kind) else "varchar"


@dataclass(frozen=True)
class NumberStyle:
    """How a column of numbers is written.

    Attributes:
        scale: Factor from its unit to the contract's.
        decimal: Before the decimals of a text. Where it is set, the other one of point and comma,
            blanks and apostrophes group the digits; None: a point, and nothing groups them.
    """

    scale: float = 1.0
    decimal: str | None = None


def typed(
    field: pa.Field,
    raw: RawColumn,
    *,
    numbers: NumberStyle = NumberStyle(),
    times: TimeStyle = TimeStyle(),
) -> str:
    """SQL of a delivered column in its contract type; null where the value does not fit.

    Args:
        field: The contract's column.
        raw: What is delivered.
        numbers: How numbers are written.
        times: How times are written.
    """
    target = sql_type(field)
    if raw.kind.strip('"') == "NULL":
        return f"cast(null as {target})"
    if target == "float[]":
        return f"try_cast({raw.sql} as float[])"
    if raw.kind == "BLOB" and field.name.endswith("_id"):
        return _bytes_id(raw)
    raw = raw.as_text_where_needed()
    if target == "timestamp":
        return _moment(raw, times)
    if target == "double":
        return f"finite({number(raw, numbers.decimal)} * {numbers.scale!r})"
    if target == "boolean":
        return _flag(raw)
    if target == "bigint":
        amount = f"try_cast({raw.sql} as double)"
        whole = f"try_cast({raw.sql} as bigint)"
        return f"case when {amount} = trunc({amount}) then {whole} end"
    if field.name.endswith("_id"):
        return _id(raw)
    text = f"cast({raw.sql} as varchar)"
    return f"case when not isnan({raw.sql}) then {text} end" if raw.kind in _REAL else text


def _bytes_id(raw: RawColumn) -> str:
    """Bytes that are no UTF-8 text become hexadecimal digits: replacing them would join ids."""
    text = f"try(decode({raw.sql}))"
    return f"case when {text} is null then lower(hex({raw.sql})) else text_id({text}) end"


def number(raw: RawColumn, decimal: str | None) -> str:
    """SQL: a number; see `NumberStyle`."""
    text = raw.sql
    if raw.is_text and decimal is not None:
        grouping = "," if decimal == "." else "."
        text = f"regexp_replace({text}, '[{grouping}\\s\\x{{00A0}}\\x{{202F}}'']', '', 'g')"
        text = text if decimal == "." else f"replace({text}, ',', '.')"
    return f"try_cast({text} as double)"


def _id(raw: RawColumn) -> str:
    if raw.is_text:
        return f"text_id({raw.sql})"
    if raw.kind in _REAL:
        return f"real_id({raw.sql})"
    if raw.is_real:
        return rf"regexp_replace(cast({raw.sql} as varchar), '\.0+$', '')"
    return f"cast({raw.sql} as varchar)"


def _flag(raw: RawColumn) -> str:
    if raw.is_text:
        return f"text_flag({raw.sql})"
    if raw.is_whole or raw.is_real:
        return f"case {raw.sql} when 1 then true when 0 then false end"
    return raw.sql if raw.kind == "BOOLEAN" else "cast(null as boolean)"


def _written_out(sql: str) -> str:
    """SQL: a whole number that writes a date (20260601) or a time (20260601100000) out."""
    return (
        f"({sql} between 19710101 and 21001231 or {sql} between 19710101000000 and 21001231235959)"
    )


def _moment(raw: RawColumn, times: TimeStyle) -> str:
    unit = f"'{times.unit}'" if times.unit else "cast(null as varchar)"
    if raw.is_text and times.format:
        quoted = times.format.replace("'", "''")
        return f"formatted_moment({raw.sql}, '{quoted}')"
    if raw.is_text:
        return f"text_moment({raw.sql}, {unit})"
    if raw.is_whole:
        since_1970 = f"whole_moment(cast({raw.sql} as hugeint), {unit})"
        if times.unit:
            return since_1970
        digits = f"unusual_moment(cast({raw.sql} as varchar))"
        return f"case when {_written_out(raw.sql)} then {digits} else {since_1970} end"
    if raw.is_real:
        return f"real_moment(cast({raw.sql} as double), {unit})"
    if raw.has_zone:
        return f"make_timestamp(epoch_us(cast({raw.sql} as timestamptz)))"
    if raw.is_temporal and times.zone == "UTC":
        return f"cast({raw.sql} as timestamp)"
    if raw.is_temporal:
        zoned = f"timezone('{times.zone}', cast({raw.sql} as timestamp))"
        return f"make_timestamp(epoch_us({zoned}))"
    return "cast(null as timestamp)"
