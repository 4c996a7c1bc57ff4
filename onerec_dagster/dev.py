"""`make dev`: the Dagster UI on localhost, over the state that `make demo` made."""

import argparse
import os
import signal
import sys
from pathlib import Path

from onerec_dagster.dagster_home import prepare_home
from onerec_dagster.ports import require_free_port
from onerec_dagster.state_errors import state_errors_named
from resources.settings import CHECKOUT, load_settings


def main() -> None:
    """Replace this process by `dagster dev`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=3000)
    port = parser.parse_args().port
    try:
        settings = load_settings()
        _ = settings.source, settings.stages  # the UI would show a traceback in their place
        require_free_port(port)
        with state_errors_named(settings):
            home = prepare_home(settings)
    except ValueError as error:  # what a user can correct: the message says how
        sys.exit(f"make dev: {error}")
    # not from the checkout: Dagster warns of the dagster.yaml there, which is this home's original
    os.chdir(home)
    dagster = Path(sys.executable).with_name("dagster")
    command = ["dev", "-w", str(CHECKOUT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    # `dagster dev` is superseded by `dg dev`, which wants another layout; it works the same
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    # a shell's background jobs ignore SIGINT, and then `dagster dev` ignores SIGTERM as well
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(dagster, [str(dagster), *command])


if __name__ == "__main__":
    main()
