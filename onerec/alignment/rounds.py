"""One round of alignment from artifact directories: its preferences, its training, its gate.

For the nightly assets and for the variants of an experiment, which run the same round on other
inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from onerec.alignment.candidates import OnBatch, sample_contexts
from onerec.alignment.gate import RoundDecision, apply_decision, decide_round, measure_round
from onerec.alignment.logged_pairs import logged_pairs
from onerec.alignment.preferences import Preferences, load_preferences, make_preferences
from onerec.alignment.train import AlignmentData, AlignmentReport, Numbers, fit_alignment
from onerec.config import AlignmentConfig, BeamConfig, EvaluationConfig, Runtime
from onerec.evaluation.generators import SessionGenerator
from onerec.generation import Trie
from onerec.model import OneRec, load_model
from onerec.reward import check_evaluator, load_ensemble
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.generator_sessions import SessionTensors, load_session_tensors
from onerec.session_dataset.reward_blocks import load_reward_blocks
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from onerec.training.runtime import reproducible


@dataclass(frozen=True, kw_only=True)
class RoundInputs:
    """What a round reads; each artifact is loaded when it is first used.

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

    @cached_property
    def ids(self) -> SemanticIds:
        """The catalogue."""
        return load_semantic_ids(self.semantic_ids)

    @cached_property
    def model(self) -> OneRec:
        """The generator that the round starts from.

        Raises:
            TokenizerVersionMismatchError: It belongs to another tokenizer version than the
                catalogue.
        """
        version = self.ids.tokenizer_version
        return load_model(self.start, expected_tokenizer_version=version)[0]

    @cached_property
    def candidates(self) -> Tensor:
        """(N,) bool: items that may be generated."""
        return torch.from_numpy(self.ids.known_before(self.test_day))

    @property
    def lengths(self) -> dict[str, int]:
        """The generator's lengths."""
        model = self.model
        return {"history_length": model.history_length, "session_items": model.session_items}

    def sessions(self, split: str) -> SessionTensors:
        """Good sessions of a split, in the generator's lengths."""
        return load_session_tensors(
            self.session_dataset, split, self.ids, good_only=True, **self.lengths
        )

    def generator(self, decoding: BeamConfig, runtime: Runtime) -> SessionGenerator:
        """The start as a generator of the candidates."""
        device, ids = runtime.torch_device(), self.ids
        trie = Trie.build(ids.codes, ids.codebook_size, self.candidates)
        model = self.model.to(device).eval()
        return SessionGenerator(model, ids.codes.to(device), trie.to(device), decoding)

    def ensemble(self, directory: Path) -> RewardEnsemble:
        """The reward models of an artifact."""
        models = load_ensemble(directory)
        vectors = load_file(self.semantic_ids / "vectors.safetensors")["vectors"]
        return RewardEnsemble(models, vectors, models[0].config)


def round_preferences(
    inputs: RoundInputs,
    decoding: BeamConfig,
    alignment: AlignmentConfig,
    *,
    runtime: Runtime,
    on_batch: OnBatch = lambda done, total: None,
) -> Preferences:
    """Sessions to compare, from where `alignment.pairs` says.

    Args:
        inputs: What is read.
        decoding: Candidates per user, batch size, and whether seen items are left out.
        alignment: What is compared; its seed says whose sessions.
        runtime: Hardware and threads.
        on_batch: Called with contexts done and in all.
    """
    generator, reward = inputs.generator(decoding, runtime), inputs.ensemble(inputs.reward_model)
    with reproducible(runtime):
        if alignment.pairs == "feedback":
            return logged_pairs(
                generator,
                load_reward_blocks(
                    inputs.session_dataset,
                    "train",
                    inputs.ids,
                    history_length=inputs.model.history_length,
                    block_items=inputs.model.session_items,
                ),
                inputs.candidates,
                reward.config,
                num_users=alignment.sample_users,
                seed=alignment.seed,
            )
        contexts = sample_contexts(inputs.sessions("train"), alignment.sample_users, alignment.seed)
        return make_preferences(generator, reward, contexts, alignment, on_batch=on_batch)


def fit_round(
    inputs: RoundInputs,
    preferences: Preferences,
    alignment: AlignmentConfig,
    out_dir: Path,
    *,
    runtime: Runtime,
    on_epoch: Callable[[Numbers], None] = lambda numbers: None,
) -> AlignmentReport:
    """Train on a round's preferences; see `fit_alignment`.

    Args:
        inputs: What is read.
        preferences: Pairs or groups.
        alignment: Losses and optimiser.
        out_dir: Gets the checkpoint and `history.json`.
        runtime: Hardware and threads.
        on_epoch: Called with the numbers of each epoch.
    """
    return fit_alignment(
        inputs.model.cpu(),
        AlignmentData(
            preferences=preferences,
            train=inputs.sessions("train"),
            valid=inputs.sessions("valid"),
            codes=inputs.ids.codes,
        ),
        alignment,
        out_dir,
        tokenizer_version=inputs.ids.tokenizer_version,
        runtime=runtime,
        on_epoch=on_epoch,
    )


def check_round(
    inputs: RoundInputs,
    evaluator: Path,
    trained: OneRec,
    out_dir: Path,
    *,
    alignment: AlignmentConfig,
    decoding: BeamConfig,
    evaluation: EvaluationConfig,
    runtime: Runtime,
) -> RoundDecision:
    """Measure a round and its start; a refused round leaves the start's weights in `out_dir`.

    One session of each of `gate_cases` users of the validation day is a case; without cases every
    round is published.

    Args:
        inputs: What the round read.
        evaluator: Directory of the evaluator model.
        trained: What the round made.
        out_dir: Where its checkpoint lies; gets `round.json`.
        alignment: `gate_cases` and `recall_tolerance`.
        decoding: Beam and batch size.
        evaluation: Confidence, resamples and seed of the intervals.
        runtime: Hardware and threads.

    Raises:
        ValueError: The evaluator was trained on the reward model's users.
    """
    check_evaluator(evaluator, inputs.reward_model)
    cases = sample_contexts(inputs.sessions("valid"), alignment.gate_cases, alignment.seed)
    decision = RoundDecision(True, {}, [], {"cases": 0})
    if len(cases):
        start = inputs.generator(decoding, runtime)
        measured_by = inputs.ensemble(evaluator)
        aligned = replace(start, model=trained.to(runtime.torch_device()).eval())
        with reproducible(runtime):
            before, after = (measure_round(g, measured_by, cases) for g in (start, aligned))
        decision = decide_round(before, after, alignment, evaluation)
    apply_decision(decision, start=inputs.start, out_dir=out_dir)
    return decision


def load_round_preferences(inputs: RoundInputs, directory: Path) -> Preferences:
    """Read what `save_preferences` wrote, against the round's catalogue."""
    return load_preferences(directory, inputs.ids, **inputs.lengths)


def with_sample(alignment: AlignmentConfig, number: int) -> AlignmentConfig:
    """The settings of a round's preferences: each round takes other users."""
    return replace(alignment, seed=alignment.seed + number)
