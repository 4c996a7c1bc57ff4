"""One round of preference alignment: L_NTP + lambda * L_pref against the round's frozen start.

Shapes: P pairs or groups, B of a batch, G sessions of each (two of a pair), S logged sessions,
H history items, M items of a session, T SID tokens.
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

from onerec.alignment.group_losses import STD_FLOOR
from onerec.alignment.losses import ipa_loss, margin
from onerec.alignment.methods import objective_of
from onerec.alignment.objectives import Objective, PolicyBatch
from onerec.alignment.policy_diagnostics import kl_per_token, legal_mass, token_distributions
from onerec.alignment.preferences import Preferences, check_method
from onerec.artifacts import write_json
from onerec.config import AlignmentConfig
from onerec.generation import Trie
from onerec.model import OneRec, encode_items, lookup, save_model, token_logp
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.training.batches import OrderedBatches, ShuffledBatches, epoch_seed, loader
from onerec.training.module import adamw, next_token_loss
from onerec.training.runtime import Runtime, quiet_trainer, reproducible

Numbers = dict[str, float]


@dataclass
class AlignmentReport:
    """How a round went.

    Attributes:
        steps: Per training step: `loss`, `ntp_loss`, `preference_loss`, `margin`, `accuracy`,
            `chosen_logp`, `rejected_logp` (of a group: its best and its worst session),
            `reward_spread` and `zero_spread_share` (groups that teach nothing).
        epochs: The same before training (epoch 0) and after every epoch, over the rows held out,
            with `valid_ntp_loss` on the validation day, `chosen_logp_change` since epoch 0,
            `kl_to_start` and `legal_mass` (see `onerec.alignment.policy_diagnostics`).
        model: The aligned generator.
    """

    model: OneRec
    steps: list[Numbers] = field(default_factory=list)
    epochs: list[Numbers] = field(default_factory=list)

    @property
    def chosen_displaced(self) -> bool:
        """The best sessions became less probable: the known way in which DPO goes astray."""
        return self.epochs[-1]["chosen_logp_change"] < 0


def fit_alignment(
    start: OneRec,
    preferences: Preferences,
    train: SessionTensors,
    valid: SessionTensors,
    codes: Tensor,
    config: AlignmentConfig,
    out_dir: Path,
    *,
    tokenizer_version: str,
    objective: Objective | None = None,
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
        preferences: Sessions to compare, pairs or groups, as the method wants them.
        train: Good sessions of the training days.
        valid: Good sessions of the validation day; only measured.
        codes: (N, T) semantic IDs.
        config: Settings of the stage.
        out_dir: Gets `model.safetensors`, `config.json` and `history.json`.
        tokenizer_version: Tokenizer version, recorded in the checkpoint.
        objective: What is minimised beside L_NTP; that of `config.method` by default.
        runtime: Hardware.
        on_epoch: Called with the numbers of each epoch.

    Raises:
        ValueError: There is no pair, the method cannot learn from these preferences, or a loss is
            not finite.
    """
    if not len(preferences):
        raise ValueError(
            "0 preference pairs: every context had fewer than two sessions or equal rewards; "
            "raise sample_users or candidates, or look at the reward model"
        )
    if objective is None:
        check_method(preferences, config)
        objective = objective_of(config)
    runtime = runtime or Runtime()
    held_out, learned = split_pairs(len(preferences), config.holdout_share, config.seed)
    report = AlignmentReport(copy.deepcopy(start).requires_grad_(True).eval())
    order = ShuffledBatches(len(learned), config.batch_size, config.seed)
    with reproducible(runtime):  # warning filters set inside end with it
        warnings.filterwarnings("ignore", message=".*eval mode at the start of training.*")
        torch.manual_seed(config.seed)
        training = _Alignment(
            report,
            start,
            preferences,
            train,
            valid,
            codes,
            config,
            objective,
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
    save_model(report.model, out_dir, tokenizer_version=tokenizer_version)
    write_json(
        out_dir / "history.json",
        {
            "config": dataclasses.asdict(config),
            "pairs": len(preferences),
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
        start: OneRec,
        preferences: Preferences,
        train: SessionTensors,
        valid: SessionTensors,
        codes: Tensor,
        config: AlignmentConfig,
        objective: Objective,
        *,
        measured: Tensor,
        total_steps: int,
        on_epoch: Callable[[Numbers], None],
    ) -> None:
        super().__init__()
        self.model, self.report, self.config = report.model, report, config
        self.objective = objective
        # In a list, so that the start is no part of what is trained, moved or saved.
        self.frozen = [copy.deepcopy(start).eval()]
        self.register_buffer("codes", codes.long(), persistent=False)
        self.trie = Trie.build(codes.long(), start.codebook_size)
        self.preferences, self.train_sessions, self.valid = preferences, train, valid
        self.sessions, self.rewards = preferences.sessions, preferences.rewards
        self.measured, self.total_steps, self.on_epoch = measured, total_steps, on_epoch
        self.reference = torch.empty(*self.sessions.shape, codes.shape[1])

    def on_fit_start(self) -> None:
        """The policy is still its own start: these are the reference's log-probabilities."""
        self.frozen[0].to(self.device)
        self.trie = self.trie.to(self.device)
        for rows in OrderedBatches(len(self.preferences), self.config.batch_size):
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                self.reference[rows] = self._token_logp(rows).float().cpu()
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

    def _token_logp(self, rows: Tensor) -> Tensor:
        """(B, G, M, T) log-probabilities of the tokens of the rows' sessions."""
        history = encode_items(self.model, self.preferences.history[rows], self.codes)
        session_codes, _ = lookup(self.codes, self.sessions[rows].to(self.device))
        logits = self.model.decode(self.model.encode(*history), session_codes)
        return token_logp(logits, session_codes)

    def _preference(self, rows: Tensor) -> tuple[Tensor, Numbers]:
        """Mean preference loss of some rows, and the numbers to keep."""
        logp = self._token_logp(rows).float()
        rewards = self.rewards[rows]
        batch = PolicyBatch(
            logp,
            self.reference[rows].to(logp.device),
            self.sessions[rows].ge(0).to(logp.device),
            rewards.float().to(logp.device),
        )
        pairs = self.objective.pairs(batch)
        moved = margin(pairs).detach()
        preference = self.objective(batch).mean()
        spread = rewards.std(1, correction=0)
        return preference, {
            "preference_loss": preference.item(),
            "margin": moved.mean().item(),
            "accuracy": (moved > 0).float().mean().item(),
            "chosen_logp": pairs.chosen_logp.mean().item(),
            "rejected_logp": pairs.rejected_logp.mean().item(),
            "reward_spread": spread.mean().item(),
            "zero_spread_share": (spread <= STD_FLOOR).double().mean().item(),
        }

    def _distance(self, rows: Tensor) -> Numbers:
        """How far the policy is from its start along some rows' sessions."""
        sessions = self.sessions[rows]
        history = self.preferences.history[rows]
        policy, mask = token_distributions(self.model, history, sessions, self.codes)
        start, _ = token_distributions(self.frozen[0], history, sessions, self.codes)
        return {
            "kl_to_start": kl_per_token(policy, start, mask).mean().item(),
            "legal_mass": legal_mass(policy, sessions, self.trie).mean().item(),
        }

    def _logged(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Histories and targets for L_NTP: the pairs' own, and others drawn for this step."""
        sessions, extra = self.train_sessions, self.config.ntp_sessions_per_pair * len(rows)
        draw = torch.Generator().manual_seed(epoch_seed(self.config.seed, self.global_step, 2))
        others = torch.randint(len(sessions), (extra,), generator=draw) if extra else rows[:0]
        return (
            torch.cat([self.preferences.history[rows], sessions.history[others].long()]),
            torch.cat([self.preferences.targets[rows], sessions.targets[others].long()]),
        )

    def _ntp(self, history: Tensor, targets: Tensor) -> Tensor:
        return next_token_loss(
            self.model, history.to(self.device), targets.to(self.device), self.codes
        )

    @torch.no_grad()
    def _measure(self, epoch: int) -> None:
        of = self.measured
        numbers = self._mean(
            len(of), lambda rows: self._preference(of[rows])[1] | self._distance(of[rows])
        )
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
