"""The DAGSTER_HOME that the project manages."""

import os
import shutil
from pathlib import Path

from resources.settings import CHECKOUT, Settings


def prepare_home(settings: Settings) -> Path:
    """Create the data set's DAGSTER_HOME with the instance settings; point Dagster at it."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CHECKOUT / "dagster.yaml", home / "dagster.yaml")
    settings.remember()
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["ONEREC_HOME"] = str(settings.home)
    # Steps run two at once; threads that spin while they wait would take each other's cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return home
