"""How much memory DuckDB may use."""

import psutil

_LEAST_MIB, _MOST_MIB = 1024, 2048


def memory_limit() -> str:
    """A quarter of the machine's memory, but 1 to 2 GiB, as DuckDB's `memory_limit`.

    What does not fit is spilled beside the database, so that more events need no more memory. More
    would gain nothing: the session dataset of 10 M events takes 23 CPU s with 1 GB and 24 with 6.
    Lists that a query aggregates are not spilled; no table that is built has any.
    """
    quarter = psutil.virtual_memory().total // 4 // 2**20
    return f"{min(max(_LEAST_MIB, quarter), _MOST_MIB)}MiB"
