"""A warehouse with changed bytes, as a failing disk leaves it."""

from pathlib import Path

import duckdb

HEADERS = 3 * 4096
"""Bytes with which a DuckDB file begins, before its blocks."""


def write_damaged(file: Path) -> None:
    """Write a warehouse whose blocks are damaged; DuckDB's error is none of input and output."""
    with duckdb.connect(str(file)) as connection:
        connection.execute("create table stg_items as select 1 as item_id")
    with file.open("r+b") as opened:
        opened.seek(HEADERS)
        opened.write(b"x" * (file.stat().st_size - HEADERS))
