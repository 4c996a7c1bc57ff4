"""A whole night small enough for a test: the demo's own command on a very small app's log."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from onerec.artifacts import ArtifactStore

CHECKOUT = Path(__file__).resolve().parents[2]
DAY = "2026-06-06"

SMALL = """
simulator:
  initial_users: 260
  new_users_per_day: 4
  initial_items: 220
  new_items_per_day: 6
stages:
  window: {window_days: 5}
  embeddings: {text_encoder: hashed, text_dim: 32, collaborative_dim: 16}
  tokenizer: {codebook_size: 8, iterations: 5}
  sessions: {history_length: 8}
  model: {d_model: 32, num_heads: 2, d_ff: 64, encoder_layers: 1, decoder_layers: 1}
  training: {max_epochs: 4, batch_size: 32}
  reward: {d_model: 16, num_heads: 2, max_epochs: 2}
  decoding: {beam: 16, candidates: 8}
  alignment: {sample_users: 60, batch_size: 16, epochs: 1}
  evaluation: {bootstrap_samples: 100, max_cases: 60}
"""

MODELS = [
    "item_embeddings",
    "codebook",
    "semantic_ids",
    "pretrained_checkpoint",
    "reward_model",
    "evaluator_model",
    "preference_pairs",
    "dpo_checkpoint",
]
EVERYTHING = ["session_dataset", *MODELS, "offline_metrics", "champion", "recommendations"]


def environment(home: Path, config: Path, dataset: str = "own") -> dict[str, str]:
    """Environment of a night whose state lives in `home`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ONEREC_", "DAGSTER_"))}
    return {
        **kept,
        "ONEREC_HOME": str(home),
        "ONEREC_CONFIG": str(config),
        "ONEREC_DATASET": dataset,
        "ONEREC_TEST_DAY": DAY,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def start(env: Mapping[str, str], log: Path) -> subprocess.Popen:
    """Start the night; its output goes to a file. The YAML file is named as people name it."""
    env = {**env, "ONEREC_CONFIG": os.path.relpath(env["ONEREC_CONFIG"], CHECKOUT)}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "onerec_dagster.demo"],
            cwd=CHECKOUT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def run(env: Mapping[str, str], log: Path) -> None:
    """Run the night to its end."""
    process = start(env, log)
    assert process.wait(timeout=500) == 0, log.read_text(errors="replace")[-6000:]


def kill_when(process: subprocess.Popen, reached: Callable[[list[psutil.Process]], bool]) -> None:
    """`kill -9` the night and all its children at the moment `reached` holds."""
    deadline = time.monotonic() + 400
    root = psutil.Process(process.pid)
    while True:
        assert process.poll() is None, "the night ended before the moment to kill it came"
        assert time.monotonic() < deadline, "the moment to kill the night never came"
        family = [root, *root.children(recursive=True)]
        if reached(family):
            break
        time.sleep(0.01)
    for member in [root, *root.children(recursive=True)]:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait(timeout=30)


def content_hashes(home: Path, names: list[str] = EVERYTHING) -> dict[str, str]:
    """Content hash of each asset's current artifact, every file verified against its manifest."""
    return hashes_in(ArtifactStore(str(home / "own" / "artifacts")), names)


def hashes_in(store: ArtifactStore, names: list[str] = EVERYTHING) -> dict[str, str]:
    """As `content_hashes`."""
    return {name: store.latest(name, DAY).verify().content_hash for name in names}
