"""Trains the reward model or the evaluator, and measures it on the validation day."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from onerec.artifacts import write_json
from onerec.config import RewardConfig
from onerec.reward.boosting import fit_boosting
from onerec.reward.ensemble import MEMBERS
from onerec.reward.metrics import expectation_metrics, smoothed_rates, tower_metrics
from onerec.reward.model import RewardModel, RewardShape, reward_loss, save_reward, share_loss
from onerec.reward.scoring import (
    network_and_facts,
    reward_terms,
    score_blocks,
    tower_weights,
)
from onerec.session_dataset.reward_blocks import RewardBlocks
from onerec.session_dataset.reward_facts import ExposureLog
from onerec.session_dataset.splits import split_users
from onerec.training.batches import OrderedBatches, ShuffledBatches, WeightedRows, loader_of
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.execution import ONE_PROCESS, Execution
from onerec.training.fit_module import FitModule
from onerec.training.fit_settings import FitSettings
from onerec.training.runtime import Runtime, reproducible
from onerec.training.scratch import Scratch
from onerec.training.trainer import fit

RewardPart = Literal["reward", "evaluator"]
"""The reward model trains the generator; the evaluator, trained on other users, measures it."""
EVALUATOR_SEED = 1000
"""Added to the seed for the evaluator."""
MEMBER_SEED = 100
"""Added to the seed for each further member of an ensemble, times its number."""

Numbers = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class RewardReport:
    """Losses and metrics of a training.

    Attributes:
        steps: Training loss of every step.
        epochs: Per epoch: `epoch`, `train_loss` and `valid_loss` (None without validation rows).
        best_epoch: The epoch whose weights are kept, counted from 1.
        metrics: Contents of `metrics.json`.
    """

    steps: list[float]
    epochs: list[Numbers]
    best_epoch: int
    metrics: dict[str, Any]


def fit_reward(
    config: RewardConfig,
    train: RewardBlocks,
    valid: RewardBlocks,
    vectors: Tensor,
    out_dir: Path,
    *,
    part: RewardPart = "reward",
    execution: Execution = ONE_PROCESS,
    on_epoch: Callable[[Numbers], None] = lambda numbers: None,
) -> RewardReport:
    """Train on all blocks of one part's users, of good sessions or not; keep the best epoch.

    The two parts share no user (`split_users`), and the evaluator has another seed and width. With
    `ensemble_size` above 1 the reward part trains further models with other seeds on the same
    users, each stored in full in `members/1`, `members/2`...; the report is of the first.

    Early stopping and metrics use the same validation day, which makes the metrics slightly
    optimistic; so do LightGBM's trees and shares, chosen on that day too, whose gain over the
    network looks larger than it is.

    Args:
        config: Settings of the stage.
        train: Blocks of the training days, all users. Facts are computed from their exposure `log`,
            those of items over the part's users only; without a log there are no facts.
        valid: Blocks of the validation day, all users.
        vectors: (N, Dv) frozen item vectors, without the validation day's co-watching.
        out_dir: Gets `model.safetensors`, `config.json` and `metrics.json`, and `boosting.json`
            where LightGBM counts.
        part: Which of the two models.
        execution: Hardware, and where unfinished work lies.
        on_epoch: Called with the numbers of each epoch.

    Returns:
        The report; its metrics are of the validation day, for the part's own users and for all.

    Raises:
        ValueError: The part has no training block.
        TrainingDivergedError: A loss or weight became NaN or inf.
    """
    runtime = execution.runtime.of_small_model()
    data = _data_of(config, train, valid, vectors, part)
    reports = []
    for number in range(config.ensemble_size if part == "reward" else 1):
        directory = out_dir / MEMBERS / str(number) if number else out_dir
        directory.mkdir(parents=True, exist_ok=True)
        scratch = execution.scratch_of(f"{part}-{number}")
        reports.append(
            _fit_one(config, data, _Member(part, number), directory, runtime, scratch, on_epoch)
        )
    return reports[0]


@dataclass(frozen=True)
class _Data:
    """Training blocks of the part's users, validation blocks of all, with the part's facts.

    Attributes:
        train, valid: The blocks.
        vectors: (N, Dv) of their items.
        log: Exposures that facts and durations come from; None without facts.
        of_items: (N, Fi) facts as of the end of the validation day.
    """

    train: RewardBlocks
    valid: RewardBlocks
    vectors: Tensor
    log: ExposureLog | None
    of_items: Tensor


def _data_of(
    config: RewardConfig,
    train: RewardBlocks,
    valid: RewardBlocks,
    vectors: Tensor,
    part: RewardPart,
) -> _Data:
    mine, log = blocks_of(train, config, part), train.log
    if not len(mine):
        raise ValueError(
            f"{part}: 0 of {len(train)} training blocks belong to its users "
            f"(evaluator_user_share={config.evaluator_user_share}); use more users or days"
        )
    if log is None or not config.facts:
        mine, valid = _without_facts(mine), _without_facts(valid)
        return _Data(mine, valid, vectors, log, torch.zeros(len(vectors), 0))
    counted = users_of_part(log.user_ids, config, part)
    newest = (valid if len(valid) else train).date.max()
    of_items = log.item_facts(newest + np.timedelta64(1, "D"), counted)
    mine, valid = with_facts_of(log, mine, counted), with_facts_of(log, valid, counted)
    return _Data(mine, valid, vectors, log, torch.from_numpy(of_items))


def _without_facts(blocks: RewardBlocks) -> RewardBlocks:
    nothing = {"item_facts": torch.zeros(0), "user_facts": torch.zeros(0)}
    return dataclasses.replace(blocks, **nothing)


def with_facts_of(log: ExposureLog, blocks: RewardBlocks, counted: np.ndarray) -> RewardBlocks:
    """Blocks with their point-in-time facts; see `ExposureLog.facts_of`."""
    items, users = log.facts_of(blocks, counted)
    return dataclasses.replace(blocks, item_facts=items, user_facts=users)


@dataclass(frozen=True)
class _Member:
    """Which model of an ensemble: the part and a number from 0."""

    part: RewardPart
    number: int

    def seed(self, config: RewardConfig) -> int:
        return config.seed + EVALUATOR_SEED * (self.part == "evaluator") + MEMBER_SEED * self.number

    def shape(self, config: RewardConfig) -> RewardConfig:
        """The settings of this member's model."""
        if self.part == "reward":
            return config
        return dataclasses.replace(config, d_model=config.evaluator_d_model)


def _fit_one(
    config: RewardConfig,
    data: _Data,
    member: _Member,
    out_dir: Path,
    runtime: Runtime,
    scratch: Scratch | None,
    on_epoch: Callable[[Numbers], None],
) -> RewardReport:
    train, valid = data.train, blocks_of(data.valid, config, member.part)
    base_rates, shape = smoothed_rates(train.labels), _shape_of(config, data)
    seed, names = member.seed(config), [signal.name for signal in train.signals]
    with reproducible(runtime):
        torch.manual_seed(seed)
        model = RewardModel(member.shape(config), shape)
        model.start_from_base_rates(base_rates)
        if data.log is not None:
            model.facts.describe(data.of_items, data.log.attributes, train)
        batches = ShuffledBatches(len(train), config.batch_size, seed)
        result = fit(
            RewardModule(model, data.vectors, valid),
            _rows(model, train),
            batches,
            reward_settings(
                config, steps=config.max_epochs * len(batches), measured=len(valid) > 0
            ),
            runtime=runtime,
            scratch=scratch,
            on_epoch=lambda entry: on_epoch(_numbers(entry)),
        )
        if config.boosting and shape.item_facts and len(valid):
            model.boosting = fit_boosting(model, data.vectors, train, valid, seed=seed)
        save_reward(model, out_dir)
        epochs = [_numbers(entry) for entry in result.history]
        metrics = {
            "part": member.part,
            "seed": seed,
            "best_epoch": result.best_epoch,
            "epochs": epochs,
            "train_blocks": len(train),
            "train_users": len(np.unique(train.user)),
            "train_base_rates": base_rates.tolist(),
            "watch_threshold_seconds": data.train.thresholds.mean_watch_seconds,
            "weights": dict(zip(names, tower_weights(config, train.signals), strict=True)),
            "scalar_reward": reward_terms(config, train.signals),
            "signals": names[: shape.num_probabilities],
            "missing_signals": list(train.thresholds.missing),
            "item_facts": list(shape.item_facts),
            "user_facts": list(shape.user_facts),
            **_measured(model, data, valid, base_rates),
        }
    write_json(out_dir / "metrics.json", metrics)
    return RewardReport(
        steps=result.steps["loss"], epochs=epochs, best_epoch=result.best_epoch, metrics=metrics
    )


def _shape_of(config: RewardConfig, data: _Data) -> RewardShape:
    train, log = data.train, data.log if config.facts else None
    return RewardShape(
        vector_dim=data.vectors.shape[1],
        num_items=len(data.vectors),
        history_length=train.history.shape[1],
        signals=train.signals,
        missing=train.thresholds.missing,
        item_facts=log.item_fact_names if log else (),
        user_facts=log.user_fact_names if log else (),
        quantiles=config.quantiles if any(s.is_expectation for s in train.signals) else 0,
    )


def blocks_of(blocks: RewardBlocks, config: RewardConfig, part: RewardPart) -> RewardBlocks:
    """The blocks of one part's users."""
    return blocks.rows(torch.from_numpy(users_of_part(blocks.user_ids, config, part))[blocks.user])


def users_of_part(user_ids: np.ndarray, config: RewardConfig, part: RewardPart) -> np.ndarray:
    """(U,) booleans: the users of one part."""
    evaluator_users = split_users(user_ids, config.evaluator_user_share, config.seed)
    return evaluator_users if part == "evaluator" else ~evaluator_users


def reward_settings(config: RewardConfig, *, steps: int, measured: bool) -> FitSettings:
    """Settings of the training loop; without validation rows the last epoch is kept."""
    return FitSettings(
        max_epochs=config.max_epochs,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=max(1, round(config.warmup_share * steps)) - 1,
        schedule="linear",  # at a high rate the validation loss fluctuates
        gradient_clip=config.gradient_clip,
        monitor="valid_loss" if measured else None,
        patience=config.patience,
    )


def _numbers(entry: dict[str, Any]) -> Numbers:
    return {name: entry.get(name) for name in ("epoch", "train_loss", "valid_loss")}


def _rows(model: RewardModel, blocks: RewardBlocks) -> WeightedRows:
    return WeightedRows(
        blocks.history,
        blocks.items,
        blocks.labels,
        model.facts.share_quantiles(blocks),
        blocks.item_facts,
        blocks.user_facts,
    )


def _measured(
    model: RewardModel, data: _Data, valid: RewardBlocks, base_rates: Tensor
) -> dict[str, Any]:
    """Metrics for the part's users and for all, and what the network reaches without LightGBM."""
    score = partial(score_blocks, model, data.vectors)
    found = {
        **_measure(score(valid), valid, base_rates),
        "towers_all_users": _measure(score(data.valid), data.valid, base_rates)["towers"],
        "boosting": None,
    }
    if model.boosting is not None:
        network, _ = network_and_facts(model, data.vectors, valid)
        found["boosting"] = {
            "shares": model.boosting.shares_by_name(),
            "trees": model.boosting.trees(),
            "network_alone": {
                name: {k: m[k] for k in ("auc", "log_loss", "correlation") if k in m}
                for part in _measure(network, valid, base_rates).values()
                for name, m in part.items()
            },
        }
    return found


def _measure(found: Tensor, blocks: RewardBlocks, base_rates: Tensor) -> dict[str, Any]:
    names = [signal.name for signal in blocks.signals]
    num = sum(not signal.is_expectation for signal in blocks.signals)
    return {
        "towers": tower_metrics(
            found[:, :num], blocks.labels[:, :num], base_rates, names[:num], user=blocks.user
        ),
        "expectations": {
            name: expectation_metrics(found[:, i], blocks.labels[:, i], blocks.user)
            for i, name in enumerate(names)
            if i >= num
        },
    }


class RewardModule(FitModule):
    """Trains a `RewardModel` on blocks: history (B, H), items (B, M), labels (B, T), quantiles of
    the watched share (B, M), facts of items (B, M, Fi) and users (B, Fu), and a weight."""

    vectors: Tensor
    model: RewardModel

    def __init__(self, model: RewardModel, vectors: Tensor, valid: RewardBlocks) -> None:
        """Wrap a model.

        Args:
            model: The reward model.
            vectors: (N, Dv) frozen item vectors.
            valid: Blocks whose loss is measured after every epoch; may be empty.
        """
        super().__init__(model)
        self.register_buffer("vectors", vectors, persistent=False)
        self.valid = valid

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        history, items, labels, quantile, *facts, weight = batch
        output = self.model(self.vectors, history, items, *facts)
        loss = reward_loss(output.logits, labels[:, : output.logits.shape[1]])
        if output.shares is not None:
            loss = loss + share_loss(output.shares, quantile)
        return loss * weight

    def validation_metrics(self) -> dict[str, Any]:
        """`valid_loss`, a mean over blocks."""
        if not len(self.valid):
            return {}
        order = OrderedBatches(len(self.valid), self.model.config.batch_size)
        batches = loader_of(DistributedBatches(order), _rows(self.model, self.valid))
        total = sum(
            self.training_step(batch, 0).item() * len(batch[0]) for batch in self.on_device(batches)
        )
        return {"valid_loss": total / len(self.valid)}
