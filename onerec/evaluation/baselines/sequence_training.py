"""Training SASRec, BERT4Rec and TIGER: the trainer of all models, on windows of items.

Shapes: W windows, L items of a history, N items, U users, T SID tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from onerec.config import MOST_TRIALS, EvaluationConfig, TrainingConfig
from onerec.evaluation.baselines.sequence_losses import SequenceLoss
from onerec.evaluation.baselines.sequences import NewestWindows, WindowData
from onerec.evaluation.baselines.tiger import TigerRanker, tiger_shape, window_loss
from onerec.evaluation.baselines.transformer import SequenceModel, SequenceRanker, SequenceShape
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.recency import ChosenPrior, RecencyCases, chosen_prior
from onerec.model import OneRec
from onerec.ranked_lists import Ranker
from onerec.session_dataset.eval_users import EvalUsers
from onerec.training.batches import DrawnBatches, WeightedRows, epoch_seed, length_buckets
from onerec.training.execution import Execution
from onerec.training.fit_module import FitModule
from onerec.training.fit_settings import FitSettings
from onerec.training.generator import last_phase, pretraining_settings
from onerec.training.runtime import Runtime, reproducible, weights_put_back
from onerec.training.scratch import Scratch
from onerec.training.trainer import FitResult, fit

CUTOFF = 10
MONITOR = f"ndcg@{CUTOFF}"
"""The validation metric that chooses epoch and trial."""
CPU = Runtime(accelerator="cpu")
ON_CPU = Execution(runtime=CPU)

R = TypeVar("R", SequenceRanker, TigerRanker)
Metrics = Mapping[str, float]
WindowLoss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""From windows (B, L + 1) of item indices, which of them are learned (B, L + 1), and a source of
randomness to a scalar."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Usual optimiser settings of a sequence baseline.

    Attributes:
        learning_rate: Peak.
        batch_size: Windows of a batch; or
        batch_items: items of a batch of windows of similar length, padding included.
        warmup_steps: Of a linear warm-up.
        patience: Epochs without a better NDCG@10 on the validation day before stopping.
    """

    learning_rate: float = 1e-3
    batch_size: int = 128
    batch_items: int = 0
    warmup_steps: int = 0
    patience: int = 5


SEQUENCE_RECIPE = Recipe()
"""Of SASRec and BERT4Rec.

They stay at popularity's level for some epochs before they learn order: on the demo's data SASRec
for 4, BERT4Rec for more than 6 (2026-11-25), so less patience would stop them there.
"""
TIGER_RECIPE = Recipe(batch_items=512, warmup_steps=100)


@dataclass(frozen=True)
class Trial:
    """Settings of one training.

    Attributes:
        rate: Factor of the model's usual learning rate.
        dropout: Instead of the model's usual one; None keeps it.
    """

    rate: float = 1.0
    dropout: float | None = None


TRIALS = (Trial(), Trial(dropout=0.4), Trial(rate=3.0), Trial(rate=3.0, dropout=0.4))
"""In the order in which they are tried; the first is the usual one."""
assert len(TRIALS) == MOST_TRIALS


class WindowModule(FitModule):
    """Trains a model on windows (B, L + 1) of item indices, which of them are learned, a weight."""

    def __init__(
        self,
        model: nn.Module,
        loss: WindowLoss,
        *,
        seed: int,
        measure: Callable[[], Metrics] | None = None,
    ) -> None:
        """Set up.

        Args:
            model: What is trained.
            loss: See `WindowLoss`.
            seed: Of its source of randomness, which also orders the batches.
            measure: Metrics of the model in evaluation mode.
        """
        super().__init__(model)
        self.loss = loss
        self.seed = seed
        self.generator = self.draws = torch.Generator().manual_seed(seed)
        self.measure = measure

    def on_train_epoch_start(self) -> None:
        # all processes need one order of batches, and each draws for its own share of them
        if self.trainer.world_size > 1:
            stream = 1 + self.global_rank
            seed = epoch_seed(self.seed, self.current_epoch, stream=stream)
            self.draws = torch.Generator().manual_seed(seed)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        windows, learned, weight = batch
        return self.loss(windows, learned, self.draws) * weight

    def validation_metrics(self) -> dict[str, Any]:
        return {} if self.measure is None else dict(self.measure())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["generator"] = self.generator.get_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.generator.set_state(checkpoint["generator"].cpu())


def fit_windows(
    module: WindowModule,
    windows: Tensor,
    recipe: Recipe,
    settings: FitSettings,
    *,
    runtime: Runtime = CPU,
    learned: Tensor | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
    scratch: Scratch | None = None,
) -> FitResult:
    """Train a model on windows in place; see `fit`.

    Dropout draws from the global RNG, which the caller seeds.

    Args:
        module: The model with its loss, validation metrics and randomness.
        windows: (W, L + 1) item indices, -1 padded on the right.
        recipe: How windows are batched.
        settings: Budget, optimiser and which epoch is kept.
        runtime: Hardware, used in float32.
        learned: (W, L + 1) bool: items to predict; all of them by default.
        on_epoch: Called with the numbers of every epoch.
        scratch: Where a killed training is resumed from, after its last whole epoch.
    """
    # orders, masks and negatives are drawn on the CPU, whose generator is kept after each epoch
    runtime = replace(runtime.of_small_model(), precision="32-true")

    module.train()  # with dropout; an earlier phase has left it in evaluation mode
    with reproducible(runtime):
        return fit(
            module,
            WeightedRows(windows, windows >= 0 if learned is None else learned),
            DrawnBatches(partial(_batches, windows, recipe), module.generator),
            settings,
            runtime=runtime,
            scratch=scratch,
            on_epoch=on_epoch,
        )


def _batches(windows: Tensor, recipe: Recipe, generator: torch.Generator) -> Sequence[Tensor]:
    """Row numbers of each batch of an epoch."""
    if recipe.batch_items:
        return length_buckets((windows >= 0).sum(1), recipe.batch_items, generator)
    return torch.randperm(len(windows), generator=generator).split(recipe.batch_size)


def fit_sequence_model(
    loss: SequenceLoss,
    data: WindowData,
    config: EvaluationConfig,
    *,
    recipe: Recipe = SEQUENCE_RECIPE,
    newest: TrainingConfig | None = None,
    execution: Execution = ON_CPU,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> SequenceRanker:
    """Train SASRec or BERT4Rec; the trial and epoch of best validation NDCG@10 count.

    Args:
        loss: SASRec's or BERT4Rec's.
        data: Windows, validation users and candidates.
        config: `baseline_epochs`, `baseline_width`, `baseline_trials` and `seed`.
        recipe: Usual optimiser settings.
        newest: How `data.newest` is learned afterwards, see `best_trial`.
        execution: Hardware, and where unfinished work lies.
        on_epoch: Called with `trial`, `epoch`, `train_loss`, `recall@10`, `ndcg@10`.
    """

    def build(trial: Trial) -> tuple[SequenceRanker, nn.Module, WindowLoss]:
        shape = SequenceShape(
            num_items=len(data.candidates),
            length=data.windows.shape[1] - 1,
            width=config.baseline_width,
            causal=loss.causal,
            block=loss.block,
        )
        if trial.dropout is not None:
            shape = replace(shape, dropout=trial.dropout)
        model = SequenceModel(shape)
        ranker = SequenceRanker(model, data.candidates)
        return ranker, model, lambda *batch: loss(model, *batch)

    return best_trial(build, data, config, recipe, on_epoch, newest, execution)


def fit_tiger(
    data: WindowData,
    codes: Tensor,
    codebook_size: int,
    config: EvaluationConfig,
    *,
    recipe: Recipe = TIGER_RECIPE,
    newest: TrainingConfig | None = None,
    execution: Execution = ON_CPU,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> TigerRanker:
    """Train TIGER; the trial and epoch of the best validation NDCG@10 count.

    Args:
        data: Windows, validation users and candidates.
        codes: (N, T) of `tiger_codes`.
        codebook_size: Codes per token.
        config: `baseline_epochs`, `baseline_width`, `baseline_trials` and `seed`.
        recipe: Usual optimiser settings.
        newest: How `data.newest` is learned afterwards, see `best_trial`.
        execution: Hardware, and where unfinished work lies.
        on_epoch: Called with `trial`, `epoch`, `train_loss`, `recall@10`, `ndcg@10`.
    """

    def build(trial: Trial) -> tuple[TigerRanker, nn.Module, WindowLoss]:
        shape = tiger_shape(config.baseline_width)
        if trial.dropout is not None:
            shape = replace(shape, dropout=trial.dropout)
        model = OneRec(
            shape,
            codebook_size=codebook_size,
            num_sid_tokens=codes.shape[1],
            history_length=data.windows.shape[1] - 1,
            session_items=1,
        )
        ranker = TigerRanker(model, codes, data.candidates)
        return ranker, model, lambda items, learned, _: window_loss(model, items, learned, codes)

    return best_trial(build, data, config, recipe, on_epoch, newest, execution)


def best_trial(
    build: Callable[[Trial], tuple[R, nn.Module, WindowLoss]],
    data: WindowData,
    config: EvaluationConfig,
    recipe: Recipe,
    on_epoch: Callable[[dict[str, Any]], None],
    newest: TrainingConfig | None = None,
    execution: Execution = ON_CPU,
) -> R:
    """The best of `config.baseline_trials` trainings from the same seed, which then learns the
    newest days and gets a recency prior as the generator does (`fit_generator`).

    Args:
        build: A trial's ranker, the model to train in it, and the model's loss.
        data: Windows and validation users; without users only the usual settings are tried.
        config: `baseline_epochs`, `baseline_trials` and `seed`.
        recipe: Usual optimiser settings.
        on_epoch: Called with the numbers of every epoch and the number of the trial.
        newest: Settings of that last phase; None leaves it out.
        execution: Hardware, and where unfinished work lies.
    """
    windows, measured = torch.from_numpy(data.windows).long(), len(data.valid) > 0
    best: tuple[R, nn.Module, WindowLoss, float] | None = None
    for number, trial in enumerate(TRIALS[: config.baseline_trials if measured else 1], start=1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            ranker, model, loss = build(trial)
            measure = partial(validation, ranker, data.valid, data.valid_candidates)
            result = fit_windows(
                WindowModule(model, loss, seed=config.seed, measure=measure if measured else None),
                windows,
                recipe,
                FitSettings(
                    max_epochs=config.baseline_epochs,
                    learning_rate=recipe.learning_rate * trial.rate,
                    warmup_steps=recipe.warmup_steps,
                    monitor=MONITOR if measured else None,
                    mode="max",
                    patience=recipe.patience,
                ),
                runtime=execution.runtime,
                scratch=execution.scratch_of(f"trial-{number}"),
                on_epoch=lambda entry, n=number: on_epoch({"trial": n, **entry}),
            )
        score = result.history[result.best_epoch - 1].get(MONITOR, float("nan"))
        if best is None or score > best[-1]:
            best = ranker, model, loss, score
    assert best is not None, "there is a first trial"
    ranker, model, loss, _ = best

    learn_newest = partial(_learn_newest, model, loss, recipe, newest, execution, config.seed)
    if data.recency is not None:
        with weights_put_back(model):
            if data.served is None:
                learn_newest(data.newest_before, "newest_before")
            prior = _chosen_prior(ranker, data, data.recency, config.seed)
        ranker = replace(ranker, recency_prior=prior)
    learn_newest(data.newest, "newest")
    return ranker


def _chosen_prior(ranker: Ranker, data: WindowData, cases: RecencyCases, seed: int) -> ChosenPrior:
    """By the model that served on the validation day, else by this one without that day."""
    return chosen_prior(
        data.served or ranker,
        cases,
        seed=seed,
        earlier=data.earlier,
        as_served=data.served is not None,
    )


def _learn_newest(
    model: nn.Module,
    loss: WindowLoss,
    recipe: Recipe,
    training: TrainingConfig | None,
    execution: Execution,
    seed: int,
    newest: NewestWindows | None,
    name: str,
) -> None:
    """The last phase of a generator's training, on windows, in place; none without settings or
    windows. Its unfinished work has a directory of its own."""
    if training is None or not training.fresh_epochs or newest is None or not len(newest.items):
        return
    items, phase = torch.from_numpy(newest.items).long(), last_phase(training)
    batches = len(_batches(items, recipe, torch.Generator().manual_seed(seed)))
    settings = pretraining_settings(phase, steps=phase.max_epochs * batches)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fit_windows(
            WindowModule(model, loss, seed=seed),
            items,
            recipe,
            replace(settings, monitor=None, patience=0, accumulation=1),
            runtime=execution.runtime,
            scratch=execution.scratch_of(name),
            learned=torch.from_numpy(newest.learned),
        )


def validation(
    ranker: Ranker, valid: EvalUsers, candidates: np.ndarray | None = None
) -> dict[str, float]:
    """Means over the users of a validation day at the cutoff that chooses epochs, by lists of the
    candidates (N,)."""
    lists = ranker.rank(valid.history, CUTOFF, candidates=candidates)
    found = per_case_metrics(lists.items, valid.targets, (CUTOFF,))
    return {name: float(found[name].mean()) for name in (f"recall@{CUTOFF}", MONITOR)}
