"""Two processes train what one process trains, a dense head of its own encoder, too, and go on
after both were killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from onerec.training.__main__ import main
from onerec.training.resume import RESUME, ResumeCheckpoint
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_ITEMS,
    TRAINING,
    catalogue,
    write_patterned_dataset,
)

HELD = "held.txt"
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def job_file(directory: Path, out: str, **runtime: Any) -> str:
    """One session is left over at the end of an epoch: the second process gets no row of it."""
    if not (directory / "semantic_ids").exists():
        write_patterned_dataset(directory / "session_dataset", train=32 * 6 + 1, valid=65)
        (directory / "semantic_ids").mkdir()
        catalogue().save(directory / "semantic_ids")
        vectors = {"vectors": torch.eye(NUM_ITEMS)}
        save_file(vectors, directory / "semantic_ids" / "vectors.safetensors")
    head = {
        "dense_head": True,
        "dense_encoder_layers": 1,
        "dense_dropout": 0.0,
        "dense_item_dropout": 0.0,
    }
    values = {
        "session_dataset": str(directory / "session_dataset"),
        "semantic_ids": str(directory / "semantic_ids"),
        "history_length": HISTORY,
        "session_items": ITEMS,
        "model": dataclasses.asdict(dataclasses.replace(MODEL, dropout=0.0, **head)),
        "training": dataclasses.asdict(
            dataclasses.replace(TRAINING, max_epochs=3, history_sessions=False)
        ),
        "runtime": {"accelerator": "cpu", "threads": 1, **runtime},
        "out": str(directory / out),
    }
    file = directory / f"{out}.json"
    file.write_text(json.dumps(values))
    return str(file)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicas", "shards"])
def test_two_processes_killed_once_give_the_loss_of_one(tmp_path: Path, sharding: str) -> None:
    runtime = {"devices": 2, "checkpoint_every_steps": 2, "sharding": sharding}
    job = ["--config", job_file(tmp_path, "two", **runtime)]
    killed = subprocess.run([*LAUNCH, "-m", __name__, *job], stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode != 0
    assert not (tmp_path / "two").exists()
    state = torch.load(tmp_path / "two.scratch" / RESUME, weights_only=True)
    held = float((tmp_path / "two.scratch" / HELD).read_text())
    assert held == 1.0 if sharding == "replicas" else 0.4 < held < 0.6
    of = {name.split("{")[0]: value for name, value in state["callbacks"].items()}
    assert len(of["EpochSelection"]["history"]) == 1
    assert len(of["StepLog"]["steps"]["loss"]) - of["StepLog"]["epoch_start"] == 2
    first, second = (r["cpu"] for r in state["random_states"])
    assert not torch.equal(first, second)

    subprocess.run([*LAUNCH, "-m", "onerec.training", *job], check=True, timeout=200)
    main(["--config", job_file(tmp_path, "one")])
    one, two = (json.loads((tmp_path / n / "history.json").read_text()) for n in ("one", "two"))
    assert len(two["epochs"]) == 3
    for expected, found in zip(one["epochs"], two["epochs"], strict=True):
        for name in ("train_loss", "valid_loss", "valid_token_losses", "learning_rate"):
            # rounding: the processes trim their shares apart
            assert found[name] == pytest.approx(expected[name], rel=5e-4), name
    heads = zip(*(each["summary"]["dense_history"] for each in (one, two)), strict=True)
    for expected, found in heads:
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=5e-4)
    weights = [load_file(tmp_path / n / "model.safetensors") for n in ("two", "one")]
    for name, tensor in weights[1].items():
        # rounding sends a token to another expert now and then: those two then learn another step
        atol = 2e-2 if ".feed." in name else 1e-3
        torch.testing.assert_close(weights[0][name], tensor, rtol=1e-2, atol=atol, msg=name)
    assert not (tmp_path / "two.scratch").exists()


def main_killed_in_epoch_two() -> None:
    """Every process kills itself within step 4 of epoch 2; the last state is that of step 2.

    Before that it writes which share of the weights it holds.
    """

    def kill(self: ResumeCheckpoint, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 7 + 3:
            groups = trainer.optimizers[0].param_groups
            weights = [weight for group in groups for weight in group["params"]]
            own = [w.to_local() if isinstance(w, DTensor) else w for w in weights]
            held = sum(w.numel() for w in own) / sum(w.numel() for w in weights)
            (self.scratch / HELD).write_text(str(held))
            os.kill(os.getpid(), signal.SIGKILL)

    ResumeCheckpoint.on_before_zero_grad = kill  # pyright: ignore
    main()


if __name__ == "__main__":
    main_killed_in_epoch_two()
