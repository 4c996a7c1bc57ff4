"""`onerec.training` inside Dagster Pipes: what the launcher starts, once per device.

Lightning starts processes by running the parent's command again, and a Dagster step's parent is
Dagster: so the launcher is torch's own, and the first process reports to the asset's log.
"""

import os

from dagster_pipes import open_dagster_pipes


def run() -> None:
    """Train this process's share; the arguments are those of `python -m onerec.training`."""
    # the code location imports every module of this package, and must not load torch
    from onerec.training.__main__ import main

    if int(os.environ["RANK"]) > 0:
        main()
        return
    with open_dagster_pipes() as pipes:
        main(log_progress=lambda progress: pipes.log.info(str(progress)))


if __name__ == "__main__":
    run()
