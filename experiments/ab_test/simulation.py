"""The simulated A/B test: the paper's Table 2 (OneRec v1, section 5.4) in the simulated app.

Every arm serves the same users on the days D, D + 1, ... with models of the nightly run D. Ground
truth decides what users do and reaches no model but those of the oracle rows, which are ceilings.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors

from experiments.ab_test.config import (
    BASELINE_ARMS,
    BY_PROBABILITY,
    BY_TRUTH,
    GENERATOR_ARMS,
    RETURNING,
    SMALL,
    ABTestConfig,
    checkpoint_and_way,
)
from experiments.ab_test.measures import COUNTS, daily_sums
from experiments.ab_test.policies import (
    ArmPolicy,
    ServedCatalogue,
    serving_generator,
)
from experiments.ab_test.traffic import ReturnRule, UserState, is_watched, serve_days
from experiments.ab_test.true_choice import TrueChoice
from experiments.true_watch import TrueWatch
from onerec.artifacts import Artifact, read_json
from onerec.config import BeamConfig, SessionConfig
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator.world import Array, numbers
from onerec.evaluation.baselines import Popularity, load_baselines
from onerec.evaluation.generators import load_generator
from onerec.evaluation.reward_weight import ServingReward
from onerec.ranked_lists import Ranker
from onerec.reward import load_reward
from onerec.serving.recommender import Recommender
from onerec.session_dataset.histories import load_serving_histories
from onerec.session_dataset.newest_watches import WatchesBefore
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids


@dataclass(frozen=True)
class ABTestResult:
    """Measurements of all arms.

    Attributes:
        sums: (S, D, U, COUNTS) per arm, see `measures`.
        returning: (1, D, U, COUNTS) per arm where good days bring users back sooner; empty without
            that pass.
        filled: Share of each arm's list positions that popularity filled.
        seconds: What training and serving each arm took.
        losses: Validation loss of each checkpoint that recorded one, in nats per token.
        usual: Share of exposures that were watched in the log before the test.
        reward_weights: Of the arms whose lists count the reward, as the validation day chose it.
    """

    sums: Mapping[str, Array]
    returning: Mapping[str, Array]
    filled: Mapping[str, float]
    seconds: Mapping[str, float]
    losses: Mapping[str, float]
    usual: float
    reward_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ABTest:
    """An app, the models that serve it, and settings.

    Attributes:
        source: The simulated app.
        artifacts: Of the nightly run, `config.NIGHTLY`.
        variants: Directory of each checkpoint that is a variant.
        day: D, the first day served.
        sessions: The nightly run's settings of sessions.
        decoding: How generators generate.
        config: Of the test.
        trained_seconds: What training took, for the checkpoints that are variants.
        device: Where generators serve.
        on_progress: Called with a line of text now and then.
    """

    source: SimulatedSource
    artifacts: Mapping[str, Artifact]
    day: date
    sessions: SessionConfig
    decoding: BeamConfig
    config: ABTestConfig
    variants: Mapping[str, Path] = field(default_factory=dict)
    trained_seconds: Mapping[str, float] = field(default_factory=dict)
    device: str = "cpu"
    on_progress: Callable[[str], None] = lambda message: None

    def path(self, name: str) -> Path:
        """Directory of a nightly artifact."""
        return self.artifacts[name].path

    @property
    def first(self) -> int:
        """Number of D in the app."""
        return (self.day - self.source.first_day).days

    @property
    def last(self) -> int:
        """Number of the last day served."""
        return self.first + self.config.days - 1


@dataclass(frozen=True)
class _ServedDay:
    """Data of the first day that all arms share."""

    catalogue: ServedCatalogue
    fallback: Popularity
    known: UserState
    popularity: Array
    usual: float


def run_ab_test(test: ABTest, scratch: Path) -> ABTestResult:
    """Let each arm serve.

    Args:
        test: What is tested.
        scratch: Keeps what an arm has served; a run that was killed goes on from there.

    Raises:
        ValueError: The artifacts are not of this simulated app, or an arm has no model.
    """
    config, ids = test.config, load_semantic_ids(test.path("semantic_ids"))
    morning = _morning(test, ids)
    rankers = _arms(test, ids)
    passes: dict[str, tuple[int, ReturnRule | None]] = {
        str(seed): (seed, None) for seed in range(config.traffic_seeds)
    }
    if config.return_sensitivity:
        passes[RETURNING] = (0, ReturnRule(config.return_sensitivity, morning.usual))
    sums: dict[str, dict[str, Array]] = {label: {} for label in passes}
    seconds, filled = {}, {}
    for label, (seed, rule) in passes.items():
        for name, ranker in rankers.items():
            file = scratch / f"{name}-{label}.safetensors"
            kept = _served_once(test, morning, ranker, seed, rule, file)
            sums[label][name] = kept["sums"]
            filled[name] = float(kept["filled"][0])
            seconds.setdefault(name, test.trained_seconds.get(checkpoint_and_way(name)[0], 0.0))
            seconds[name] += float(kept["seconds"][0])
            total = kept["sums"][..., COUNTS.index("watch_seconds")].sum()
            test.on_progress(
                f"{name}, visits {label}: {total:,.0f} s watched, "
                f"{kept['seconds'][0]:,.0f} s of computing"
            )
    seeds = [label for label in passes if label != RETURNING]
    return ABTestResult(
        sums={n: np.stack([sums[label][n] for label in seeds]) for n in rankers},
        returning={n: sums[RETURNING][n][None] for n in rankers} if RETURNING in passes else {},
        filled=filled,
        seconds=seconds,
        losses=_validation_losses(test),
        usual=morning.usual,
        reward_weights={
            name: ranker.model.reward_weight
            for name, ranker in rankers.items()
            if isinstance(ranker, Recommender) and ranker.reward is not None
        },
    )


def _served_once(
    test: ABTest,
    morning: _ServedDay,
    ranker: Ranker,
    traffic_seed: int,
    rule: ReturnRule | None,
    file: Path,
) -> dict[str, Array]:
    """One pass of one arm over the days: read where an earlier run has served it."""
    if not file.exists():
        began = time.monotonic()
        policy = ArmPolicy(ranker, morning.fallback, morning.catalogue)
        days = serve_days(
            test.source.world,
            policy,
            morning.known,
            first_day=test.day,
            days=test.config.days,
            traffic_seed=traffic_seed,
            sessions=test.sessions,
            rule=rule,
        )
        items = test.source.world.items(test.last)
        options = (items, morning.popularity, len(morning.known.history), test.config.fresh_days)
        sums = []
        for shown in days:
            sums.append(daily_sums(shown, *options))
            test.on_progress(f"{file.stem}: {len(sums)} of {test.config.days} days")
        made = {
            "sums": np.stack(sums),
            "filled": np.array([policy.filled / max(policy.requested, 1)]),
            "seconds": np.array([time.monotonic() - began]),
        }
        aside = file.with_suffix(".part")
        save_file(made, aside)
        aside.replace(file)
    return load_file(file)


def _arms(test: ABTest, ids: SemanticIds) -> dict[str, Ranker]:
    """What ranks or generates, per arm.

    Raises:
        ValueError: The nightly run fitted no such baseline, or no variant was given for an arm.
    """
    names = test.config.names
    fitted = load_baselines(test.path("baselines")).rankers
    checkpoints = _checkpoints(test)
    made = {*fitted, *(n for n in GENERATOR_ARMS if checkpoint_and_way(n)[0] in checkpoints)}
    missing = [name for name in names if name not in made]
    if missing:
        raise ValueError(
            f"arms={test.config.arms!r}: {missing[0]} is no baseline that the nightly run fitted "
            f"({', '.join(fitted)}) nor a generator of it; name it in evaluation.baselines and "
            "materialise baselines again, or leave the arm out"
        )
    vectors = load_tensors(test.path("semantic_ids") / "vectors.safetensors")["vectors"]
    reward = ServingReward(load_reward(test.path("reward_model")), vectors)
    arms: dict[str, Ranker] = {name: fitted[name] for name in names if name in BASELINE_ARMS}
    for name in (n for n in names if n in GENERATOR_ARMS):
        checkpoint, way = checkpoint_and_way(name)
        directory = checkpoints[checkpoint]
        if way == BY_TRUTH:
            arms[name] = _true_choice(test, ids, directory)
            continue
        arms[name] = serving_generator(
            directory,
            ids,
            test.decoding,
            reward=None if way == BY_PROBABILITY else reward,
            watches=WatchesBefore(test.path("session_dataset"), test.day),
            device=test.device,
        )
    return arms


def _true_choice(test: ABTest, ids: SemanticIds, checkpoint: Path) -> TrueChoice:
    last_day = test.source.first_day + timedelta(days=test.last)
    generator = load_generator(
        checkpoint,
        ids,
        test.decoding,
        watches=WatchesBefore(test.path("session_dataset"), test.day),
        device=test.device,
    )
    return TrueChoice(generator, TrueWatch.of(test.source, ids, last_day))


def _checkpoints(test: ABTest) -> dict[str, Path]:
    return {SMALL: test.path("pretrained_checkpoint"), **test.variants}


def _validation_losses(test: ABTest) -> dict[str, float]:
    """Of the checkpoints served that are pretrainings and recorded one."""
    losses = {}
    for name, directory in _checkpoints(test).items():
        history = directory / "history.json"
        summary = read_json(history).get("summary", {}) if history.exists() else {}
        if name in test.config.checkpoints and "best_valid_loss" in summary:
            losses[name] = summary["best_valid_loss"]
    return losses


def _morning(test: ABTest, ids: SemanticIds) -> _ServedDay:
    """Histories and exposures as of the first morning, from the window before D."""
    world, sessions = test.source.world, test.sessions
    fallback = load_baselines(test.path("baselines")).popularity_recent
    items = world.items(test.last)
    number_of_items = len(world.items(test.first))
    catalogue = ServedCatalogue.of(ids, number_of_items, ids.known_before(test.day))
    num_candidates = int(catalogue.candidates.sum())
    no_history = np.empty((1, 0), dtype=np.int64)
    popular = fallback.rank(no_history, num_candidates, candidates=catalogue.candidates).items[0]
    popularity = np.zeros(len(items))
    popularity[catalogue.number[popular]] = np.linspace(1, 0, num_candidates)

    user_ids, history = load_serving_histories(
        test.path("session_dataset"),
        ids,
        history_length=sessions.history_length,
        splits=("train", "valid"),
    )
    everyone = np.full((len(world.users(test.last)), history.shape[1]), -1, np.int64)
    indices = history.numpy()
    everyone[numbers(user_ids)] = np.where(indices >= 0, catalogue.number[indices], -1)

    user, item, day, seconds = _recent_log(test, world.config.repeat_days - 1)
    watched = is_watched(sessions, seconds, items.duration[item])
    usual = float(watched.mean()) if len(watched) else 0.5
    return _ServedDay(
        catalogue, fallback, UserState.at_start(everyone, user, item, day), popularity, usual
    )


def _recent_log(test: ABTest, days: int) -> tuple[Array, Array, Array, Array]:
    """User, item, day and seconds of the exposures of the last days before D, (E,) each."""
    nothing = np.zeros(0, np.int64)
    parts = [(nothing, nothing, nothing, nothing.astype(float))]
    for number in range(max(test.first - days, 0), test.first):
        events = test.source.events(test.source.first_day + timedelta(days=number))
        user, item = (numbers(events[name].combine_chunks()) for name in ("user_id", "item_id"))
        parts.append((user, item, np.full(len(user), number), events["watch_seconds"].to_numpy()))
    user, item, day, seconds = (np.concatenate(column) for column in zip(*parts, strict=True))
    return user, item, day, seconds
