"""One round of preference alignment: L_NTP + lambda * L_pref against the round's frozen start.

Shapes: P pairs, B pairs of a batch, S logged sessions, H history items, M items of a session,
T digits.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor

from onerec.alignment.losses import Compared, PreferenceLoss, ipa_loss, margin
from onerec.alignment.methods import loss_of
from onerec.alignment.pairs import PreferencePairs
from onerec.artifacts import write_json
from onerec.config import AlignmentConfig
from onerec.datasets.session_tensors import SessionTensors
from onerec.model import OneRec, save_model, session_logp
from onerec.training.batches import OrderedBatches, ShuffledBatches, epoch_seed, loader
from onerec.training.module import adamw, next_token_loss
from onerec.training.runtime import Runtime, quiet_trainer, reproducible

Numbers = dict[str, float]


@dataclass
class AlignmentReport:
    """How a round went.

    Attributes:
        steps: Per training step: `loss`, `ntp_loss`, `preference_loss`, `margin`, `accuracy`,
            `chosen_logp`, `rejected_logp`.
        epochs: The same before training (epoch 0) and after every epoch, over the pairs held out,
            with `valid_ntp_loss` on the validation day and `chosen_logp_change` since epoch 0.
        model: The aligned generator.
    """

    model: OneRec
    steps: list[Numbers] = field(default_factory=list)
    epochs: list[Numbers] = field(default_factory=list)

    @property
    def chosen_displaced(self) -> bool:
        """The best sessions became less probable: the known way in which DPO goes astray."""
        return self.epochs[-1]["chosen_logp_change"] < 0


def fit_dpo(
    start: OneRec,
    pairs: PreferencePairs,
    train: SessionTensors,
    valid: SessionTensors,
    codes: Tensor,
    config: AlignmentConfig,
    out_dir: Path,
    *,
    generation: str,
    loss: PreferenceLoss | None = None,
    runtime: Runtime | None = None,
    on_epoch: Callable[[Numbers], None] = lambda numbers: None,
) -> AlignmentReport:
    """Minimise `L_NTP + lambda * L_pref` (OneRec v1, Algorithm 2), starting from the sampler.

    L_NTP is over the logged session of each pair's context and `ntp_sessions_per_pair` further good
    sessions, so that the model keeps imitating the log while it learns the order of its own beams.
    Dropout stays off and expert biases stay put: policy and reference are one function at the
    start, and every margin starts at 0.

    Args:
        start: The sampler of the pairs; it is left as it is.
        pairs: Best and worst sessions.
        train: Good sessions of the training days.
        valid: Good sessions of the validation day; only measured.
        codes: (N, T) semantic IDs.
        config: Settings of the stage.
        out_dir: Gets `model.safetensors`, `config.json` and `history.json`.
        generation: Tokenizer generation, recorded in the checkpoint.
        loss: Preference loss; that of `config.method` by default.
        runtime: Hardware.
        on_epoch: Called with the numbers of each epoch.

    Raises:
        ValueError: There is no pair, or a loss is not finite.
    """
    if not len(pairs):
        raise ValueError(
            "0 preference pairs: every context had fewer than two sessions or equal rewards; "
            "raise sample_users or candidates, or look at the reward model"
        )
    runtime = runtime or Runtime()
    held_out, learned = split_pairs(len(pairs), config.holdout_share, config.seed)
    report = AlignmentReport(copy.deepcopy(start).requires_grad_(True).eval())
    order = ShuffledBatches(len(learned), config.batch_size, config.seed)
    with reproducible(runtime):  # warning filters set inside end with it
        warnings.filterwarnings("ignore", message=".*eval mode at the start of training.*")
        torch.manual_seed(config.seed)
        training = _Alignment(
            report,
            pairs,
            train,
            valid,
            codes,
            config,
            loss or loss_of(config),
            # With too few pairs to hold any out, what was learned from is what is measured.
            measured=held_out if len(held_out) else learned,
            total_steps=config.epochs * len(order),
            on_epoch=on_epoch,
        )
        trainer = quiet_trainer(
            runtime, max_epochs=config.epochs, gradient_clip=config.gradient_clip, callbacks=()
        )
        trainer.fit(training, loader(order, learned))
    report.model.cpu().eval()
    save_model(report.model, out_dir, generation=generation)
    write_json(
        out_dir / "history.json",
        {
            "config": dataclasses.asdict(config),
            "pairs": len(pairs),
            "pairs_held_out": len(held_out),
            "epochs": report.epochs,
            "steps": report.steps,
            "chosen_displaced": report.chosen_displaced,
        },
    )
    return report


def split_pairs(num_pairs: int, holdout_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers of the pairs that only measure, and of those that train; each in order."""
    order = torch.from_numpy(np.random.default_rng([seed, 1]).permutation(num_pairs))
    held_out = round(holdout_share * num_pairs)
    return order[:held_out].sort().values, order[held_out:].sort().values


class _Alignment(L.LightningModule):
    """Calls the losses and keeps their numbers. A batch is row numbers (B,) of the pairs."""

    codes: Tensor

    def __init__(
        self,
        report: AlignmentReport,
        pairs: PreferencePairs,
        train: SessionTensors,
        valid: SessionTensors,
        codes: Tensor,
        config: AlignmentConfig,
        loss: PreferenceLoss,
        *,
        measured: Tensor,
        total_steps: int,
        on_epoch: Callable[[Numbers], None],
    ) -> None:
        super().__init__()
        self.model, self.report, self.config, self.loss = report.model, report, config, loss
        self.register_buffer("codes", codes.long(), persistent=False)
        self.pairs, self.train_sessions, self.valid = pairs, train, valid
        self.measured, self.total_steps, self.on_epoch = measured, total_steps, on_epoch
        self.reference = torch.empty(len(pairs), 2)

    def on_fit_start(self) -> None:
        """The policy is still its own start: these are the reference's log-probabilities."""
        for rows in OrderedBatches(len(self.pairs), self.config.batch_size):
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                self.reference[rows] = self._logp(rows).float().cpu()
        self._measure(0)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        rows = batch[0].cpu()
        preference, numbers = self._preference(rows)
        ntp = self._ntp(*self._logged(rows))
        weights = {"ntp_weight": self.config.ntp_weight, "weight": self.config.dpo_weight}
        total = ipa_loss(ntp, preference, **weights)
        numbers |= {"loss": total.item(), "ntp_loss": ntp.item()}
        if not np.isfinite(numbers["loss"]):
            raise ValueError(
                f"the alignment loss is {numbers['loss']} at step {self.global_step} (L_NTP "
                f"{numbers['ntp_loss']}, preference {numbers['preference_loss']}): lower "
                f"learning_rate={self.config.learning_rate}, or look for a start that is not finite"
            )
        self.report.steps.append(numbers)
        return total

    def on_train_epoch_end(self) -> None:
        self._measure(self.current_epoch + 1)

    def configure_optimizers(self) -> dict[str, object]:  # pyright: ignore
        optimizer = adamw(self.model, self.config.learning_rate, self.config.weight_decay)
        warmup = max(1, round(self.config.warmup_share * self.total_steps))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _logp(self, rows: Tensor) -> Tensor:
        """(B, 2) log-probabilities of the chosen and the rejected sessions."""
        return session_logp(self.model, self.pairs.history[rows], self._sessions(rows), self.codes)

    def _sessions(self, rows: Tensor) -> Tensor:
        """(B, 2, M) the chosen and the rejected sessions."""
        return torch.stack([self.pairs.chosen[rows], self.pairs.rejected[rows]], 1)

    def _preference(self, rows: Tensor) -> tuple[Tensor, Numbers]:
        """Mean preference loss of some pairs, and the numbers to keep."""
        logp = self._logp(rows).float()
        start = self.reference[rows].to(logp.device)
        digits = self._sessions(rows).ge(0).sum(-1).to(logp.device) * self.codes.shape[1]
        compared = Compared(*(part for t in (logp, start, digits) for part in (t[:, 0], t[:, 1:])))
        moved = margin(compared).detach()
        preference = self.loss(compared).mean()
        return preference, {
            "preference_loss": preference.item(),
            "margin": moved.mean().item(),
            "accuracy": (moved > 0).float().mean().item(),
            "chosen_logp": logp[:, 0].mean().item(),
            "rejected_logp": logp[:, 1].mean().item(),
        }

    def _logged(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Histories and targets for L_NTP: the pairs' own, and others drawn for this step."""
        sessions, extra = self.train_sessions, self.config.ntp_sessions_per_pair * len(rows)
        draw = torch.Generator().manual_seed(epoch_seed(self.config.seed, self.global_step, 2))
        others = torch.randint(len(sessions), (extra,), generator=draw) if extra else rows[:0]
        return (
            torch.cat([self.pairs.history[rows], sessions.history[others].long()]),
            torch.cat([self.pairs.targets[rows], sessions.targets[others].long()]),
        )

    def _ntp(self, history: Tensor, targets: Tensor) -> Tensor:
        return next_token_loss(
            self.model, history.to(self.device), targets.to(self.device), self.codes
        )

    @torch.no_grad()
    def _measure(self, epoch: int) -> None:
        pairs = self.measured
        numbers = self._mean(len(pairs), lambda rows: self._preference(pairs[rows])[1])
        first = self.report.epochs[0] if self.report.epochs else numbers
        numbers |= {
            "epoch": epoch,
            "chosen_logp_change": numbers["chosen_logp"] - first["chosen_logp"],
            "rejected_logp_change": numbers["rejected_logp"] - first["rejected_logp"],
        }
        if len(self.valid):
            history, targets = self.valid.history.long(), self.valid.targets.long()
            numbers |= self._mean(
                len(targets),
                lambda rows: {"valid_ntp_loss": self._ntp(history[rows], targets[rows]).item()},
            )
        self.report.epochs.append(numbers)
        self.on_epoch(numbers)

    def _mean(self, num_rows: int, measure: Callable[[Tensor], Numbers]) -> Numbers:
        """Means over rows, batch by batch."""
        sums: Numbers = {}
        with self.trainer.precision_plugin.forward_context():
            for rows in OrderedBatches(num_rows, self.config.batch_size):
                for name, value in measure(rows).items():
                    sums[name] = sums.get(name, 0.0) + value * len(rows)
        return {name: value / num_rows for name, value in sums.items()}
