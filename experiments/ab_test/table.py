"""The table of the simulated A/B test: rows, pictures and what came out."""

from collections.abc import Callable, Collection, Iterator

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
    RETRAINED,
    SERVED,
    SMALL,
    SMALL_IPA,
    START,
    TRUE_PAIRS,
    ABTestConfig,
    cascade_of,
    frozen,
    is_retrained,
)
from experiments.ab_test.measures import Ratio, ratios
from experiments.ab_test.simulation import ABTestResult
from experiments.reporting.result_tables import Provenance, ResultTable, TrainingCost
from onerec.evaluation.metric_table import ALL, MetricRow, MetricTable, TableColumn
from onerec.statistics import Interval

NAME, NAME_RETRAINED = "ab_test", "ab_test_retrained"
TITLE = "Simulated A/B test"
TITLE_RETRAINED = f"{TITLE} with models retrained every day"
LAST_DAYS = 3
"""Days at the end over which the lasting effect is measured."""
STEPS = ((SMALL, SMALL_IPA), (SMALL, START), (START, IPA), (NTP_ONLY, IPA), (IPA, TRUE_PAIRS))
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
"""The same, and of the first day."""
FIRST_DAY, LAST, FIRST_MINUS_LAST = "first_day", "last_days", "first_day_minus_last_days"
"""Slices of the days."""
OVER_CASCADE = ARMS[CASCADE]
"""Retrained arms are compared with the cascade that is retrained, too."""
OVER_FROZEN = "the same arm, frozen"
WATCH, VIEW = (TableColumn(f"{name}_uplift", reference=OVER_CASCADE) for name in ("watch", "view"))
FROZEN_WATCH = WATCH._replace(reference=OVER_FROZEN)
LEAD_GAIN = TableColumn("lead_gain", reference=OVER_FROZEN)
"""The lead over the cascade with both retrained, less that with both frozen."""
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
    "{days} days from the nightly run on, with {seeds} seed(s) of visits. {models} An item comes "
    "at most once in {repeat} days to a user; what a list lacks, recent popularity fills. "
    "Differences are paired; intervals are over users and seeds of the traffic, not over seeds of "
    "the training. Who comes on a day does not depend on the arm{returning}. Everything is "
    "simulated. {weights}{recency}{ceilings}"
)
ONE_NIGHT = (
    "Models and catalogue are those of the nightly run; they read the histories again every "
    "morning."
)
NIGHT_OF_EACH_DAY = (
    "An arm that is retrained daily serves each day with everything of that day's nightly run: "
    "semantic IDs with the newest items, baselines or checkpoint, recency prior, reward model; the "
    "others keep those of the first one. All read the histories again every morning. Nightly runs "
    "learn from the app's own log, which is its policy's traffic and not the arm's, as in a test "
    "with a small share of the users. Retrained arms are compared with the cascade retrained "
    "daily, frozen ones with the frozen cascade."
)
CHOSEN_WEIGHTS = (
    "Lists as served count the reward with the weight that the validation day chose for each arm, "
    "as in a first nightly run; later ones choose on the test days before."
)
ONE_WEIGHT = (
    "Lists as served count the reward with weight {weight:g} in every arm, so that arms differ by "
    "their models and not by a chosen weight."
)
NO_RECENCY = " Recency priors are left out of every arm."
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


def day_slice(number: int) -> str:
    """The slice of a single day, the first of which is 1."""
    return f"day_{number}"


def columns_of(config: ABTestConfig) -> dict[TableColumn, str]:
    """Columns that a table may show, and their titles."""
    if not config.has_retrained_arms:
        return COLUMNS
    single = {
        column._replace(slice=day_slice(number)): f"day {number}, % over {title}"
        for column, title in ((WATCH, "the cascade"), (FROZEN_WATCH, OVER_FROZEN))
        for number in range(1, config.days + 1)
        if (column, number) != (FROZEN_WATCH, 1)  # a model of the first day is the frozen one
    }
    kept = ("reward_weight", "watch_seconds", "view_seconds", "watched_share", "likes")
    return {
        WATCH: COLUMNS[WATCH],
        FROZEN_WATCH: f"total watch time, % over {OVER_FROZEN}",
        LEAD_GAIN: "lead over the cascade, retrained less frozen, points",
        **single,
        VIEW: COLUMNS[VIEW],
        **{column: title for column, title in COLUMNS.items() if column.metric in kept},
        TableColumn("fresh_share"): "fresh items",
    }


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
    one_weight = ONE_WEIGHT.format(weight=config.reward_weight or 0.0)
    columns = columns_of(config)
    text = TEXT.format(
        days=config.days,
        seeds=config.traffic_seeds,
        models=NIGHT_OF_EACH_DAY if config.has_retrained_arms else ONE_NIGHT,
        repeat=repeat_days,
        returning=returning if measured.returning else "",
        weights=CHOSEN_WEIGHTS if config.reward_weight is None else one_weight,
        recency="" if config.recency_prior else NO_RECENCY,
        ceilings=CEILINGS if any(CEILING in ARMS[arm] for arm in measured.sums) else "",
    )
    return ResultTable(
        name=NAME_RETRAINED if config.has_retrained_arms else NAME,
        title=TITLE_RETRAINED if config.has_retrained_arms else TITLE,
        text=text,
        metrics=metrics,
        provenance=provenance,
        costs={
            ARMS[arm]: TrainingCost(seeds=config.traffic_seeds, seconds=measured.seconds.get(arm))
            for arm in measured.sums
        },
        columns={column: title for column, title in columns.items() if column in shown},
        pictured=[column for column in (WATCH, FROZEN_WATCH, VIEW) if column in shown],
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

    def watch(arm: str, other: str, days: slice = EVERY_DAY) -> Ratio:
        return over(arm, other, "watch_seconds", None, days)

    found: dict[str, dict[TableColumn, Ratio]] = {}
    for arm in (name for name in measured.sums if frozen(name) != CASCADE):
        cascade = cascade_of(arm)
        first_day, last_days = (watch(arm, cascade, days) for days in (slice(0, 1), last))
        found[arm] = {
            WATCH: watch(arm, cascade),
            VIEW: over(arm, cascade, "watch_seconds", "views", EVERY_DAY),
            WATCH._replace(metric="likes_uplift"): over(arm, cascade, "likes", None, EVERY_DAY),
            WATCH._replace(slice=FIRST_DAY): first_day,
            WATCH._replace(slice=LAST): last_days,
            WATCH._replace(slice=FIRST_MINUS_LAST): first_day.minus(last_days),
        }
        if back is not None:
            for metric, above in (("return_uplift", "users"), ("return_watch", "watch_seconds")):
                mine, theirs = (back(a, above, None, EVERY_DAY) for a in (arm, cascade))
                found[arm][WATCH._replace(metric=metric)] = mine.over(theirs)
    if config.has_retrained_arms:
        _add_single_days(found, measured.sums, config.days, watch)
    for before, arm in _steps(found):
        for column, below in ((WATCH, None), (VIEW, "views")):
            found[arm][column._replace(reference=ARMS[before])] = over(
                arm, before, "watch_seconds", below, EVERY_DAY
            )
    for arm, column, start, ceiling in _ceilings(found):
        mine, most = (found[name][WATCH].minus(found[start][WATCH]) for name in (arm, ceiling))
        found[arm][column] = mine.share_of(most)
    return found


def _add_single_days(
    found: dict[str, dict[TableColumn, Ratio]],
    arms: Collection[str],
    days: int,
    watch: Callable[[str, str, slice], Ratio],
) -> None:
    """Add what retraining is worth to each arm, and every single day.

    Args:
        found: Gets the columns.
        arms: All that served.
        days: Days served.
        watch: Watch time of an arm over another's on some days.
    """
    single = {day_slice(day + 1): slice(day, day + 1) for day in range(days)}
    for arm in arms:
        mine, once = found.setdefault(arm, {}), frozen(arm)
        if once != CASCADE:
            for name, day in single.items():
                mine[WATCH._replace(slice=name)] = watch(arm, cascade_of(arm), day)
        if once == arm or once not in arms:
            continue
        for name, day in {ALL: EVERY_DAY, **single}.items():
            mine[FROZEN_WATCH._replace(slice=name)] = watch(arm, once, day)
        if once != CASCADE:
            mine[LEAD_GAIN] = mine[WATCH].minus(found[once][WATCH])


def _steps(found: Collection[str]) -> list[tuple[str, str]]:
    """Arms to compare, those that were not served left out."""
    ends = [f"{way}{again}" for again in ("", RETRAINED) for way in LEARNED]
    steps = [(f"{before}{end}", f"{arm}{end}") for end in ends for before, arm in STEPS]
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
            values[TableColumn(metric)] = ratio(arm, *sums, EVERY_DAY)
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

    found, arms = [], [name for name in measured.sums if frozen(name) in GENERATOR_ARMS]
    learned = [arm for arm in arms if CEILING not in ARMS[arm]]
    for arm in learned:
        watch, view = (metrics.cell(ARMS[arm], column) for column in (WATCH, VIEW))
        found.append(
            f"{ARMS[arm]}: total watch time {text(watch)}, average view duration {text(view)} "
            f"against the cascade: {_both(watch, view)}."
        )
    both = [a for a in measured.sums if is_retrained(a) and frozen(a) in measured.sums]
    for arm in both:
        gain, lead = (metrics.cell(ARMS[arm], column) for column in (FROZEN_WATCH, LEAD_GAIN))
        found.append(
            f"{ARMS[arm]}: total watch time {text(gain)} against {OVER_FROZEN}, "
            f"{gain.significance}"
            + ("." if frozen(arm) == CASCADE else f"; its lead changes by {text(lead, ' points')}.")
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
