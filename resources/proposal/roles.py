"""The role of each column: by its name, and by whether its values fit."""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from onerec import schema
from resources.casts import RawColumn, typed
from resources.proposal.tables import MOST, ColumnFacts, FoundTable, is_text_of_ratings
from resources.sql_macros import create_macros

EVENT_WORDS = {
    "view", "click", "cart", "addtocart", "add to cart", "purchase", "transaction", "buy", "order",
    "play", "skip", "like", "watch", "impression", "remove from cart", "favorite", "fav", "pv",
}  # fmt: skip
"""What logs write as the kind of an event."""

_ID = schema.EVENTS.field("item_id")
MOST_STARS = 5
MOST_DUPLICATES = 0.5
"""Share of a catalogue's rows that must be of different items."""
GOOD_RATING = 4
"""Logs of ratings count this much as positive (`onerec.config.feedback`)."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a column may be.

    Attributes:
        contract: The contract's name.
        names: Pattern of the names that columns of the role have.
        fits: Whether a column's values can be that.
        why: The reason, from the column's values.
    """

    contract: str
    names: str
    fits: Callable[[ColumnFacts], bool]
    why: Callable[[ColumnFacts], str]


@dataclass(frozen=True, kw_only=True)
class ChosenColumn:
    """A column with its role.

    Attributes:
        contract: The contract's name.
        column: The column.
        why: Why it was chosen.
        scale: Factor to the contract's unit.
        date: The column of the date, where `column` holds the time of day.
    """

    contract: str
    column: ColumnFacts
    why: str
    scale: float = 1.0
    date: ColumnFacts | None = None


def _is_number(column: ColumnFacts) -> bool:
    return column.numbers >= MOST and not column.vectors


def _is_amount(column: ColumnFacts) -> bool:
    """Numbers of a unit, and no 80% or 4.5/5."""
    return _is_number(column) and not is_text_of_ratings(column.frequent)


def _is_id(column: ColumnFacts) -> bool:
    is_flag = column.kind == "BOOLEAN"
    return not column.vectors and column.known > 0 and not column.is_nested and not is_flag


def _is_flag(column: ColumnFacts) -> bool:
    """Two values; a header that stands among the rows is none."""
    return column.flags >= MOST and len({*column.frequent} - {column.name}) <= 2


def _is_watch_time(column: ColumnFacts) -> bool:
    is_no_flag = column.name == "watch_seconds" or not _is_flag(column)
    return _is_amount(column) and is_no_flag and column.times < MOST


def _is_scale(column: ColumnFacts) -> bool:
    """Few numbers, and up to what counts as a good rating: 1, 2, 3 are no stars."""
    few = _is_number(column) and 2 < column.distinct <= 11
    numbers = (float(v) for v in column.frequent if re.fullmatch(r"\d+(\.\d+)?", v))
    return few and any(number >= GOOD_RATING for number in numbers)


def _counts_units(column: ColumnFacts) -> bool:
    """Whole numbers, of which half are 1, or that are three and none of them a good rating."""
    few = _is_number(column) and 2 < column.distinct <= 101
    whole = all(re.fullmatch(r"[1-9]\d*(\.0)?", v) for v in column.frequent)
    three = column.distinct == 3 and not _is_scale(column)
    return few and whole and (column.median == 1 or three)


def _is_kind_of_event(column: ColumnFacts) -> bool:
    words = {re.sub(r"[_-]", " ", value.lower()) for value in column.frequent}
    return bool(words & EVENT_WORDS) and column.distinct <= 30


def is_called_event(column: ColumnFacts) -> bool:
    """Whether a column of few values is called as kinds of events are."""
    return re.fullmatch(_EVENT, column.words) is not None and 1 < column.distinct <= 30


def _different(column: ColumnFacts) -> str:
    return f"{column.distinct:,} different values, e.g. {short(column.frequent[0])}"


def _values(column: ColumnFacts) -> str:
    return "values " + ", ".join(short(v) for v in column.frequent[:6])


def _time_why(column: ColumnFacts) -> str:
    unit = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
    if column.unit:
        return f"numbers of the size of {unit[column.unit]} since 1970"
    days = "days without a time" if column.whole_days else "times"
    return f"{days}, e.g. {short(column.frequent[0])}"


def _amount(column: ColumnFacts) -> str:
    return f"numbers, {column.median:g} at the median"


def short(value: str) -> str:
    """A value in one line of a comment."""
    text = " ".join(value.split())
    return text if len(text) <= 40 else f"{text[:37]}..."


_USER = (
    r"(user|uid|visitor|customer|member|account|client|person|reviewer|viewer)"
    r"( ?(id|no|code|number))?"
)
_EVENT = r"(event|event type|action|action type|behavior|behavior type|behaviour|type)"
_ITEM = (
    r"(item|iid|video|vid|product|article|movie|film|song|track|book|isbn|news|post|photo|asin|"
    r"sku|parent asin|content|business|game|recipe)( ?(id|no|code|number))?"
)

EVENTS: tuple[Role, ...] = (
    Role(contract="user_id", names=_USER, fits=_is_id, why=_different),
    Role(contract="item_id", names=_ITEM, fits=_is_id, why=_different),
    Role(
        contract="event_time",
        names=r".*\b(time|timestamp|ts|datetime|date|dat|at|day)\b.*",
        fits=lambda c: c.times >= MOST,
        why=_time_why,
    ),
    Role(
        contract="watch_seconds",
        names=r".*\b((watch|play|dwell|listen|view) ?time|watch|play|playing|dwell|listen|watched|"
        r"played)\b.*",
        fits=_is_watch_time,
        why=_amount,
    ),
    Role(
        contract="event_type",
        names=_EVENT,
        fits=_is_kind_of_event,
        why=_values,
    ),
    Role(
        contract="rating",
        names=r"(rating|stars|score|overall|rate)",
        fits=lambda c: _is_number(c) and c.distinct <= 101,
        why=_values,
    ),
    Role(
        contract="quantity",
        names=r"(quantity|qty|count|units|num items|amount)",
        fits=_is_amount,
        why=_amount,
    ),
    Role(
        contract="is_like",
        names=r"(is )?(like|liked|favou?rite|favou?rited)",
        fits=_is_flag,
        why=_values,
    ),
    Role(
        contract="is_follow",
        names=r"(is )?(follow|followed|subscribe|subscribed)",
        fits=_is_flag,
        why=_values,
    ),
    Role(contract="is_comment", names=r"(is )?(comment|commented)", fits=_is_flag, why=_values),
    Role(
        contract="is_share",
        names=r"(is )?(share|shared|forward|forwarded)",
        fits=_is_flag,
        why=_values,
    ),
    Role(
        contract="is_dislike",
        names=r"(is )?(dislike|disliked|hate|hated)",
        fits=_is_flag,
        why=_values,
    ),
    Role(
        contract="event_id",
        names=r"(event|impression|exposure|request) ?id",
        fits=lambda c: c.distinct == c.known,
        why=_different,
    ),
    Role(
        contract="surface",
        names=r"(surface|page|tab|placement|scene)",
        fits=lambda c: c.distinct <= 100,
        why=_values,
    ),
)

ITEMS: tuple[Role, ...] = (
    Role(contract="item_id", names=_ITEM + "|id", fits=_is_id, why=_different),
    Role(
        contract="duration_seconds",
        names=r".*\b(duration|length|len|runtime)\b.*",
        fits=_is_amount,
        why=_amount,
    ),
    Role(
        contract="title",
        names=r".*\b(title|caption|name|headline)\b.*",
        fits=lambda c: c.kind == "VARCHAR" and c.times < MOST,
        why=lambda c: f"text, e.g. {short(c.frequent[0])}",
    ),
    Role(
        contract="category",
        names=r".*\b(category|categories|genre|genres|department|class|tags?|group name)\b.*",
        fits=lambda c: c.kind in ("VARCHAR", "VARCHAR[]"),
        why=_values,
    ),
    Role(
        contract="author_id",
        names=r"(author|channel|creator|brand|artist|publisher|uploader|studio)( ?(id|name))?",
        fits=_is_id,
        why=_different,
    ),
    Role(
        contract="published_at",
        names=r".*\b(published|created|uploaded|released?|upload|publication)\b.*",
        fits=lambda c: c.times >= MOST,
        why=_time_why,
    ),
)

REQUIRED = ("user_id", "item_id", "event_time")


def choose(table: FoundTable, roles: Iterable[Role]) -> dict[str, ChosenColumn]:
    """The best column for each role: named so and of fitting values; each column once."""
    chosen: dict[str, ChosenColumn] = {}
    for role in roles:
        taken = {c.column.name for c in chosen.values()}
        free = [c for c in table.columns if c.name not in taken and c.known and role.fits(c)]
        # a column of the contract's own name first, and then the most precise
        named = [c for c in free if c.name == role.contract] or [
            c for c in free if re.fullmatch(role.names, c.words)
        ]
        if named:
            best = min(named, key=lambda c: c.whole_days)
            chosen[role.contract] = _scaled(role.contract, best, role.why(best))
    return _with_time_of_day(table, chosen)


def _with_time_of_day(
    table: FoundTable, chosen: dict[str, ChosenColumn]
) -> dict[str, ChosenColumn]:
    """Where the time is a date only, and another column holds times of day: both."""
    date = chosen.get("event_time")
    clocks = [c for c in unused(table, chosen) if c.is_clock]
    if date is None or date.date is not None or not date.column.whole_days or not clocks:
        return chosen
    why = f"times of day, e.g. {short(clocks[0].frequent[0])}, of the date in another column"
    both = ChosenColumn(contract="event_time", column=clocks[0], why=why, date=date.column)
    return chosen | {"event_time": both}


def find_events(tables: list[FoundTable]) -> tuple[FoundTable, dict[str, ChosenColumn]] | None:
    """The largest table with users, items and times; names count, else the values do."""
    for guess in (choose, _by_values):
        for table in tables:
            chosen = guess(table, EVENTS)
            if set(REQUIRED) <= set(chosen):
                return table, chosen
    return None


def find_items(
    tables: Iterable[FoundTable], log: FoundTable, logged: ChosenColumn
) -> tuple[FoundTable, dict[str, ChosenColumn]] | None:
    """The table whose rows are items of the log; of several the one that says most of them.

    A table of items and vectors says nothing of them.
    """
    ids = ids_of(log, logged.column.name)
    if ids is None:
        return None
    found = []
    for table in tables:
        named = choose(table, ITEMS)
        own = named.get("item_id") or _same_name(table, logged)
        if own is None or own.column.is_nested:
            continue
        known = ids_of(table, own.column.name)
        if known is None:
            continue
        if own.column.distinct < MOST_DUPLICATES * own.column.known:
            continue
        shared = pc.sum(pc.is_in(known, value_set=ids)).as_py() or 0
        if shared:
            repeated = "" if own.column.distinct == own.column.known else ", some twice"
            why = f"one row an item{repeated}; {shared:,} of them are in the first rows of the log"
            named["item_id"] = ChosenColumn(contract="item_id", column=own.column, why=why)
            named = _described_by_values(table, named)
            if len(named) > 1 or not any(c.vectors for c in table.columns):
                found.append((table, named))
    return max(found, key=lambda pair: len(pair[1]), default=None)


def ids_of(table: FoundTable, name: str) -> pa.Array | None:
    """The different ids in a column's first rows, as they land: `17.0` is `17`. None where it
    stands in the path only, or where they are bytes that are no text."""
    if name not in table.rows.column_names:
        return None
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        create_macros(connection)
        connection.register("sample", table.rows.select([name]).rename_columns(["value"]))
        kind = connection.execute("describe from sample").fetchall()[0][1]
        raw = RawColumn("value", kind)
        if kind == "BLOB":
            raw = RawColumn("decode(value)", "VARCHAR")
        try:
            ids = typed(_ID, raw.as_text_where_needed())
            found = connection.sql(
                f"select distinct id from (select {ids} as id from sample) where id is not null"
            ).to_arrow_table()
        except duckdb.ConversionException:
            return None
    return pc.unique(found["id"])


def _same_name(table: FoundTable, logged: ChosenColumn) -> ChosenColumn | None:
    """The column that is called as the log's items are."""
    same = [c for c in table.columns if c.name == logged.column.name]
    return replace(logged, column=same[0]) if same else None


def _described_by_values(
    table: FoundTable, named: dict[str, ChosenColumn]
) -> dict[str, ChosenColumn]:
    """A catalogue whose names say nothing: the title is the text with the most different values,
    the category one of few."""
    found = dict(named)
    texts = [c for c in unused(table, found) if c.kind == "VARCHAR" and c.numbers < MOST > c.times]
    several = (c for c in texts if c.distinct > 1 and not c.vectors)
    texts = sorted(several, key=lambda c: -c.distinct)
    if "title" not in found and texts and texts[0].distinct > texts[0].known / 2:
        best = texts.pop(0)
        why = f"a guess, by its values: text, e.g. {short(best.frequent[0])}"
        found["title"] = ChosenColumn(contract="title", column=best, why=why)
    if "category" not in found and texts and texts[-1].distinct <= texts[-1].known / 4:
        why = f"a guess, by its values: {_values(texts[-1])}"
        found["category"] = ChosenColumn(contract="category", column=texts[-1], why=why)
    return found


def find_vectors(
    tables: Iterable[FoundTable], logged: ChosenColumn
) -> tuple[FoundTable, dict[str, ChosenColumn]] | None:
    """The table with an item and a list of numbers in each row; it may be the catalogue."""
    for table in tables:
        own = choose(table, ITEMS[:1]).get("item_id") or _same_name(table, logged)
        lists = [c for c in table.columns if c.vectors]
        if own is not None and lists:
            vector = ChosenColumn(contract="vector", column=lists[0], why="lists of numbers")
            return table, {"item_id": own, "vector": vector}
    return None


def unused(table: FoundTable, *chosen: dict[str, ChosenColumn]) -> Iterator[ColumnFacts]:
    """Columns without a role."""
    every = [c for columns in chosen for c in columns.values()]
    names = {u.name for c in every for u in (c.column, c.date) if u is not None}
    return (c for c in table.columns if c.name not in names)


def _by_values(table: FoundTable, roles: Iterable[Role]) -> dict[str, ChosenColumn]:
    """Roles in a log whose columns have no telling names: user first, then item."""
    named = choose(table, roles)
    free = [c for c in unused(table, named) if c.known and not c.vectors]
    if "event_time" not in named:
        times = [c for c in free if c.times >= MOST]
        if not times:
            return named
        best = min(times, key=lambda c: (c.whole_days, -c.distinct))
        named["event_time"] = ChosenColumn(
            contract="event_time", column=best, why=f"the only likely one: {_time_why(best)}"
        )
        free.remove(best)
    kinds = [c for c in free if _is_kind_of_event(c)]
    if kinds and "event_type" not in named:
        why = f"words of events: {_values(kinds[0])}"
        named["event_type"] = ChosenColumn(contract="event_type", column=kinds[0], why=why)
        free.remove(kinds[0])
    for contract, fits in (("quantity", _counts_units), ("rating", _is_scale)):
        few = [c for c in free if fits(c) and not c.is_clock]
        # beside kinds of events a few different numbers are rather categories
        if few and not {"rating", "event_type", contract} & named.keys():
            why = f"few different numbers: {_values(few[0])}"
            named[contract] = ChosenColumn(contract=contract, column=few[0], why=why)
            free.remove(few[0])
    free = [c for c in free if _is_id(c)]
    for contract in ("user_id", "item_id"):
        if contract not in named and free:
            column = free.pop(0)
            why = f"a guess, by its place: {_different(column)}"
            named[contract] = ChosenColumn(contract=contract, column=column, why=why)
    return _with_time_of_day(table, named)


def _scaled(contract: str, column: ColumnFacts, why: str) -> ChosenColumn:
    """Numbers of a time span in milliseconds, by their name or their size, become seconds."""
    spans = contract in ("watch_seconds", "duration_seconds") and column.median is not None
    is_named = re.search(r"\b(ms|millis|milliseconds)\b", column.words)
    if spans and (is_named or (column.median or 0) > 3_000):
        why = f"milliseconds: {why}"
        return ChosenColumn(contract=contract, column=column, why=why, scale=0.001)
    most = column.largest or 0
    if contract == "rating" and MOST_STARS < most <= 100:
        scale = MOST_STARS / (10 if most <= 10 else 100)
        why = f"of {most:g} at most, made {MOST_STARS}, as {GOOD_RATING} counts as positive: {why}"
        return ChosenColumn(contract=contract, column=column, why=why, scale=scale)
    return ChosenColumn(contract=contract, column=column, why=why)
