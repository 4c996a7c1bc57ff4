"""What a training of the generator reports: metrics and losses, kept in `history.json`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onerec.artifacts import read_json
from onerec.evaluation.ndcg_by_weight import NOT_MEASURED, NdcgByWeight

HISTORY = "history.json"


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Metrics and losses of a training.

    Attributes:
        history: One entry an epoch: `epoch` (from 1), `train_loss`, `valid_loss`,
            `valid_token_losses`, `learning_rate`.
        best_epoch: The epoch whose weights were kept; 0 where the newest days alone were learned,
            so that the validation figures are of the weights it starts from.
        best_valid_loss: Its mean negative log-likelihood per token, in nats.
        uniform_loss: log K, the loss of a uniform distribution.
        token_perplexity: Perplexity per SID token, of the kept weights on the validation sessions.
        expert_load: Per sparse layer, each expert's share of tokens.
        num_parameters: Number of trained parameters.
        stopped_early: Stopped by patience before `max_epochs`.
        tokens_per_second: Training throughput of all processes, in tokens read and predicted per
            second; None when a finished training was only loaded, or ran in another process.
        newest_history: One entry an epoch of the last phase, on the newest days: `epoch`,
            `train_loss`, `learning_rate`. The validation figures above are of the weights before
            it, which had not seen the validation day.
        recency_ndcg: NDCG@10 on the validation day by weight of the recency prior, before the last
            phase.
        dense_ndcg: The same by share of the dense head.
        neighbour_ndcg: The same by weight of item neighbours.
        dense_history: One entry an epoch of a dense head with its own encoder: `epoch`,
            `train_loss`, `ndcg@10` on the validation day, `learning_rate`; empty without a user of
            that day, where it is not trained, and where the newest days alone were learned.
        padding_waste: Share of the tokens of an epoch (the first) that are padding.
        loading_share: Share of training time spent on making batches; None as above.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    best_valid_loss: float
    uniform_loss: float
    token_perplexity: list[float]
    expert_load: list[list[float]]
    num_parameters: int
    stopped_early: bool
    tokens_per_second: float | None
    padding_waste: float
    loading_share: float | None
    newest_history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    recency_ndcg: NdcgByWeight = NOT_MEASURED
    dense_ndcg: NdcgByWeight = NOT_MEASURED
    neighbour_ndcg: NdcgByWeight = NOT_MEASURED
    dense_history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def ndcg_by_weight(self) -> dict[str, NdcgByWeight]:
        """What was measured of the weights in lists, by the names of `TriedWeights`."""
        return {
            "recency": self.recency_ndcg,
            "dense": self.dense_ndcg,
            "neighbours": self.neighbour_ndcg,
        }


def read_report(directory: Path) -> TrainingReport:
    """The report of a training in another process; timings are None."""
    written = read_json(directory / HISTORY)
    names = {f.name for f in dataclasses.fields(TrainingReport)} - {"history"}
    summary = {name: written["summary"].get(name) for name in names}
    for name in ("recency_ndcg", "dense_ndcg", "neighbour_ndcg"):
        # a report of before has none of item neighbours
        summary[name] = NdcgByWeight.from_json(summary[name]) if summary[name] else NOT_MEASURED
    return TrainingReport(history=written["epochs"], **summary)
