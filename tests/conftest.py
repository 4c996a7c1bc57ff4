"""Fixtures shared by every test."""

import os
import tempfile
from pathlib import Path

import pytest

LONGEST_FIRST = ("end_to_end", "soak", "deploy", "experiments", "onerec_dagster")
"""Directories with tests of minutes: came such a file last, the other process would wait for it."""
CHECKOUT = Path(__file__).resolve().parent.parent

# Loading the code location parses the dbt project into ONEREC_HOME: never into the checkout's own
# state, and never under the settings of whoever runs the tests.
for _name in [n for n in os.environ if n.startswith("ONEREC_")]:
    del os.environ[_name]
os.environ["ONEREC_HOME"] = tempfile.mkdtemp(prefix="onerec-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [name not in item.path.parts for name in LONGEST_FIRST])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of the real data sets beside the checkout; the test skips where it is absent."""
    path = CHECKOUT.parent / "shared" / "data"
    if not path.exists():
        pytest.skip(f"real data not found at {path.relative_to(CHECKOUT.parent)}; see the README")
    return path
