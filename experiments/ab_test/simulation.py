"""The simulated A/B test: the paper's Table 2 (OneRec v1, section 5.4) in the simulated app.

Every arm serves the same users on the days D, D + 1, ... with models of the night D. Ground truth
decides what users do and reaches no model.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from experiments.ab_test.config import ALIGNED, CASCADE, RETURNING, UNJUDGED, ABTestConfig
from experiments.ab_test.measures import COUNTS, measure
from experiments.ab_test.policies import (
    SPLITS,
    ArmPolicy,
    Catalogue,
    align,
    baseline_arms,
    generator_arm,
    train_larger,
)
from experiments.ab_test.traffic import Known, ReturnRule, is_watched, serve
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import PipelineConfig
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator.world import Array, numbers
from onerec.evaluation.baselines import Popularity, load_baselines
from onerec.ranked_lists import Ranker
from onerec.session_dataset.histories import load_serving_histories
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from onerec.training import Runtime


@dataclass(frozen=True)
class Measured:
    """What the arms did.

    Attributes:
        sums: (S, D, U, COUNTS) per arm, see `ab_measures`.
        returning: (1, D, U, COUNTS) per arm where good days bring users back sooner; empty where
            that was not asked for.
        filled: Share of each arm's places that popularity filled.
        seconds: What serving and, in this run, training each arm took.
        losses: Validation loss of each checkpoint, in nats per token.
        usual: Share of exposures that were watched in the log before the test.
    """

    sums: Mapping[str, Array]
    returning: Mapping[str, Array]
    filled: Mapping[str, float]
    seconds: Mapping[str, float]
    losses: Mapping[str, float]
    usual: float


@dataclass(frozen=True)
class Night:
    """What the test is about: an app, a night's artifacts, and settings.

    Attributes:
        source: The simulated app.
        store: Gets the larger generator and its aligned one, as artifacts of their own.
        read: The night's artifacts, `ab_config.READ`.
        day: D, the first day served.
        stages: The night's settings.
        config: Of the test.
        code: Version of the code that makes models.
        runtime: What trainings run on.
        device: Where generators serve.
        on_progress: PolicyBatch what goes on.
    """

    source: SimulatedSource
    store: ArtifactStore
    read: Mapping[str, Artifact]
    day: date
    stages: PipelineConfig
    config: ABTestConfig
    code: str
    runtime: Runtime = field(default_factory=Runtime)
    device: str = "cpu"
    on_progress: Callable[[str], None] = lambda message: None

    @property
    def first(self) -> int:
        """Number of D in the app."""
        return (self.day - self.source.first_day).days

    @property
    def last(self) -> int:
        """Number of the last day served."""
        return self.first + self.config.days - 1


@dataclass(frozen=True)
class _Morning:
    """What is the same for every arm."""

    catalogue: Catalogue
    fallback: Popularity
    known: Known
    popularity: Array
    usual: float


def run(night: Night, scratch: Path) -> Measured:
    """Make the arms' models and let each arm serve.

    Args:
        night: What is tested.
        scratch: Keeps what an arm has served; a run that was killed goes on from there.

    Raises:
        ValueError: The artifacts are not of this simulated app.
    """
    config, ids = night.config, load_semantic_ids(night.read["semantic_ids"].path)
    morning = _morning(night, ids)
    rankers, seconds, losses = _make_arms(night, ids)
    passes: dict[str, tuple[int, ReturnRule | None]] = {
        str(seed): (seed, None) for seed in range(config.traffic_seeds)
    }
    if config.return_sensitivity:
        passes[RETURNING] = (0, ReturnRule(config.return_sensitivity, morning.usual))
    sums: dict[str, dict[str, Array]] = {label: {} for label in passes}
    filled: dict[str, float] = {}
    for label, (seed, rule) in passes.items():
        for name, ranker in rankers.items():
            file = scratch / f"{name}-{label}.safetensors"
            kept = _served_once(night, morning, ranker, seed, rule, file)
            sums[label][name] = kept["sums"]
            filled[name] = float(kept["filled"][0])
            seconds[name] = seconds.get(name, 0.0) + float(kept["seconds"][0])
            total = kept["sums"][..., COUNTS.index("watch_seconds")].sum()
            night.on_progress(
                f"{name}, visits {label}: {total:,.0f} s watched, "
                f"{kept['seconds'][0]:,.0f} s of computing"
            )
    seeds = [label for label in passes if label != RETURNING]
    return Measured(
        sums={n: np.stack([sums[label][n] for label in seeds]) for n in rankers},
        returning={n: sums[RETURNING][n][None] for n in rankers} if RETURNING in passes else {},
        filled=filled,
        seconds=seconds,
        losses=losses,
        usual=morning.usual,
    )


def _served_once(
    night: Night,
    morning: _Morning,
    ranker: Ranker,
    traffic_seed: int,
    rule: ReturnRule | None,
    file: Path,
) -> dict[str, Array]:
    """One pass of one arm over the days: read where an earlier run has served it."""
    if not file.exists():
        began = time.monotonic()
        policy = ArmPolicy(ranker, morning.fallback, morning.catalogue)
        days = serve(
            night.source.world,
            policy,
            morning.known,
            first_day=night.day,
            days=night.config.days,
            traffic_seed=traffic_seed,
            sessions=night.stages.sessions,
            rule=rule,
        )
        items = night.source.world.items(night.last)
        options = (items, morning.popularity, len(morning.known.history), night.config.fresh_days)
        sums = []
        for shown in days:
            sums.append(measure(shown, *options))
            night.on_progress(f"{file.stem}: {len(sums)} of {night.config.days} days")
        made = {
            "sums": np.stack(sums),
            "filled": np.array([policy.filled / max(policy.asked, 1)]),
            "seconds": np.array([time.monotonic() - began]),
        }
        aside = file.with_suffix(".part")
        save_file(made, aside)
        aside.replace(file)
    return load_file(file)


def _make_arms(
    night: Night, ids: SemanticIds
) -> tuple[dict[str, Ranker], dict[str, float], dict[str, float]]:
    """The arms asked for; seconds of what was trained; validation losses."""
    names, read, say = night.config.names, night.read, night.on_progress
    stages = night.stages.override({"decoding": {"beam": night.config.beam}})
    seconds: dict[str, float] = {}
    began = time.monotonic()
    baselines = baseline_arms(read, ids, night.day, night.stages)
    seconds[CASCADE] = time.monotonic() - began
    rankers = {n: ranker for n, ranker in baselines.items() if n in names}
    small = read["pretrained_checkpoint"]
    checkpoints = {name: small for name in (UNJUDGED, "small") if name in names}
    options = {"runtime": night.runtime, "code": night.code, "on_progress": say}
    if any(name.startswith("larger") for name in names):
        began = time.monotonic()
        larger = train_larger(
            night.store, read, night.day, night.config.larger(night.stages), **options
        )
        if "larger" in names:
            checkpoints["larger"] = larger
            seconds["larger"] = time.monotonic() - began
        if ALIGNED in names:
            checkpoints[ALIGNED] = align(
                night.store, read, larger, night.day, night.stages, device=night.device, **options
            )
            seconds[ALIGNED] = time.monotonic() - began
    for name, checkpoint in checkpoints.items():
        rankers[name] = generator_arm(
            checkpoint.path,
            read,
            ids,
            stages,
            device=night.device,
            by_reward=name != UNJUDGED,
        )
    trained = {n: a for n, a in checkpoints.items() if "best_valid_loss" in a.manifest["metadata"]}
    losses = {n: a.manifest["metadata"]["best_valid_loss"] for n, a in trained.items()}
    return rankers, seconds, losses


def _morning(night: Night, ids: SemanticIds) -> _Morning:
    """Histories and exposures as of the first morning, from the window before D."""
    world, sessions = night.source.world, night.stages.sessions
    fallback = load_baselines(night.read["baselines"].path).popularity_recent
    items = world.items(night.last)
    number_of_items = len(world.items(night.first))
    catalogue = Catalogue.of(ids, number_of_items, ids.known_before(night.day))
    num_candidates = int(catalogue.candidates.sum())
    nobody = np.empty((1, 0), dtype=np.int64)
    popular = fallback.rank(nobody, num_candidates, candidates=catalogue.candidates).items[0]
    popularity = np.zeros(len(items))
    popularity[catalogue.number[popular]] = np.linspace(1, 0, num_candidates)

    user_ids, history = load_serving_histories(
        night.read["session_dataset"].path,
        ids,
        history_length=sessions.history_length,
        splits=SPLITS,
    )
    everyone = np.full((len(world.users(night.last)), history.shape[1]), -1, np.int64)
    indices = history.numpy()
    everyone[numbers(user_ids)] = np.where(indices >= 0, catalogue.number[indices], -1)

    user, item, day, seconds = _recent_log(night, world.config.repeat_days - 1)
    watched = is_watched(sessions, seconds, items.duration[item])
    usual = float(watched.mean()) if len(watched) else 0.5
    return _Morning(
        catalogue, fallback, Known.at_start(everyone, user, item, day), popularity, usual
    )


def _recent_log(night: Night, days: int) -> tuple[Array, Array, Array, Array]:
    """User, item, day and seconds of the exposures of the last days before D, (E,) each."""
    nothing = np.zeros(0, np.int64)
    parts = [(nothing, nothing, nothing, nothing.astype(float))]
    for number in range(max(night.first - days, 0), night.first):
        events = night.source.events(night.source.first_day + timedelta(days=number))
        user, item = (numbers(events[name].combine_chunks()) for name in ("user_id", "item_id"))
        parts.append((user, item, np.full(len(user), number), events["watch_seconds"].to_numpy()))
    user, item, day, seconds = (np.concatenate(column) for column in zip(*parts, strict=True))
    return user, item, day, seconds
