"""Blocking checks of a session dataset, before any model is trained on it."""

# Great Expectations does not declare what it exports:
# pyright: reportPrivateImportUsage=false

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.raw import checked_days
from assets.session_dataset import session_dataset
from assets.support import PIPELINE, launchpad
from onerec.artifacts import read_json
from onerec.config import SessionConfig
from resources.stores import Artifacts

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as pads

REMEDY = "Nothing downstream was started; look at the rows, then materialise session_dataset again"

POSITIVES_REMEDY = (
    "If the log is right, declare what its events mean (feedback.kind, feedback.positive), or "
    "allow it: sessions.min_positive_share, sessions.max_positive_share."
)

CHECKS = {
    "schema_is_the_contract": "Columns and types that every reader of the dataset relies on",
    "sessions_are_unique": "A session counted twice would be learned twice",
    "targets_are_watched_items": "Good sessions have 1 to m targets: watched items, none repeated",
    "nothing_comes_from_the_future": "Splits follow the days, histories know only earlier sessions",
    "good_sessions_meet_thresholds": "Each criterion recounted from the session's own exposures",
    "volume_is_usual": "A day with many times more or fewer sessions than usual is a broken log",
    "positive_rates_in_range": "A log where all or nothing is positive teaches nothing",
    "attributes_are_of_its_users": "Attributes for every user of a session once, and for no other",
}
OF_GOOD_SESSIONS = {"targets_are_watched_items"}
"""Sessions that are not good may have no target."""


class SuitesLaunchpad(launchpad(PIPELINE.sessions, "min_positive_share", "max_positive_share")):
    """Limits of the checks; a run that they stopped can be resumed with other limits."""


@dg.multi_asset_check(
    name="session_dataset_suites",
    specs=[
        dg.AssetCheckSpec(name, asset=session_dataset, blocking=True, description=protects)
        for name, protects in CHECKS.items()
    ],
)
def session_dataset_suites(
    context: dg.AssetCheckExecutionContext, config: SuitesLaunchpad, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """Great Expectations suites on the dataset as it was published."""
    from onerec.session_dataset.reader import open_sessions, read_session_config
    from onerec.session_dataset.user_attributes import users_with_attributes

    # started by itself, a check has no partition: it looks at the last one
    day = checked_days(context)[1]
    artifact = artifacts.store.latest_until("session_dataset", day.isoformat())
    if artifact is None:
        raise dg.Failure("session_dataset has no partition yet: materialise it first")
    built_with = artifact.manifest["config"]
    counted = read_json(artifact.path / "stats.json")["sessions_per_day"]
    yield from suite_results(
        open_sessions(artifact.path),
        replace(read_session_config(artifact.path), **config.model_dump()),
        date.fromisoformat(artifact.partition),
        built_with["window"]["window_days"],
        {date.fromisoformat(d): n for d, n in counted.items()},
        time_zone=built_with.get("time_zone", "UTC"),
        users=users_with_attributes(artifact.path),
    )


def suite_results(
    dataset: "pads.Dataset",
    config: SessionConfig,
    day: date,
    window_days: int,
    sessions_per_day: Mapping[date, int],
    *,
    time_zone: str = "UTC",
    users: "pa.ChunkedArray | None" = None,
) -> Iterator[dg.AssetCheckResult]:
    """Every suite on a dataset: one result for each of `CHECKS`, in their order.

    Args:
        dataset: `schema.SESSION_DATASET`.
        config: The settings it was built with.
        day: Its partition.
        window_days: W.
        sessions_per_day: Of the weeks before the partition, what its volume is compared with.
        time_zone: In which the log's days begin and end.
        users: Those that attributes are kept of; None where the source knows nothing of users.
    """
    import pandas as pd
    from great_expectations import expectations as gxe

    from onerec import schema
    from onerec.session_dataset.reader import sorted_by_time
    from onerec.session_dataset.session_checks import RECOUNTED, recount_sessions
    from resources.expectation_checks import check_result

    types, expected = _columns(dataset.schema), _columns(schema.SESSION_DATASET)
    yield check_result(
        "schema_is_the_contract",
        pd.DataFrame(columns=pd.Index(types)),
        [gxe.ExpectTableColumnsToMatchOrderedList(column_list=expected)],
        remedy=REMEDY,
    )
    if types != expected:
        # the other suites count in columns that are not there
        for name in list(CHECKS)[1:]:
            yield dg.AssetCheckResult(
                check_name=name, passed=False, description="not run: the schema is not the contract"
            )
        return
    sessions = sorted_by_time(dataset.to_table(columns=list(RECOUNTED)))
    facts = recount_sessions(sessions, config, day, time_zone).to_pandas()
    for name, expectations in _per_session(config, day, window_days).items():
        rows = facts[facts["is_good"]] if name in OF_GOOD_SESSIONS else facts
        yield check_result(name, rows, expectations, key="session_id", remedy=REMEDY)
    yield _volume(facts, config, day, sessions_per_day)
    yield _positive_rates(facts, config)
    yield _attributes(sessions.column("user_id"), users)


def _per_session(config: SessionConfig, day: date, window_days: int) -> dict[str, list[Any]]:
    """The suites whose rows are sessions."""
    from great_expectations import expectations as gxe

    from onerec.session_dataset.splits import window

    def only(column: str, value: object):
        return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[value])

    def equal(a: str, b: str):
        return gxe.ExpectColumnPairValuesToBeEqual(column_A=a, column_B=b)

    return {
        "sessions_are_unique": [gxe.ExpectColumnValuesToBeUnique(column="session_id")],
        "targets_are_watched_items": [
            _between("num_targets", 1, config.session_items),
            equal("num_targets", "num_expected_targets"),
            only("num_unwatched_targets", 0),
            only("num_repeated_targets", 0),
        ],
        "nothing_comes_from_the_future": [
            equal("started_on", "session_date"),
            equal("split", "expected_split"),
            _between("session_date", window(day, window_days)[0], day),
            _between("num_history", 0, config.history_length),
            only("history_follows", True),
        ],
        "good_sessions_meet_thresholds": [equal("is_good", "meets_criteria")],
    }


def _volume(
    facts: "pd.DataFrame", config: SessionConfig, day: date, sessions_per_day: Mapping[date, int]
) -> dg.AssetCheckResult:
    """The day's sessions beside the usual number; and something to train and to validate on.

    A day without any is legal: a shop may be closed.
    """
    import pandas as pd

    from onerec.session_dataset.usual_volume import usual_volume
    from resources.expectation_checks import check_result

    usual = usual_volume(sessions_per_day, day, ratio=config.max_volume_ratio)
    per_split = facts["split"].value_counts()
    numbers = {f"num_{split}": int(per_split.get(split, 0)) for split in ("train", "valid")}
    bounds = [_between(name, 1, None) for name in numbers]
    today = int((facts["session_date"] == day).sum())
    about: dict[str, Any] = {"sessions of the day": today}
    remedy = REMEDY
    if usual is not None and today:
        low, high = (
            usual.sessions / config.max_volume_ratio,
            usual.sessions * config.max_volume_ratio,
        )
        numbers["num_today"] = today
        bounds.append(_between("num_today", low, high))
        about |= {
            "usual sessions": usual.sessions,
            "usual is the median of": f"{len(usual.days)} {usual.kind} up to {usual.days[-1]}",
            "fewest allowed": low,
            "most allowed": high,
        }
        remedy = (
            f"{day} has {today} sessions, usual are {usual.sessions:g} (median of "
            f"{about['usual is the median of']}), allowed are {low:g} to {high:g} "
            f"(sessions.max_volume_ratio={config.max_volume_ratio:g}). {REMEDY}"
        )
    frame = pd.DataFrame({name: [number] for name, number in numbers.items()})
    return check_result("volume_is_usual", frame, bounds, remedy=remedy, metadata=about)


def _positive_rates(facts: "pd.DataFrame", config: SessionConfig) -> dg.AssetCheckResult:
    from resources.expectation_checks import check_result

    counts = ["num_positives", "num_exposures"]
    rates = facts.groupby("split", as_index=False, observed=True)[counts].sum()
    rates["positive_share"] = rates["num_positives"] / rates["num_exposures"]
    shares = zip(rates["split"], rates["positive_share"], strict=True)
    return check_result(
        "positive_rates_in_range",
        rates,
        [_between("positive_share", config.min_positive_share, config.max_positive_share)],
        key="split",
        remedy=f"{POSITIVES_REMEDY} {REMEDY}",
        metadata={f"positive share {split}": float(share) for split, share in shares},
    )


def _attributes(
    of_sessions: "pa.ChunkedArray", users: "pa.ChunkedArray | None"
) -> dg.AssetCheckResult:
    """How many users of sessions have no row, rows are of other users, and rows are repeats."""
    import pandas as pd

    from resources.expectation_checks import check_result

    wanted = pd.Index(of_sessions.unique().to_pylist())
    kept = wanted if users is None else pd.Index(users.to_pylist())
    numbers = {
        "num_missing": len(wanted.difference(kept)),
        "num_of_others": len(kept.unique().difference(wanted)),
        "num_repeated": len(kept) - kept.nunique(),
    }
    frame = pd.DataFrame({name: [number] for name, number in numbers.items()})
    none = [_between(name, 0, 0) for name in numbers]
    return check_result("attributes_are_of_its_users", frame, none, remedy=REMEDY)


def _between(column: str, low: float | date, high: float | date | None) -> Any:
    from great_expectations import expectations as gxe

    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def _columns(table: "pa.Schema") -> list[str]:
    """Names with types; the name that Parquet gives to a list's values is no part of a type."""
    return [f"{field.name}: {_type(field.type)}" for field in table]


def _type(kind: "pa.DataType") -> str:
    import pyarrow as pa

    return f"list<{_type(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)
