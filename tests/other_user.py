"""State of another user: what this process may not read, whoever runs the tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Work without the right to read or write a file or directory.

    Root may read everything, so that it becomes another user meanwhile; modules that are not
    imported yet may then be out of reach.
    """
    mode = path.stat().st_mode
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(mode)
