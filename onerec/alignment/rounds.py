"""One round of alignment from artifact directories: its preferences, its training, its gate.

For the nightly assets and for the variants of an experiment, which run the same round on other
inputs.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from onerec.alignment.candidates import (
    OnBatch,
    ScoreCandidates,
    sample_contexts,
    scored_candidates,
)
from onerec.alignment.logged_pairs import logged_pairs
from onerec.alignment.preferences import Preferences, load_preferences, make_preferences
from onerec.alignment.round_gate import (
    RoundDecision,
    decide_round,
    measure_round,
    why_without_effect,
)
from onerec.alignment.round_inputs import RoundInputs
from onerec.alignment.sharded_candidates import ShardedCandidates
from onerec.alignment.train import AlignmentData, AlignmentReport, Numbers, fit_alignment
from onerec.config import AlignmentConfig, BeamConfig, EvaluationConfig, Runtime
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from onerec.evaluation.reward_weight import (
    ServingReward,
    choose_reward_weight,
    load_held_out_cases,
)
from onerec.model import OneRec, load_model, save_model
from onerec.reward import check_evaluator
from onerec.session_dataset.holdout import held_out_users
from onerec.session_dataset.reward_blocks import load_reward_blocks
from onerec.session_dataset.user_attributes import load_user_attributes
from onerec.shards import ShardPool
from onerec.training.execution import ONE_PROCESS, Execution
from onerec.training.runtime import reproducible


def round_preferences(
    inputs: RoundInputs,
    decoding: BeamConfig,
    alignment: AlignmentConfig,
    *,
    runtime: Runtime,
    pool: ShardPool | None = None,
    score: ScoreCandidates = scored_candidates,
    on_batch: OnBatch = lambda done, total: None,
) -> Preferences:
    """Sessions to compare, from where `alignment.pairs` says.

    Args:
        inputs: What is read.
        decoding: Candidates per user, batch size, and whether seen items are left out.
        alignment: What is compared; its seed says whose sessions.
        runtime: Hardware and threads.
        pool: How contexts are spread over workers; this process alone if not given.
        score: Generates and scores sessions in this process.
        on_batch: Called with contexts done and in all, where nothing is spread.

    Held-out users get no preferences: what is measured on them stays unseen.
    """
    generator, reward = inputs.generator(decoding, runtime), inputs.ensemble(inputs.reward_model)
    with reproducible(runtime):
        if alignment.pairs == "feedback":
            blocks = load_reward_blocks(
                inputs.session_dataset,
                "train",
                inputs.ids,
                history_length=inputs.model.history_length,
                block_items=inputs.model.session_items,
            )
            held_out = held_out_users(inputs.session_dataset, blocks.user_ids)
            return logged_pairs(
                generator,
                blocks.rows(~torch.from_numpy(held_out)[blocks.user]),
                inputs.candidates,
                reward.config,
                num_users=alignment.sample_users,
                seed=alignment.seed,
                attributes=load_user_attributes(inputs.session_dataset, blocks.user_ids),
            )
        learned = inputs.sessions("train", held_out=False)
        contexts = sample_contexts(learned, alignment.sample_users, alignment.seed)
        if pool is not None:
            score = ShardedCandidates(inputs=inputs, decoding=decoding, runtime=runtime, pool=pool)
        return make_preferences(
            generator, reward, contexts, alignment, on_batch=on_batch, score=score
        )


def fit_round(
    inputs: RoundInputs,
    preferences: Preferences,
    alignment: AlignmentConfig,
    out_dir: Path,
    *,
    execution: Execution = ONE_PROCESS,
    on_epoch: Callable[[Numbers], None] = lambda numbers: None,
) -> AlignmentReport:
    """Train on a round's preferences; see `fit_alignment`.

    Args:
        inputs: What is read.
        preferences: Pairs or groups.
        alignment: Losses and optimiser.
        out_dir: Gets the checkpoint and `history.json`.
        execution: Hardware, and where unfinished work lies.
        on_epoch: Called with the numbers of each epoch.
    """
    return fit_alignment(
        inputs.model.cpu(),
        AlignmentData(
            preferences=preferences,
            attributes=load_user_attributes(inputs.session_dataset, preferences.user_ids),
            train=inputs.sessions("train"),
            valid=inputs.sessions("valid", held_out=True),
            codes=inputs.ids.codes,
        ),
        alignment,
        out_dir,
        tokenizer_version=inputs.ids.tokenizer_version,
        execution=execution,
        on_epoch=on_epoch,
    )


def check_round(
    inputs: RoundInputs,
    preferences: Preferences,
    evaluator: Path,
    trained: OneRec,
    *,
    alignment: AlignmentConfig,
    decoding: BeamConfig,
    evaluation: EvaluationConfig,
    runtime: Runtime,
) -> RoundDecision:
    """Measure a round and its start; without cases every round is published.

    Args:
        inputs: What the round read.
        preferences: What it learned.
        evaluator: Directory of the evaluator model.
        trained: What the round made.
        alignment: `gate_cases`, `gate_recall_cases` and `recall_tolerance`.
        decoding: Beam and batch size.
        evaluation: Confidence, resamples and seed of the intervals.
        runtime: Hardware and threads.

    Raises:
        ValueError: The evaluator was trained on the reward model's users.
    """
    check_evaluator(evaluator, inputs.reward_model)
    cases = inputs.gate_cases(preferences, alignment)
    start, measured_by = inputs.generator(decoding, runtime), inputs.ensemble(evaluator)
    aligned = replace(start, model=trained.to(runtime.torch_device()).eval())
    with reproducible(runtime):
        before, after = (measure_round(g, measured_by, cases) for g in (start, aligned))
    return decide_round(before, after, alignment, evaluation, why_without_effect(start.model))


def set_reward_weight(
    inputs: RoundInputs,
    checkpoint: Path,
    *,
    alignment: AlignmentConfig,
    decoding: BeamConfig,
    runtime: Runtime,
) -> NdcgByWeight:
    """Choose the weight of the reward in the lists of a round's checkpoint, and write it there.

    It counts until nightly runs have measured weights on their test days
    (`onerec.evaluation.reward_weight`).

    Args:
        inputs: What the round read.
        checkpoint: What it published; its `config.json` gets the weight.
        alignment: `reward_weights` and how they are chosen; `gate_cases` users at most.
        decoding: Beam, batch size, and whether seen items are left out.
        runtime: Hardware and threads.

    Returns:
        What was measured on the validation day.
    """
    ids, version = inputs.ids, inputs.ids.tokenizer_version
    model, _ = load_model(
        checkpoint, expected_tokenizer_version=version, device=runtime.torch_device()
    )
    reward = inputs.ensemble(inputs.reward_model)
    cases = load_held_out_cases(
        inputs.session_dataset, ids, model, most=alignment.gate_cases, seed=alignment.seed
    )
    with reproducible(runtime):
        measured = choose_reward_weight(
            model,
            ids,
            ServingReward(reward.models[0], reward.vectors),
            cases,
            decoding,
            alignment,
        )
    save_model(model, checkpoint, tokenizer_version=version)
    return measured


def load_round_preferences(inputs: RoundInputs, directory: Path) -> Preferences:
    """Read what `save_preferences` wrote, against the round's catalogue."""
    return load_preferences(directory, inputs.ids, **inputs.lengths)


def with_sample(alignment: AlignmentConfig, number: int) -> AlignmentConfig:
    """The settings of a round's preferences: each round takes other users."""
    return replace(alignment, seed=alignment.seed + number)
