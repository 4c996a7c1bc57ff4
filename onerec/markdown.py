"""Markdown from Jinja2 templates, and the one way to make a Markdown table or list."""

from collections.abc import Iterable, Sequence

from jinja2 import Environment, StrictUndefined, Template


def cell(value: object) -> str:
    """A value in one cell: on one line, with its bars escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")


def markdown_table(columns: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table.

    Args:
        columns: Its head.
        rows: As many cells each.

    Examples:
        >>> print(markdown_table(["name", "n"], [["a|b", 1]]))
        | name | n |
        |---|---|
        | a\\|b | 1 |
    """
    return _TABLE.render(columns=columns, rows=rows).strip()


def markdown_list(items: Iterable[object]) -> str:
    """A list, "none" if it is empty.

    Examples:
        >>> print(markdown_list(["a", 1]))
        - a
        - 1
    """
    return _LIST.render(items=items).strip()


def template(source: str) -> Template:
    """A template of a page; `markdown_table` and the filter `cell` are at hand in it."""
    return _ENVIRONMENT.from_string(source)


_ENVIRONMENT = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
_ENVIRONMENT.filters["cell"] = cell
_ENVIRONMENT.globals["markdown_table"] = markdown_table
_TABLE = template("""\
| {{ columns | map("cell") | join(" | ") }} |
|{{ "---|" * columns | length }}
{% for row in rows %}
| {{ row | map("cell") | join(" | ") }} |
{% endfor %}
""")
_LIST = template("""\
{% for item in items %}
- {{ item }}
{% else %}
none
{% endfor %}
""")
