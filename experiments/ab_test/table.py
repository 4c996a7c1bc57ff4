"""The table of the simulated A/B test: rows, pictures and what came out."""

from collections.abc import Collection, Iterator

from experiments.ab_test.config import (
    ARMS,
    BY_PROBABILITY,
    BY_TRUTH,
    CASCADE,
    CEILING,
    CHOSEN_BY_TRUTH,
    GENERATOR_ARMS,
    IPA,
    NTP_ONLY,
    SERVED,
    SMALL,
    START,
    TRUE_PAIRS,
    ABTestConfig,
)
from experiments.ab_test.measures import Ratio, ratios
from experiments.ab_test.simulation import ABTestResult
from experiments.reporting.result_tables import Provenance, ResultTable, TrainingCost
from onerec.evaluation.metric_table import ALL, MetricRow, MetricTable, TableColumn
from onerec.statistics import Interval

NAME = "ab_test"
LAST_DAYS = 3
"""Days at the end over which the lasting effect is measured."""
STEPS = ((SMALL, START), (START, IPA), (NTP_ONLY, IPA), (IPA, TRUE_PAIRS))
"""Checkpoints that findings compare, served alike: the paper's order, what IPA brings beyond as
many steps of L_NTP alone, and what a perfect reward would add to it."""
LEARNED = (SERVED, BY_PROBABILITY)
"""Ways to serve without the ground truth."""
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
FRESH = {
    "fresh_share": ("fresh_views", "views"),
    "fresh_watch_share": ("fresh_seconds", "watch_seconds"),
}
"""The same of the first day."""
FIRST_DAY, LAST, FIRST_MINUS_LAST = "first_day", "last_days", "first_day_minus_last_days"
"""Slices of the days."""
OVER_CASCADE = ARMS[CASCADE]
WATCH, VIEW = (TableColumn(f"{name}_uplift", reference=OVER_CASCADE) for name in ("watch", "view"))
COLUMNS = {
    WATCH: "total watch time, % over the cascade",
    VIEW: "average view duration, % over the cascade",
    TableColumn("reward_weight"): "weight of the reward",
    TableColumn("alignment_share"): "alignment's gain, % of the ceiling",
    TableColumn("choice_share"): "gain of choosing lists, % of the ceiling",
    WATCH._replace(slice=FIRST_DAY): "watch time on day 1, %",
    WATCH._replace(slice=LAST): f"watch time on the last {LAST_DAYS} days, %",
    WATCH._replace(metric="return_uplift"): "user-days where good days bring users back, %",
    TableColumn("watch_seconds"): "seconds per user and day",
    TableColumn("view_seconds"): "seconds per view",
    TableColumn("watched_share"): "share watched",
    TableColumn("likes"): "likes per user and day",
    TableColumn("finished_visits"): "visits not left early",
    TableColumn("fresh_share", FIRST_DAY): "fresh items on day 1",
    TableColumn("popularity"): "popularity of the shown",
}
TEXT = (
    "Every arm serves the same simulated users on the same visits with the same random numbers, "
    "{days} days from the nightly run on, with {seeds} seed(s) of visits. Models are those of the "
    "nightly run; they read the histories again every morning. Every arm lists the catalogue of "
    "the nightly run, an item at most once in {repeat} days to a user; what a list lacks, recent "
    "popularity fills. Differences are paired; intervals are over users and seeds of the traffic, "
    "not over seeds of the training. Who comes on a day does not depend on the arm{returning}. "
    "Everything is simulated.{ceilings}"
)
CEILINGS = (
    " Rows called ceilings are oracles: pairs by the expected watch of a session in the "
    "simulator's ground truth instead of the reward, with the same DPO and as "
    "many steps, or the best of what a generator proposes, chosen by that truth. No model that "
    "serves learns from them. Lists as served count the reward with the weight that the "
    "validation day chose for each arm. The share of alignment is the gain over the larger "
    "generator in per cent of that by true pairs, all by probability; the share of choosing is the "
    "gain of lists as served over those by probability, in per cent of that of lists by truth."
)
RETURNING = (
    ", except in the column about coming back: there a user's activity is multiplied by "
    "exp({sensitivity:g} (share watched on their last day - {usual:.2f})), a rule of this test"
)
EVERY_DAY = slice(None)


def table_of_ab_test(
    measured: ABTestResult, config: ABTestConfig, provenance: Provenance, *, repeat_days: int
) -> ResultTable:
    """The table.

    Args:
        measured: What the arms did.
        config: Of the test.
        repeat_days: Of the app.
        provenance: Where it comes from.
    """
    metrics = MetricTable(tuple(_rows(measured, config)))
    shown = {row.column for row in metrics.rows}
    returning = RETURNING.format(sensitivity=config.return_sensitivity, usual=measured.usual)
    text = TEXT.format(
        days=config.days,
        seeds=config.traffic_seeds,
        repeat=repeat_days,
        returning=returning if measured.returning else "",
        ceilings=CEILINGS if any(CEILING in ARMS[arm] for arm in measured.sums) else "",
    )
    return ResultTable(
        name=NAME,
        title="Simulated A/B test",
        text=text,
        metrics=metrics,
        provenance=provenance,
        costs={
            ARMS[arm]: TrainingCost(seeds=config.traffic_seeds, seconds=measured.seconds.get(arm))
            for arm in measured.sums
        },
        columns={column: title for column, title in COLUMNS.items() if column in shown},
        pictured=[column for column in (WATCH, VIEW) if column in shown],
        findings=_findings(metrics, measured),
    )


def uplifts(measured: ABTestResult, config: ABTestConfig) -> dict[str, dict[TableColumn, Ratio]]:
    """Arm -> column -> relative difference to the cascade, or to the arm before, in per cent."""
    options = {"samples": config.bootstrap_samples, "seed": config.seed}
    ratio = ratios(measured.sums, **options)
    back = ratios(measured.returning, **options) if measured.returning else None
    last = slice(-min(LAST_DAYS, config.days), None)

    def over(arm: str, other: str, above: str, below: str | None, days: slice) -> Ratio:
        return ratio(arm, above, below, days).over(ratio(other, above, below, days))

    found: dict[str, dict[TableColumn, Ratio]] = {}
    for arm in (name for name in measured.sums if name != CASCADE):
        first_day = over(arm, CASCADE, "watch_seconds", None, slice(0, 1))
        last_days = over(arm, CASCADE, "watch_seconds", None, last)
        found[arm] = {
            WATCH: over(arm, CASCADE, "watch_seconds", None, EVERY_DAY),
            VIEW: over(arm, CASCADE, "watch_seconds", "views", EVERY_DAY),
            WATCH._replace(metric="likes_uplift"): over(arm, CASCADE, "likes", None, EVERY_DAY),
            WATCH._replace(slice=FIRST_DAY): first_day,
            WATCH._replace(slice=LAST): last_days,
            WATCH._replace(slice=FIRST_MINUS_LAST): first_day.minus(last_days),
        }
        if back is not None:
            for metric, above in (("return_uplift", "users"), ("return_watch", "watch_seconds")):
                mine, theirs = (back(a, above, None, EVERY_DAY) for a in (arm, CASCADE))
                found[arm][WATCH._replace(metric=metric)] = mine.over(theirs)
    for before, arm in _steps(found):
        for column, below in ((WATCH, None), (VIEW, "views")):
            found[arm][column._replace(reference=ARMS[before])] = over(
                arm, before, "watch_seconds", below, EVERY_DAY
            )
    for arm, column, start, ceiling in _ceilings(found):
        mine, most = (found[name][WATCH].minus(found[start][WATCH]) for name in (arm, ceiling))
        found[arm][column] = mine.share_of(most)
    return found


def _steps(found: Collection[str]) -> list[tuple[str, str]]:
    """Arms to compare, those that were not served left out."""
    steps = [(f"{before}{way}", f"{arm}{way}") for way in LEARNED for before, arm in STEPS]
    return [step for step in steps if all(arm in found for arm in step)]


def _ceilings(found: Collection[str]) -> list[tuple[str, TableColumn, str, str]]:
    """Arm, column, where its gain begins, and the oracle that has the most of it."""
    top = BY_PROBABILITY  # as served, the weights of the reward differ from arm to arm
    shares = [
        (f"{arm}{top}", TableColumn("alignment_share"), f"{START}{top}", f"{TRUE_PAIRS}{top}")
        for arm in (NTP_ONLY, IPA)
    ] + [
        (arm, TableColumn("choice_share"), f"{arm}{BY_PROBABILITY}", f"{arm}{BY_TRUTH}")
        for arm in CHOSEN_BY_TRUTH
    ]
    return [share for share in shares if {share[0], *share[2:]} <= set(found)]


def _rows(measured: ABTestResult, config: ABTestConfig) -> Iterator[MetricRow]:
    ratio = ratios(measured.sums, samples=config.bootstrap_samples, seed=config.seed)
    relative = uplifts(measured, config)
    for arm in measured.sums:
        values = {TableColumn(m): ratio(arm, *sums, EVERY_DAY) for m, sums in LEVELS.items()}
        for metric, sums in FRESH.items():
            values[TableColumn(metric, FIRST_DAY)] = ratio(arm, *sums, slice(0, 1))
        for column, value in (relative.get(arm, {}) | values).items():
            yield MetricRow.of(ARMS[arm], column, value.interval(config.confidence))
        yield MetricRow(ARMS[arm], None, "filled_share", ALL, measured.filled[arm])
        if arm in measured.reward_weights:
            weight = measured.reward_weights[arm]
            yield MetricRow(ARMS[arm], None, "reward_weight", ALL, weight)
        if arm in measured.losses:
            yield MetricRow(ARMS[arm], None, "validation_loss", ALL, measured.losses[arm])


def _findings(metrics: MetricTable, measured: ABTestResult) -> list[str]:
    def text(gain: Interval, unit: str = " %") -> str:
        return gain.text(signed=True, decimals=2, unit=unit)

    found, arms = [], [name for name in GENERATOR_ARMS if name in measured.sums]
    learned = [arm for arm in arms if CEILING not in ARMS[arm]]
    for arm in learned:
        watch, view = (metrics.cell(ARMS[arm], column) for column in (WATCH, VIEW))
        found.append(
            f"{ARMS[arm]}: total watch time {text(watch)}, average view duration {text(view)} "
            f"against the cascade: {_both(watch, view)}."
        )
    for before, arm in _steps(arms):
        gain = metrics.cell(ARMS[arm], WATCH._replace(reference=ARMS[before]))
        found.append(
            f"{ARMS[arm]} against {ARMS[before]}: total watch time {text(gain)}, "
            f"{gain.significance}."
        )
    for arm, column, _, ceiling in _ceilings(arms):
        share = metrics.cell(ARMS[arm], column)
        what = "alignment" if column.metric == "alignment_share" else "choosing lists"
        found.append(
            f"{ARMS[arm]}: {what} gains {share.text(decimals=0, unit=' %')} of what "
            f"{ARMS[ceiling]} does."
        )
    for arm in learned:
        lost = metrics.cell(ARMS[arm], WATCH._replace(slice=FIRST_MINUS_LAST))
        found.append(
            f"{ARMS[arm]}, day 1 less the last days: {text(lost, ' points')}, {lost.significance}."
        )
    most = max(measured.filled, key=lambda arm: measured.filled[arm])
    found.append(
        f"Popularity filled at most {measured.filled[most]:.1%} of an arm's places ({ARMS[most]})."
    )
    if measured.losses:
        losses = ", ".join(f"{ARMS[n]} {loss:.4f}" for n, loss in measured.losses.items())
        found.append(f"Validation loss per token: {losses}.")
    return found


def _both(watch: Interval, view: Interval) -> str:
    found = watch.significance, view.significance
    return f"both {found[0]}" if found[0] == found[1] else " and ".join(found)
