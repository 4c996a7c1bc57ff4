"""One round of alignment from artifact directories: its preferences, its training, its gate.

For the assets of the night and for the variants of an experiment, which run the same round on other
inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from onerec.alignment.candidates import sample_contexts
from onerec.alignment.gate import RoundDecision, gate_round
from onerec.alignment.logged_pairs import feedback_pairs
from onerec.alignment.preferences import Preferences, load_preferences, make_preferences
from onerec.alignment.train import AlignmentData, AlignmentReport, Numbers, fit_alignment
from onerec.config import AlignmentConfig, BeamConfig, EvaluationConfig
from onerec.generation import Trie
from onerec.model import OneRec, load_model
from onerec.reward import check_evaluator, load_ensemble, load_reward
from onerec.session_dataset.generator_sessions import SessionTensors, load_session_tensors
from onerec.session_dataset.reward_blocks import load_reward_blocks
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from onerec.training.runtime import Runtime, reproducible


@dataclass(frozen=True, kw_only=True)
class RoundFiles:
    """What a round reads.

    Attributes:
        session_dataset: Directory of the artifact, like the next ones.
        semantic_ids: The catalogue, with its vectors.
        start: Checkpoint of the generator that the round starts from.
        reward_model: Scores the sessions.
        test_day: Day D; items first seen before it may be generated.
    """

    session_dataset: Path
    semantic_ids: Path
    start: Path
    reward_model: Path
    test_day: date

    def ids(self) -> SemanticIds:
        """The catalogue."""
        return load_semantic_ids(self.semantic_ids)

    def generator(self, ids: SemanticIds) -> tuple[OneRec, str]:
        """The start and its tokenizer version.

        Raises:
            TokenizerVersionMismatchError: It belongs to another tokenizer version than the
                catalogue.
        """
        return load_model(self.start, expected_tokenizer_version=ids.tokenizer_version)

    def vectors(self) -> Tensor:
        """(N, Dv) item vectors."""
        return load_file(self.semantic_ids / "vectors.safetensors")["vectors"]

    def allowed(self, ids: SemanticIds) -> Tensor:
        """(N,) bool: items that may be generated."""
        return torch.from_numpy(ids.known_before(self.test_day))

    def sessions(self, split: str, ids: SemanticIds, model: OneRec) -> SessionTensors:
        """Good sessions of a split, in the generator's lengths."""
        shape = {"history_length": model.history_length, "session_items": model.session_items}
        return load_session_tensors(self.session_dataset, split, ids, good_only=True, **shape)


def round_preferences(
    files: RoundFiles,
    decoding: BeamConfig,
    alignment: AlignmentConfig,
    *,
    runtime: Runtime,
    device: str = "cpu",
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Preferences, SemanticIds]:
    """Sessions to compare, from where `alignment.pairs` says, and the catalogue they are in.

    Args:
        files: What is read.
        decoding: Candidates per user, batch size, and whether seen items are left out.
        alignment: What is compared; its seed says whose sessions.
        runtime: Hardware and threads.
        device: Where generators run.
        on_batch: Called with contexts done and in all.
    """
    ids = files.ids()
    model, _ = files.generator(ids)
    reward_models, allowed = load_ensemble(files.reward_model), files.allowed(ids)
    options = {"decoding": decoding, "reward": reward_models[0].config, "device": device}
    with reproducible(runtime):
        if alignment.pairs == "feedback":
            blocks = load_reward_blocks(
                files.session_dataset,
                "train",
                ids,
                history_length=model.history_length,
                block_items=model.session_items,
            )
            sample = {"num_users": alignment.sample_users, "seed": alignment.seed}
            return feedback_pairs(model, blocks, ids.codes, allowed, **sample, **options), ids
        sessions = files.sessions("train", ids, model)
        made = make_preferences(
            model,
            reward_models,
            files.vectors(),
            sample_contexts(sessions, alignment.sample_users, alignment.seed),
            ids.codes,
            Trie.build(ids.codes, ids.codebook_size, allowed),
            alignment=alignment,
            on_batch=on_batch,
            **options,
        )
    return made, ids


def fit_round(
    files: RoundFiles,
    preferences: Path,
    alignment: AlignmentConfig,
    out_dir: Path,
    *,
    runtime: Runtime,
    on_epoch: Callable[[Numbers], None] = lambda numbers: None,
) -> AlignmentReport:
    """Train on a round's preferences; see `fit_alignment`.

    Args:
        files: What is read.
        preferences: Directory of what `save_preferences` wrote.
        alignment: Losses and optimiser.
        out_dir: Gets the checkpoint and `history.json`.
        runtime: Hardware and threads.
        on_epoch: Called with the numbers of each epoch.
    """
    ids = files.ids()
    model, tokenizer_version = files.generator(ids)
    shape = {"history_length": model.history_length, "session_items": model.session_items}
    return fit_alignment(
        model,
        AlignmentData(
            preferences=load_preferences(preferences, ids, **shape),
            train=files.sessions("train", ids, model),
            valid=files.sessions("valid", ids, model),
            codes=ids.codes,
        ),
        alignment,
        out_dir,
        tokenizer_version=tokenizer_version,
        runtime=runtime,
        on_epoch=on_epoch,
    )


def decide_round(
    files: RoundFiles,
    evaluator: Path,
    trained: OneRec,
    out_dir: Path,
    alignment: AlignmentConfig,
    *,
    decoding: BeamConfig,
    evaluation: EvaluationConfig,
    runtime: Runtime,
    device: str = "cpu",
) -> RoundDecision:
    """Measure a round and its start; a refused round leaves the start's weights in `out_dir`.

    Args:
        files: What the round read.
        evaluator: Directory of the evaluator model.
        trained: What the round made.
        out_dir: Where its checkpoint lies; gets `round.json`.
        alignment: `gate_cases` and `recall_tolerance`.
        decoding: Beam and batch size.
        evaluation: Confidence, resamples and seed of the intervals.
        runtime: Hardware and threads.
        device: Where generators run.

    Raises:
        ValueError: The evaluator was trained on the reward model's users.
    """
    check_evaluator(evaluator, files.reward_model)
    reward_model, ids = load_reward(evaluator), files.ids()
    start, _ = files.generator(ids)
    with reproducible(runtime):
        return gate_round(
            start,
            trained,
            reward_model,
            files.vectors(),
            files.sessions("valid", ids, start),
            ids.codes,
            Trie.build(ids.codes, ids.codebook_size, files.allowed(ids)),
            start_files=files.start,
            out_dir=out_dir,
            alignment=alignment,
            decoding=decoding,
            evaluation=evaluation,
            reward=reward_model.config,
            device=device,
        )


def with_sample(alignment: AlignmentConfig, number: int) -> AlignmentConfig:
    """The settings of a round's preferences: each round takes other users."""
    return replace(alignment, seed=alignment.seed + number)
