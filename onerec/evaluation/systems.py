"""The systems of a nightly run: baselines, generators, champion, aligned model as it serves."""

import copy
from dataclasses import dataclass
from pathlib import Path

from onerec.config import (
    ALIGNED,
    BY_PROBABILITY,
    CHAMPION,
    PRETRAINED,
    SIMPLE_SYSTEMS,
    WITH_REWARD,
    WITHOUT_RECENCY,
    BeamConfig,
    without_recency,
)
from onerec.evaluation.data import EvaluationData
from onerec.evaluation.generators import SessionGenerator, load_generator, load_incumbent
from onerec.ranked_lists import Ranker
from onerec.serving.recommender import Recommender
from onerec.tokenizer.semantic_ids import load_semantic_ids


@dataclass(frozen=True)
class System:
    """A system to evaluate.

    Attributes:
        ranker: Makes its lists; its sessions too where it is a generator.
        references: Names of the systems that it is compared with, user by user.
        excludes_seen: The items of a user's history are left out of the lists.
    """

    ranker: Ranker
    references: tuple[str, ...] = ()
    excludes_seen: bool = False


@dataclass(frozen=True, kw_only=True)
class NightlyGenerators:
    """Directories of the checkpoints of a nightly run.

    Attributes:
        pretrained: Before alignment.
        aligned: After it.
        champion: The bundle of the champion before; None where there is none.
    """

    pretrained: Path
    aligned: Path
    champion: Path | None = None


def nightly_systems(
    data: EvaluationData,
    generators: NightlyGenerators,
    decoding: BeamConfig,
    *,
    reward_weight: float | None = None,
    device: str = "cpu",
) -> dict[str, System]:
    """Every system by its name in the metrics.

    The pretrained and the aligned generator are compared with the baselines and with the champion,
    since either may be the challenger; the aligned one also with the pretrained one, and the
    champion with the simple systems. Lists without seen items compare
    with nothing but one another.

    Args:
        data: What they are evaluated with.
        generators: Their checkpoints.
        decoding: Beam and batch size.
        reward_weight: How much the reward counts in the lists of `WITH_REWARD`; None: as much as
            the aligned checkpoint says.
        device: Where generators run; the baselines of `data` are on a device already.

    Raises:
        ValueError: A baseline was not fitted.
    """
    systems = baseline_systems(data)
    baselines = tuple(systems)
    pretrained, aligned = (
        load_generator(
            checkpoint,
            data.semantic_ids,
            decoding,
            watches=data.watches,
            vectors=data.vectors,
            device=device,
        )
        for checkpoint in (generators.pretrained, generators.aligned)
    )
    if reward_weight is not None:
        aligned.model.reward_weight = reward_weight
    before = () if generators.champion is None else (CHAMPION,)
    systems[PRETRAINED] = System(pretrained, (*baselines, *before))
    if pretrained.trie.prior is not None:
        systems[WITHOUT_RECENCY] = System(pretrained.without_prior(), baselines)
        systems[PRETRAINED] = System(pretrained, (*baselines, WITHOUT_RECENCY, *before))
    if generators.champion is not None:
        champion = load_incumbent(
            generators.champion,
            load_semantic_ids(generators.champion),
            data.semantic_ids,
            decoding,
            test_day=data.test_day,
            watches=data.watches,
            vectors=data.vectors,
            device=device,
        )
        systems[CHAMPION] = System(champion, tuple(s for s in SIMPLE_SYSTEMS if s in systems))
    systems[ALIGNED] = System(aligned, (*data.config.systems, PRETRAINED, *before))
    return systems | serving_systems(data, aligned, decoding)


def baseline_systems(data: EvaluationData) -> dict[str, System]:
    """The baselines that the settings name.

    Raises:
        ValueError: One was not fitted.
    """
    rankers = data.baselines.rankers
    missing = [name for name in data.config.systems if name not in rankers]
    if missing:
        raise ValueError(
            f"baselines={data.config.baselines!r}: {', '.join(missing)} is not among the "
            f"fitted baselines ({', '.join(rankers)}); materialise baselines with the same setting"
        )
    named = [n for s in data.config.systems for n in (without_recency(s), s) if n in rankers]
    return {name: System(rankers[name]) for name in named}


def serving_systems(
    data: EvaluationData, generator: SessionGenerator, decoding: BeamConfig
) -> dict[str, System]:
    """A generator as `Recommender` serves it, without and with the weighted reward."""
    seen = decoding.filter_seen
    plain = served_recommender(data, generator, decoding)
    counts = generator.model.reward_weight > 0
    rewarded = served_recommender(data, generator, decoding, with_reward=counts)
    return {
        BY_PROBABILITY: System(plain, excludes_seen=seen),
        WITH_REWARD: System(rewarded, (BY_PROBABILITY,), excludes_seen=seen),
    }


def served_recommender(
    data: EvaluationData,
    generator: SessionGenerator,
    decoding: BeamConfig,
    *,
    with_reward: bool = False,
) -> Recommender:
    """A generator as users get its lists: a copy, because it serves in a precision of its own.

    Args:
        data: The catalogue, the item vectors and the reward model that trained the generator.
        generator: The aligned generator.
        decoding: Beam, batch size and precision.
        with_reward: Whether the reward counts, with the weight `generator.model.reward_weight`.
    """
    return Recommender(
        copy.deepcopy(generator.model),
        data.semantic_ids,
        config=decoding,
        reward=copy.deepcopy(data.reward_models["training"]) if with_reward else None,
        vectors=data.vectors if with_reward else None,
        prior=generator.trie.prior,
    )
