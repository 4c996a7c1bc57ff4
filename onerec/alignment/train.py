"""One round of preference alignment: L_NTP + lambda * L_pref against the round's frozen start.

Shapes: P pairs or groups, B of a batch, G sessions of each (two of a pair), S logged sessions,
H history items, M items of a session, T SID tokens.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from onerec.alignment.group_losses import STD_FLOOR
from onerec.alignment.losses import ipa_loss, margin
from onerec.alignment.methods import objective_of
from onerec.alignment.objectives import Objective, PolicyBatch
from onerec.alignment.policy_diagnostics import kl_per_token, legal_mass, token_distributions
from onerec.alignment.preferences import Preferences, check_method
from onerec.artifacts import read_json, write_json
from onerec.config import AlignmentConfig
from onerec.generation import Trie
from onerec.model import (
    Histories,
    OneRec,
    encode_items,
    load_model,
    lookup,
    save_model,
    token_logp,
)
from onerec.model.user_features import joined
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.training.batches import OrderedBatches, ShuffledBatches, WeightedRows, epoch_seed
from onerec.training.execution import ONE_PROCESS, Execution
from onerec.training.fit_module import FitModule
from onerec.training.fit_settings import FitSettings
from onerec.training.generator_module import next_token_loss
from onerec.training.runtime import reproducible
from onerec.training.trainer import FitResult, fit

HISTORY = "history.json"
Numbers = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class AlignmentData:
    """What a round learns from.

    Attributes:
        preferences: Sessions to compare, pairs or groups, as the method wants them.
        train: Good sessions of the training days.
        valid: Good sessions of the held-out users on the validation day; only measured.
        codes: (N, T) semantic IDs.
        attributes: P rows, what is known of the users of the preferences; None where nothing is.
    """

    preferences: Preferences
    train: SessionTensors
    valid: SessionTensors
    codes: Tensor
    attributes: pa.Table | None = None


@dataclass(frozen=True, kw_only=True)
class AlignmentReport:
    """How a round went.

    Attributes:
        model: The aligned generator.
        steps: Per training step: `loss`, `ntp_loss`, `preference_loss`, `margin`, `accuracy`,
            `chosen_logp`, `rejected_logp` (of a group: its best and its worst session),
            `reward_spread` and `zero_spread_share` (groups that teach nothing).
        epochs: The same before training (epoch 0) and after every epoch, over the rows held out,
            with `valid_ntp_loss` of the held-out users, `chosen_logp_change` since epoch 0,
            `kl_to_start` and `legal_mass` (see `onerec.alignment.policy_diagnostics`).
    """

    model: OneRec
    steps: list[Numbers]
    epochs: list[Numbers]

    @property
    def chosen_displaced(self) -> bool:
        """The best sessions became less probable: likelihood displacement, known of DPO."""
        return self.epochs[-1]["chosen_logp_change"] < 0

    def to_json(self) -> dict[str, Any]:
        """All but the model."""
        return {
            "epochs": self.epochs,
            "steps": self.steps,
            "chosen_displaced": self.chosen_displaced,
        }


def fit_alignment(
    start: OneRec,
    data: AlignmentData,
    config: AlignmentConfig,
    out_dir: Path,
    *,
    tokenizer_version: str,
    execution: Execution = ONE_PROCESS,
    on_epoch: Callable[[Numbers], None] = lambda numbers: None,
) -> AlignmentReport:
    """Minimise `L_NTP + lambda * L_pref` (OneRec v1, Algorithm 2), starting from the sampler.

    L_NTP is over the logged session of each pair's context and `ntp_sessions_per_pair` further good
    sessions, so that the model keeps imitating the log while it learns the order of its own beams.
    Dropout is off and expert biases are frozen, so that every margin starts at 0.

    Args:
        start: The sampler of the pairs; it is left as it is.
        data: Preferences and logged sessions.
        config: Settings of the stage.
        out_dir: Gets `model.safetensors`, `config.json` and `history.json`.
        tokenizer_version: Recorded in the checkpoint.
        execution: Hardware, and where unfinished work lies.
        on_epoch: Called with the numbers of each epoch.

    Raises:
        ValueError: There is no pair, or the method cannot learn from these preferences.
        TrainingDivergedError: A loss or weight became NaN or inf.
    """
    num_pairs = len(data.preferences)
    if not num_pairs:
        raise ValueError(
            "0 preference pairs: every context had fewer than two sessions or equal rewards; "
            "raise sample_users or candidates, or look at the reward model"
        )
    objective = _objective(data.preferences, config)
    runtime = execution.runtime.of_small_model()
    held_out, learned = split_pairs(num_pairs, config.holdout_share, config.seed)
    batches = ShuffledBatches(len(learned), config.batch_size, config.seed)
    # With too few pairs to hold any out, what was learned from is what is measured.
    measured = held_out if len(held_out) else learned
    module = AlignmentModule(start, data, config, objective, measured=measured)
    with reproducible(runtime):
        torch.manual_seed(config.seed)
        result = fit(
            module,
            WeightedRows(learned),
            batches,
            alignment_settings(config, steps=config.epochs * len(batches)),
            runtime=runtime,
            scratch=execution.scratch_of("alignment"),
            on_epoch=lambda entry: on_epoch(_numbers(entry)),
        )
    module.model.neighbours = copy.deepcopy(start.neighbours)
    report = _report(module.model, result)
    save_model(report.model, out_dir, tokenizer_version=tokenizer_version)
    history = {"pairs": num_pairs, "pairs_held_out": len(held_out), **report.to_json()}
    write_json(out_dir / HISTORY, {"config": dataclasses.asdict(config), **history})
    return report


def read_alignment_report(directory: Path, tokenizer_version: str) -> AlignmentReport:
    """The report of a round whose checkpoint `fit_alignment` wrote.

    Raises:
        TokenizerVersionMismatchError: It belongs to another tokenizer version.
    """
    history = read_json(directory / HISTORY)
    model, _ = load_model(directory, expected_tokenizer_version=tokenizer_version)
    return AlignmentReport(model=model, steps=history["steps"], epochs=history["epochs"])


def _objective(preferences: Preferences, config: AlignmentConfig) -> Objective:
    """The loss of `config.method`, which must be able to learn from these preferences."""
    check_method(preferences, config)
    return objective_of(config)


def split_pairs(num_pairs: int, holdout_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers of the pairs that only measure, and of those that train; each in order."""
    order = torch.from_numpy(np.random.default_rng([seed, 1]).permutation(num_pairs))
    held_out = round(holdout_share * num_pairs)
    return order[:held_out].sort().values, order[held_out:].sort().values


def alignment_settings(config: AlignmentConfig, *, steps: int) -> FitSettings:
    """The trainer's settings; the last epoch's weights are kept."""
    return FitSettings(
        max_epochs=config.epochs,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=max(1, round(config.warmup_share * steps)) - 1,
        gradient_clip=config.gradient_clip,
        measure_start=True,
    )


def _report(model: OneRec, result: FitResult) -> AlignmentReport:
    names, values = list(result.steps), zip(*result.steps.values(), strict=True)
    return AlignmentReport(
        model=model,
        steps=[dict(zip(names, step, strict=True)) for step in values],
        epochs=[_numbers(entry) for entry in result.history],
    )


def _numbers(entry: dict[str, Any]) -> Numbers:
    """An entry of the history without the training numbers, which are kept per step."""
    return {k: v for k, v in entry.items() if k not in ("train_loss", "learning_rate")}


def _copied(start: OneRec) -> OneRec:
    """A copy for losses, which need no item neighbours."""
    copied = copy.deepcopy(start)
    copied.neighbours = None
    return copied


class AlignmentModule(FitModule):
    """Trains a policy on row numbers (B,) of preferences and a weight, against its frozen start."""

    codes: Tensor
    model: OneRec

    def __init__(
        self,
        start: OneRec,
        data: AlignmentData,
        config: AlignmentConfig,
        objective: Objective,
        *,
        measured: Tensor,
    ) -> None:
        """Set up.

        Args:
            start: Where the policy starts; it is copied.
            data: Preferences and logged sessions.
            config: Weights of the losses, batch size and seed.
            objective: The preference loss.
            measured: Row numbers of the preferences that validation metrics are of.
        """
        policy = _copied(start).requires_grad_(True).eval()
        if policy.dense is not None:  # no loss reads a head with its own encoder
            policy.dense.requires_grad_(policy.dense.encoder is None)
        super().__init__(policy)
        self.data, self.config, self.objective, self.measured = data, config, objective, measured
        # In a list, so that the start is no part of what is trained, moved or saved.
        self.frozen = [_copied(start).eval()]
        self.register_buffer("codes", data.codes.long(), persistent=False)
        self.history = start.histories(data.preferences.history, data.attributes)
        self.trie = Trie.build(data.codes.long(), start.codebook_size)
        self.sessions, self.rewards = data.preferences.sessions, data.preferences.rewards
        self.reference_logp = torch.empty(*self.sessions.shape, data.codes.shape[1])
        self.at_start: Numbers = {}

    def on_fit_start(self) -> None:
        """Compute the reference's log-probabilities (P, G, M, T), once for all epochs."""
        start = self.frozen[0].to(self.device)
        self.trie = self.trie.to(self.device)
        for rows in OrderedBatches(len(self.sessions), self.config.batch_size):
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                self.reference_logp[rows] = self._token_logp(start, rows).float().cpu()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> dict[str, Tensor]:
        rows = batch[0].cpu()
        preference, scalars = self._preference(rows)
        ntp = self._ntp(*self._logged(rows))
        weights = {"ntp_weight": self.config.ntp_weight, "weight": self.config.dpo_weight}
        loss = ipa_loss(ntp, preference, **weights) * batch[1]
        return {"loss": loss, "ntp_loss": ntp.detach(), **scalars}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["at_start"] = self.at_start

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.at_start = checkpoint["at_start"]

    @torch.no_grad()
    def validation_metrics(self) -> Numbers:
        """See `AlignmentReport.epochs`."""
        of, valid = self.measured, self.data.valid
        metrics = self._mean(
            len(of), lambda rows: self._preference(of[rows])[1] | self._distance(of[rows])
        )
        self.at_start = self.at_start or dict(metrics)
        for name in ("chosen_logp", "rejected_logp"):
            metrics[f"{name}_change"] = metrics[name] - self.at_start[name]
        if len(valid):
            metrics |= self._mean(
                len(valid),
                lambda rows: {
                    "valid_ntp_loss": self._ntp(
                        self._history_of(valid, rows), valid.targets[rows].long()
                    )
                },
            )
        return metrics

    def _token_logp(self, model: OneRec, rows: Tensor) -> Tensor:
        """(B, G, M, T) log-probabilities of the tokens of the rows' sessions."""
        history = encode_items(model, self.history[rows], self.codes)
        session_codes, _ = lookup(self.codes, self.sessions[rows].to(self.device))
        logits = model.decode(model.encode(*history), session_codes)
        return token_logp(logits, session_codes)

    def _preference(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean preference loss of some rows, and the scalars to keep."""
        logp = self._token_logp(self.model, rows).float()
        rewards = self.rewards[rows]
        batch = PolicyBatch(
            logp,
            self.reference_logp[rows].to(logp.device),
            self.sessions[rows].ge(0).to(logp.device),
            rewards.float().to(logp.device),
        )
        pairs = self.objective.pairs(batch)
        moved = margin(pairs).detach()
        preference = self.objective(batch).mean()
        spread = rewards.std(1, correction=0)
        return preference, {
            "preference_loss": preference.detach(),
            "margin": moved.mean(),
            "accuracy": (moved > 0).float().mean(),
            "chosen_logp": pairs.chosen_logp.detach().mean(),
            "rejected_logp": pairs.rejected_logp.detach().mean(),
            "reward_spread": spread.mean(),
            "zero_spread_share": (spread <= STD_FLOOR).double().mean(),
        }

    def _distance(self, rows: Tensor) -> dict[str, Tensor]:
        """How far the policy is from its start along some rows' sessions."""
        sessions = self.sessions[rows]
        history = self.history[rows]
        policy, mask = token_distributions(self.model, history, sessions, self.codes)
        start, _ = token_distributions(self.frozen[0], history, sessions, self.codes)
        return {
            "kl_to_start": kl_per_token(policy, start, mask).mean(),
            "legal_mass": legal_mass(policy, sessions, self.trie).mean(),
        }

    def _history_of(self, sessions: SessionTensors, rows: Tensor) -> Histories:
        return self.model.histories(sessions.history[rows].long(), sessions.attributes_of(rows))

    def _logged(self, rows: Tensor) -> tuple[Histories, Tensor]:
        """Histories and targets for L_NTP: the pairs' own, and others drawn for this step."""
        sessions, extra = self.data.train, self.config.ntp_sessions_per_pair * len(rows)
        # a stream for each process; 2 is that of the only one
        stream = 2 + self.global_rank
        draw = torch.Generator().manual_seed(epoch_seed(self.config.seed, self.global_step, stream))
        others = torch.randint(len(sessions), (extra,), generator=draw) if extra else rows[:0]
        own = self.data.preferences
        return (
            joined(self.history[rows], self._history_of(sessions, others)),
            torch.cat([own.targets[rows], sessions.targets[others].long()]),
        )

    def _ntp(self, history: Histories, targets: Tensor) -> Tensor:
        return next_token_loss(
            self.model, history.to(self.device), targets.to(self.device), self.codes
        )

    def _mean(self, num_rows: int, measure: Callable[[Tensor], dict[str, Tensor]]) -> Numbers:
        """Means over rows, batch by batch."""
        sums: Numbers = {}
        for rows in OrderedBatches(num_rows, self.config.batch_size):
            for name, value in measure(rows).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows)
        return {name: value / num_rows for name, value in sums.items()}
