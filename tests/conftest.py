"""Fixtures shared by every test."""

import os
import tempfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

# Loading the code location parses the dbt project into ONEREC_HOME: never into the checkout's own
# state, and never under the settings of whoever runs the tests.
for _name in [n for n in os.environ if n.startswith("ONEREC_")]:
    del os.environ[_name]
os.environ["ONEREC_HOME"] = tempfile.mkdtemp(prefix="onerec-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of the real data sets beside the checkout; the test skips where it is absent."""
    path = CHECKOUT.parent / "shared" / "data"
    if not path.exists():
        pytest.skip(f"real data not found at {path.relative_to(CHECKOUT.parent)}; see the README")
    return path
