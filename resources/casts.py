"""SQL that types a delivered column, whatever it holds: a value that does not fit becomes null.

The macros of `resources.sql_macros` read a value; here each column gets the one that it needs.
"""

from dataclasses import dataclass

import pyarrow as pa

_TEXT = ("VARCHAR", "JSON")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "BIGNUM")
_REAL = ("FLOAT", "DOUBLE")


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
        formats: strptime formats of texts, of which the first that fits counts; `iso` is ISO 8601
            and its unambiguous relatives, and so is none at all.
        zone: Of times that name none; the connection's TimeZone must be set to it.
    """

    unit: str | None = None
    formats: tuple[str, ...] = ()
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
    true_values: tuple[str, ...] | None = None,
) -> str:
    """SQL of a delivered column in its contract type; null where the value does not fit.

    Args:
        field: The contract's column.
        raw: What is delivered.
        numbers: How numbers are written.
        times: How times are written.
        true_values: Values that mean yes, where a flag is no boolean; every other one means no. An
            empty tuple: whatever is there means yes, but for zero.
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
        amount = f"finite({number(raw, numbers.decimal)} * {numbers.scale!r})"
        if raw.is_text and field.name.endswith("_seconds"):
            return f"coalesce({amount}, text_span({raw.sql}))"
        if raw.is_text and field.name == "rating":
            return f"coalesce({amount}, text_rating({raw.sql}) * {numbers.scale!r})"
        return amount
    if target == "boolean":
        return _flag(raw) if true_values is None else _is_one_of(raw, true_values)
    if target == "bigint":
        amount = f"try_cast({raw.sql} as double)"
        whole = f"try_cast({raw.sql} as bigint)"
        return f"case when {amount} = trunc({amount}) then {whole} end"
    if field.name.endswith("_id") or field.name == "event_type":  # its codes may be numbers
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


def _is_one_of(raw: RawColumn, true_values: tuple[str, ...]) -> str:
    """A flag by the values that mean yes."""
    text = f"cast({raw.sql} as varchar)"
    words = ", ".join(
        f"'{word.lower()}'" for word in true_values
    )  # own_config lets no quote through
    meant = (
        f"lower(trim({text})) in ({words})"
        if true_values
        else f"coalesce({number(raw, None)}, 1) <> 0"
    )
    return f"case when not {raw.is_blank} then {meant} end"


def _written_out(sql: str) -> str:
    """SQL: a whole number that writes a date (20260601) or a time (20260601100000) out."""
    return (
        f"({sql} between 19710101 and 21001231 or {sql} between 19710101000000 and 21001231235959)"
    )


def _text_moment(raw: RawColumn, formats: tuple[str, ...], unit: str) -> str:
    readings = []
    for time_format in formats:
        quoted = time_format.replace("'", "''")
        is_iso = time_format == "iso"
        readings.append(
            f"text_moment({raw.sql}, {unit})"
            if is_iso
            else f"formatted_moment({raw.sql}, '{quoted}')"
        )
    return readings[0] if len(readings) == 1 else f"coalesce({', '.join(readings)})"


def _moment(raw: RawColumn, times: TimeStyle) -> str:
    unit = f"'{times.unit}'" if times.unit else "cast(null as varchar)"
    if raw.is_text:
        return _text_moment(raw, times.formats or ("iso",), unit)
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
