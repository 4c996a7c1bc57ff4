"""A night small enough to check by hand: artifacts of every stage that evaluation reads."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from onerec.artifacts import write_json
from onerec.config import BeamConfig, EvaluationConfig, ModelConfig, RewardConfig
from onerec.evaluation.baselines import fit_baselines
from onerec.evaluation.data import EvaluationData, EvaluationFiles, load_evaluation_data
from onerec.model import OneRec, UserVocabulary, load_model, save_model
from onerec.reward.model import RewardModel, RewardShape, save_reward
from onerec.schema import SESSION_DATASET
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.user_attributes import write_user_attributes
from onerec.tokenizer.semantic_ids import SemanticIds
from tests.core.training.small import video_signals

DAY = date(2026, 6, 14)
NUM_ITEMS, NUM_USERS = 40, 30
CODES, SID_TOKENS, HISTORY, SESSION = 5, 3, 6, 3
EVALUATION = EvaluationConfig(bootstrap_samples=50)
DECODING = BeamConfig(beam=8, batch_size=16)
REWARD = RewardConfig(d_model=8, num_heads=2)
SHAPE = ModelConfig(
    d_model=16,
    num_heads=2,
    d_ff=24,
    encoder_layers=1,
    decoder_layers=1,
    num_experts=2,
    active_experts=1,
)


def session(
    user: str,
    day: date,
    items: Sequence[str],
    *,
    history: Sequence[str] = (),
    watched: Sequence[bool] | None = None,
    number: int = 0,
) -> dict[str, Any]:
    """One row of the session dataset; every exposure is watched unless said otherwise."""
    flags = list(watched) if watched is not None else [True] * len(items)
    split = "test" if day == DAY else "valid" if day == DAY - timedelta(days=1) else "train"
    none = [False] * len(items)
    return {
        "session_id": f"{user}|{day}|{number}",
        "user_id": user,
        "session_date": day,
        "started_at": datetime.combine(day, time(8 + number)),
        "history_item_ids": list(history),
        "item_ids": list(items),
        "watch_seconds": [20.0 if f else 1.0 for f in flags],
        "is_watched": flags,
        "is_positive": flags,
        **dict.fromkeys(("is_like", "is_follow", "is_comment", "is_share", "is_dislike"), none),
        "target_item_ids": [i for i, f in zip(items, flags, strict=True) if f][:SESSION],
        "is_good": True,
        "split": split,
    }


def _signals(row: Mapping[str, Any], number: int) -> list[list[bool]]:
    """The row's own, but every other session has likes: a reward needs both classes."""
    return [[*signals[:3], number % 2 == 0] for signals in video_signals(dict(row))]


def write_sessions(directory: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The files of a `session_dataset` artifact."""
    for split in ("train", "valid", "test"):
        mine = [{"signals": _signals(r, n), **r} for n, r in enumerate(rows) if r["split"] == split]
        file = directory / f"split={split}" / "part-00000.parquet"
        file.parent.mkdir(parents=True)
        table = pa.Table.from_pylist(mine, schema=SESSION_DATASET)
        pq.write_table(table, file)
    return directory


def catalogue(
    num_items: int = NUM_ITEMS, *, tokenizer_version: str = "version-a", late: int = 3
) -> SemanticIds:
    """Items `i00`, `i01`, ... with different tokens; the last `late` are first seen on day D."""
    number = np.arange(num_items)
    codes = np.stack([number // CODES**d % CODES for d in range(SID_TOKENS)], axis=1)
    first_seen = np.full(num_items, np.datetime64(DAY, "D") - 5)
    first_seen[num_items - late :] = np.datetime64(DAY, "D")
    return SemanticIds(
        item_ids=np.array([f"i{n:02d}" for n in number], dtype=object),
        codes=torch.from_numpy(codes),
        tokenizer_version=tokenizer_version,
        first_seen=first_seen,
        codebook_size=CODES,
    )


def write_catalogue(directory: Path, ids: SemanticIds) -> Path:
    """The files of a `semantic_ids` artifact."""
    directory.mkdir(parents=True, exist_ok=True)
    ids.save(directory)
    vectors = torch.randn(len(ids.item_ids), 6, generator=torch.Generator().manual_seed(0))
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    save_file({"vectors": vectors}, directory / "vectors.safetensors")
    return directory


def write_generator(
    directory: Path,
    *,
    seed: int,
    tokenizer_version: str = "version-a",
    history_length: int = HISTORY,
    session_items: int = SESSION,
    dense_layers: int = 0,
) -> Path:
    """An untrained checkpoint; with layers it has a dense head with an encoder of its own."""
    torch.manual_seed(seed)
    head = {"dense_head": dense_layers > 0, "dense_encoder_layers": dense_layers}
    model = OneRec(
        dataclasses.replace(SHAPE, **head),
        codebook_size=CODES,
        num_sid_tokens=SID_TOKENS,
        history_length=history_length,
        session_items=session_items,
    )
    model.reward_weight = 0.5
    if dense_layers:
        model.add_dense_head(NUM_ITEMS, 6)
        model.dense_share = 0.4
    save_model(model.eval(), directory, tokenizer_version=tokenizer_version)
    return directory


def write_reward(directory: Path, *, seed: int, part: str = "reward") -> Path:
    """An untrained reward model and what its training would have measured."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    shape = RewardShape(vector_dim=6, num_items=NUM_ITEMS, history_length=HISTORY)
    save_reward(RewardModel(REWARD, shape), directory)
    tower = {
        "auc": 0.7,
        "auc_interval": [0.65, 0.75],
        "log_loss": 0.5,
        "base_log_loss": 0.6,
        "reliability": None,
    }
    weak = {"auc": None, "log_loss": 0.6, "base_log_loss": 0.6, "reliability": None}
    towers = {"swt": tower, "vtr": tower, "wtr": weak, "ltr": tower}
    write_json(directory / "metrics.json", {"towers": towers, "part": part})
    return directory


def rows(seed: int = 0) -> list[dict[str, Any]]:
    """Sessions of all users over four days and the test day; half of the users come on it."""
    rng = np.random.default_rng(seed)
    sessions = []
    for number in range(NUM_USERS):
        user, seen = f"u{number:02d}", []
        for back in (4, 3, 1, 0):
            if back == 0 and number % 2:
                continue
            last = NUM_ITEMS if back == 0 else NUM_ITEMS - 3
            items = [f"i{n:02d}" for n in rng.choice(last, 4, replace=False)]
            day = DAY - timedelta(days=back)
            sessions.append(session(user, day, items, history=seen[-HISTORY:]))
            seen += items
    return sessions


def write_artifacts(root: Path) -> Path:
    """Artifacts of every stage that evaluation reads."""
    write_sessions(root / "session_dataset", rows())
    ids = catalogue()
    write_catalogue(root / "semantic_ids", ids)
    window = load_interactions(root / "session_dataset", ids, test_day=DAY)
    (root / "baselines").mkdir()
    fit_baselines(window, ids.known_before(DAY), neighbours=5).save(root / "baselines")
    write_generator(root / "pretrained", seed=0)
    write_generator(root / "dpo", seed=1)
    write_reward(root / "evaluator", seed=2, part="evaluator")
    write_reward(root / "reward", seed=3)
    return root


def add_attributes(root: Path) -> None:
    """Attributes of users beside the sessions, and checkpoints that read them."""
    users = pa.table(
        {
            "user_id": [f"u{n:02d}" for n in range(NUM_USERS)],
            "group": [f"g{n % 3}" for n in range(NUM_USERS)],
            "rare": [f"r{n}" for n in range(NUM_USERS)],
        }
    )
    write_user_attributes(users, root / "session_dataset")
    vocabulary = UserVocabulary.of(users.drop_columns("user_id"))
    for seed, name in enumerate(("pretrained", "dpo")):
        model, version = load_model(root / name, expected_tokenizer_version=None)
        model.add_user_features(vocabulary)
        assert model.users is not None
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.users.embedding.weight)
        save_model(model, root / name, tokenizer_version=version)


def load_artifacts(root: Path, config: EvaluationConfig = EVALUATION) -> EvaluationData:
    """What `write_artifacts` wrote, as an evaluation reads it."""
    files = EvaluationFiles(
        session_dataset=root / "session_dataset",
        semantic_ids=root / "semantic_ids",
        baselines=root / "baselines",
        checkpoint=root / "dpo",
        evaluator=root / "evaluator",
        reward_model=root / "reward",
    )
    return load_evaluation_data(files, DAY, config, REWARD)
