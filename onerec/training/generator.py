"""Pretraining: a generator fitted to sessions by next-token prediction; resumable."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onerec.artifacts import write_json
from onerec.config import ModelConfig, TrainingConfig, require
from onerec.evaluation.ndcg_by_weight import Earlier
from onerec.evaluation.recency import RecencyCases
from onerec.model import OneRec, UserVocabulary, expert_load, init_from_content, save_model
from onerec.model.item_neighbours import ItemNeighbours
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.session_dataset.splits import LEARNED
from onerec.tokenizer.semantic_ids import SemanticIds
from onerec.training.batches import LengthGroupedBatches, SessionRows, lengths
from onerec.training.dense_head import fit_dense_head
from onerec.training.fit_settings import FitSettings
from onerec.training.generator_module import GeneratorModule, validation_losses
from onerec.training.list_weights import TriedWeights, choose_list_weights
from onerec.training.progress import TrainingProgress
from onerec.training.report import HISTORY, TrainingReport
from onerec.training.runtime import (
    Runtime,
    compile_blocks,
    process_rank,
    reproducible,
    weights_put_back,
)
from onerec.training.scratch import Scratch, digest
from onerec.training.trainer import FitResult, fit

FINAL_RATE_SHARE = 0.05
"""Final learning rate of the cosine schedule, as a share of the peak."""


@dataclass(frozen=True, kw_only=True)
class PretrainingData:
    """Data that a generator is pretrained on.

    Attributes:
        train: Sessions to learn from.
        valid: Sessions whose loss chooses the epoch.
        semantic_ids: The catalogue.
        vectors: (N, Dv) item vectors that initialise the token embeddings where training does not
            start from a checkpoint; a dense head reads them.
        vectors_before_validation: (N, Dv) the same without the co-watching of the validation day,
            which are read until all that this day chooses is chosen; None: `vectors` are.
        newest: Sessions of the newest days, the validation day included, for a last phase after the
            epoch is chosen; None: no last phase.
        newest_before: The same a day earlier, without the validation day.
        list_cases: Users of the validation day on whom the weights of recency prior, item
            neighbours and dense head are chosen; None: the weights are 0.
        item_neighbours: From splits to item neighbours by their days. Those without the validation
            day choose the weight; None: lists have none.
        earlier: What nightly runs before measured of those weights, see `choose_list_weights`.
        continues: The weights to start from have learned all before the newest days, so that
            `train` is learned for `TrainingConfig.warm_epochs` only.
    """

    train: SessionTensors
    valid: SessionTensors
    semantic_ids: SemanticIds
    vectors: Tensor | None = None
    vectors_before_validation: Tensor | None = None
    newest: SessionTensors | None = None
    newest_before: SessionTensors | None = None
    list_cases: RecencyCases | None = None
    item_neighbours: Callable[[Sequence[str]], ItemNeighbours] | None = None
    earlier: Earlier = dataclasses.field(default_factory=dict)
    continues: bool = False

    @property
    def first_vectors(self) -> Tensor | None:
        """(N, Dv) item vectors that training starts with."""
        before = self.vectors_before_validation
        return self.vectors if before is None else before

    @property
    def chooses_weights(self) -> bool:
        """Whether a user of the validation day is there to choose the weights of lists."""
        return self.list_cases is not None and len(self.list_cases.users) > 0


def fit_generator(
    config: TrainingConfig,
    model_config: ModelConfig,
    data: PretrainingData,
    *,
    out_dir: Path,
    scratch: Path,
    initial: OneRec | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    runtime: Runtime | None = None,
) -> TrainingReport:
    """Train a generator; write `model.safetensors`, `config.json` and `history.json`.

    The validation loss chooses the epoch; a dense head with its own encoder is then trained on the
    same sessions, and has the epoch with the best lists. Where no user can choose its share, which
    then is 0, it is left as it starts. A last phase trains both on `data.newest`, without
    validation (`TrainingConfig.fresh_epochs`); weights that have learned the sessions already
    (`data.continues`) have no other. The weights of lists are chosen on the validation day by the
    model as that phase would have left it a day earlier: it needs more of a recency prior. Until
    then a dense head reads item vectors without that day's co-watching, which would flatter it.

    Killed and called again with the same arguments, it resumes from the last saved state and writes
    the same bytes (see `fit`). On several devices every process calls it; the first one writes.

    Args:
        config: Optimiser and schedule.
        model_config: Shape of the generator.
        data: Sessions and catalogue.
        out_dir: Where the three files go.
        scratch: Directory for unfinished work, which the caller deletes after publishing.
        initial: Weights to start from (same shape and tokenizer version); random ones by default.
        on_progress: Called with the progress every so many steps.
        runtime: Hardware.

    Raises:
        ValueError: A split has no session, or `initial` has another shape.
        TrainingDivergedError: A loss, metric or weight became NaN or inf.
    """
    require_sessions(data.train, data.valid)
    runtime = runtime or Runtime()
    work = Scratch(directory=scratch, identity=_identity(config, model_config, data))
    with reproducible(runtime):
        torch.manual_seed(config.seed)
        model = _start(model_config, data, initial)
        if runtime.compile:
            compile_blocks(model)
        codes = data.semantic_ids.codes
        learner = _Learner(model, codes, data.chooses_weights, runtime, on_progress)
        chosen = learner.learn_all(data, config, work)
        validation = chosen.best if chosen else learner.start_losses(data.valid, config.batch_size)
        tried = _choose_weights(learner, data, config, work, as_served=chosen is None)
        if model.dense is not None and data.vectors is not None:
            model.dense.vectors.copy_(data.vectors)
        newest = learner.learn_newest(data.newest, config, work, "newest_days")
        if data.item_neighbours and model.neighbour_weight:  # the first process alone has one
            model.neighbours = data.item_neighbours(LEARNED)
    report = _report(chosen, newest, model, tried, validation)
    if process_rank(runtime) == 0:
        _write(model, report, data, out_dir)
    return report


class _Validation(NamedTuple):
    """Chooses epochs: by the loss of sessions the generator's, by lists for the users of `cases`
    that of a dense head with its own encoder."""

    sessions: SessionTensors
    cases: RecencyCases | None


class _Phase(NamedTuple):
    """A finished phase of training; `head` is of a dense head with its own encoder."""

    max_epochs: int
    result: FitResult
    rows: SessionRows
    batches: LengthGroupedBatches
    head: FitResult | None

    @property
    def best(self) -> dict[str, Any]:
        """Metrics of the epoch whose weights were kept."""
        return self.result.history[self.result.best_epoch - 1]


@dataclass(frozen=True)
class _Learner:
    """Trains a model in place.

    Attributes:
        model: A generator.
        codes: (N, T) semantic IDs.
        learns_head: A dense head with its own encoder is trained, too.
        runtime: Hardware.
        on_progress: Called with the progress every so many steps.
    """

    model: OneRec
    codes: Tensor
    learns_head: bool
    runtime: Runtime
    on_progress: Callable[[TrainingProgress], None] | None

    def learn_all(
        self, data: PretrainingData, config: TrainingConfig, scratch: Scratch
    ) -> _Phase | None:
        """The phase whose epoch is chosen; None where the newest days alone are to be learned."""
        if data.continues and config.fresh_epochs and data.newest is not None and len(data.newest):
            if not config.warm_epochs:
                return None
            config = dataclasses.replace(config, max_epochs=config.warm_epochs)
        validation = _Validation(data.valid, data.list_cases)
        return self.learn(data.train, config, scratch, validation)

    def start_losses(self, valid: SessionTensors, batch_size: int) -> dict[str, Any]:
        """Validation losses of the weights it starts from."""
        if self.runtime.processes == 1:  # no training has moved the model yet
            self.model.to(self.runtime.torch_device())
        return validation_losses(self.model, self.codes, valid, batch_size=batch_size)

    def learn(
        self,
        sessions: SessionTensors,
        config: TrainingConfig,
        scratch: Scratch,
        validation: _Validation | None = None,
    ) -> _Phase:
        """A phase of training; without validation the last epoch's weights are kept."""
        model, (valid, cases) = self.model, validation or (None, None)
        model.train()  # an earlier phase has left it in evaluation mode, without dropout
        rows = SessionRows.of(model, sessions)
        batches = LengthGroupedBatches(
            sessions.history,
            sessions.targets,
            config.batch_size,
            config.seed,
            history_tokens=model.tokens_per_history_item,
            target_tokens=model.num_sid_tokens + 1,
        )
        settings = pretraining_settings(config, steps=config.max_epochs * len(batches))
        if valid is None:
            settings = dataclasses.replace(settings, monitor=None, patience=0)
        result = fit(
            GeneratorModule(model, self.codes, valid, batch_size=config.batch_size),
            rows,
            batches,
            settings,
            runtime=self.runtime,
            scratch=scratch,
            on_progress=self.on_progress,
        )
        head = None
        if self.learns_head and model.dense is not None and model.dense.encoder is not None:
            head = fit_dense_head(
                model.dense,
                SessionRows(sessions.history, sessions.targets),
                batches,
                dataclasses.replace(settings, learning_rate=config.dense_learning_rate),
                cases=cases,
                runtime=self.runtime,
                scratch=dataclasses.replace(scratch, directory=scratch.directory / "dense_head"),
                on_progress=self.on_progress,
            )
        return _Phase(config.max_epochs, result, rows, batches, head)

    def learn_newest(
        self, sessions: SessionTensors | None, config: TrainingConfig, scratch: Scratch, name: str
    ) -> _Phase | None:
        """A last phase, whose unfinished work has a directory of its own; None without sessions."""
        if sessions is None or not len(sessions) or not config.fresh_epochs:
            return None
        own = dataclasses.replace(scratch, directory=scratch.directory / name)
        return self.learn(sessions, last_phase(config), own)


def _choose_weights(
    learner: _Learner,
    data: PretrainingData,
    config: TrainingConfig,
    scratch: Scratch,
    *,
    as_served: bool,
) -> TriedWeights:
    """Give the model weights of lists, as it would be after the last phase of the day before."""
    if data.list_cases is None:
        return TriedWeights()
    model, codes = learner.model, learner.codes
    with weights_put_back(model):
        learner.learn_newest(data.newest_before, config, scratch, "newest_days_before")
        if process_rank(learner.runtime) != 0:
            return TriedWeights()
        count = data.item_neighbours if data.chooses_weights else None
        return choose_list_weights(
            model,
            codes,
            data.list_cases,
            config,
            data.earlier,
            as_served=as_served,
            neighbours=count and count(("train",)),
        )


def _identity(
    config: TrainingConfig, model_config: ModelConfig, data: PretrainingData
) -> dict[str, Any]:
    """Identity of this training's unfinished work, beside what `fit` compares."""
    valid = data.valid
    return {
        "training": dataclasses.asdict(config),
        "model": dataclasses.asdict(model_config),
        "tokenizer_version": data.semantic_ids.tokenizer_version,
        "valid": digest([valid.history, valid.targets, data.semantic_ids.codes]),
    }


def last_phase(config: TrainingConfig) -> TrainingConfig:
    """The settings of the last phase of a training, on the newest days."""
    rate = config.fresh_learning_rate
    return dataclasses.replace(
        config, max_epochs=config.fresh_epochs, learning_rate=rate, dense_learning_rate=rate
    )


def pretraining_settings(config: TrainingConfig, *, steps: int) -> FitSettings:
    """The trainer's settings of a pretraining of so many optimiser steps."""
    accumulation = -(-config.batch_size // config.micro_batch) if config.micro_batch else 1
    return FitSettings(
        max_epochs=config.max_epochs,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=math.ceil(config.warmup_share * steps),
        schedule="cosine" if config.schedule == "cosine" else "constant",
        final_rate_share=FINAL_RATE_SHARE,
        gradient_clip=config.gradient_clip,
        accumulation=accumulation,
        monitor="valid_loss",
        patience=config.patience,
        epoch_seed=config.seed,
    )


def require_sessions(
    train: SessionTensors, valid: SessionTensors, *, made_with: Mapping[str, Any] | None = None
) -> None:
    """Raise `ValueError` when a split has no session; `made_with` are the settings that made it."""
    for name, sessions in (("training", train), ("validation", valid)):
        if not len(sessions):
            settings = f" (it was made with {json.dumps(dict(made_with))})" if made_with else ""
            raise ValueError(
                f"no {name} session in the session_dataset{settings}: none is good and has a "
                "target with a semantic ID. Lower good_min_watched_items, good_min_watch_seconds "
                "or good_min_positive_interactions, widen window_days, or check that events and "
                "semantic_ids cover these days"
            )


def _start(config: ModelConfig, data: PretrainingData, initial: OneRec | None) -> OneRec:
    """A generator with the weights of `initial`, else random ones; uses the global RNG."""
    model = OneRec(
        config,
        codebook_size=data.semantic_ids.codebook_size,
        num_sid_tokens=data.semantic_ids.num_sid_tokens,
        history_length=data.train.history.shape[1],
        session_items=data.train.targets.shape[1],
    )
    vectors = data.first_vectors
    if config.dense_head:
        if vectors is None:
            raise ValueError("dense_head: the semantic IDs have no vectors of the items")
        with torch.random.fork_rng(devices=[]):  # the generator starts as it would without
            model.add_dense_head(*vectors.shape).vectors.copy_(vectors)
        if initial is not None and initial.dense is not None:
            initial.dense.cover(vectors)
    vocabulary = _vocabulary(config, data, initial)
    if vocabulary is not None:
        model.add_user_features(vocabulary)
    if initial is not None:
        _load_weights(model, initial)
    elif vectors is not None:
        init_from_content(model, data.semantic_ids.codes.long(), vectors)
    return model


def _vocabulary(
    config: ModelConfig, data: PretrainingData, initial: OneRec | None
) -> UserVocabulary | None:
    """The attributes of users that the generator reads: those of `initial`, else of the sessions to
    learn from; None without any."""
    if initial is not None:
        remedy = "the checkpoint to start from has attributes of users: train with warm_start=false"
        fits = config.user_features or initial.users is None
        require(fits, "model.user_features", config.user_features, remedy)
        return None if initial.users is None else initial.users.vocabulary
    known = data.train.attributes
    if not config.user_features or known is None or not known.num_columns:
        return None
    return UserVocabulary.of(known)


def _load_weights(model: OneRec, initial: OneRec) -> None:
    ours, theirs = model.state_dict(), initial.state_dict()
    theirs = {n: value for n, value in theirs.items() if not n.startswith("neighbours.")}
    if initial.dense is None and model.config.dense_encoder_layers:  # such a head starts anew
        theirs |= {name: ours[name] for name in ours if name.startswith("dense.")}
    differing = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
    )
    if differing:
        raise ValueError(
            f"the checkpoint to start from has another shape ({', '.join(differing[:3])}, ...): "
            "train with warm_start=false, or with the model settings it was trained with"
        )
    model.load_state_dict(theirs)


def _report(
    chosen: _Phase | None,
    newest: _Phase | None,
    model: OneRec,
    tried: TriedWeights,
    validation: Mapping[str, Any],
) -> TrainingReport:
    phase = chosen or newest
    assert phase is not None, "there are newest days, or all sessions were learned"
    _, result, rows, batches, _ = phase
    items = sum(int(lengths(t).sum()) for t in rows.tensors[:2])
    rate = result.rows_per_second
    batches.set_epoch(0)  # a resumed run reports the same as an uninterrupted one
    history = chosen.result.history if chosen else []
    return TrainingReport(
        history=history,
        best_epoch=chosen.result.best_epoch if chosen else 0,
        best_valid_loss=validation["valid_loss"],
        uniform_loss=math.log(model.codebook_size),
        # a diverged model's loss may be far beyond what exp can hold
        token_perplexity=[math.exp(min(loss, 100.0)) for loss in validation["valid_token_losses"]],
        expert_load=expert_load(model),
        num_parameters=sum(p.numel() for p in model.parameters()),
        stopped_early=chosen is not None and len(history) < chosen.max_epochs,
        tokens_per_second=rate and rate * items * model.num_sid_tokens / len(rows),
        padding_waste=batches.padding_waste(),
        newest_history=newest.result.history if newest else [],
        recency_ndcg=tried.recency,
        dense_ndcg=tried.dense,
        neighbour_ndcg=tried.neighbours,
        dense_history=chosen.head.history if chosen and chosen.head else [],
        loading_share=rate and rows.seconds / max(result.seconds, 1e-9),
    )


def _write(model: OneRec, report: TrainingReport, data: PretrainingData, out_dir: Path) -> None:
    tokenizer_version = data.semantic_ids.tokenizer_version
    save_model(model, out_dir, tokenizer_version=tokenizer_version)
    summary = dataclasses.asdict(report)
    epochs = summary.pop("history")
    for name in ("tokens_per_second", "loading_share"):
        del summary[name]  # artifacts contain no timings
    summary |= {
        "train_sessions": len(data.train),
        "valid_sessions": len(data.valid),
        "newest_sessions": len(data.newest) if data.newest is not None else 0,
        "codebook_size": model.codebook_size,
        "num_sid_tokens": model.num_sid_tokens,
        "history_length": model.history_length,
        "session_items": model.session_items,
        "tokenizer_version": tokenizer_version,
    }
    write_json(out_dir / HISTORY, {"epochs": epochs, "summary": summary})
