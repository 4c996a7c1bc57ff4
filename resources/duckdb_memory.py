"""How much memory DuckDB may use."""

import psutil

_LEAST_MIB = 1024


def memory_limit() -> str:
    """A quarter of the machine's memory, as DuckDB's `memory_limit`: two steps may run at once.

    What does not fit is spilled beside the database, but lists that a query aggregates are not.
    """
    return f"{max(_LEAST_MIB, psutil.virtual_memory().total // 4 // 2**20)}MiB"
