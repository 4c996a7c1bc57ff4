"""Measures systems on held-out items, chooses a setting on the validation day, makes the table.

Shapes: C cases, K places of a list, N items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.reporting.result_tables import Provenance, ResultTable
from experiments.reporting.seed_intervals import SeededValues, seeded_rows
from onerec.evaluation.metric_table import Metric, MetricTable, TableColumn
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.slices import targets_in
from onerec.ranked_lists import Ranker
from onerec.session_dataset.eval_users import EvalUsers

CUTOFF = 10
KEPT = 0.95
"""Share of the generator's Recall@10 that a setting has to keep on the validation day, as
`alignment.reward_ndcg_tolerance` has it for the weight of the reward."""
LEARNED, HELD_OUT = "learned_items", "held_out_items"
"""Slices of the targets."""
RECALL = Metric(f"recall@{CUTOFF}")
LISTED = Metric("held_out_share")
"""Share of the listed items that were held out."""
METRICS = (RECALL, Metric(RECALL.name, LEARNED), Metric(RECALL.name, HELD_OUT), LISTED)
GENERATOR, CONTENT_KNN = "generator", "item-KNN on content vectors"
ITEM_KNN = "item-KNN"
TENTH, FIFTH = ", a tenth for new", ", a fifth for new"
SHARES = {TENTH: 0.1, FIFTH: 0.2}
"""Share of the places that is kept for new items, by the end of a system's name."""
WITH_CONTENT = {f"{ITEM_KNN}{suffix} by content": share for suffix, share in SHARES.items()}
"""Baselines whose kept places content fills, with their shares."""
BASELINES = ("popularity", "popularity of the last days", ITEM_KNN, CONTENT_KNN, *WITH_CONTENT)
HEAD = "dense head"
SETTINGS = (*(GENERATOR + suffix for suffix in SHARES), *(HEAD + s for s in ("", *SHARES)))
"""What the validation day chooses from, beside the generator as it is."""


def measure(
    rankers: Mapping[str, Ranker], cases: EvalUsers, held_out: np.ndarray, candidates: np.ndarray
) -> dict[str, SeededValues]:
    """Recall@10 per case of every system: of all targets, and of either slice of them.

    Args:
        rankers: By system.
        cases: Of a day.
        held_out: (N,) booleans.
        candidates: (N,) booleans: items that may be listed.
    """
    targets = {
        RECALL: cases.targets,
        Metric(RECALL.name, LEARNED): targets_in(cases.targets, ~held_out),
        Metric(RECALL.name, HELD_OUT): targets_in(cases.targets, held_out),
    }
    found = {}
    for name, ranker in rankers.items():
        lists = ranker.rank(
            cases.history, CUTOFF, candidates=candidates, attributes=cases.attributes
        ).items
        values = {metric: _recall(lists, wanted)[None] for metric, wanted in targets.items()}
        shown = lists >= 0
        share = (held_out[lists.clip(min=0)] & shown).sum(1) / np.maximum(shown.sum(1), 1)
        found[name] = SeededValues({**values, LISTED: share[None]})
    return found


def _recall(lists: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C,) NaN where a case has no target."""
    has = (targets >= 0).any(1)
    values = np.full(len(targets), np.nan)
    if has.any():
        values[has] = per_case_metrics(lists[has], targets[has], (CUTOFF,))[RECALL.name]
    return values


def choose_setting(measured: Mapping[str, SeededValues], settings: Sequence[str]) -> str:
    """The setting with the highest Recall@10 on held-out items that keeps `KEPT` of the generator's
    Recall@10 over all items.

    Args:
        measured: Of the validation day.
        settings: What is chosen from; the generator itself where none qualifies.
    """
    overall = {name: _mean(measured[name], RECALL) for name in measured}
    least = KEPT * overall[GENERATOR]
    kept = [GENERATOR, *(name for name in settings if overall[name] >= least)]
    return max(kept, key=lambda name: _mean(measured[name], Metric(RECALL.name, HELD_OUT)))


def _mean(system: SeededValues, metric: Metric) -> float:
    """As `seeded_rows` averages: over the users that have a value, then over seeds."""
    return float(np.nanmean(system.values[metric], axis=1).mean())


@dataclass(frozen=True, kw_only=True)
class ColdItemsRun:
    """What was measured.

    Attributes:
        dataset: Name of the data set.
        valid: Values of the validation day by system, a row for every choice of held-out items.
        test: Those of the test day.
        share: Share of the items held out.
    """

    dataset: str
    valid: Mapping[str, SeededValues]
    test: Mapping[str, SeededValues]
    share: float

    @property
    def chosen(self) -> str:
        """The setting that the validation day chooses."""
        return choose_setting(self.valid, SETTINGS)

    @property
    def cold_cases(self) -> int:
        """Pairs of user and seed with a held-out item watched on the test day."""
        cold = self.test[GENERATOR].values[Metric(RECALL.name, HELD_OUT)]
        return int(np.isfinite(cold).sum())


def pooled(runs: Sequence[ColdItemsRun]) -> ColdItemsRun:
    """Runs over the same users that hold other items out, as one.

    Args:
        runs: At least one.
    """
    days = {"valid": [run.valid for run in runs], "test": [run.test for run in runs]}
    return replace(
        runs[0],
        **{
            day: {
                name: SeededValues(
                    {
                        metric: np.concatenate([run[name].values[metric] for run in measured])
                        for metric in measured[0][name].values
                    }
                )
                for name in measured[0]
            }
            for day, measured in days.items()
        },
    )


def table_of_cold_items(run: ColdItemsRun, provenance: Provenance) -> ResultTable:
    """The table.

    Args:
        run: What was measured.
        provenance: Data, settings and commit.
    """
    cold = Metric(RECALL.name, HELD_OUT)
    best = max(BASELINES, key=lambda name: _mean(run.test[name], cold))
    rows = seeded_rows(run.test, METRICS, minus=tuple(dict.fromkeys((GENERATOR, best))))
    metrics = MetricTable(tuple(rows))
    over_all = TableColumn(RECALL.name, reference=GENERATOR)
    over_best = TableColumn(*cold, best)
    columns = {
        TableColumn(*RECALL): "Recall@10",
        over_all: "Recall@10 - generator",
        TableColumn(RECALL.name, LEARNED): "on learned items",
        TableColumn(*cold): "on held-out items",
        over_best: f"on held-out items - {best}",
        TableColumn(*LISTED): "share of held-out items listed",
    }
    findings = [f"Chosen on the validation day: {run.chosen}."]
    for name in (GENERATOR, run.chosen) if run.chosen != GENERATOR else (GENERATOR,):
        gain = metrics.cell(name, over_best)
        findings.append(
            f"{name} on held-out items against {best}: {gain.significance}, "
            f"{gain.text(signed=True)}."
        )
    if run.chosen != GENERATOR:
        overall = metrics.cell(run.chosen, over_all)
        findings.append(
            f"{run.chosen} against {GENERATOR}, all items: {overall.significance}, "
            f"{overall.text(signed=True)}."
        )
    return ResultTable(
        name=f"cold_items_{run.dataset}",
        title=f"Cold items on {run.dataset}",
        text=f"{run.share:.0%} of the items, a seeded sample, leave the training days: no model, "
        "count or co-watching vector has seen an event of them. Texts, categories and semantic IDs "
        "stay. Targets of the test day are those of the whole catalogue. A seed is another sample "
        f"and other trainings; {run.cold_cases:,} pairs of user and seed watched a held-out item. "
        "Histories lack held-out items. Generators are trained without a last phase and item "
        "neighbours, so that settings could be compared on the validation day; users and seeds are "
        "resampled, differences are paired. Item-KNN has no recency prior here.",
        metrics=metrics,
        provenance=provenance,
        columns=columns,
        pictured=[TableColumn(*cold), TableColumn(*RECALL)],
        findings=findings,
    )
