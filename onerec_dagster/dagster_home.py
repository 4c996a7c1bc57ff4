"""The DAGSTER_HOME that the project manages."""

import hashlib
import os
import shutil
from pathlib import Path

from onerec_dagster.event_log import BATCH_SIZE, MOST_EVENTS
from resources.settings import CHECKOUT, Settings, absolute

FILE, RECORD = "dagster.yaml", ".managed_dagster_yaml"
"""The instance's settings, and the hash of what was copied there."""
PATHS = (
    "ONEREC_CONFIG",
    "ONEREC_DATA_DIR",
    "ONEREC_ARTIFACTS",
    "ONEREC_SERVING_DIR",
    "ONEREC_LAKE",
)
"""Settings that may be given relative to the working directory."""
FORMER_COPIES = "# Instance settings. `make demo` and `make dev` copy this file"
"""How copies begin that were made before a hash was kept."""


def prepare_home(settings: Settings) -> Path:
    """Create the data set's DAGSTER_HOME with the instance settings; point Dagster at it.

    An instance's own `dagster.yaml`, one that was not copied from the checkout or was changed
    since, stays as it is.
    """
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    if _is_a_copy(home):
        shutil.copyfile(CHECKOUT / FILE, home / FILE)
        (home / RECORD).write_text(_hash(home / FILE))
    settings.remember()
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["ONEREC_HOME"] = str(settings.home)
    # Steps read them again, in processes that dbt or `dagster dev` started elsewhere
    for name in PATHS:
        if given := absolute(os.environ.get(name) or None):
            os.environ[name] = given
    os.environ.setdefault(BATCH_SIZE, MOST_EVENTS)
    # Steps run two at once; threads that spin while they wait would take each other's cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return home


def _is_a_copy(home: Path) -> bool:
    """Whether there are no settings yet, or an unchanged copy of ours."""
    file, record = home / FILE, home / RECORD
    if not file.exists():
        return True
    if not record.exists():
        return file.read_text().startswith(FORMER_COPIES)
    return record.read_text() == _hash(file)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
