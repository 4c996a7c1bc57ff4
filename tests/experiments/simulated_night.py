"""A night of a very small simulated app, with untrained models: what the A/B test reads."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import numpy as np

from experiments.ab_test.config import MEASURED, NIGHTLY, NIGHTLY_ALIGNED
from experiments.ab_test.traffic import is_watched
from onerec.artifacts import Artifact, ArtifactStore, write_json
from onerec.config import PipelineConfig
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator.config import SimulatorConfig
from onerec.datasets.simulator.world import item_ids, numbers
from onerec.evaluation.baselines import fit_baselines
from onerec.evaluation.baselines.cascade import fit_cascade
from onerec.session_dataset.interactions import load_interactions
from tests.core.evaluation import night as small

DAY = small.DAY
APP = SimulatorConfig(
    first_day=DAY - timedelta(days=4),
    initial_users=60,
    initial_items=small.NUM_ITEMS - 5,
    new_items_per_day=1,
    activity=0.5,
    repeat_days=2,
)
STAGES = PipelineConfig().override(
    {
        "sessions": {"history_length": small.HISTORY, "session_items": small.SESSION},
        "model": dataclasses.asdict(small.SHAPE),
        "training": {"max_epochs": 1},
        "decoding": {"beam": 4, "candidates": 4},
        "alignment": {"sample_users": 30, "epochs": 1},
        "evaluation": {"neighbours": 5},
    }
)


def publish(
    store: ArtifactStore, stages: PipelineConfig = STAGES, *, partition: str = DAY.isoformat()
) -> dict[str, Artifact]:
    """Everything the test reads, made from the app's own log before `DAY`; for another partition
    the same, as if nothing had been retrained."""
    source, ids = SimulatedSource(APP), catalogue()
    length = {
        "history_length": stages.sessions.history_length,
        "session_items": stages.sessions.session_items,
    }

    def baselines(directory: Path) -> None:
        sessions = artifact("session_dataset").path
        log = load_interactions(sessions, ids, test_day=DAY)
        fitted = fit_baselines(log, ids.known_before(DAY), neighbours=5)
        settings = {"neighbours": 5, "history_length": stages.sessions.history_length, "seed": 0}
        cascade = fit_cascade(sessions, ids, fitted.candidates, test_day=DAY, **settings)
        dataclasses.replace(fitted, learned={"cascade": cascade}).save(directory)

    fills = {
        "session_dataset": lambda d: small.write_sessions(d, rows(source, stages)),
        "semantic_ids": lambda d: small.write_catalogue(d, ids),
        "baselines": baselines,
        "pretrained_checkpoint": lambda d: small.write_generator(d, seed=0, **length),
        NIGHTLY_ALIGNED: lambda d: small.write_generator(d, seed=2, **length),
        "reward_model": lambda d: small.write_reward(d, seed=1),
        MEASURED: lambda d: write_json(d / "metrics.json", {}),
    }

    def artifact(name: str) -> Artifact:
        return store.latest(name, partition)

    config = {
        "sessions": dataclasses.asdict(stages.sessions),
        "decoding": dataclasses.asdict(stages.decoding),
    }
    for name in (*NIGHTLY, NIGHTLY_ALIGNED, MEASURED):
        made_with = {"config": config, "upstream": {}, "code_version": "1"}
        with store.write(name, partition, **made_with) as draft:
            fills[name](draft.path)
    return {name: artifact(name) for name in NIGHTLY}


def catalogue():
    """All of the app's items of day D; those of D itself are no candidates."""
    ids = small.catalogue(late=0)
    published = SimulatedSource(APP).world.items(4).published
    day = np.datetime64(APP.first_day, "D") + np.maximum(np.floor(published), 0).astype(int)
    names = np.array(item_ids(np.arange(small.NUM_ITEMS)).to_pylist(), dtype=object)
    return dataclasses.replace(ids, item_ids=names, first_seen=day)


def rows(source: SimulatedSource, stages: PipelineConfig) -> list[dict]:
    """A session per user and day, with histories."""
    duration, seen = source.world.items(4).duration, {}
    sessions = []
    for back in (4, 3, 2, 1, 0):
        day = DAY - timedelta(days=back)
        table = source.events(day)
        item = numbers(table["item_id"].combine_chunks())
        watched = is_watched(stages.sessions, table["watch_seconds"].to_numpy(), duration[item])
        events = table.select(["user_id", "item_id"]).to_pandas().assign(watched=watched)
        for user, mine in events.groupby("user_id"):
            before = seen.setdefault(user, [])
            history = before[-stages.sessions.history_length :]
            sessions.append(
                small.session(
                    str(user),
                    day,
                    mine.item_id.tolist(),
                    history=history,
                    watched=mine.watched.tolist(),
                )
            )
            before += mine.item_id[mine.watched].tolist()
    return sessions
