"""The offline evaluation of a night: every system on the same cases, histories and candidates.

A case is a user with a watched item on day D; candidates are the items first seen before D, all of
them; nobody's seen items are filtered, but in the challenger's two ways to serve. The result is one
flat object of numbers with intervals, and a table with every case's values.

Shapes: C cases, H history items, N items.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

from onerec.artifacts import read_json
from onerec.config import (
    BASELINES,
    BY_PROBABILITY,
    BY_REWARD,
    SERVED,
    BeamConfig,
    EvaluationConfig,
    RewardConfig,
)
from onerec.evaluation import list_metrics, slices
from onerec.evaluation.baselines import (
    Baselines,
    Ranker,
    load_baselines,
)
from onerec.evaluation.bootstrap import Interval, bootstrap_means
from onerec.evaluation.generators import (
    ServingSystem,
    SessionGenerator,
    Translated,
    load_generator,
)
from onerec.evaluation.metrics import per_case_metrics
from onerec.evaluation.sessions import Sessions, audit, lists_as_sessions, session_rewards
from onerec.model.checkpoint import read_config
from onerec.recommender import Recommender
from onerec.reward.model import RewardModel, load_reward
from onerec.reward.user_split import check_evaluator
from onerec.session_dataset.eval_users import load_eval_users
from onerec.session_dataset.reward_blocks import REWARD_LABELS
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids

HEADLINE = 10
"""The list length that tables, slices and the promotion rule speak of."""
COMPARED = (f"recall@{HEADLINE}", f"ndcg@{HEADLINE}", "evaluator_reward", "training_reward")
"""Values whose paired differences between systems are reported."""

Values = dict[str, np.ndarray]
"""(C,) per name; NaN where a case has no value."""


@dataclass(frozen=True, kw_only=True)
class Night:
    """Everything that the systems of one night are measured with.

    Attributes:
        test_day: Day D.
        user_ids: (C,) whose cases.
        history: (C, H) item indices.
        targets: (C, T_max) item indices.
        semantic_ids: The catalogue of day D.
        candidates: (N,) booleans: first seen before D.
        vectors: (N, Dv) item vectors.
        baselines: Fitted on the window.
        reward_models: Reward models by name: `evaluator`, and `training` beside it.
        config: Cutoffs and intervals.
        reward: Weights of the scalar reward.
        session_items: M.
    """

    test_day: date
    user_ids: np.ndarray
    history: np.ndarray
    targets: np.ndarray
    semantic_ids: SemanticIds
    candidates: np.ndarray
    vectors: Tensor
    baselines: Baselines
    reward_models: Mapping[str, RewardModel]
    config: EvaluationConfig
    reward: RewardConfig
    session_items: int


def load_night(
    *,
    test_day: date,
    session_dataset: Path,
    semantic_ids: Path,
    baselines: Path,
    checkpoint: Path,
    evaluator: Path,
    reward_model: Path,
    config: EvaluationConfig,
    reward: RewardConfig,
) -> Night:
    """Read what a night's systems are measured with.

    Args:
        test_day: Day D.
        session_dataset: Directory of the artifact, like the next ones.
        semantic_ids: The catalogue of day D.
        baselines: Fitted on the window.
        checkpoint: A generator; says how long histories and sessions are.
        evaluator: The reward model that measures every system.
        reward_model: Trained the challenger; reported beside the evaluator.
        config: Settings of the evaluation.
        reward: Weights of the scalar reward.

    Raises:
        ValueError: The test day has no case, or the evaluator was trained on the reward's users.
    """
    check_evaluator(evaluator, reward_model)
    shape = read_config(checkpoint)
    ids = load_semantic_ids(semantic_ids)
    candidates = ids.known_before(test_day)
    cases = load_eval_users(
        session_dataset,
        "test",
        ids,
        history_length=shape["history_length"],
        rankable=candidates,
    )
    if not len(cases):
        raise ValueError(
            f"no case on {test_day}: nobody watched an item that was in the catalogue before that "
            "day; ingest the day, or evaluate another one"
        )
    cases = cases.rows(sample_cases(len(cases), config))
    return Night(
        test_day=test_day,
        user_ids=cases.user_ids,
        history=cases.history,
        targets=cases.targets,
        semantic_ids=ids,
        candidates=candidates,
        vectors=load_file(semantic_ids / "vectors.safetensors")["vectors"],
        baselines=load_baselines(baselines),
        reward_models={"evaluator": load_reward(evaluator), "training": load_reward(reward_model)},
        config=config,
        reward=reward,
        session_items=shape["session_items"],
    )


def sample_cases(num_cases: int, config: EvaluationConfig) -> np.ndarray:
    """Rows of the cases that are evaluated: all, or a seeded sample of `max_cases`, in order."""
    if num_cases <= config.max_cases:
        return np.arange(num_cases)
    rng = np.random.default_rng(config.seed)
    return np.sort(rng.choice(num_cases, config.max_cases, replace=False))


@dataclass(frozen=True)
class Measured:
    """One system on one night.

    Attributes:
        values: Per case.
        shares: Numbers of the system as a whole: coverage, Gini, legality.
    """

    values: Values
    shares: dict[str, float]


def measure(night: Night, system: Ranker) -> Measured:
    """Rank, generate and score one system.

    A baseline's list counts as its one session when rewards are computed.
    """
    longest = max(night.config.lengths)
    ranked = np.asarray(system.rank(night.history, top_k=longest))
    values = _list_values(night, ranked)
    top = ranked[:, :HEADLINE]
    shares = {
        f"coverage@{HEADLINE}": list_metrics.coverage(top, night.candidates),
        f"gini@{HEADLINE}": list_metrics.gini(list_metrics.exposure(top, night.candidates)),
    }
    if isinstance(system, SessionGenerator | Translated):
        sessions = system.sessions(night.history)
    else:
        sessions = lists_as_sessions(ranked, session_items=night.session_items)
    values |= rewards(night, sessions)
    if isinstance(system, SessionGenerator):
        found = audit(sessions, night.semantic_ids.codes, night.candidates)
        shares["legal_share"] = found.legal_share
        shares["repeat_free_share"] = found.repeat_free_share
        shares["generated_sessions"] = found.num_sessions
    return Measured(values, shares)


def rewards(night: Night, sessions: Sessions) -> Values:
    """Rewards of a system's sessions by every reward_model."""
    history = torch.from_numpy(night.history)
    values: Values = {}
    for name, reward_model in night.reward_models.items():
        values |= session_rewards(
            reward_model, night.vectors, history, sessions, night.reward, name=name
        )
    return values


def _list_values(night: Night, ranked: np.ndarray) -> Values:
    values = per_case_metrics(ranked, night.targets, night.config.lengths)
    top = ranked[:, :HEADLINE]
    vectors = night.vectors.numpy()
    values[f"diversity@{HEADLINE}"] = list_metrics.intra_list_distance(top, vectors)
    values[f"novelty@{HEADLINE}"] = list_metrics.novelty(top, night.baselines.popularity.weights)
    recall = values[f"recall@{HEADLINE}"]
    for name, members in slices.history_slices(night.history).items():
        values[f"recall@{HEADLINE}_{name}"] = np.where(members, recall, np.nan)
    items = slices.item_slices(night.baselines.exposures, night.candidates)
    for name, members in items.items():
        wanted = slices.targets_in(night.targets, members)
        concerned = (wanted >= 0).any(1)
        column = np.full(len(recall), np.nan)
        if concerned.any():
            part = per_case_metrics(ranked[concerned], wanted[concerned], (HEADLINE,))
            column[concerned] = part[f"recall@{HEADLINE}"]
        values[f"recall@{HEADLINE}_{name}"] = column
    return values


def summarise(night: Night, measured: Mapping[str, Measured]) -> dict[str, float | int | str]:
    """One flat object: `<system>_<metric>` with `_low` and `_high`, and paired differences.

    Args:
        night: What it was measured with.
        measured: The systems; the first generator's audit gives `legal_share`.
    """
    columns = {f"{s}_{n}": v for s, m in measured.items() for n, v in m.values.items()}
    columns |= differences(measured)
    intervals = bootstrap_means(
        np.stack(list(columns.values()), axis=1),
        samples=night.config.bootstrap_samples,
        confidence=night.config.confidence,
        seed=night.config.seed,
    )
    flat: dict[str, float | int | str] = {}
    for name, interval in zip(columns, intervals, strict=True):
        flat |= with_interval(name, interval)
    for system, m in measured.items():
        flat |= {f"{system}_{name}": value for name, value in m.shares.items()}
    audited = [m.shares for m in measured.values() if "legal_share" in m.shares]
    for share in ("legal_share", "repeat_free_share"):
        flat[share] = min(shares[share] for shares in audited) if audited else np.nan
    num_targets = (night.targets >= 0).sum(1)
    flat |= {
        "users": len(night.user_ids),
        "test_day": night.test_day.isoformat(),
        "candidate_items": int(night.candidates.sum()),
        "mean_targets": float(num_targets.mean()),
        "bootstrap_confidence": night.config.confidence,
    }
    return flat


def differences(measured: Mapping[str, Measured]) -> Values:
    """Per-case differences of every generator to the baselines and to the generator before it.

    And of the lists by reward to those by probability.

    `reward_gap` is how much more a generator gained by the reward that trained it than by the
    evaluator: what is above 0 beyond noise is reward hacking.
    """
    generators = [name for name in measured if name not in (*BASELINES, *SERVED)]
    others = [name for name in BASELINES if name in measured and name != "popularity_recent"]
    pairs = [(g, o) for g in generators for o in others]
    pairs += list(zip(generators[1:], generators, strict=False))
    pairs += [(BY_REWARD, BY_PROBABILITY)] if set(SERVED) <= set(measured) else []
    found: Values = {}
    for a, b in pairs:
        gained = {n: measured[a].values[n] - measured[b].values[n] for n in COMPARED}
        gained["reward_gap"] = gained["training_reward"] - gained["evaluator_reward"]
        found |= {f"{a}_minus_{b}_{name}": value for name, value in gained.items()}
    return found


def with_interval(name: str, interval: Interval) -> dict[str, float]:
    """`name`, `name_low`, `name_high`."""
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def reward_aucs(reward_model: Path) -> dict[str, float]:
    """`reward_auc_<tower>` on the validation day with `_low` and `_high` (bootstrap over rows).

    NaN where only one kind of row was seen, and for ends that an older reward model did not store.
    """
    towers = read_json(reward_model / "metrics.json")["towers"]
    found = {
        f"reward_auc_{tower}{end}": towers[tower].get(f"auc{end}")
        for tower in REWARD_LABELS
        for end in ("", "_low", "_high")
    }
    return {name: np.nan if value is None else value for name, value in found.items()}


def write_cases(path: Path, night: Night, measured: Mapping[str, Measured]) -> int:
    """Every case's values, a row per user and a column per system and metric; returns the rows."""
    columns = {
        "user_id": pa.array(night.user_ids, pa.string()),
        "history_items": (night.history >= 0).sum(1),
        "targets": (night.targets >= 0).sum(1),
    }
    columns |= {f"{s}_{n}": v for s, m in measured.items() for n, v in m.values.items()}
    pq.write_table(pa.table(columns), path)
    return len(night.user_ids)


def evaluate(
    night: Night,
    generators: Mapping[str, Path],
    decoding: BeamConfig,
    *,
    device: str = "cpu",
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Measured]:
    """Measure the baselines that the settings name, each generator, and the last one as it serves.

    Args:
        night: What to measure with.
        generators: Checkpoint directory by name, the challenger last.
        decoding: Beam and batch size.
        device: Where generators run.
        on_progress: Called with a line of text now and then.

    Raises:
        ValueError: A baseline was not fitted.
    """
    rankers = night.baselines.rankers
    missing = [name for name in night.config.systems if name not in rankers]
    if missing:
        raise ValueError(
            f"baselines={night.config.baselines!r}: {', '.join(missing)} is not among the night's "
            f"fitted baselines ({', '.join(rankers)}); materialise baselines with the same setting"
        )
    models = {
        name: load_generator(
            checkpoint, night.semantic_ids, night.candidates, decoding, device=device
        )
        for name, checkpoint in generators.items()
    }
    systems: dict[str, Ranker] = {name: rankers[name] for name in night.config.systems} | models
    if models:
        systems |= ways_to_serve(night, [*models.values()][-1], decoding)
    measured = {}
    for name, system in systems.items():
        on_progress(f"{name}: {len(night.user_ids)} cases")
        measured[name] = measure(night, system)
    return measured


def ways_to_serve(
    night: Night, challenger: SessionGenerator, decoding: BeamConfig
) -> dict[str, ServingSystem]:
    """A generator as `Recommender` serves it, without and with the night's reward model."""
    candidates = torch.from_numpy(night.candidates).to(challenger.model.device)

    def served(reward: RewardModel | None) -> ServingSystem:
        # copies, because it serves in a precision of its own
        return ServingSystem(
            Recommender(
                copy.deepcopy(challenger.model),
                night.semantic_ids,
                config=decoding,
                reward=copy.deepcopy(reward),
                vectors=None if reward is None else night.vectors,
                allowed=candidates,
            )
        )

    return {BY_PROBABILITY: served(None), BY_REWARD: served(night.reward_models["training"])}
