"""Recall@10 of models that are k days old: those of earlier nightly runs on the cases of day D.

A model of age 0 was made for day D. An older model was not trained since its own nightly run, but
is served with current histories, and with the current catalogue where its tokenizer version is
still in use. Only the training data differs between ages, which are compared on the same users and
days.

Shapes: C cases of a day, U users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from experiments.reporting.result_tables import Provenance, ResultTable
from onerec.config import BeamConfig, EvaluationConfig
from onerec.evaluation.baselines import Popularity, load_baselines
from onerec.evaluation.data import sample_cases
from onerec.evaluation.generators import load_incumbent
from onerec.evaluation.metric_table import MetricRow, MetricTable, TableColumn
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.model.checkpoint import read_config
from onerec.ranked_lists import Ranker
from onerec.session_dataset.eval_users import EvalUsers, load_eval_users
from onerec.statistics import bootstrap_means
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids

OLDEST = 7
"""Age in days of the oldest models measured."""
METRICS = ("recall@10", "ndcg@10")
OF_THE_DAY = "the day's model"
"""Reference of older models: the same system, made for the served day."""
SYSTEMS = {"pretrained": "OneRec", "popularity_recent": "recent popularity"}
"""Metrics, and their names in the table."""


@dataclass(frozen=True, kw_only=True)
class NightlyRunFiles:
    """A nightly run.

    Attributes:
        day: Day D.
        files: Directory of each artifact of `experiments.freshness.READ`.
    """

    day: date
    files: Mapping[str, Path]

    @cached_property
    def ids(self) -> SemanticIds:
        """Its catalogue."""
        return load_semantic_ids(self.files["semantic_ids"])

    def cases(self, evaluation: EvaluationConfig) -> EvalUsers:
        """The cases of its day, as in the offline metrics."""
        length = read_config(self.files["pretrained_checkpoint"])["history_length"]
        found = load_eval_users(
            self.files["session_dataset"],
            "test",
            self.ids,
            history_length=length,
            rankable=self.ids.known_before(self.day),
        )
        return found.rows(sample_cases(len(found), evaluation))


def rankers(
    made: NightlyRunFiles, served: NightlyRunFiles, decoding: BeamConfig
) -> dict[str, Ranker]:
    """The systems of one nightly run, on item indices of another one's catalogue."""
    to_served = np.asarray(served.ids.index_of(made.ids.item_ids))
    weights = np.zeros(len(served.ids))
    watched = load_baselines(made.files["baselines"]).popularity_recent.weights
    weights[to_served[to_served >= 0]] = watched[to_served >= 0]
    return {
        "pretrained": load_incumbent(
            made.files["pretrained_checkpoint"],
            made.ids,
            served.ids,
            decoding,
            test_day=served.day,
            vectors=load_file(served.files["semantic_ids"] / "vectors.safetensors")["vectors"],
        ),
        "popularity_recent": Popularity(weights, served.ids.known_before(served.day)),
    }


def measure_ages(
    nights: Mapping[date, NightlyRunFiles], decoding: BeamConfig, evaluation: EvaluationConfig
) -> pd.DataFrame:
    """Measure every system of every nightly run on its own day and later days.

    Returns:
        A row per case: `system`, `age`, `day`, `user_id` and the metrics.

    Raises:
        ValueError: No two nightly runs are within `OLDEST` days.
    """
    parts: list[pd.DataFrame] = []
    for day, served in nights.items():
        cases = served.cases(evaluation)
        for age in range(OLDEST + 1):
            made = nights.get(day - timedelta(days=age))
            if made is None:
                continue
            for system, ranker in rankers(made, served, decoding).items():
                lists = ranker.rank(cases.history, 10, attributes=cases.attributes)
                found = per_case_metrics(lists.items, cases.targets, (10,))
                columns = {"user_id": cases.user_ids, **{m: found[m] for m in METRICS}}
                parts.append(pd.DataFrame(columns).assign(system=system, age=age, day=day))
    if all(part["age"].iloc[0] == 0 for part in parts):
        raise ValueError(
            f"nightly runs: {', '.join(map(str, nights)) or 'none'}; no two within {OLDEST} days "
            "of one another, run the nightly runs of consecutive days"
        )
    return pd.concat(parts, ignore_index=True)


def rows_of_ages(measured: pd.DataFrame, evaluation: EvaluationConfig) -> list[MetricRow]:
    """Means per system and age, and differences to age 0 on the same users and days.

    A user active on several days counts once, with their mean: the bootstrap resamples users.
    """
    rows = []
    for system, name in SYSTEMS.items():
        mine = measured[measured["system"] == system]
        fresh = mine[mine["age"] == 0].set_index(["day", "user_id"])[list(METRICS)]
        for age, of_age in mine.groupby("age"):
            values = of_age.set_index(["day", "user_id"])[list(METRICS)]
            columns = {TableColumn(metric): values[metric] for metric in METRICS}
            if age:
                lost = (values - fresh).reindex(values.index)
                columns |= {TableColumn(m, reference=OF_THE_DAY): lost[m] for m in METRICS}
            by_user = pd.concat(list(columns.values()), axis=1).groupby(level="user_id").mean()
            intervals = bootstrap_means(
                by_user.to_numpy(),
                samples=evaluation.bootstrap_samples,
                confidence=evaluation.confidence,
                seed=evaluation.seed,
            )
            label = f"{name}, {age} day{'' if age == 1 else 's'} old"
            rows += [
                MetricRow.of(label, column, found)
                for column, found in zip(columns, intervals, strict=True)
            ]
    return rows


def table_of_ages(
    nights: Mapping[date, NightlyRunFiles],
    decoding: BeamConfig,
    evaluation: EvaluationConfig,
    data: str,
    provenance: Provenance,
) -> ResultTable:
    """Recall and NDCG by age, with the loss against the model of the day.

    Args:
        nights: By day, in order.
        decoding: Beam and batch size.
        evaluation: Cases, confidence, resamples and seed of the intervals.
        data: Name of the data set, for the table's name.
        provenance: Data, settings and commit.
    """
    rows = rows_of_ages(measure_ages(nights, decoding, evaluation), evaluation)
    recall, recall_lost = (TableColumn("recall@10", reference=r) for r in (None, OF_THE_DAY))
    ndcg, ndcg_lost = (TableColumn("ndcg@10", reference=r) for r in (None, OF_THE_DAY))
    losses = {row.system: row.interval for row in rows if row.column == recall_lost}
    return ResultTable(
        name=f"freshness_{data}",
        title=f"Freshness on {data}",
        text="What a model loses that is not trained again: the pretrained generators of "
        f"{len(nights)} nightly runs, {', '.join(map(str, nights))}, on the cases of their own day "
        "and of later ones, with the histories and the catalogue of the day that is served. A loss "
        "is against the model of that day, of the same users; ages are measured on unlike days, so "
        "that the losses compare and the levels do not. A user's days are averaged, users are "
        "resampled. Lists have no recency prior. Beside them recent popularity, counted as long "
        "ago.",
        metrics=MetricTable(tuple(rows)),
        provenance=provenance,
        columns={
            recall: "Recall@10",
            recall_lost: "Recall@10 - that of the day's model",
            ndcg: "NDCG@10",
            ndcg_lost: "NDCG@10 - that of the day's model",
        },
        pictured=[recall_lost, recall],
        findings=[
            f"{system}: {lost.significance}, {lost.text(signed=True)} Recall@10."
            for system, lost in losses.items()
        ],
    )
