"""Markdown from Jinja2 templates, and the one way to make a Markdown table or list."""

import re
from collections.abc import Iterable, Sequence

from jinja2 import Environment, StrictUndefined, Template


def cell(value: object) -> str:
    """A value in one cell: on one line, with its bars escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")


def plain(value: object) -> str:
    """What a log says, such as a title or an id, as Markdown that shows it and does nothing else.

    It stands on one line, without control characters and marks that turn the direction of writing.
    A bar stays as it is: in a table `cell` escapes it.

    Examples:
        >>> print(plain("<b>snake_case</b>\\n## a `tick`"))
        \\<b\\>snake\\_case\\</b\\> \\#\\# a \\`tick\\`
    """
    line = "".join(c for c in " ".join(str(value).split()) if c.isprintable())
    return re.sub(r"([\\`*_\[\]<>~&#])", r"\\\1", line)


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
