"""The scorers that the reward model is compared with, fitted on the same users and days.

Shapes: S seeds, R blocks, N items.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import Tensor

from experiments.reward_quality.baselines import fit_base_rates, fit_lightgbm
from onerec.config import RewardConfig
from onerec.embeddings.item_embeddings import vectors_before_validation
from onerec.reward.ensemble import load_ensemble
from onerec.reward.scoring import score_blocks
from onerec.reward.training import blocks_of, fit_reward, users_of_part, with_facts_of
from onerec.schema import SPLITS
from onerec.session_dataset.item_attributes import load_item_attributes
from onerec.session_dataset.reader import read_session_config
from onerec.session_dataset.reward_blocks import RewardBlocks, load_reward_blocks
from onerec.session_dataset.reward_facts import ExposureLog, load_exposure_log
from onerec.tokenizer.semantic_ids import load_semantic_ids


@dataclass(frozen=True)
class EvaluationBlocks:
    """Blocks that scorers are fitted on and measured on.

    Attributes:
        train: Training days of the reward part's users.
        stop: Validation day of the reward part's users, for early stopping.
        test: Test day of all users.
        items: Exposures of the test day as blocks of one item.
        vectors: (N, Dv) item vectors, to measure with.
        vectors_before_validation: (N, Dv) without that day's co-watching, to fit with.
    """

    train: RewardBlocks
    stop: RewardBlocks
    test: RewardBlocks
    items: RewardBlocks
    vectors: Tensor
    vectors_before_validation: Tensor


@dataclass(frozen=True)
class SystemScores:
    """Probabilities of one system, per seed.

    Attributes:
        test: (S, R, T) for the test day's blocks.
        items: (S, R, T) for the test day's single items.
        seconds: Time of fitting all seeds.
    """

    test: Tensor
    items: Tensor
    seconds: float


def load_blocks(
    session_dataset: Path, semantic_ids: Path, config: RewardConfig
) -> EvaluationBlocks:
    """Read blocks; the threshold of `swt` is that of the training split for all of them.

    Args:
        session_dataset: Files of the artifact.
        semantic_ids: Files of the artifact, with `vectors.safetensors`.
        config: Of the reward model: which users it learns from.

    Raises:
        ValueError: The test day has no block.
    """
    ids, sessions = load_semantic_ids(semantic_ids), read_session_config(session_dataset)
    session_items = sessions.session_items
    attributes = load_item_attributes(session_dataset, ids)
    log = None
    if attributes is not None and config.facts:
        log = load_exposure_log(session_dataset, ids, attributes, SPLITS)

    def load(split: str, block_items: int, like: RewardBlocks | None = None) -> RewardBlocks:
        blocks = load_reward_blocks(
            session_dataset,
            split,
            ids,
            history_length=sessions.history_length,
            block_items=block_items,
            thresholds=None if like is None else like.thresholds,
            attributes=attributes,
        )
        if log is None:
            return blocks
        counted = users_of_part(log.user_ids, config, "reward")
        return dataclasses.replace(with_facts_of(log, blocks, counted), log=log)

    train = load("train", session_items)
    valid = load("valid", session_items, train)
    items, test = load("test", 1, train), load("test", session_items, train)
    if not len(test):
        raise ValueError(
            f"{session_dataset}: its test day has no block to measure on; make a run whose day "
            "has sessions"
        )
    return EvaluationBlocks(
        train=blocks_of(train, config, "reward"),
        stop=blocks_of(valid, config, "reward"),
        test=test,
        items=_counted_in_blocks(items, session_items, log),
        vectors=load_file(semantic_ids / "vectors.safetensors")["vectors"],
        vectors_before_validation=torch.from_numpy(vectors_before_validation(semantic_ids)),
    )


def _counted_in_blocks(
    items: RewardBlocks, session_items: int, log: ExposureLog | None
) -> RewardBlocks:
    """Single items, with the place of the block in which they were shown."""
    place, facts = items.place // session_items, items.user_facts.clone()
    if log is not None:
        facts[:, log.user_fact_names.index("place")] = place.float()
    return dataclasses.replace(items, place=place, user_facts=facts)


def fit_systems(
    blocks: EvaluationBlocks,
    config: RewardConfig,
    *,
    seeds: int,
    on_progress: Callable[[str], None] = lambda line: None,
) -> dict[str, SystemScores]:
    """Fit every system of the tables and score all blocks with it."""
    systems: dict[str, SystemScores] = {}

    def scored(name: str, began: float, score: Callable[[RewardBlocks], list[Tensor]]) -> None:
        seconds = time.monotonic() - began
        parts = [torch.stack(score(b)).double() for b in (blocks.test, blocks.items)]
        systems[name] = SystemScores(*parts, seconds=seconds)
        on_progress(f"{name}: {seconds:.0f} s")

    began = time.monotonic()
    rates = fit_base_rates(blocks.train)
    scored("base_rate", began, lambda part: [rates.score(part, blocks.vectors)])
    began = time.monotonic()
    lightgbm = fit_lightgbm(
        blocks.train, blocks.stop, blocks.vectors_before_validation, seed=config.seed
    )
    scored("lightgbm", began, lambda part: [lightgbm.score(part, blocks.vectors)])
    names = ", ".join(signal.name for signal in blocks.train.signals)
    on_progress(f"lightgbm: {lightgbm.trees()} trees for {names}")
    began = time.monotonic()
    models = _fit_seeds(config, blocks, seeds, on_progress)
    scored("reward_model", began, models)
    if seeds > 1:
        systems["reward_ensemble"] = _mean_of(systems["reward_model"])
    for name, change in (
        ("network_alone", {"boosting": False}),
        ("no_similarity", {"history_similarity": False}),
        ("history_mean", {"target_attention": False}),
        ("no_facts", {"facts": False}),
    ):
        if blocks.train.log is None and name in ("network_alone", "no_facts"):
            continue
        began = time.monotonic()
        changed = dataclasses.replace(config, **change)
        models = _fit_seeds(changed, blocks, seeds, on_progress)
        scored(name, began, models)
    began = time.monotonic()
    without = {n: _without_history(getattr(blocks, n)) for n in ("train", "stop")}
    blind = _fit_seeds(config, dataclasses.replace(blocks, **without), seeds, on_progress)
    scored("no_history", began, lambda part: blind(_without_history(part)))
    return systems


def _fit_seeds(
    config: RewardConfig,
    blocks: EvaluationBlocks,
    seeds: int,
    on_progress: Callable[[str], None],
) -> Callable[[RewardBlocks], list[Tensor]]:
    """Train members with other seeds on the same users; returns a function that scores blocks."""
    several = dataclasses.replace(config, ensemble_size=seeds)
    with TemporaryDirectory() as directory:
        fit_reward(
            several,
            blocks.train,
            blocks.stop,
            blocks.vectors_before_validation,
            Path(directory),
            on_epoch=lambda n: on_progress(f"  epoch {n['epoch']}: {n['valid_loss']}"),
        )
        models = load_ensemble(Path(directory))
    vectors = blocks.vectors
    return lambda part: [score_blocks(m, vectors, part) for m in models]


def _without_history(blocks: RewardBlocks) -> RewardBlocks:
    return dataclasses.replace(blocks, history=torch.full_like(blocks.history, -1))


def _mean_of(system: SystemScores) -> SystemScores:
    parts = [x.mean(0, keepdim=True) for x in (system.test, system.items)]
    return SystemScores(*parts, seconds=system.seconds)
