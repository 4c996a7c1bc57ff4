"""Findings about the table of users: whose rows meet the log, what of it can be learned from."""

import numpy as np
import pyarrow as pa

from onerec.datasets.file_problems import shown
from onerec.session_dataset.user_attributes import FEWEST_USERS
from resources.inspection.findings import Finding, Inspected
from resources.proposal.users import SNAPSHOT, after_the_fact

MOST_SHOWN = 5
"""Values of an attribute that are shown."""
MUCH_EXPLAINED = 0.1
"""Share of what users did from which an attribute seems to be counted after the fact: of KuaiRand's
30 features one explains .069 of the number of events, the others at most .014 (docs/log.md)."""
PLACE = "row in the table"
FEW_USERS = 50
"""With fewer users a share of what is explained is noise."""


def users(log: Inspected, attributes: pa.Table) -> list[Finding]:
    """What is known of the users of the log.

    Args:
        log: A landed log.
        attributes: `user_id` and a column of texts for each attribute.
    """
    places = pa.array(np.arange(len(attributes)))
    log.connection.register("delivered_users", attributes.append_column(PLACE, places))
    log.connection.execute(
        f"""
        create or replace temp table logged_users as
            select user_id, count(*) as events, max(event_time) as last_event
            from raw.raw_events where user_id is not null group by user_id;
        create or replace temp table known_users as
            select * from delivered_users
            qualify row_number() over (partition by user_id order by "{PLACE}") = 1
        """
    )
    log.connection.unregister("delivered_users")
    counts, found = _met(log, len(attributes))
    if counts["met"]:
        for name in attributes.column_names[1:]:
            found += _attribute(log, name, counts["met"])
    return found


def _met(log: Inspected, rows: int) -> tuple[dict[str, int], list[Finding]]:
    """How many users the log and the table share."""
    counts = log.row(
        """
        select
            count(l.user_id) as logged,
            count(k.user_id) as known,
            count(*) filter (where l.user_id = k.user_id) as met,
            min(l.user_id) filter (where k.user_id is null) as logged_example,
            min(k.user_id) filter (where l.user_id is null) as known_example
        from logged_users as l full join known_users as k on l.user_id = k.user_id
        """
    )
    text = f"{counts['met']:,} of {counts['logged']:,} users of the log have a row in the table"
    if counts["met"] < counts["logged"]:
        text += f", {shown(counts['logged_example'])!r} has none: such users are unknown"
    if counts["met"] < counts["known"]:
        text += (
            f"; {counts['known'] - counts['met']:,} of its {counts['known']:,} users are not in "
            f"the log, e.g. {shown(counts['known_example'])!r}"
        )
    if rows > counts["known"]:
        text += f"; {rows - counts['known']:,} rows are a further one of their user and not read"
    is_poor = counts["met"] < counts["logged"] / 2 or rows > counts["known"]
    setting = "users.columns.user_id, users.path"
    if not counts["met"]:
        setting += ": write ids as in the events; nothing is learned of users as it is"
    level = "warning" if is_poor else "ok"
    return counts, [Finding(topic="Users", level=level, text=text, setting=setting)]


def _attribute(log: Inspected, name: str, met: int) -> list[Finding]:
    """The values of an attribute, what of them the generator would embed, and what goes with it."""
    from onerec.model.user_features import UserVocabulary  # loads torch

    query = (
        f'select k."{name}" as value from logged_users inner join known_users as k using (user_id)'
    )
    column = log.connection.sql(query).to_arrow_table().rename_columns([name])
    embedded = UserVocabulary.of(column).values[name]
    log.connection.register("embedded", pa.table({"value": pa.array(embedded, pa.string())}))
    counts = log.row(
        f"""
        with met as ({query})
        select count(value) as known, count(distinct value) as number,
            count(*) filter (where value in (select value from embedded)) as learned
        from met
        """
    )
    rows = log.rows(
        f"with met as ({query}) select value, count(*) as users from met where value is not null "
        f"group by value order by users desc, value limit {MOST_SHOWN}"
    )
    text = (
        f"{name}: {counts['known']:,} of {met:,} users have a value, {counts['number']:,} "
        f"different ones; the generator embeds {len(embedded):,}, of {counts['learned']:,} users"
    )
    remedy = f"users.features.{name}"
    if counts["learned"] < met / 2:
        remedy += (
            f": a column of fewer values, ranges say (those of fewer than {FEWEST_USERS} users are "
            "unknown), or leave it out"
        )
    elif counts["number"] == 1:
        remedy += ": leave it out, all users have the same value"
    is_poor = counts["learned"] < met / 2 or counts["number"] == 1
    level = "warning" if is_poor else "ok"
    found = [Finding(topic="Users", level=level, text=text, setting=remedy, rows=tuple(rows))]
    found += _after_the_fact(log, name, met)
    log.connection.unregister("embedded")
    return found


def _after_the_fact(log: Inspected, name: str, met: int) -> list[Finding]:
    """A warning where an attribute goes with how much users did, or with when they did it last."""
    reason = after_the_fact(name.replace("_", " "))
    for what, of in (("events", "how many events users have"), ("last_event", "their last event")):
        share = _explained(log, name, what) if met >= FEW_USERS else 0.0
        if share > MUCH_EXPLAINED:
            reason = f"it explains {share:.0%} of {of} (of the variance of ranks): {SNAPSHOT}"
            break
    if reason is None:
        return []
    return [
        Finding(
            topic="Users",
            level="warning",
            text=f"{name} looks like a count after the fact; {reason}",
            setting=f"users.features.{name}: leave it out, or write what it was before the log",
        )
    ]


def _explained(log: Inspected, name: str, what: str) -> float:
    """The share of the variance of users' ranks that the values which the generator would embed
    explain, adjusted for their number (epsilon squared); the other users are one value."""
    row = log.row(
        f"""
        with met as (
            select rank() over (order by l.{what}) + (count(*) over (partition by l.{what}) - 1) / 2
                    as place,
                case when k."{name}" in (select value from embedded) then k."{name}" end as value
            from logged_users as l inner join known_users as k using (user_id)
        ),
        of_values as (
            select value, count(*) as n, var_pop(place) * count(*) as inside from met group by value
        )
        select
            (select var_pop(place) * count(*) from met) as total,
            (select sum(inside) from of_values) as inside,
            (select count(*) from of_values) as number,
            (select count(*) from met) as users
        """
    )
    if not row["total"] or row["users"] <= row["number"]:
        return 0.0
    left = row["inside"] / (row["users"] - row["number"])
    return 1 - left / (row["total"] / (row["users"] - 1))
