"""Small inputs for the tests of training: a catalogue and sessions with a pattern to learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from onerec.config import ModelConfig, TrainingConfig
from onerec.schema import SESSION_DATASET, SPLITS
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.tokenizer.semantic_ids import SemanticIds

NUM_ITEMS, NUM_CODES, NUM_SID_TOKENS, HISTORY, ITEMS = 60, 8, 3, 6, 3
MODEL = ModelConfig(
    d_model=16,
    num_heads=2,
    d_ff=24,
    encoder_layers=1,
    decoder_layers=1,
    num_experts=3,
    active_experts=2,
    dropout=0.1,
)
TRAINING = TrainingConfig(
    batch_size=32, max_epochs=4, patience=4, learning_rate=5e-3, warmup_share=0.1
)


def catalogue() -> SemanticIds:
    """NUM_ITEMS items with unique IDs: the item number written in base NUM_CODES."""
    item = np.arange(NUM_ITEMS)
    sid_tokens = [
        item // NUM_CODES ** (NUM_SID_TOKENS - 1 - j) % NUM_CODES for j in range(NUM_SID_TOKENS)
    ]
    return SemanticIds(
        item_ids=np.array([f"i{n}" for n in item], dtype=object),
        codes=torch.from_numpy(np.stack(sid_tokens, axis=-1)),
        tokenizer_version="a-version",
        first_seen=np.full(NUM_ITEMS, "2026-06-01", dtype="datetime64[D]"),
        codebook_size=NUM_CODES,
    )


def patterned_sessions(num: int, seed: int) -> SessionTensors:
    """The session goes on where the history ends: item x is followed by x + 1, x + 2, ..."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, HISTORY + 1, num)
    history = rng.integers(0, NUM_ITEMS, (num, HISTORY))
    last = history[np.arange(num), lengths - 1]
    history[np.arange(HISTORY) >= lengths[:, None]] = -1
    targets = (last[:, None] + 1 + np.arange(ITEMS)) % NUM_ITEMS
    targets[np.arange(ITEMS) >= rng.integers(1, ITEMS + 1, num)[:, None]] = -1
    return SessionTensors(
        user=torch.arange(num),
        user_ids=np.array([f"u{n:05d}" for n in range(num)], dtype=object),
        history=torch.from_numpy(history.astype(np.int32)),
        targets=torch.from_numpy(targets.astype(np.int32)),
        is_good=torch.ones(num, dtype=torch.bool),
        date=np.full(num, "2026-06-02", dtype="datetime64[D]"),
    )


def no_sessions() -> SessionTensors:
    return patterned_sessions(0, seed=0)


def write_session_dataset(directory: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows of `schema.SESSION_DATASET` as the artifact lays them out, one file per split."""
    for split in SPLITS:
        here = sorted(
            (r for r in rows if r["split"] == split),
            key=lambda r: (r["started_at"], r["session_id"]),
        )
        if here:
            (directory / f"split={split}").mkdir(parents=True)
            here = [{"signals": video_signals(row), **row} for row in here]
            table = pa.Table.from_pylist(here, schema=SESSION_DATASET)
            pq.write_table(table, directory / f"split={split}" / "part-00000.parquet")
    return directory


def write_patterned_dataset(
    directory: Path,
    *,
    train: int,
    valid: int,
    sessions: Callable[[int, int], SessionTensors] = patterned_sessions,
) -> Path:
    """`patterned_sessions`, or others of so many and a seed, as a session_dataset artifact; session
    n of a split is of user `u{n % 50}`."""
    rows = []
    for split, num, day in (("train", train, 2), ("valid", valid, 3)):
        made = sessions(num, day)
        for n, (history, targets) in enumerate(
            zip(made.history.tolist(), made.targets.tolist(), strict=True)
        ):
            watched = [f"i{i}" for i in targets if i >= 0]
            date = np.datetime64(f"2026-06-{day:02d}")
            rows.append(
                {
                    "session_id": f"{split}{n:05d}",
                    "user_id": f"u{n % 50}",
                    "session_date": date.item(),
                    "started_at": (date + np.timedelta64(n, "s")).astype("datetime64[us]").item(),
                    "history_item_ids": [f"i{i}" for i in history if i >= 0],
                    "item_ids": watched,
                    "watch_seconds": [12.0] * len(watched),
                    **{
                        name: [name in ("is_watched", "is_positive")] * len(watched)
                        for name in SESSION_DATASET.names
                        if name.startswith("is_") and name != "is_good"
                    },
                    "target_item_ids": watched,
                    "is_good": True,
                    "split": split,
                }
            )
    return write_session_dataset(directory, rows)


def video_signals(row: dict[str, Any]) -> list[list[bool]]:
    """Per exposure, the conditions of a video log's signals: any, watched, follow, like."""
    flags = (row.get(name) or [] for name in ("is_watched", "is_follow", "is_like"))
    return [[True, *map(bool, exposure)] for exposure in zip(*flags, strict=False)]
