"""The simulated A/B test: the paper's Table 2 (OneRec v1, section 5.4) in the simulated app.

Every arm serves the same users on the days D, D + 1, ... An arm's models are those of the nightly
run D throughout, or, retrained daily, on D + k those of the nightly run D + k: its semantic IDs
with the items that came since, its baselines and checkpoints, its recency prior, its reward model.
A nightly run learns from the app's own log of the days before, which is the traffic of the app's
policy and not the arm's: as when an arm serves a small share of the users. What an arm knows of its
own users, their histories and what it showed them, is its own.

Ground truth decides what users do and reaches no model but those of the oracle rows, which are
ceilings.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from experiments.ab_test.config import (
    GENERATOR_ARMS,
    RETURNING,
    SERVED,
    checkpoint_and_way,
    frozen,
    is_retrained,
)
from experiments.ab_test.measures import COUNTS, daily_sums
from experiments.ab_test.nights import ABTest, NightModels
from experiments.ab_test.traffic import ReturnRule, UserState, is_watched, serve_days
from onerec.artifacts import read_json
from onerec.datasets.simulator.world import Array, numbers
from onerec.session_dataset.histories import load_serving_histories


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
        reward_weights: Of the arms whose lists count the reward; the mean over days where it was
            chosen anew every day.
    """

    sums: Mapping[str, Array]
    returning: Mapping[str, Array]
    filled: Mapping[str, float]
    seconds: Mapping[str, float]
    losses: Mapping[str, float]
    usual: float
    reward_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Morning:
    """Data of the first morning that all arms share.

    Attributes:
        known: Histories, and what was shown on the days before.
        popularity: (N,) of the items in the log before the test, from 0 to 1.
        usual: Share of exposures that were watched.
    """

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
    config, models = test.config, [NightModels(test, night) for night in test.nights]
    for number, night in enumerate(models):
        night.require_arms([n for n in config.names if not number or is_retrained(n)])
    morning = _morning(test, models[0])
    passes: dict[str, tuple[int, ReturnRule | None]] = {
        str(seed): (seed, None) for seed in range(config.traffic_seeds)
    }
    if config.return_sensitivity:
        passes[RETURNING] = (0, ReturnRule(config.return_sensitivity, morning.usual))
    sums: dict[str, dict[str, Array]] = {label: {} for label in passes}
    seconds, filled, weights = {}, {}, {}
    for label, (seed, rule) in passes.items():
        for name in config.names:
            file = scratch / f"{name}-{label}.safetensors"
            kept = _served_once(test, morning, models, name, seed, rule, file)
            sums[label][name] = kept["sums"]
            filled[name] = float(kept["filled"][0])
            if frozen(name) in GENERATOR_ARMS and checkpoint_and_way(name)[1] == SERVED:
                weights[name] = float(kept["reward_weights"].mean())
            seconds.setdefault(name, test.trained_seconds.get(checkpoint_and_way(name)[0], 0.0))
            seconds[name] += float(kept["seconds"][0])
            total = kept["sums"][..., COUNTS.index("watch_seconds")].sum()
            test.on_progress(
                f"{name}, visits {label}: {total:,.0f} s watched, "
                f"{kept['seconds'][0]:,.0f} s of computing"
            )
    seeds = [label for label in passes if label != RETURNING]
    return ABTestResult(
        sums={n: np.stack([sums[label][n] for label in seeds]) for n in config.names},
        returning={n: sums[RETURNING][n][None] for n in config.names}
        if RETURNING in passes
        else {},
        filled=filled,
        seconds=seconds,
        losses=_validation_losses(test),
        usual=morning.usual,
        reward_weights=weights,
    )


def _served_once(
    test: ABTest,
    morning: _Morning,
    models: Sequence[NightModels],
    arm: str,
    traffic_seed: int,
    rule: ReturnRule | None,
    file: Path,
) -> dict[str, Array]:
    """One pass of one arm over the days: read where an earlier run has served it."""
    if not file.exists():
        began, of_day = time.monotonic(), models if is_retrained(arm) else models[:1]
        policies = [night.policy(arm) for night in of_day]
        days = serve_days(
            test.source.world,
            lambda day: policies[min(day - test.first, len(policies) - 1)],
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
        requested = max(sum(policy.requested for policy in policies), 1)
        made = {
            "sums": np.stack(sums),
            "filled": np.array([sum(policy.filled for policy in policies) / requested]),
            "reward_weights": np.array([policy.reward_weight for policy in policies]),
            "seconds": np.array([time.monotonic() - began]),
        }
        aside = file.with_suffix(".part")
        save_file(made, aside)
        aside.replace(file)
    return load_file(file)


def _validation_losses(test: ABTest) -> dict[str, float]:
    """Of the checkpoints served that are pretrainings and recorded one."""
    losses = {}
    for name, directory in test.nights[0].checkpoints.items():
        history = directory / "history.json"
        summary = read_json(history).get("summary", {}) if history.exists() else {}
        if name in test.config.checkpoints and "best_valid_loss" in summary:
            losses[name] = summary["best_valid_loss"]
    return losses


def _morning(test: ABTest, models: NightModels) -> _Morning:
    """Histories and exposures as of the first morning, from the window before D."""
    world, sessions, catalogue = test.source.world, test.sessions, models.catalogue
    items = world.items(test.last)
    num_candidates = int(catalogue.candidates.sum())
    ranked = models.baselines.popularity_recent.rank(
        np.empty((1, 0), dtype=np.int64), num_candidates, candidates=catalogue.candidates
    )
    popularity = np.zeros(len(items))
    popularity[catalogue.number[ranked.items[0]]] = np.linspace(1, 0, num_candidates)

    user_ids, history = load_serving_histories(
        test.nights[0].path("session_dataset"),
        models.ids,
        history_length=sessions.history_length,
        splits=("train", "valid"),
    )
    everyone = np.full((len(world.users(test.last)), history.shape[1]), -1, np.int64)
    indices = history.numpy()
    everyone[numbers(user_ids)] = np.where(indices >= 0, catalogue.number[indices], -1)

    user, item, day, seconds = _recent_log(test, world.config.repeat_days - 1)
    watched = is_watched(sessions, seconds, items.duration[item])
    usual = float(watched.mean()) if len(watched) else 0.5
    return _Morning(UserState.at_start(everyone, user, item, day), popularity, usual)


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
