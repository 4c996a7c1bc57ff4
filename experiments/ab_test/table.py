"""The table of the simulated A/B test: rows, pictures and what came out."""

from collections.abc import Iterator
from itertools import pairwise

from experiments.ab_test.config import ARMS, CASCADE, ABTestConfig
from experiments.ab_test.measures import Ratio, ratios
from experiments.ab_test.simulation import ABTestResult
from experiments.reporting.result_tables import Provenance, ResultTable, Row

NAME = "ab_test"
LAST_DAYS = 3
"""Days at the end over which the lasting effect is measured."""
ORDER = ("small", "larger", "larger_aligned")
"""The paper's order, worst first."""
LEVELS = {
    # metric: (sum, per sum)
    "watch_seconds": ("watch_seconds", "users"),
    "view_seconds": ("watch_seconds", "views"),
    "watched_share": ("watched", "views"),
    "likes": ("likes", "users"),
    "follows": ("follows", "users"),
    "views_per_visit": ("views", "visits"),
    "finished_visits": ("finished_visits", "visits"),
    "popularity": ("popularity", "views"),
}
COLUMNS = {
    "watch_uplift": "total watch time, % over the cascade",
    "view_uplift": "average view duration, % over the cascade",
    "watch_uplift_first_day": "watch time on day 1, %",
    "watch_uplift_last_days": f"watch time on the last {LAST_DAYS} days, %",
    "return_uplift": "user-days where good days bring users back, %",
    "watch_seconds": "seconds per user and day",
    "view_seconds": "seconds per view",
    "likes": "likes per user and day",
    "finished_visits": "visits not left early",
    "fresh_share": "fresh items on day 1",
    "popularity": "popularity of the shown",
}
TEXT = (
    "Every arm serves the same simulated users on the same visits with the same random numbers, "
    "{days} days from the nightly run on, {seeds} times with other visits. Models are those of the "
    "nightly run; they read the histories again every morning. Every arm lists the catalogue of "
    "the nightly run, an item at most once in {repeat} days to a user; what a list lacks, recent "
    "popularity fills. Differences are paired; intervals are over users and seeds of the traffic, "
    "not over seeds of the training. Who comes on a day does not depend on the arm{returning}. "
    "Everything is simulated."
)
RETURNING = (
    ", except in the column about coming back: there a user's activity is multiplied by "
    "exp({sensitivity:g} (share watched on their last day - {usual:.2f})), a rule of this test"
)
EVERY_DAY = slice(None)


def make_table(
    measured: ABTestResult, config: ABTestConfig, provenance: Provenance, *, repeat_days: int
) -> ResultTable:
    """The table.

    Args:
        measured: What the arms did.
        config: Of the test.
        repeat_days: Of the app.
        provenance: Where it comes from.
    """
    rows = list(_rows(measured, config))
    shown = {row.metric for row in rows}
    returning = RETURNING.format(sensitivity=config.return_sensitivity, usual=measured.usual)
    text = TEXT.format(
        days=config.days,
        seeds=config.traffic_seeds,
        repeat=repeat_days,
        returning=returning if measured.returning else "",
    )
    return ResultTable(
        name=NAME,
        title="Simulated A/B test",
        text=text,
        rows=rows,
        provenance=provenance,
        columns={metric: title for metric, title in COLUMNS.items() if metric in shown},
        pictured=[m for m in ("watch_uplift", "view_uplift") if m in shown],
        findings=_findings(rows, measured),
    )


def uplifts(measured: ABTestResult, config: ABTestConfig) -> dict[str, dict[str, Ratio]]:
    """Arm -> metric -> relative difference to the cascade, or to the arm before, in per cent."""
    options = {"samples": config.bootstrap_samples, "seed": config.seed}
    ratio = ratios(measured.sums, **options)
    back = ratios(measured.returning, **options) if measured.returning else None
    last = slice(-min(LAST_DAYS, config.days), None)

    def over(arm: str, other: str, above: str, below: str | None, days: slice) -> Ratio:
        return ratio(arm, above, below, days).over(ratio(other, above, below, days))

    found: dict[str, dict[str, Ratio]] = {}
    for arm in (name for name in measured.sums if name != CASCADE):
        first_day = over(arm, CASCADE, "watch_seconds", None, slice(0, 1))
        last_days = over(arm, CASCADE, "watch_seconds", None, last)
        found[arm] = {
            "watch_uplift": over(arm, CASCADE, "watch_seconds", None, EVERY_DAY),
            "view_uplift": over(arm, CASCADE, "watch_seconds", "views", EVERY_DAY),
            "likes_uplift": over(arm, CASCADE, "likes", None, EVERY_DAY),
            "watch_uplift_first_day": first_day,
            "watch_uplift_last_days": last_days,
            "watch_uplift_first_minus_last": first_day.minus(last_days),
        }
        if back is not None:
            for metric, above in (("return_uplift", "users"), ("return_watch", "watch_seconds")):
                mine, theirs = (back(a, above, None, EVERY_DAY) for a in (arm, CASCADE))
                found[arm][metric] = mine.over(theirs)
    for before, arm in pairwise(name for name in ORDER if name in found):
        found[arm][f"watch_uplift_over_{before}"] = over(
            arm, before, "watch_seconds", None, EVERY_DAY
        )
        found[arm][f"view_uplift_over_{before}"] = over(
            arm, before, "watch_seconds", "views", EVERY_DAY
        )
    return found


def _rows(measured: ABTestResult, config: ABTestConfig) -> Iterator[Row]:
    ratio = ratios(measured.sums, samples=config.bootstrap_samples, seed=config.seed)
    relative = uplifts(measured, config)
    for arm in measured.sums:
        values = {m: ratio(arm, *sums, EVERY_DAY) for m, sums in LEVELS.items()}
        values["fresh_share"] = ratio(arm, "fresh_views", "views", slice(0, 1))
        values["fresh_watch_share"] = ratio(arm, "fresh_seconds", "watch_seconds", slice(0, 1))
        facts = {"seeds": config.traffic_seeds, "seconds": measured.seconds.get(arm)}
        for metric, value in (relative.get(arm, {}) | values).items():
            yield Row.of(ARMS[arm], metric, value.interval(config.confidence), **facts)
        yield Row(system=ARMS[arm], metric="filled_share", value=measured.filled[arm], **facts)
        if arm in measured.losses:
            yield Row(
                system=ARMS[arm], metric="validation_loss", value=measured.losses[arm], **facts
            )


def _findings(rows: list[Row], measured: ABTestResult) -> list[str]:
    cells = {(row.system, row.metric): row for row in rows}
    found = []
    for arm in (name for name in ORDER if name in measured.sums):
        watch, view = (cells[ARMS[arm], m] for m in ("watch_uplift", "view_uplift"))
        found.append(
            f"{ARMS[arm]}: total watch time {watch.text(' %', 2)}, average view duration "
            f"{view.text(' %', 2)} against the cascade: {_both(watch, view)}."
        )
    for before, arm in pairwise(name for name in ORDER if name in measured.sums):
        row = cells[ARMS[arm], f"watch_uplift_over_{before}"]
        found.append(
            f"{ARMS[arm]} against {ARMS[before]}: total watch time {row.text(' %', 2)}, "
            f"{row.significance}."
        )
    for arm in (name for name in ORDER if name in measured.sums):
        row = cells[ARMS[arm], "watch_uplift_first_minus_last"]
        found.append(
            f"{ARMS[arm]}, day 1 less the last days: {row.text(' points', 2)}, {row.significance}."
        )
    most = max(measured.filled, key=lambda arm: measured.filled[arm])
    found.append(
        f"Popularity filled at most {measured.filled[most]:.1%} of an arm's places ({ARMS[most]})."
    )
    if measured.losses:
        losses = ", ".join(f"{ARMS[n]} {loss:.4f}" for n, loss in measured.losses.items())
        found.append(f"Validation loss per token: {losses}.")
    return found


def _both(watch: Row, view: Row) -> str:
    found = watch.significance, view.significance
    return f"both {found[0]}" if found[0] == found[1] else " and ".join(found)
