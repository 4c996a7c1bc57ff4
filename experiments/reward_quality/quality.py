"""Quality of the reward model against gradient boosting, and the ablation of its attention.

All scorers are fitted on the same users and days and measured on the test day, which is not used
for fitting or selection. The table `reward_quality_<data set>` measures discrimination, per tower
and within users; `reward_calibration_<data set>` measures calibration.

Shapes: S seeds, R blocks, B resamples, U users.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from experiments.reporting.result_tables import (
    Provenance,
    ResultTable,
    TrainingCost,
)
from experiments.reporting.seed_intervals import SeededValues, interval_of, seeded_rows
from experiments.reward_quality.scorers import EvaluationBlocks, SystemScores, fit_systems
from onerec.config import RewardConfig
from onerec.evaluation.metric_table import Metric, MetricRow, MetricTable, TableColumn
from onerec.reward.metrics import (
    expected_calibration_error,
    grouped_auc,
    log_losses,
    reliability,
    resampled_aucs,
)
from onerec.reward.pairwise_order import pairs_in_order
from onerec.reward.scoring import scalar_reward, tower_weights
from onerec.statistics import Interval, resampled_means
from resources.commit import current_commit

SAMPLES = 400
"""Number of bootstrap resamples of users per interval."""
DIFFERENCES = (
    ("lightgbm", "base_rate"),
    ("reward_model", "lightgbm"),
    ("reward_model", "network_alone"),
    ("reward_ensemble", "lightgbm"),
    ("no_similarity", "reward_model"),
    ("history_mean", "reward_model"),
    ("no_facts", "network_alone"),
    ("no_history", "reward_model"),
)
"""Systems and their references, paired by seed where both have the same seeds."""
ORDERS = {
    "order_user_day": "order, user's day",
    "order_session": "order, session",
    "order_items": "order, items",
}
TEXT = """How well each scorer predicts, from a user's history and what was shown, which feedback a
block of exposures brought. All are fitted on the training days' blocks of the reward model's users
and stop by the validation day; figures are of the test day's blocks of all users.
`base_rate` predicts the training days' rate for every block. `lightgbm` is LightGBM on the reward
model's own facts: sizes, earlier outcomes of items, authors and the user, duration, age, place and
hour, and how near the items' vectors are to the history. `reward_model` mixes a network with
LightGBM, `network_alone` is without LightGBM, `no_facts` is a network without facts.
`reward_ensemble` is the mean of the `reward_model`'s seeds. `no_similarity` is the reward model
without `history_similarity`, `history_mean` the one without target-aware attention, `no_history`
the same model when it sees no history, so that items stand for themselves. GAUC is the AUC inside
each user, weighted by the user's blocks."""
ORDER_TEXT = """The order columns are the share of pairs that the scalar reward puts in the order of
what came out (the reward's weights on the real labels), .5 being chance: two blocks of a user's
day, two blocks of one session, two items of one session scored as sessions of one; means over
users."""


@dataclass(frozen=True)
class RewardQuality:
    """Tables and curves of the comparison.

    Attributes:
        tables: `reward_quality_<data set>` and `reward_calibration_<data set>`.
        curves: Tower -> system -> predicted and observed rates of the reliability bins on the test
            day; of the first seed where there are several.
    """

    tables: tuple[ResultTable, ResultTable]
    curves: Mapping[str, Mapping[str, tuple[list[float], list[float]]]]


def reward_quality(
    blocks: EvaluationBlocks,
    config: RewardConfig,
    dataset: str,
    source: str,
    *,
    seeds: int = 3,
    on_progress: Callable[[str], None] = lambda line: None,
) -> RewardQuality:
    """Fit and measure all scorers.

    Budget: LightGBM and `6 * seeds` trainings of at most `max_epochs`; with three seeds a few
    minutes of one core for the demo's nightly run.

    Args:
        blocks: Blocks to fit on and to measure on.
        config: Settings of the reward model, with weights of the scalar reward.
        dataset: Name of the data set, for the tables' names.
        source: Origin of the blocks, for the tables' provenance.
        seeds: Trainings of each neural system.
        on_progress: Called with a line after every step.

    Raises:
        ValueError: The reward part has no training block.
    """
    systems = fit_systems(blocks, config, seeds=seeds, on_progress=on_progress)
    metrics = measure_systems(systems, blocks, config)
    costs = {
        name: TrainingCost(seeds=len(s.test), seconds=s.seconds) for name, s in systems.items()
    }
    on_progress("measured")
    made = Provenance(
        data=source,
        config=f"d_model {config.d_model}, at most {config.max_epochs} epochs, weights "
        f"{tower_weights(config, blocks.train.signals)} for {', '.join(_names(blocks))}",
        seeds=[config.seed + 100 * member for member in range(seeds)],
        budget=f"{len(blocks.train):,} training blocks for every scorer; {config.max_epochs} "
        f"epochs or patience {config.patience}; LightGBM as many trees per tower as the validation "
        f"day chooses; measured on {len(blocks.test):,} blocks of "
        f"{len(blocks.test.user.unique()):,} users",
        commit=current_commit(),
    )
    tables = _tables(metrics, made, dataset, _probabilities(blocks))
    discrimination, calibration = (replace(table, costs=costs) for table in tables)
    return RewardQuality((discrimination, calibration), _curves(systems, blocks))


def measure_systems(
    systems: Mapping[str, SystemScores], blocks: EvaluationBlocks, config: RewardConfig
) -> MetricTable:
    """All metrics of all systems on the test day, and the differences of `DIFFERENCES`.

    Metrics of a tower have its name as slice.
    """
    rows: list[MetricRow] = []
    for i, tower in enumerate(_probabilities(blocks)):
        labels = blocks.test.labels[:, i]
        found = {
            name: _TowerScores(s.test[..., i], labels, blocks.test.user)
            for name, s in systems.items()
        }
        rows += _tower_rows(found, tower)
    others = dict.fromkeys(other for _, other in DIFFERENCES if other in systems)
    for name in ORDERS:
        metric = Metric(name)
        values = {
            system: SeededValues({metric: _order(name, scores, blocks, config)})
            for system, scores in systems.items()
        }
        made = seeded_rows(values, [metric], minus=list(others), samples=SAMPLES)
        rows += [r for r in made if not r.reference or (r.system, r.reference) in DIFFERENCES]
    order = {name: place for place, name in enumerate(systems)}
    return MetricTable(tuple(sorted(rows, key=lambda row: order[row.system])))


class _TowerScores:
    """Metrics (S,) and resamples (B, S) of one system on one tower."""

    def __init__(self, p: Tensor, labels: Tensor, user: Tensor) -> None:
        self.measured: dict[str, np.ndarray] = {}
        self.resampled: dict[str, np.ndarray] = {}
        losses = torch.stack([log_losses(seed, labels) for seed in p])
        self._ratio("log_loss", losses.numpy(), user.numpy())
        errors = [expected_calibration_error(reliability(seed, labels)) for seed in p]
        self.measured["ece"] = np.array(errors)
        if labels.any():
            self.measured["pcoc"] = (p.mean(1) / labels.double().mean()).numpy()
        if 0 < labels.mean() < 1:
            gaucs = [grouped_auc(seed, labels, user) for seed in p]
            if None not in gaucs:
                self.measured["gauc"] = np.array(gaucs)
            aucs = [float(binary_auroc(seed, labels.long())) for seed in p]
            drawn = [resampled_aucs(seed, labels, user, samples=SAMPLES).numpy() for seed in p]
            self.measured["auc"], self.resampled["auc"] = np.array(aucs), np.stack(drawn, -1)

    def _ratio(self, name: str, values: np.ndarray, user: np.ndarray) -> None:
        """Means over blocks, of resampled users."""
        sums = np.stack([np.bincount(user, row) for row in (*values, np.ones(len(user)))], -1)
        drawn = resampled_means(sums[sums[:, -1] > 0], samples=SAMPLES, seed=0)
        self.measured[name] = values.mean(1)
        self.resampled[name] = drawn[:, :-1] / drawn[:, -1:]


def _tower_rows(found: Mapping[str, _TowerScores], tower: str) -> list[MetricRow]:
    rows = []
    for name, mine in found.items():
        for metric in ("ece", "gauc", "pcoc"):
            if metric in mine.measured:
                value = Interval(float(mine.measured[metric].mean()), np.nan, np.nan)
                rows.append(MetricRow.of(name, TableColumn(metric, tower), value))
        for metric, resampled in mine.resampled.items():
            interval = interval_of(mine.measured[metric], resampled)
            rows.append(MetricRow.of(name, TableColumn(metric, tower), interval))
        for other in (theirs for system, theirs in DIFFERENCES if system == name):
            for metric in mine.resampled:
                if other not in found or metric not in found[other].resampled:
                    continue
                difference = interval_of(
                    _minus(mine.measured[metric], found[other].measured[metric]),
                    _minus(mine.resampled[metric], found[other].resampled[metric]),
                )
                rows.append(MetricRow.of(name, TableColumn(metric, tower, other), difference))
    return rows


def _minus(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Difference, paired by seed where both have the same seeds, else to the other's mean."""
    return mine - (theirs if theirs.shape == mine.shape else theirs.mean(-1, keepdims=True))


def _order(
    metric: str, system: SystemScores, blocks: EvaluationBlocks, config: RewardConfig
) -> np.ndarray:
    """(S, U) share of concordant pairs of each user; NaN for users without pairs."""
    shown = blocks.items if metric == "order_items" else blocks.test
    probabilities = system.items if metric == "order_items" else system.test
    came_out = scalar_reward(shown.labels.double(), config, shown.signals).numpy()
    group = (shown.user if metric == "order_user_day" else shown.session).numpy()
    user = np.zeros(int(group.max()) + 1, dtype=np.int64)
    user[group] = shown.user.numpy()
    shares = []
    for seed in scalar_reward(probabilities, config, shown.signals).numpy():
        won, pairs = pairs_in_order(seed, came_out, group)
        won, pairs = (np.bincount(user, x, minlength=len(shown.user_ids)) for x in (won, pairs))
        shares.append(np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
    return np.stack(shares)


def _curves(
    systems: Mapping[str, SystemScores], blocks: EvaluationBlocks
) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    curves = {}
    for i, tower in enumerate(_probabilities(blocks)):
        found = {
            name: reliability(s.test[0, :, i], blocks.test.labels[:, i])
            for name, s in systems.items()
        }
        curves[tower] = {name: (c["predicted"], c["observed"]) for name, c in found.items()}
    return curves


def _tables(
    metrics: MetricTable, made: Provenance, data: str, towers: list[str]
) -> tuple[ResultTable, ResultTable]:
    def of_towers(metric: str, title: str) -> dict[TableColumn, str]:
        return {TableColumn(metric, tower): f"{title} {tower}" for tower in towers}

    orders = {TableColumn(name): title for name, title in ORDERS.items()}
    quality = of_towers("auc", "AUC") | of_towers("gauc", "GAUC") | orders
    calibration = (
        of_towers("log_loss", "log-loss") | of_towers("ece", "ECE") | of_towers("pcoc", "PCOC")
    )

    def of(columns: Mapping[TableColumn, str]) -> MetricTable:
        """The columns' numbers and their differences."""
        return MetricTable(
            tuple(row for row in metrics.rows if TableColumn(row.metric, row.slice) in columns)
        )

    return (
        ResultTable(
            name=f"reward_quality_{data}",
            title=f"Reward model on {data}: discrimination and order",
            text=_one_line(TEXT, ORDER_TEXT),
            metrics=of(quality),
            provenance=made,
            columns=quality,
            pictured=(*list(quality)[:2], TableColumn("order_items")),
            findings=differences_in_words(metrics, quality),
        ),
        ResultTable(
            name=f"reward_calibration_{data}",
            title=f"Reward model on {data}: log-loss and calibration",
            text=_one_line(
                "The scorers of the table before it, lower being better: log-loss per block, and "
                "the expected calibration error (mean distance of predicted and observed rates "
                "over ten bins). PCOC is the mean prediction over the observed rate, 1 being right."
            ),
            metrics=of(calibration),
            provenance=made,
            columns=calibration,
            pictured=tuple(TableColumn("log_loss", tower) for tower in towers[1::2]),
            findings=differences_in_words(metrics, calibration),
        ),
    )


def differences_in_words(metrics: MetricTable, columns: Mapping[TableColumn, str]) -> list[str]:
    """The paired differences on the test day, one sentence for each comparison."""
    cells = {(row.system, row.column): row.interval for row in metrics.rows}
    found = []
    for name, other in DIFFERENCES[1:]:
        gains = {t: cells.get((name, c._replace(reference=other))) for c, t in columns.items()}
        parts = [f"{title} {gain.text(signed=True)}" for title, gain in gains.items() if gain]
        if parts:
            found.append(f"{name} minus {other}: {', '.join(parts)}.")
    return found


def _probabilities(blocks: EvaluationBlocks) -> list[str]:
    """Towers that predict probabilities."""
    return [signal.name for signal in blocks.train.signals if not signal.is_expectation]


def _names(blocks: EvaluationBlocks) -> list[str]:
    return [signal.name for signal in blocks.train.signals]


def _one_line(*texts: str) -> str:
    return " ".join(" ".join(texts).split())
