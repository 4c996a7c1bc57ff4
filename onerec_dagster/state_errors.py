"""State of Dagster that cannot be used: one line that names the file and the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import sqlalchemy.exc
import yaml

from onerec.disk import is_disk_full
from resources.settings import Settings

LONGEST_CAUSE = 300


class StateError(ValueError):
    """A file of the state that a person has to repair, move or open."""


@contextmanager
def state_errors_named(settings: Settings) -> Iterator[None]:
    """Name what is wrong with files of the home, its `dagster.yaml` and Dagster's databases.

    Args:
        settings: Of the home.

    Raises:
        StateError: In place of an error of another library, except of a full disk, which
            `onerec.disk` names.
    """
    try:
        yield
    except (yaml.YAMLError, dg.DagsterInvalidConfigError) as error:
        file = settings.dagster_home / "dagster.yaml"
        raise StateError(
            f"{file}: {_cause(error)}: correct it, or delete it to get the project's own"
        ) from error
    except sqlalchemy.exc.DatabaseError as error:
        if is_disk_full(error):
            raise
        cause = _cause(error.orig or error)
        remedy = (
            "Restore it, or move it aside: runs and events are then forgotten, artifacts and what "
            "is served stay"
        )
        if "readonly" in cause or "unable to open" in cause:
            remedy = "This user has to be able to write it: use the user whose it is, or chown -R"
        raise StateError(
            f"Dagster's state in {settings.dagster_home}: {cause}. {remedy}"
        ) from error
    except OSError as error:
        if is_disk_full(error) or not _is_below(settings.home, error.filename):
            raise
        raise StateError(
            f"{error.filename}: {error.strerror}. ONEREC_HOME={settings.home} has to be a "
            "directory that this user can write"
        ) from error


def _cause(error: BaseException) -> str:
    """The error in one line, without Dagster's list of everything that would be right."""
    return " ".join(str(error).split()).split(" Expected: ")[0][:LONGEST_CAUSE]


def _is_below(home: Path, name: object) -> bool:
    return isinstance(name, str) and Path(name).absolute().is_relative_to(home)
