"""What the events of a log mean: what is watched, positive, negative, and what the reward predicts.

Conditions on an event's columns, declared by the section `feedback` of the YAML file or taken from
the kind of log. dbt turns them into SQL; their texts are event types, of which SQL sees no quote.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from onerec.config.fields import SettingError, raised_by_validator, require

T = TypeVar("T")
Kind = Literal["video", "ratings", "shop", "actions"]
"""Watch times; ratings; event types such as view, cart and purchase; nothing but events."""
Flag = Literal["is_like", "is_follow", "is_comment", "is_share", "is_dislike"]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e9, le=1e9)]
Amount = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1e9)]


def as_text(value: Any) -> Any:
    """A number of a YAML file as the text that it is in the data: codes such as 3 or 3.0.

    >>> as_text(3.0), as_text("cart")
    ('3', 'cart')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, int | float) else value


EventType = Annotated[str, BeforeValidator(as_text), Field(pattern=r"^[\w .:/+-]{1,64}$")]
SIGNAL_NAME = r"^[a-z][a-z0-9_]{0,31}$"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Some = Annotated[tuple[T, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One value stands for a list of one."""


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Declared):
    """A condition on one event: all of the keys that are given hold. A null column holds none.

    Attributes:
        every_event: Holds always.
        event_type: One of these, in any case.
        rating_at_least: The rating is at least this.
        rating_below: The rating is below this.
        quantity_at_least: The quantity is at least this.
        watch_seconds_at_least: Watched for at least this long.
        watch_share_at_least: Watched for at least this share of the item's duration.
        long_watch: The watch reaches `sessions.watched_min_seconds`, or `watched_min_share` of the
            item's duration, whichever comes first.
        flag: One of these flags is set.
        watched: The event counts as watched.
    """

    every_event: Literal[True] | None = None
    event_type: Some[EventType] | None = None
    rating_at_least: Number | None = None
    rating_below: Number | None = None
    quantity_at_least: Number | None = None
    watch_seconds_at_least: Amount | None = None
    watch_share_at_least: Annotated[Amount, Field(le=100)] | None = None
    long_watch: Literal[True] | None = None
    flag: Some[Flag] | None = None
    watched: Literal[True] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Condition":
        if not self.given():
            raise ValueError(f"is empty; use one of {', '.join(type(self).model_fields)}")
        low, high = self.rating_at_least, self.rating_below
        if low is not None and high is not None and low >= high:
            raise ValueError(f"rating_at_least={low:g} and rating_below={high:g} exclude all")
        return self

    @property
    def needs_duration(self) -> bool:
        """The item's duration is compared with."""
        return self.long_watch is not None or self.watch_share_at_least is not None

    def columns(self) -> set[str]:
        """Columns of the contract of which an event has to have one, else it never holds."""
        compared = {
            "event_type": self.event_type,
            "rating": (self.rating_at_least, self.rating_below),
            "quantity": self.quantity_at_least,
            "watch_seconds": (
                self.watch_seconds_at_least,
                self.watch_share_at_least,
                self.long_watch,
            ),
        }
        absent = (None, (None, None), (None, None, None))
        return {name for name, given in compared.items() if given not in absent} or {
            str(flag) for flag in self.flag or ()
        }

    def given(self) -> dict[str, Any]:
        """The keys that are given, as dbt gets them."""
        return self.model_dump(exclude_none=True, mode="json")

    def text(self) -> str:
        """In words, for reports."""
        return " and ".join(_in_words(name, value) for name, value in self.given().items())


def _in_words(name: str, value: Any) -> str:
    if value is True:
        return name.replace("_", " ")
    if isinstance(value, list):
        return f"{name} {' or '.join(value)}"
    column, comparison = name.rsplit("_at_least", 1)[0], ">="
    if name.endswith("_below"):
        column, comparison = name.removesuffix("_below"), "<"
    return f"{column} {comparison} {value:g}"


Conditions = Annotated[tuple[Condition, ...], BeforeValidator(_as_tuple)]
"""Any of them holds. One mapping stands for a list of one; an empty list holds never."""

OfBlock = Literal["any", "half", "median_watch_seconds", "continued", "mean_seconds", "mean_share"]
"""How a block of consecutive exposures gets its label from the events' condition."""
EXPECTATIONS = ("mean_seconds", "mean_share")
"""Labels that are numbers: what predicts them is an expected value, not a probability."""
_BLOCK_TEXTS: dict[str, str] = {
    "any": "an event with {when}",
    "half": "at least half of the events meet: {when}",
    "median_watch_seconds": "watch seconds per item of at least the training median",
    "continued": "the session goes on after these items",
    "mean_seconds": "watch seconds per item",
    "mean_share": "share of an item's duration that is watched",
}


class Signal(_Declared):
    """Something that a reward model predicts of a block of exposures: one tower.

    Attributes:
        name: Of the tower.
        when: The condition on an event.
        of_block: `any`: an event of the block meets it; `half`: at least half of them do;
            `median_watch_seconds`: watch seconds per item reach the training median; `continued`:
            the session goes on after the block; `mean_seconds` and `mean_share`: a number, what is
            watched of an item of the block in the mean. A log cannot declare these two: they are
            added where it has watch times.
        weight: In the scalar reward; None takes the setting `reward.weight_<name>`.
    """

    name: str = Field(pattern=SIGNAL_NAME)
    when: Conditions = (Condition(every_event=True),)
    of_block: OfBlock = "any"
    weight: Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)] | None = None

    @property
    def is_expectation(self) -> bool:
        """Its label is a number and its prediction an expected value, not a probability."""
        return self.of_block in EXPECTATIONS

    def definition(self) -> str:
        """In words, for reports."""
        when = " or ".join(condition.text() for condition in self.when) or "nothing"
        return _BLOCK_TEXTS[self.of_block].format(when=when)


def _signals(value: Any) -> Any:
    """`{purchase: {event_type: purchase}}` names its signals; `when` may be left out."""
    if not isinstance(value, Mapping):
        return value
    long_form = {"when", "of_block", "weight"}
    return tuple(
        {"name": name, **given}
        if isinstance(given, Mapping) and set(given) & long_form
        else {"name": name, "when": given, "weight": 1.0}
        for name, given in value.items()
    )


Signals = Annotated[tuple[Signal, ...], BeforeValidator(_signals)]

VIDEO_SIGNALS = (
    Signal(name="swt", of_block="median_watch_seconds"),
    Signal(name="vtr", when=(Condition(watched=True),), of_block="half"),
    Signal(name="wtr", when=(Condition(flag=("is_follow",)),)),
    Signal(name="ltr", when=(Condition(flag=("is_like",)),)),
)
"""The paper's four: session watch time, view, follow, like (OneRec v1, section 3.3.1)."""
CONTINUED = Signal(name="continued", of_block="continued", weight=1.0)
"""Stands in where no declared signal occurs in both classes: a log of purchases only."""
WATCH_SECONDS = Signal(name="watch_seconds", of_block="mean_seconds")
WATCH_SHARE = Signal(name="watch_share", of_block="mean_share")
"""Added to the declared signals where the log has watch times, and items have durations."""


class Feedback(_Declared):
    """What the events of a log mean.

    Attributes:
        kind: Gives what is not declared.
        exposure: Events that are used; the others are left out of sessions.
        watched: Events that consume their item: targets, and what counts for popularity.
        positive: Events that make histories, unless they are negative.
        negative: Events that never do.
        signals: What the reward models predict, in the order of their towers; at most 64.
    """

    kind: Kind
    exposure: Conditions
    watched: Conditions
    positive: Conditions
    negative: Conditions
    signals: Annotated[Signals, Field(max_length=64)]

    @model_validator(mode="after")
    def _makes_sense(self) -> "Feedback":
        for name in ("exposure", "watched", "positive"):
            remedy = "is empty, so that nothing counts; name a condition"
            require(bool(getattr(self, name)), name, getattr(self, name), remedy)
        both = set(map(Condition.text, self.positive)) & set(map(Condition.text, self.negative))
        require(not both, "negative", ", ".join(both), "is positive, too; name it once")
        for name in ("exposure", "watched"):
            for condition in getattr(self, name):
                is_later = condition.watched or (name == "exposure" and condition.needs_duration)
                require(not is_later, name, condition.text(), "is known later only")
        self._signals_make_sense()
        return self

    def _signals_make_sense(self) -> None:
        names = [signal.name for signal in self.signals]
        has_weight = not names or any(signal.weight != 0 for signal in self.signals)
        require(has_weight, "signals", names, "every weight is 0; give one of them a weight")
        require(len(set(names)) == len(names), "signals", names, "a name stands twice")
        reserved = "is the name of the signal that stands in; use another one"
        require(CONTINUED.name not in names, "signals", CONTINUED.name, reserved)
        added = (
            "watch_seconds and watch_share are added where the log has watch times; weigh them "
            "with reward.weight_watch_seconds and reward.weight_watch_share"
        )
        for signal in self.signals:
            is_added = signal.name in (WATCH_SECONDS.name, WATCH_SHARE.name)
            require(not (signal.is_expectation or is_added), "signals", signal.name, added)

    @property
    def needs_watch_seconds(self) -> bool:
        """A row without watch time is rejected."""
        return self.kind == "video"

    def variables(self) -> dict[str, Any]:
        """What dbt gets: lists of conditions, each a mapping of the keys that are given."""
        names = ("exposure", "watched", "positive", "negative")
        return {
            **{name: [c.given() for c in getattr(self, name)] for name in names},
            "signals": [[c.given() for c in signal.when] for signal in self.signals],
            "needs_watch_seconds": self.needs_watch_seconds,
        }


def _types(*names: str) -> Condition:
    return Condition(event_type=names)


PURCHASE = _types("purchase", "buy", "order", "transaction", "checkout")
CART = _types("cart", "add_to_cart", "addtocart", "add to cart", "add-to-cart", "basket")
_EVERY = (Condition(every_event=True),)
_REJECTIONS = _types("skip", "dislike", "hide", "remove", "remove_from_cart", "return", "refund")

FEEDBACK: dict[str, Feedback] = {
    "video": Feedback(
        kind="video",
        exposure=_EVERY,
        watched=(Condition(long_watch=True),),
        positive=(
            Condition(watched=True),
            Condition(flag=("is_like", "is_follow", "is_comment", "is_share")),
        ),
        negative=(Condition(flag=("is_dislike",)),),
        signals=VIDEO_SIGNALS,
    ),
    "ratings": Feedback(
        kind="ratings",
        exposure=_EVERY,
        watched=(Condition(rating_at_least=4),),
        positive=(Condition(rating_at_least=4),),
        negative=(Condition(rating_below=3), Condition(flag=("is_dislike",))),
        signals=(
            Signal(name="liked", when=(Condition(rating_at_least=4),), of_block="half", weight=1.0),
            Signal(name="loved", when=(Condition(rating_at_least=5),), weight=1.0),
        ),
    ),
    "shop": Feedback(
        kind="shop",
        exposure=_EVERY,
        watched=(PURCHASE, CART),
        positive=(PURCHASE, CART),
        negative=(_REJECTIONS, Condition(flag=("is_dislike",))),
        signals=(
            Signal(name="purchase", when=(PURCHASE,), weight=1.0),
            Signal(name="add_to_cart", when=(CART,), weight=1.0),
        ),
    ),
    "actions": Feedback(
        kind="actions",
        exposure=_EVERY,
        watched=_EVERY,
        positive=_EVERY,
        negative=(Condition(flag=("is_dislike",)),),
        signals=(
            Signal(name="several", when=(Condition(quantity_at_least=2),), weight=1.0),
            Signal(name="liked", when=(Condition(flag=("is_like", "is_share")),), weight=1.0),
        ),
    ),
}
"""What events mean by the kind of log, where nothing is declared."""
VIDEO = FEEDBACK["video"]

_FEW_POSITIVES = {
    "good_min_watched_items": 1,
    "good_min_watch_seconds": 0.0,
    "min_positive_share": 0.001,
    "max_positive_share": 1.0,
}
KIND_STAGES: dict[str, dict[str, dict[str, Any]]] = {
    kind: {} if kind == "video" else {"sessions": _FEW_POSITIVES} for kind in get_args(Kind)
}
"""Stage settings of each kind of log: only video has watch times and many exposures a session."""


class DeclaredFeedback(_Declared):
    """The section `feedback` of a YAML file: what is left out is taken from the kind of log."""

    kind: Kind | None = None
    exposure: Conditions | None = None
    watched: Conditions | None = None
    positive: Conditions | None = None
    negative: Conditions | None = None
    signals: Signals | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "DeclaredFeedback":
        self.resolve(self.kind or "actions")
        return self

    def resolve(self, kind: Kind) -> Feedback:
        """The whole meaning of a log of a kind.

        Raises:
            SettingError: What is declared does not go together with what the kind says.
        """
        names = ("exposure", "watched", "positive", "negative", "signals")
        given = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        defaults = {n: getattr(FEEDBACK[kind], n) for n in names}
        try:
            return Feedback(kind=kind, **(defaults | given))
        except ValidationError as error:
            found = error.errors()[0]
            name = ".".join(map(str, found["loc"]))
            raised = raised_by_validator(found) or SettingError(name, found["input"], found["msg"])
            raise raised from None


def kind_of(columns: set[str]) -> Kind:
    """The kind of log that has some of the contract's columns.

    >>> kind_of({"user_id", "item_id", "event_time", "rating"})
    'ratings'
    """
    if "watch_seconds" in columns:
        return "video"
    if "event_type" in columns:
        return "shop"
    return "ratings" if "rating" in columns else "actions"
