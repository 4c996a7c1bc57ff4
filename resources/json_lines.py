"""Lines of JSON as cells of text: DuckDB parses each line once, whatever its keys and their types.

A number, a text and a flag become the text that a CSV cell would hold, so that an id which is a
number in one line and a text in another is one id; a list of texts becomes one text, as it does in
Parquet, and one of numbers stays a list, since it may be a vector.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from onerec.datasets.json_keys import pointers

LINES = "delivered_lines"


def cells(
    names: Sequence[str],
    known: Mapping[str, tuple[str, ...]],
    single: Collection[str] = (),
    new_keys: Sequence[str] = (),
    *,
    records_are_null: bool = False,
) -> tuple[str, dict[str, Any]]:
    """SQL of the cells of the lines in `LINES`: columns c0, c1 ... and `row`, and its parameters.

    What a line must not be raises an error of DuckDB that `file_problems.about` puts into words.

    Args:
        names: Keys, those of a record in a record as `user.id`.
        known: The file's keys and their pointers.
        single: Those of `names` that hold one value, and no list.
        new_keys: Keys that no line may have, however their case and blanks are, since the first
            lines lack them and nothing reads them.
        records_are_null: Records are no error.
    """
    wanted = [pointers(name, known) for name in names]
    parameters: dict[str, Any] = {"json_keys": [at for ways in wanted for at in ways] or ["/"]}
    texts, last = [], 0
    for place, (name, ways) in enumerate(zip(names, wanted, strict=True)):
        cell = f"cells[{last + 1}]"
        if len(ways) > 1:  # one that is null may stand at another pointer
            known_ones = [f"nullif(cells[{last + k}], 'null')" for k in range(1, len(ways) + 1)]
            cell = f"coalesce({', '.join(known_ones)})"
        nested = "null"
        if not records_are_null:
            nested = _nested(cell, f"json_name_{place}")
            parameters[f"json_name_{place}"] = name
        texts.append(f"{_text(cell, name in single, nested)} as c{place}")
        last += len(ways)
    late = _late(new_keys) if new_keys else ""
    broken = "error('no record in line ' || (row + 1) || ': ' || line)"
    checked = (
        f"case when not json_valid(line) then {broken} "
        f"when json_type(line) <> 'OBJECT' then {broken}{late} else line end"
    )
    sql = (
        f"(select {', '.join(texts) or 'null as c'}, row from (select row, "
        f"json_extract({checked}, $json_keys) as cells "
        f"from (select line, row_number() over () - 1 as row from {LINES}) "
        "where regexp_matches(line, '\\S')))"
    )
    return sql, parameters


def _late(new_keys: Sequence[str]) -> str:
    """SQL: the error for a line with one of some keys, in any case and with blanks around it."""
    known = ", ".join(f"'{key}'" for key in new_keys)
    found = f"list_filter(json_keys(line), lambda key: lower(trim(key)) in ({known}))"
    # few lines are asked for their keys: with contains() for each key it took 1 s for 400,000 lines
    # in place of 0.35 (one core, 2026-11-28)
    pattern = f'"\\s*({"|".join(new_keys)})\\s*"\\s*:'
    return (
        f" when regexp_matches(line, '{pattern}', 'i') and len({found}) > 0 "
        f"then error('late key in line ' || (row + 1) || ': ' || {found}[1])"
    )


def _nested(cell: str, name: str) -> str:
    """SQL: the error for a value that is several."""
    return f"error('nested value in line ' || (row + 1) || ': ' || ${name} || chr(10) || {cell})"


def _text(cell: str, is_single: bool, nested: str) -> str:
    """SQL: a cell of JSON as text."""
    values = (
        f"if(regexp_full_match({cell}, '\\[[-0-9][-+0-9.eE,]*\\]'), cast({cell} as varchar), "
        f"array_to_string(cast({cell} as varchar[]), ','))"
    )
    return (
        f"case left({cell}, 1) when '\"' then json_extract_string({cell}, '$') "
        f"when '{{' then {nested} when '[' then {nested if is_single else values} "
        f"else nullif(cast({cell} as varchar), 'null') end"
    )
