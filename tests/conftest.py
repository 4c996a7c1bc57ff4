"""Fixtures shared by every test."""

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of the real data sets beside the checkout; the test skips where it is absent."""
    path = CHECKOUT.parent / "shared" / "data"
    if not path.exists():
        pytest.skip(f"real data not found at {path.relative_to(CHECKOUT.parent)}; see the README")
    return path
