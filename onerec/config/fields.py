"""Typed, documented settings, and the one error that a wrong value raises.

A stage's settings are a frozen dataclass that inherits `ValidatedConfig`; a field is declared by
`option`, with its documentation and its legal range. However an instance is made (Python, a YAML
file, Dagster's launchpad, a checkpoint's JSON), pydantic checks types and ranges at construction.
"""

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import NoneType
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

import pydantic
from pydantic_core import ErrorDetails

T = TypeVar("T")

LONGEST_VALUE = 200
"""Characters of a wrong value that its message shows."""


class SettingError(ValueError):
    """A value that the user can correct.

    Attributes:
        field: Its name, with the names of the sections around it: `stages.model.d_model`.
        value: What it holds.
        remedy: What to do about it.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(field, value, remedy)
        self.field, self.value, self.remedy = field, value, remedy

    def __str__(self) -> str:
        return f"{self.field}={shortened(self.value)}: {self.remedy}"

    def within(self, section: str) -> "SettingError":
        """The same error about a field of a section."""
        return SettingError(f"{section}.{self.field}", self.value, self.remedy)


def require(condition: bool, name: str, value: object, remedy: str) -> None:
    """Raise a `SettingError` unless the condition holds."""
    if not condition:
        raise SettingError(name, value, remedy)


def shortened(value: object) -> str:
    """`repr`, cut to 200 characters; large and deep containers are not walked through.

    >>> shortened("x" * 1000)[-4:]
    "...'"
    """
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = LONGEST_VALUE
    brief.maxlist = brief.maxtuple = brief.maxdict = brief.maxset = 20
    try:
        text = brief.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = f"a number of {int(value).bit_length()} bits"  # pyright: ignore
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def option(
    default: T,
    doc: str,
    *,
    ge: Any = None,
    gt: Any = None,
    le: Any = None,
    lt: Any = None,
) -> T:
    """A documented field of a `ValidatedConfig`, with its range: >= ge, > gt, <= le, < lt.

    Whole numbers and days take `ge` and `le`, both or neither.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    return dataclasses.field(default=default, metadata={"doc": doc, "limits": limits})


@dataclass(frozen=True, kw_only=True)
class ValidatedConfig:
    """Base of frozen settings dataclasses: types, choices, ranges and finiteness are checked.

    A subclass that checks fields against one another calls `super().__post_init__()` first.
    """

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        try:
            valid = pydantic_model(type(self)).model_validate(values)
        except pydantic.ValidationError as error:
            raise setting_error(error.errors()[0], type(self)) from None
        for name, value in values.items():
            if type(value) is int and isinstance(getattr(valid, name), float):
                object.__setattr__(self, name, float(value))  # a checkpoint's key must not differ

    def changed(self, values: object, section: str) -> Self:
        """These settings with some fields changed by a section of a YAML file; None changes none.

        Args:
            values: Field -> value.
            section: The section's name, for messages.

        Raises:
            SettingError: `values` is no mapping, a name is unknown, or a value is not legal.
        """
        if values is None:
            return self
        require(isinstance(values, Mapping), section, values, "must map names to values")
        assert isinstance(values, Mapping)
        known = [field.name for field in dataclasses.fields(self)]
        for name, value in values.items():
            remedy = f"no such setting; use one of {', '.join(sorted(known))}"
            require(name in known, f"{section}.{shortened_key(name)}", value, remedy)
        try:
            return dataclasses.replace(self, **values)
        except SettingError as error:
            raise error.within(section) from None


def shortened_key(key: object) -> str:
    """A key of a YAML file as part of a field's name; YAML has keys that are no text."""
    return key[:LONGEST_VALUE] if isinstance(key, str) else shortened(key)


def pydantic_fields(config: type) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Type of each field and the arguments of its `pydantic.Field`, without the default."""
    types = get_type_hints(config)
    return {
        f.name: (types[f.name], {"description": f.metadata["doc"], **f.metadata["limits"]})
        for f in dataclasses.fields(config)
    }


@cache
def pydantic_model(config: type[ValidatedConfig]) -> type[pydantic.BaseModel]:
    """The model that checks a config's fields: no conversion but of whole numbers to floats."""
    strict = pydantic.ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )
    fields = {
        name: (kind, pydantic.Field(**arguments))
        for name, (kind, arguments) in pydantic_fields(config).items()
    }
    return pydantic.create_model(config.__name__, __config__=strict, **fields)  # pyright: ignore


def raised_by_validator(error: ErrorDetails) -> SettingError | None:
    """The `SettingError` that a validator raised, if pydantic's error is of one."""
    raised = error.get("ctx", {}).get("error")
    return raised if isinstance(raised, SettingError) else None


def setting_error(error: ErrorDetails, config: type[ValidatedConfig]) -> SettingError:
    """What pydantic found, in the words of a `SettingError`."""
    name = str(error["loc"][0])
    limits = {f.name: f.metadata["limits"] for f in dataclasses.fields(config)}[name]
    return SettingError(name, error["input"], _remedy(get_type_hints(config)[name], limits))


def _remedy(kind: Any, limits: Mapping[str, Any]) -> str:
    """What a field takes: `use 'a' or 'b'`, `use a number in [0, 1)`, `use a whole number >= 1`."""
    if NoneType in get_args(kind):
        (kind,) = (k for k in get_args(kind) if k is not NoneType)
        return f"{_remedy(kind, limits)}, or none"
    if get_origin(kind) is Literal:
        *others, last = map(repr, get_args(kind))
        return f"use {', '.join(others)} or {last}"
    if kind is float:
        left = f"[{limits['ge']}" if "ge" in limits else f"({limits.get('gt', '-inf')}"
        right = f"{limits['le']}]" if "le" in limits else f"{limits.get('lt', 'inf')})"
        return f"use a number in {left}, {right}"
    noun = _NOUNS[kind]
    return f"use {noun} from {limits['ge']} to {limits['le']}" if limits else f"use {noun}"


_NOUNS: dict[Any, str] = {
    bool: "true or false",
    date: "a day without quotes",
    int: "a whole number",
    str: "a text",
}
