"""What an A/B test serves with: the app, settings, and the models of one or more nightly runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

from safetensors.torch import load_file as load_tensors

from experiments.ab_test.config import (
    BASELINE_ARMS,
    BY_PROBABILITY,
    BY_TRUTH,
    NIGHTLY_ALIGNED,
    SMALL,
    SMALL_IPA,
    ABTestConfig,
    checkpoint_and_way,
    frozen,
)
from experiments.ab_test.policies import ArmPolicy, ServedCatalogue, serving_generator
from experiments.ab_test.true_choice import TrueChoice
from experiments.true_watch import TrueWatch
from onerec.artifacts import Artifact
from onerec.config import BeamConfig, SessionConfig, require
from onerec.config.evaluation import without_recency
from onerec.datasets.simulated import SimulatedSource
from onerec.evaluation.baselines import FittedBaselines, load_baselines
from onerec.evaluation.generators import load_generator
from onerec.evaluation.reward_weight import ServingReward
from onerec.ranked_lists import Ranker
from onerec.reward import load_reward
from onerec.session_dataset.newest_watches import WatchesBefore
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids


@dataclass(frozen=True, kw_only=True)
class Night:
    """A nightly run whose models serve.

    Attributes:
        day: Its D: its models have seen the log before D, and serve from D on.
        artifacts: `config.NIGHTLY`, and `config.NIGHTLY_ALIGNED` where an arm serves it.
        variants: Directory of each checkpoint that is a variant.
    """

    day: date
    artifacts: Mapping[str, Artifact]
    variants: Mapping[str, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Directory of an artifact."""
        return self.artifacts[name].path

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Directory of each checkpoint."""
        nightly = {SMALL: "pretrained_checkpoint", SMALL_IPA: NIGHTLY_ALIGNED}
        there = {n: self.path(name) for n, name in nightly.items() if name in self.artifacts}
        return {**there, **self.variants}


@dataclass(frozen=True, kw_only=True)
class ABTest:
    """An app, the nightly runs whose models serve it, and settings.

    Attributes:
        source: The simulated app.
        nights: The nightly run of the first day served, and, where arms are retrained daily, of
            each day after it.
        sessions: The first nightly run's settings of sessions.
        decoding: How generators generate.
        config: Of the test.
        trained_seconds: What training took, for the checkpoints that are variants.
        device: Where generators serve.
        on_progress: Called with a line of text now and then.
    """

    source: SimulatedSource
    nights: Sequence[Night]
    sessions: SessionConfig
    decoding: BeamConfig
    config: ABTestConfig
    trained_seconds: Mapping[str, float] = field(default_factory=dict)
    device: str = "cpu"
    on_progress: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        require(
            len(self.nights) == self.config.nights,
            "nights",
            len(self.nights),
            f"give {self.config.nights}, one for each day on which arms serve with other models",
        )

    @property
    def day(self) -> date:
        """D, the first day served."""
        return self.nights[0].day

    @property
    def first(self) -> int:
        """Number of D in the app."""
        return (self.day - self.source.first_day).days

    @property
    def last(self) -> int:
        """Number of the last day served."""
        return self.first + self.config.days - 1


@dataclass(frozen=True)
class NightModels:
    """The models of a nightly run, each loaded when an arm first serves with it.

    Attributes:
        test: What is tested.
        night: The nightly run.
    """

    test: ABTest
    night: Night
    _rankers: dict[str, Ranker] = field(default_factory=dict)

    @cached_property
    def ids(self) -> SemanticIds:
        """Its semantic IDs."""
        return load_semantic_ids(self.night.path("semantic_ids"))

    @cached_property
    def catalogue(self) -> ServedCatalogue:
        """What it may list: the items known on the evening before its D.

        Raises:
            ValueError: The artifacts are not of this simulated app.
        """
        source, day = self.test.source, self.night.day
        number_of_items = len(source.world.items((day - source.first_day).days))
        return ServedCatalogue.of(self.ids, number_of_items, self.ids.known_before(day))

    @cached_property
    def baselines(self) -> FittedBaselines:
        """Its baselines."""
        return load_baselines(self.night.path("baselines"))

    @cached_property
    def reward(self) -> ServingReward:
        """Its reward model."""
        vectors = load_tensors(self.night.path("semantic_ids") / "vectors.safetensors")["vectors"]
        return ServingReward(load_reward(self.night.path("reward_model")), vectors)

    @property
    def watches(self) -> WatchesBefore:
        """What recency priors count."""
        return WatchesBefore(self.night.path("session_dataset"), self.night.day)

    def require_arms(self, arms: Sequence[str]) -> None:
        """Check that there is a model for every arm.

        Raises:
            ValueError: The nightly run fitted no such baseline, or a checkpoint was not given.
        """
        fitted, checkpoints = self.baselines.rankers, self.night.checkpoints
        for arm in arms:
            if frozen(arm) not in fitted and checkpoint_and_way(arm)[0] not in checkpoints:
                raise ValueError(
                    f"arms={self.test.config.arms!r}: {arm} is no baseline that the nightly run of "
                    f"{self.night.day} fitted ({', '.join(fitted)}) nor a generator of it; name it "
                    "in evaluation.baselines and materialise baselines again, or leave the arm out"
                )

    def policy(self, arm: str) -> ArmPolicy:
        """An arm as it serves with the models of this nightly run."""
        if arm not in self._rankers:
            self._rankers[arm] = self._loaded(frozen(arm))
        return ArmPolicy(self._rankers[arm], self.baselines.popularity_recent, self.catalogue)

    def _loaded(self, arm: str) -> Ranker:
        test, config = self.test, self.test.config
        if arm in BASELINE_ARMS:
            fitted = self.baselines.rankers
            name = arm if config.recency_prior else without_recency(arm)
            return fitted.get(name, fitted[arm])  # only those with a weight above 0 have two names
        checkpoint, way = checkpoint_and_way(arm)
        directory = self.night.checkpoints[checkpoint]
        if way == BY_TRUTH:
            last_day = test.source.first_day + timedelta(days=test.last)
            watches = self.watches if config.recency_prior else None
            generator = load_generator(
                directory, self.ids, test.decoding, watches=watches, device=test.device
            )
            return TrueChoice(generator, TrueWatch.of(test.source, self.ids, last_day))
        return serving_generator(
            directory,
            self.ids,
            test.decoding,
            reward=None if way == BY_PROBABILITY else self.reward,
            reward_weight=config.reward_weight,
            watches=self.watches,
            recency_prior=config.recency_prior,
            device=test.device,
        )
