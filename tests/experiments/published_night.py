"""A published night of random sessions: every artifact that experiments stand on, untrained."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from onerec.artifacts import ArtifactStore, write_json
from onerec.config import (
    AlignmentConfig,
    BeamConfig,
    SessionConfig,
    TokenizerConfig,
    TrainingConfig,
    WindowConfig,
)
from onerec.evaluation.baselines import fit_baselines
from onerec.evaluation.metric_table import MetricRow, MetricTable
from onerec.session_dataset.interactions import load_interactions
from onerec.training import Runtime
from tests.core.evaluation import night as small

DAY = small.DAY.isoformat()
SESSIONS = SessionConfig(history_length=small.HISTORY, session_items=small.SESSION)
TOKENIZER = TokenizerConfig(codebook_size=small.CODES, num_levels=2, iterations=2)
TRAINING = TrainingConfig(max_epochs=1, batch_size=32)
DECODING = BeamConfig(beam=20, candidates=4, batch_size=32)
ALIGNMENT = AlignmentConfig(sample_users=12, batch_size=8, epochs=1, gate_cases=0)
COMPARED = (
    "sample_users",
    "seed",
    "method",
    "pairs",
    "group_size",
    "num_rejected",
    "temperature",
)
RUNTIME = Runtime(accelerator="cpu", threads=1)


def publish(
    store: ArtifactStore,
    asset: str,
    fill: Callable[[Path], Any],
    config: dict[str, Any] | None = None,
    **upstream: str,
) -> str:
    """One artifact of the night; returns its version."""
    made = {"config": config or {}, "upstream": upstream, "code_version": "1"}
    with store.write(asset, DAY, **made) as draft:
        fill(draft.path)
    return draft.artifact.version


def publish_night(root: Path) -> ArtifactStore:
    """A store with the night."""
    store, ids = ArtifactStore(str(root)), small.catalogue()
    data = {"sessions": asdict(SESSIONS), "window": asdict(WindowConfig())}
    publish(store, "session_dataset", lambda d: small.write_sessions(d, small.rows()), data)
    book = publish(store, "codebook", lambda d: write_json(d / "x.json", 0), asdict(TOKENIZER))
    publish(store, "semantic_ids", lambda d: small.write_catalogue(d, ids), codebook=book)
    models = {"model": asdict(small.SHAPE), "training": asdict(TRAINING)}
    with torch.random.fork_rng():
        publish(store, "pretrained_checkpoint", lambda d: small.write_generator(d, seed=0), models)
        publish(store, "dpo_checkpoint", _aligned, asdict(ALIGNMENT))
        for part, name, seed in (
            ("reward", "reward_model", 2),
            ("evaluator", "evaluator_model", 3),
        ):
            fill = lambda d, part=part, seed=seed: small.write_reward(d, seed=seed, part=part)  # noqa: E731
            publish(store, name, fill, asdict(small.REWARD))
    sessions = store.latest("session_dataset", DAY).path
    interactions = load_interactions(sessions, ids, test_day=small.DAY)
    fitted = fit_baselines(interactions, ids.known_before(small.DAY), neighbours=5)
    publish(store, "baselines", fitted.save)
    publish(
        store,
        "preference_pairs",
        lambda d: write_json(d / "x.json", 0),
        {
            "decoding": asdict(DECODING),
            **{name: getattr(ALIGNMENT, name) for name in COMPARED},
            "seed": ALIGNMENT.seed + 1,
        },
    )
    measured = asdict(small.EVALUATION) | {"decoding": asdict(DECODING)}
    publish(store, "offline_metrics", _metrics, measured)
    return store


def _aligned(directory: Path) -> None:
    small.write_generator(directory, seed=1)
    write_json(directory / "history.json", {"epochs": [{"kl_to_start": 0.5}]})


def _metrics(directory: Path) -> None:
    rows = (
        MetricRow(system, None, metric, "all", 0.1, 0.1, 0.1, 30)
        for system in ("pretrained", "dpo")
        for metric in ("recall@10", "evaluator_reward")
    )
    MetricTable(tuple(rows)).save(directory)
