"""One pretraining from artifact directories: for the asset and for `python -m onerec.training`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onerec.artifacts import MANIFEST, read_json
from onerec.config import ModelConfig, TrainingConfig
from onerec.embeddings.item_embeddings import BEFORE_VALIDATION_FILE, VECTORS_FILE, load_vectors
from onerec.evaluation.ndcg_by_weight import Earlier
from onerec.evaluation.recency import load_recency_cases
from onerec.model import load_model, read_config
from onerec.model.checkpoint import read_user_vocabulary
from onerec.model.item_neighbours import ItemNeighbours
from onerec.session_dataset.co_occurrence import nearest_items
from onerec.session_dataset.generator_sessions import (
    SessionTensors,
    concatenate_sessions,
    load_session_tensors,
)
from onerec.session_dataset.holdout import load_newest_sequences
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.newest_watches import split_day
from onerec.session_dataset.splits import LEARNED
from onerec.session_dataset.user_attributes import (
    attribute_names,
    load_user_attributes,
    users_with_attributes,
)
from onerec.session_dataset.user_sequences import load_user_sequences, sessions_of_sequences
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from onerec.training.generator import PretrainingData, fit_generator, require_sessions
from onerec.training.progress import TrainingProgress
from onerec.training.report import TrainingReport
from onerec.training.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A pretraining: its data, settings and hardware.

    Attributes:
        session_dataset: Files of a `session_dataset` artifact.
        semantic_ids: Files of a `semantic_ids` artifact.
        history_length: H, history items that the generator reads.
        session_items: M, items of a session that it generates.
        initial: Files of a checkpoint to start from; random weights by default.
        initial_day: Its day D, before which it has learned everything; None: not known, so that the
            training passes over all good sessions.
        numbered_like: Tokenizer version whose numbers the codes of the semantic IDs have; a
            checkpoint of it can be started from, too.
        model: Shape of the generator.
        training: Optimiser and schedule.
        runtime: Hardware.
        earlier: What nightly runs before measured of the weights in lists, by the names of
            `TriedWeights`.
    """

    session_dataset: Path
    semantic_ids: Path
    history_length: int
    session_items: int
    initial: Path | None = None
    initial_day: date | None = None
    numbered_like: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    runtime: Runtime = field(default_factory=Runtime)
    earlier: Earlier = field(default_factory=dict)

    def starting_from(self, checkpoint: Path, day: date | None = None) -> "TrainingJob":
        """The same job with a warm start from the checkpoint of a day."""
        return dataclasses.replace(self, initial=checkpoint, initial_day=day)

    def run(self, out_dir: Path, *, scratch: Path, log: Callable[[str], None]) -> dict[str, float]:
        """Train the generator; see `train`."""
        report = train(
            self, out_dir=out_dir, scratch=scratch, on_progress=lambda progress: log(str(progress))
        )
        clocked = {"tokens/s": report.tokens_per_second, "loading share": report.loading_share}
        return {name: value for name, value in clocked.items() if value is not None}


def train(
    job: TrainingJob,
    *,
    out_dir: Path,
    scratch: Path,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainingReport:
    """Read the artifacts, fit the generator to the good sessions, write the checkpoint.

    A training from random weights or another tokenizer version also learns from all watched items
    outside good sessions (`TrainingConfig.history_sessions`). A checkpoint of the same version has
    learned all that, and goes on with the newest days, those since its own among them. A dense head
    of another version is not taken over. All end with a phase on the newest days, the validation
    day included.

    Args:
        job: Data, settings and hardware.
        out_dir: Where `model.safetensors`, `config.json` and `history.json` go.
        scratch: A directory for unfinished work, see `fit_generator`.
        on_progress: Called with the progress every so many steps.

    Raises:
        ValueError: A split has no session, or `initial` has another shape.
        TokenizerVersionMismatchError: `initial` belongs to another tokenizer version.
        TrainingDivergedError: A loss, metric or weight became NaN or inf.
    """
    semantic_ids = load_semantic_ids(job.semantic_ids)
    initial = None
    if job.initial is not None:
        theirs = read_config(job.initial)["tokenizer_version"]
        expected = theirs if theirs == job.numbered_like else semantic_ids.tokenizer_version
        initial, _ = load_model(job.initial, expected_tokenizer_version=expected)
        if theirs != semantic_ids.tokenizer_version:
            initial.dense = None  # it knows items by their places in that version
    return fit_generator(
        job.training,
        job.model,
        _pretraining_data(job, semantic_ids),
        out_dir=out_dir,
        scratch=scratch,
        initial=initial,
        on_progress=on_progress,
        runtime=job.runtime,
    )


def _pretraining_data(job: TrainingJob, semantic_ids: SemanticIds) -> PretrainingData:
    sessions, valid_sessions = (
        load_session_tensors(
            job.session_dataset,
            split,
            semantic_ids,
            history_length=job.history_length,
            session_items=job.session_items,
            good_only=True,
        )
        for split in ("train", "valid")
    )
    require_sessions(sessions, valid_sessions, made_with=_settings_of(job.session_dataset))
    if job.training.history_sessions and not _has_learned(job.initial, semantic_ids):
        watched = sessions_of_sequences(
            load_user_sequences(job.session_dataset, semantic_ids),
            history_length=job.history_length,
            session_items=job.session_items,
        )
        sessions = concatenate_sessions(sessions, watched)
    list_cases = None
    if job.training.recency_prior or job.model.dense_head or job.training.item_neighbours:
        list_cases = load_recency_cases(
            job.session_dataset,
            semantic_ids,
            history_length=job.history_length,
            days=job.training.recency_days,
        )
    newest = newest_before = None
    if job.training.fresh_epochs:
        newest = newest_sessions(job, semantic_ids)
        if list_cases is not None and len(list_cases.users):
            newest_before = newest_sessions(job, semantic_ids, splits=("train",))
    return PretrainingData(
        train=sessions,
        valid=valid_sessions,
        semantic_ids=semantic_ids,
        vectors=_item_vectors(job.semantic_ids / VECTORS_FILE),
        vectors_before_validation=_item_vectors(job.semantic_ids / BEFORE_VALIDATION_FILE),
        newest=newest,
        newest_before=newest_before,
        list_cases=list_cases,
        item_neighbours=partial(count_neighbours, job, semantic_ids)
        if job.training.item_neighbours
        else None,
        earlier=job.earlier,
        continues=_first_unlearned(job, semantic_ids) is not None,
    )


def _has_learned(checkpoint: Path | None, semantic_ids: SemanticIds) -> bool:
    """Whether a checkpoint has learned what users watched before, in these semantic IDs."""
    if checkpoint is None:
        return False
    return read_config(checkpoint)["tokenizer_version"] == semantic_ids.tokenizer_version


def _first_unlearned(job: TrainingJob, semantic_ids: SemanticIds) -> date | None:
    """The first day that the checkpoint to start from has not learned; None where it has to learn
    all of them, or nobody knows."""
    return job.initial_day if _has_learned(job.initial, semantic_ids) else None


def newest_sessions(
    job: TrainingJob, semantic_ids: SemanticIds, *, splits: Sequence[str] = LEARNED
) -> SessionTensors:
    """Positives of the newest days of some splits, cut into sessions.

    After a warm start these are at least the days that the checkpoint has not learned; without the
    validation day they are those alone. Held-out users lack the validation day, see
    `load_newest_sequences`.
    """
    sequences, since = load_newest_sequences(
        job.session_dataset, semantic_ids, days=job.training.fresh_days, splits=splits
    )
    if unlearned := _first_unlearned(job, semantic_ids):
        since = min(since, unlearned) if "valid" in splits else unlearned
    return sessions_of_sequences(
        sequences,
        history_length=job.history_length,
        session_items=job.session_items,
        since=since,
    )


def count_neighbours(
    job: TrainingJob, semantic_ids: SemanticIds, splits: Sequence[str]
) -> ItemNeighbours:
    """Item neighbours by the days of some splits; held-out users lack the validation day."""
    last_day = split_day(job.session_dataset, "valid")
    assert last_day is not None, "a training has validation sessions"
    day = last_day + timedelta(days=1)
    window = load_interactions(
        job.session_dataset, semantic_ids, test_day=day, splits=splits, hold_out=True
    )
    of_day = day if "valid" in splits else last_day  # the day whose lists read them
    most, listed = job.training.item_neighbours, semantic_ids.candidates(of_day)
    return ItemNeighbours.of(nearest_items(window.watched, most, listed))


def _item_vectors(file: Path) -> Tensor | None:
    found = load_vectors(file)
    return None if found is None else torch.from_numpy(found)


def why_not_start_from(checkpoint: Path | None, job: TrainingJob) -> str | None:
    """Reason why a job cannot start from a checkpoint; None when it can.

    Args:
        checkpoint: Files of the last checkpoint, if there is one.
        job: The job.
    """
    if not job.training.warm_start:
        return "warm_start is off"
    if checkpoint is None:
        return "there is no earlier checkpoint"
    theirs = read_config(checkpoint)
    semantic_ids = load_semantic_ids(job.semantic_ids)
    is_refit = theirs["tokenizer_version"] == job.numbered_like
    if is_refit and job.model.dense_head and not job.model.dense_encoder_layers:
        return "the dense head knows items by their places in the tokenizer version before"
    ours = {
        "tokenizer_version": job.numbered_like if is_refit else semantic_ids.tokenizer_version,
        "codebook_size": semantic_ids.codebook_size,
        "num_sid_tokens": semantic_ids.codes.shape[1],
        "history_length": job.history_length,
        "session_items": job.session_items,
    }
    shape = dataclasses.asdict(job.model)
    for name in ("dropout", "dense_dropout", "dense_item_dropout", "dense_negatives"):
        del shape[name]  # they change no weights' shapes
    pairs = {name: (theirs[name], value) for name, value in ours.items()}
    # a checkpoint from before a setting existed has its default
    before = dataclasses.asdict(ModelConfig()) | theirs["model"]
    pairs |= {name: (before[name], value) for name, value in shape.items()}
    known = read_user_vocabulary(theirs)
    here = attribute_names(job.session_dataset) if job.model.user_features else ()
    pairs["attributes of users"] = known.names if known else (), tuple(sorted(here))
    for name, (before, now) in pairs.items():
        if before != now:
            return f"the last checkpoint has {name}={before!r}, this training {now!r}"
    return None


def known_values(checkpoint: Path, session_dataset: Path) -> dict[str, float]:
    """How far the values that a checkpoint learned are those of today: falls when they are renamed.

    Returns:
        Of each attribute the share of the session dataset's users with a value whose value the
        checkpoint knows; empty where it knows no attribute.
    """
    vocabulary = read_user_vocabulary(read_config(checkpoint))
    users = users_with_attributes(session_dataset)
    if vocabulary is None or users is None:
        return {}
    attributes = load_user_attributes(session_dataset, users.to_numpy())
    return {} if attributes is None else vocabulary.known_shares(attributes)


def _settings_of(artifact: Path) -> Mapping[str, Any]:
    """The settings in a manifest that decide how many sessions there are."""
    manifest = artifact / MANIFEST
    config = read_json(manifest)["config"] if manifest.exists() else {}
    deciding = ("good_", "watched_", "window_", "session_")
    return {
        name: value
        for stage in ("sessions", "window")
        for name, value in config.get(stage, {}).items()
        if name.startswith(deciding)
    }
