"""`make dev`: the Dagster UI on localhost, over the state that `make demo` made."""

import argparse
import os
import sys
from pathlib import Path

from onerec_dagster.dagster_home import prepare_home
from resources.settings import CHECKOUT, load_settings


def main() -> None:
    """Replace this process by `dagster dev`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=3000)
    port = parser.parse_args().port
    # not from the checkout: Dagster warns of the dagster.yaml there, which is this home's original
    os.chdir(prepare_home(load_settings()))
    dagster = Path(sys.executable).with_name("dagster")
    command = ["dev", "-w", str(CHECKOUT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    # `dagster dev` is superseded by `dg dev`, which wants another layout; it works the same
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    os.execv(dagster, [str(dagster), *command])


if __name__ == "__main__":
    main()
