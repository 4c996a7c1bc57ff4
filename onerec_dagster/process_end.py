"""How the project's commands end."""

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(main: Callable[[], object]) -> NoReturn:
    """Run a command, then end the process without tearing the interpreter down.

    Torch keeps the asset definitions alive until the very end, and DuckDB's binding then lists some
    hundred of its own objects as leaked, below whatever the command had to say. The functions
    registered for the end do run: without that of multiprocessing its resource tracker warns of the
    semaphores that dbt holds.
    """
    status: int | str | None = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    if isinstance(status, str):
        print(status, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))
