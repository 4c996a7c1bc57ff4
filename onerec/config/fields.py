"""A documented setting, and the one kind of error a wrong one gets."""

import dataclasses
from typing import Any


def option(default: Any, doc: str) -> Any:
    """A documented dataclass field."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def require(condition: bool, name: str, value: object, remedy: str) -> None:
    """Raise the one kind of error a wrong setting gets."""
    if not condition:
        raise ValueError(f"{name}={value!r}: {remedy}")
