"""Lines of JSON as cells of text: DuckDB parses each line once, whatever its keys and their types.

A number, a text and a flag become the text that a CSV cell would hold, so that an id which is a
number in one line and a text in another is one id; a list of texts becomes one text, as it does in
Parquet, and one of numbers stays a list, since it may be a vector.
"""

from collections.abc import Collection, Sequence
from typing import Any

from onerec.datasets.json_keys import pointer

LINES = "delivered_lines"


def cells(
    names: Sequence[str],
    present: tuple[str, ...],
    single: Collection[str] = (),
    new_keys: Sequence[str] = (),
) -> tuple[str, dict[str, Any]]:
    """SQL of the cells of the lines in `LINES`: columns c0, c1 ... and `row`, and its parameters.

    What a line must not be raises an error of DuckDB that `file_problems.about` puts into words.

    Args:
        names: Keys, those of a record in a record as `user.id`.
        present: Names of the file.
        single: Those of `names` that hold one value, and no list.
        new_keys: Keys that no line may have, since the first lines lack them and nothing reads
            them.
    """
    wanted = [pointer(name, present) for name in names]
    parameters: dict[str, Any] = {"json_keys": wanted or ["/"]}
    texts = ", ".join(
        f"{_text(f'cells[{place + 1}]', name in single, f'json_name_{place}')} as c{place}"
        for place, name in enumerate(names)
    )
    parameters |= {f"json_name_{place}": name for place, name in enumerate(names)}
    late = "".join(
        f""" when contains(line, '"{key}"') and json_exists(line, '/{key}')
            then error('late key in line ' || (row + 1) || ': {key}')"""
        for key in new_keys
    )
    broken = "error('no record in line ' || (row + 1) || ': ' || line)"
    checked = (
        f"case when not json_valid(line) then {broken} "
        f"when json_type(line) <> 'OBJECT' then {broken}{late} else line end"
    )
    sql = (
        f"(select {texts or 'null as c'}, row from (select row, "
        f"json_extract({checked}, $json_keys) as cells "
        f"from (select line, row_number() over () - 1 as row from {LINES})))"
    )
    return sql, parameters


def _text(cell: str, is_single: bool, name: str) -> str:
    """SQL: a cell of JSON as text."""
    nested = f"error('nested value in line ' || (row + 1) || ': ' || ${name} || chr(10) || {cell})"
    values = (
        f"if(regexp_full_match({cell}, '\\[[-0-9][-+0-9.eE,]*\\]'), cast({cell} as varchar), "
        f"array_to_string(cast({cell} as varchar[]), ','))"
    )
    return (
        f"case left({cell}, 1) when '\"' then json_extract_string({cell}, '$') "
        f"when '{{' then {nested} when '[' then {nested if is_single else values} "
        f"else nullif(cast({cell} as varchar), 'null') end"
    )
