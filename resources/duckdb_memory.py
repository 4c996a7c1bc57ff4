"""How much memory DuckDB may use."""

import psutil

_LEAST_MIB, _SHARE = 1024, 12


def memory_limit() -> str:
    """A twelfth of the machine's memory, at least 1 GiB, as DuckDB's `memory_limit`.

    What does not fit is spilled to disk, so that more events need no more memory. More gains
    little: the session dataset of 10 M events takes 23 CPU s with 1 GB and 24 with 6. Lists that a
    query aggregates are not spilled; no table that is built has any.
    """
    part = psutil.virtual_memory().total // _SHARE // 2**20
    return f"{max(_LEAST_MIB, part)}MiB"
