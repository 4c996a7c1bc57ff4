"""Training one of the two reward models, and measuring it on the validation day."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from onerec.artifacts import write_json
from onerec.config import RewardConfig
from onerec.reward.ensemble import MEMBERS
from onerec.reward.metrics import smoothed_rates, tower_metrics
from onerec.reward.model import RewardModel, RewardShape, reward_loss, save_reward
from onerec.reward.scoring import score_sessions, tower_weights
from onerec.reward.user_split import split_users
from onerec.session_dataset.reward_blocks import RewardBlocks
from onerec.training.batches import OrderedBatches, ShuffledBatches, loader
from onerec.training.module import adamw
from onerec.training.runtime import Runtime, quiet_trainer, reproducible

Part = Literal["reward", "evaluator"]
"""The reward model trains the generator; the evaluator, trained on other users, measures it."""
EVALUATOR_SEED = 1000
"""Added to the seed of the evaluator."""
MEMBER_SEED = 100
"""Added to the seed once for every further member of an ensemble."""

Numbers = dict[str, float | None]


@dataclass
class RewardReport:
    """How a training went.

    Attributes:
        steps: Training loss of every step.
        epochs: Per epoch: mean training loss and validation loss (None without validation rows).
        best_epoch: Counted from 1: the one whose weights were kept.
        metrics: What `metrics.json` holds.
    """

    steps: list[float] = field(default_factory=list)
    epochs: list[Numbers] = field(default_factory=list)
    best_epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)


def fit_reward(
    config: RewardConfig,
    train: RewardBlocks,
    valid: RewardBlocks,
    vectors: Tensor,
    out_dir: Path,
    *,
    part: Part = "reward",
    runtime: Runtime | None = None,
    on_epoch: Callable[[Numbers], None] = lambda numbers: None,
) -> RewardReport:
    """Train on every block, good or not, of one side's users; keep the best epoch.

    The two parts never share a user (`split_users`), and the evaluator has another seed and width.
    With `ensemble_size` above 1 the reward part gets further models of other seeds on the same
    users, each whole in `members/1`, `members/2`...; the report is of the first.

    Early stopping looks at the validation day, and so do the metrics: they are a little kind to the
    chosen epoch, as are item vectors, whose collaborative part has seen that day's co-watching.

    Args:
        config: Settings of the stage.
        train: Blocks of the training days, all users.
        valid: Blocks of the validation day, all users.
        vectors: (N, Dv) frozen item vectors.
        out_dir: Gets `model.safetensors`, `config.json` and `metrics.json`.
        part: Which of the two models.
        runtime: Hardware.
        on_epoch: Called with the numbers of each epoch.

    Returns:
        The report; its metrics are of the validation day, for the part's own users and for all.

    Raises:
        ValueError: The part has no training block, or the loss is not finite.
    """
    runtime = runtime or Runtime()
    members = config.ensemble_size if part == "reward" else 1
    report = _fit_one(config, train, valid, vectors, out_dir, part, 0, runtime, on_epoch)
    for member in range(1, members):
        directory = out_dir / MEMBERS / str(member)
        directory.mkdir(parents=True)
        _fit_one(config, train, valid, vectors, directory, part, member, runtime, on_epoch)
    return report


def _fit_one(
    config: RewardConfig,
    train: RewardBlocks,
    valid: RewardBlocks,
    vectors: Tensor,
    out_dir: Path,
    part: Part,
    member: int,
    runtime: Runtime,
    on_epoch: Callable[[Numbers], None],
) -> RewardReport:
    is_evaluator = part == "evaluator"
    seed = config.seed + EVALUATOR_SEED * is_evaluator + MEMBER_SEED * member
    shaped = (
        dataclasses.replace(config, d_model=config.evaluator_d_model) if is_evaluator else config
    )
    own_train, own_valid = (blocks_of(blocks, config, part) for blocks in (train, valid))
    if not len(own_train):
        raise ValueError(
            f"{part}: 0 of {len(train)} training blocks belong to its users "
            f"(evaluator_user_share={config.evaluator_user_share}); use more users or days"
        )
    base_rates = smoothed_rates(own_train.labels)
    shape = RewardShape(
        vector_dim=vectors.shape[1], num_items=len(vectors), history_length=train.history.shape[1]
    )
    report = RewardReport()
    with reproducible(runtime):
        torch.manual_seed(seed)
        model = RewardModel(shaped, shape)
        model.start_from_base_rates(base_rates)
        order = ShuffledBatches(len(own_train), config.batch_size, seed)
        training = _RewardTraining(
            model, vectors, own_valid, report, config.max_epochs * len(order), on_epoch
        )
        trainer = quiet_trainer(
            runtime, max_epochs=config.max_epochs, gradient_clip=config.gradient_clip, callbacks=()
        )
        trainer.fit(training, loader(order, *_tensors(own_train)))
        model.cpu().load_state_dict(training.best)
        save_reward(model.eval(), out_dir)
        report.metrics = {
            "part": part,
            "seed": seed,
            "best_epoch": report.best_epoch,
            "epochs": report.epochs,
            "train_blocks": len(own_train),
            "train_users": len(np.unique(own_train.user)),
            "train_base_rates": base_rates.tolist(),
            "swt_threshold_seconds": train.thresholds.mean_watch_seconds,
            "weights": tower_weights(config),
            "towers": _measure(model, own_valid, vectors, base_rates),
            "towers_all_users": _measure(model, valid, vectors, base_rates),
        }
    write_json(out_dir / "metrics.json", report.metrics)
    return report


def blocks_of(blocks: RewardBlocks, config: RewardConfig, part: Part) -> RewardBlocks:
    """The blocks of one part's users."""
    evaluator_users = split_users(blocks.user_ids, config.evaluator_user_share, config.seed)
    mine = torch.from_numpy(evaluator_users if part == "evaluator" else ~evaluator_users)[
        blocks.user
    ]
    return blocks.rows(mine)


def _tensors(blocks: RewardBlocks) -> tuple[Tensor, Tensor, Tensor]:
    return blocks.history, blocks.items, blocks.labels


def _measure(
    model: RewardModel, blocks: RewardBlocks, vectors: Tensor, base_rates: Tensor
) -> dict[str, Any]:
    probabilities = score_sessions(model, vectors, blocks.history, blocks.items)
    return tower_metrics(probabilities, blocks.labels, base_rates)


class _RewardTraining(L.LightningModule):
    """Calls the loss, keeps the best weights, stops when the validation loss stops falling."""

    vectors: Tensor

    def __init__(
        self,
        model: RewardModel,
        vectors: Tensor,
        valid: RewardBlocks,
        report: RewardReport,
        total_steps: int,
        on_epoch: Callable[[Numbers], None],
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("vectors", vectors, persistent=False)
        self.report, self.total_steps, self.on_epoch = report, total_steps, on_epoch
        self.best: dict[str, Tensor] = {}
        self.best_loss = float("inf")
        self.valid = valid
        self.epoch_losses: list[float] = []

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        value = loss.item()
        if not np.isfinite(value):
            raise ValueError(
                f"the reward loss is {value} at step {self.global_step}: lower "
                f"learning_rate={self.model.config.learning_rate}, or look for item vectors that "
                "are not finite"
            )
        self.report.steps.append(value)
        self.epoch_losses.append(value)
        return loss

    def on_train_epoch_end(self) -> None:
        valid = self._valid_loss()
        epoch = self.current_epoch + 1
        train = sum(self.epoch_losses) / len(self.epoch_losses)
        self.epoch_losses = []
        numbers: Numbers = {"epoch": epoch, "train_loss": train, "valid_loss": valid}
        self.report.epochs.append(numbers)
        self.on_epoch(numbers)
        if valid is None or valid < self.best_loss:  # without validation rows the last epoch counts
            self.best_loss = self.best_loss if valid is None else valid
            self.report.best_epoch = epoch
            self.best = {k: v.cpu() for k, v in copy.deepcopy(self.model.state_dict()).items()}
        elif epoch - self.report.best_epoch >= self.model.config.patience:
            self.trainer.should_stop = True

    @torch.no_grad()
    def _valid_loss(self) -> float | None:
        if not len(self.valid):
            return None
        self.model.eval()
        batches = loader(
            OrderedBatches(len(self.valid), self.model.config.batch_size), *_tensors(self.valid)
        )
        moved = ([t.to(self.device) for t in batch] for batch in batches)
        total = sum(self._loss(batch).item() * len(batch[0]) for batch in moved)
        self.model.train()
        return total / len(self.valid)

    def configure_optimizers(self) -> dict[str, object]:  # pyright: ignore
        config = self.model.config
        optimizer = adamw(self.model, config.learning_rate, config.weight_decay)
        warmup = max(1, round(config.warmup_share * self.total_steps))
        falling = max(1, self.total_steps - warmup)  # the validation loss is jumpy at a high rate
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min((step + 1) / warmup, max(0.0, (self.total_steps - step) / falling)),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _loss(self, batch: Sequence[Tensor]) -> Tensor:
        history, items, labels = batch
        return reward_loss(self.model(self.vectors, history, items), labels)
