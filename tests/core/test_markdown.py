"""Markdown tables: cells that cannot break the table, and one place that makes them."""

import doctest
from pathlib import Path

from onerec import markdown
from onerec.markdown import markdown_table, template

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_examples_of_the_docstring() -> None:
    found = doctest.testmod(markdown)
    assert found.attempted
    assert not found.failed


def test_a_cell_stays_a_cell() -> None:
    table = markdown_table(["a|b", "c"], [["two\nlines", "x | y"], [None, 0.5]])
    assert table.splitlines() == [
        "| a\\|b | c |",
        "|---|---|",
        "| two lines | x \\| y |",
        "| None | 0.5 |",
    ]
    assert markdown_table(["a"], []).splitlines() == ["| a |", "|---|"]


def test_a_page_has_tables_at_hand() -> None:
    page = template("# T\n\n{{ markdown_table(['n'], rows) }}\n").render(rows=[[1], [2]])
    assert page == "# T\n\n| n |\n|---|\n| 1 |\n| 2 |\n"


def test_no_other_module_makes_markdown_tables() -> None:
    packages = ("onerec", "assets", "resources", "onerec_dagster", "experiments", "benchmarks")
    files = [path for package in packages for path in (CHECKOUT / package).rglob("*.py")]
    by_hand = [path.name for path in files if '" | "' in path.read_text()]
    assert by_hand == ["markdown.py"]
