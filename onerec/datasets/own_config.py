"""The YAML file that describes one's own data. `docs/own_data.md` explains every key."""

import re
from collections.abc import Collection
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from onerec.config import SettingError, read_yaml, require
from onerec.config.feedback import Condition, DeclaredFeedback, Signal, as_text
from onerec.config.fields import raised_by_validator, shortened, shortened_key
from onerec.datasets.data_file import Format
from onerec.datasets.dated_paths import any_day, is_dated, names_days
from onerec.datasets.text_rows import CsvStyle
from onerec.urls import redact_url, require_no_credentials

HELP = "see docs/own_data.md"
FIRST_POSSIBLE_DAY, LAST_POSSIBLE_DAY = date(1990, 1, 1), date(2100, 1, 1)
"""A day outside of them is a slip of the keyboard, and would make partitions without end."""
DROP = "have one, and nothing else; drop it"
MOST_FEATURES = 64
MOST_ERRORS = 5
NUMBERS = {"watch_seconds", "rating", "quantity", "duration_seconds", "position"}
"""Columns of the contract that a scale means something for."""
TIMES = {"event_time", "published_at"}
"""Those that may be parted into a date and a time of day."""


Word = Annotated[str, BeforeValidator(as_text), Field(pattern=r"^[^'\\]{1,64}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Section):
    """A column of the user's file.

    Attributes:
        column: Its name.
        formerly: Names that it has in other files, where a log's columns were renamed.
        scale: The factor from its unit to the contract's, for numbers.
        date: The column that holds the date, where `column` holds a time of day.
        true_values: Of flags: the values that mean yes, every other one means no; `any`: whatever
            is there means yes, a time say, but for the number zero.
    """

    column: Annotated[str, Field(min_length=1)]
    formerly: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    scale: Annotated[float, Field(strict=True, ge=1e-12, le=1e12, allow_inf_nan=False)] = 1.0
    date: Annotated[str, Field(min_length=1)] | None = None
    true_values: Literal["any"] | Annotated[tuple[Word, ...], Field(min_length=1)] | None = None

    @property
    def yes(self) -> tuple[str, ...]:
        """Values that mean yes; none where any does."""
        return () if self.true_values in (None, "any") else tuple(self.true_values)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the file that it needs."""
        return (self.column,) if self.date is None else (self.date, self.column)

    def as_named_in(self, present: Collection[str]) -> "Column":
        """By the name that it has in a file with these columns; by the first where it has none.

        Examples:
            >>> Column(column="uid", formerly=("user",)).as_named_in({"user", "item"}).names
            ('user',)
        """
        name = next((n for n in (self.column, *self.formerly) if n in present), self.column)
        return self.model_copy(update={"column": name})


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
        if name in NO_ZONES:
            raise ValueError
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        like = sorted(z for z in available_timezones() if z.lower().endswith(f"/{name.lower()}"))
        hint = f"{like[0]}" if like else "Europe/Berlin or UTC, or Etc/GMT-2 for +02:00 all year"
        raise ValueError(f"is no time zone; use a name such as {hint}") from error
    return name


NO_ZONES = {"localtime", "posixrules", "Factory"}
"""Files beside the zones: what they mean depends on the machine."""
TimeZone = Annotated[str, AfterValidator(_known_zone)]


def _column(value: Any) -> Any:
    if isinstance(value, list) and value:
        return {"column": value[0], "formerly": value[1:]}
    return {"column": value} if isinstance(value, str) else value


ColumnSource = Annotated[Column, BeforeValidator(_column)]


class Feature(_Section):
    """A further column of the catalogue or of the users, which becomes a category.

    Attributes:
        column: Its name.
        numeric: Of the catalogue: its values are numbers such as prices, and each becomes a bucket,
            two for every doubling.
    """

    column: str
    numeric: StrictBool = False


FEATURE_NAME = r"^[a-z][a-z0-9_]{0,31}$"
FeatureName = Annotated[str, Field(pattern=FEATURE_NAME)]


Features = Annotated[
    dict[FeatureName, Annotated[Feature, BeforeValidator(_column)]],
    Field(max_length=MOST_FEATURES),
]


class _Columns(_Section):
    @model_validator(mode="after")
    def _every_key_means_something(self) -> "_Columns":
        for name in type(self).model_fields:
            source = getattr(self, name)
            if source is None:
                continue
            has_scale, words = source.scale != 1, source.true_values
            is_number, is_time, is_flag = name in NUMBERS, name in TIMES, name.startswith("is_")
            require(is_number or not has_scale, f"{name}.scale", source.scale, f"numbers {DROP}")
            require(is_time or not source.date, f"{name}.date", source.date, f"times of day {DROP}")
            require(is_flag or not words, f"{name}.true_values", words, f"flags {DROP}")
        return self


class EventColumns(_Columns):
    """Contract name -> the user's column; one left out is looked up under its own name."""

    event_id: ColumnSource | None = None
    user_id: ColumnSource = Column(column="user_id")
    item_id: ColumnSource = Column(column="item_id")
    event_time: ColumnSource = Column(column="event_time")
    watch_seconds: ColumnSource | None = None
    event_type: ColumnSource | None = None
    rating: ColumnSource | None = None
    quantity: ColumnSource | None = None
    is_like: ColumnSource | None = None
    is_follow: ColumnSource | None = None
    is_comment: ColumnSource | None = None
    is_share: ColumnSource | None = None
    is_dislike: ColumnSource | None = None
    surface: ColumnSource | None = None


class ItemColumns(_Columns):
    """As `EventColumns`, for the catalogue."""

    item_id: ColumnSource = Column(column="item_id")
    duration_seconds: ColumnSource | None = None
    title: ColumnSource | None = None
    category: ColumnSource | None = None
    author_id: ColumnSource | None = None
    published_at: ColumnSource | None = None


class HistoryColumns(_Columns):
    """As `EventColumns`, for what was watched before the log begins."""

    user_id: ColumnSource = Column(column="user_id")
    position: ColumnSource | None = None
    item_id: ColumnSource = Column(column="item_id")
    is_positive: ColumnSource | None = None


class VectorColumns(_Columns):
    """As `EventColumns`, for embeddings."""

    item_id: ColumnSource = Column(column="item_id")
    vector: ColumnSource = Column(column="vector")


class UserColumns(_Columns):
    """As `EventColumns`, for users."""

    user_id: ColumnSource = Column(column="user_id")


Formats = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


def _as_formats(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


class _Files(_Section):
    path: Annotated[str, Field(min_length=1)]
    format: Format | None = None
    delimiter: str | None = None
    quote: str = Field(default='"', max_length=1)
    escape: str | None = Field(default=None, min_length=1, max_length=1)
    encoding: str = "utf8"
    null_values: tuple[str, ...] = CsvStyle().null_values
    names: tuple[str, ...] | None = None
    skip_rows: int = Field(default=0, ge=0, le=1000)
    decimal: Literal[".", ","] | None = None
    timestamp_unit: Literal["s", "ms", "us", "ns", "iso"] | None = None
    timestamp_format: Annotated[Formats, BeforeValidator(_as_formats)] | None = None
    time_zone: TimeZone | None = None

    @field_validator("delimiter")
    @classmethod
    def _is_one_character(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and len(delimiter) != 1:
            raise ValueError(
                "use one character. Where two of them part the columns, as in user::item, name the "
                "empty columns between: delimiter: ':', names: [user, _1, item, _2, ...]"
            )
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            b" ".decode(encoding, "replace")
        except LookupError:  # unknown, or of no text: base64
            raise ValueError("is not known; use latin-1 or utf-16, say") from None
        return encoding

    @model_validator(mode="after")
    def _quote_is_no_delimiter(self) -> "_Files":
        if self.quote == (self.delimiter or ",") or self.quote.isalnum():
            raise SettingError("quote", self.quote, "use another character than those of cells")
        return self

    @field_validator("path")
    @classmethod
    def _holds_no_secret(cls, path: str) -> str:
        require_no_credentials("path", path)
        return path

    @property
    def style(self) -> CsvStyle:
        return CsvStyle(
            self.delimiter,
            self.quote,
            self.escape,
            self.encoding,
            self.null_values,
            self.names,
            self.skip_rows,
        )


class EventFiles(_Files):
    """Where the exposures are."""

    columns: EventColumns = EventColumns()

    @field_validator("path")
    @classmethod
    def _is_of_days(cls, path: str) -> str:
        remedy = (
            f"its {{date}} is of no single day that can be read back, e.g. {{date:%Y-%m-%d}}: if "
            f"files hold whole weeks, months or years, name them all by a glob, {any_day(path)}"
        )
        require(not is_dated(path) or names_days(path), "path", path, remedy)
        return path


class ItemFiles(_Files):
    """Where the catalogue is.

    Attributes:
        columns: The contract's columns.
        features: Further ones, by the name that they get: brand, price, levels of category.
        unknown_items: Events of items that it does not list are rejected (`reject`), or their items
            are known from the log, without features (`add`).
        delivery: Each delivery holds the whole catalogue (`full`) or only what changed (`partial`).
    """

    columns: ItemColumns = ItemColumns()
    features: Features = {}
    unknown_items: Literal["reject", "add"] = "reject"
    delivery: Literal["full", "partial"] = "full"

    @field_validator("features")
    @classmethod
    def _have_names_of_their_own(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        for name, feature in features.items():
            remedy = f"{name} is a column of the contract: name it under columns"
            require(name not in ItemColumns.model_fields, name, feature.column, remedy)
        return features


class _FilesOfNoDay(_Files):
    @field_validator("path")
    @classmethod
    def _is_of_no_day(cls, path: str) -> str:
        remedy = "is read whole on every day, and has no days: name the newest file, or keep one"
        require(not is_dated(path), "path", path, remedy)
        return path


class HistoryFiles(_FilesOfNoDay):
    """Where the prior history is."""

    columns: HistoryColumns = HistoryColumns()


class VectorFiles(_FilesOfNoDay):
    """Where the embeddings are."""

    columns: VectorColumns = VectorColumns()


def _by_own_name(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    for name in value:
        fits = not isinstance(name, str) or re.fullmatch(FEATURE_NAME, name)
        remedy = "name it in a-z, 0-9 and _, up to 32 of them: features: {plan: Plan}"
        require(bool(fits), shortened_key(name), name, remedy)
    return {name: name for name in value}


class UserFiles(_FilesOfNoDay):
    """Where the attributes of users are.

    Attributes:
        columns: The contract's column.
        features: The attributes: by the name that they get, or a list of columns that keep theirs.
    """

    columns: UserColumns = UserColumns()
    features: Annotated[Features, BeforeValidator(_by_own_name), Field(min_length=1)]

    @field_validator("features")
    @classmethod
    def _are_no_id(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        remedy = "names the user: leave it out of the attributes"
        require("user_id" not in features, "user_id", "user_id", remedy)
        return features

    @field_validator("features")
    @classmethod
    def _are_what_requests_say(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        remedy = "users have texts, as requests name them: write a column of ranges, 30-39 say"
        for name, feature in features.items():
            require(not feature.numeric, f"{name}.numeric", feature.numeric, remedy)
        return features


LogSection: TypeAlias = EventFiles | ItemFiles | HistoryFiles | VectorFiles | UserFiles


def _day(value: Any) -> date:
    if type(value) is date:
        return value
    text = str(value.date() if isinstance(value, datetime) else value)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        remedy = "write a day that the calendar has, year first, 2026-06-08 say"
        raise ValueError(remedy) from None
    if text != value:
        raise ValueError(f"write {day}")
    return day


Day = Annotated[date, BeforeValidator(_day), Field(ge=FIRST_POSSIBLE_DAY, le=LAST_POSSIBLE_DAY)]


class OwnData(_Section):
    """The whole file. `stages` belongs to another reader of it."""

    events: EventFiles
    items: ItemFiles | None = None
    prior_history: HistoryFiles | None = None
    item_vectors: VectorFiles | None = None
    users: UserFiles | None = None
    first_day: Day | None = None
    last_day: Day | None = None
    time_zone: TimeZone = "UTC"
    open_ended: StrictBool = False
    feedback: DeclaredFeedback = DeclaredFeedback()
    stages: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _columns_differ(self) -> "OwnData":
        columns = self.events.columns
        required = ("user_id", "item_id", "event_time")
        used: dict[str, str] = {}
        for name in (*required, *(n for n in EventColumns.model_fields if n not in required)):
            source = getattr(columns, name)
            if source is None:
                continue
            if used.get(source.column) in required:
                remedy = (
                    f"{used[source.column]} and {name} are both column "
                    f"{shortened(source.column)}: name the column of each"
                )
                raise SettingError(f"events.columns.{name}", source.column, remedy)
            used[source.column] = name
        return self

    @model_validator(mode="after")
    def _days_make_sense(self) -> "OwnData":
        day, both = str(self.last_day), "it and open_ended exclude each other: drop one of them"
        require(not (self.open_ended and self.last_day), "last_day", day, both)
        if self.first_day and self.last_day:
            remedy = f"lies before first_day {self.first_day}"
            require(self.first_day <= self.last_day, "last_day", day, remedy)
        return self


def read_own_config(path: Path) -> OwnData:
    """Read and check a YAML file.

    Raises:
        SettingError: A key is unknown or missing, or a value is wrong; of several the first one,
            and the others stand in its remedy.
    """
    values = read_yaml(path)
    require(bool(values), str(path), values, f"must map names, at least `events:`; {HELP}")
    try:
        return OwnData.model_validate(values)
    except ValidationError as error:
        first, *others = [_setting_error(e) for e in error.errors()[:MOST_ERRORS]]
        remedy = "; ".join([first.remedy, *map(str, others), HELP])
        raise SettingError(f"{path}: {first.field}", first.value, remedy) from error


def _setting_error(error: ErrorDetails) -> SettingError:
    raised, place = raised_by_validator(error), error["loc"]
    if raised and place and raised.field == place[-1]:  # a field's own validator names it, too
        place = place[:-1]
    name = ".".join(shortened_key(part) for part in place)
    if raised:
        return raised.within(name) if name else raised
    if error["type"] == "missing":
        return SettingError(name, None, "is missing; add it")
    if error["type"] == "extra_forbidden":
        remedy = f"no such key; use {_known_keys(error['loc'])}"
    else:
        remedy = _REMEDIES.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    given = str(error["input"]) if isinstance(error["input"], date) else error["input"]
    return SettingError(name, redact_url(given) if isinstance(given, str) else given, remedy)


_REMEDIES = {
    "string_type": "use a text",
    "string_too_short": "must not be empty",
    "too_short": "name at least one",
    "float_type": "use a number",
    "finite_number": "use a number",
    "bool_type": "use true or false",
    "tuple_type": "use a list, [a, b]",
    "dict_type": "must map names to values",
    "model_type": "must map names to values",
    "model_attributes_type": "must map names to values",
}
"""In plain words, what pydantic would say of Python's types."""

_SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): OwnData,
    ("feedback",): DeclaredFeedback,
    ("events",): EventFiles,
    ("items",): ItemFiles,
    ("prior_history",): HistoryFiles,
    ("item_vectors",): VectorFiles,
    ("users",): UserFiles,
    ("events", "columns"): EventColumns,
    ("items", "columns"): ItemColumns,
    ("prior_history", "columns"): HistoryColumns,
    ("item_vectors", "columns"): VectorColumns,
    ("users", "columns"): UserColumns,
}


def _known_keys(loc: tuple[Any, ...]) -> str:
    section = _SECTIONS.get(tuple(loc[:-1]), Column)
    if loc[0] == "feedback" and len(loc) > 2:
        section = Signal if loc[1] == "signals" and len(loc) == 4 else Condition
    return ", ".join(section.model_fields)
