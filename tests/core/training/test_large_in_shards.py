"""The preset `large` at one of its four layers each, in two processes that share its state."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest

from onerec.config import PRESETS
from onerec.model import load_model
from onerec.training.__main__ import main
from tests.core.training.small import HISTORY, ITEMS, catalogue, write_patterned_dataset
from tests.core.training.test_distributed import LAUNCH

pytestmark = pytest.mark.skipif(
    not os.environ.get("SCALE_TEST"),
    reason="gigabytes of memory and some minutes: make scale-test runs it",
)


def job_file(directory: Path, out: str, **runtime: object) -> str:
    large = PRESETS["large"]
    depth = {"encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
    training = {"max_epochs": 2, "batch_size": 4, "history_sessions": False, "fresh_epochs": 0}
    values = {
        "session_dataset": str(directory / "session_dataset"),
        "semantic_ids": str(directory / "semantic_ids"),
        "history_length": HISTORY,
        "session_items": ITEMS,
        "model": dataclasses.asdict(dataclasses.replace(large.model, **depth)),
        "training": dataclasses.asdict(dataclasses.replace(large.training, **training)),
        "runtime": {"accelerator": "cpu", "threads": 1, "checkpoint_every_steps": 0, **runtime},
        "out": str(directory / out),
    }
    file = directory / f"{out}.json"
    file.write_text(json.dumps(values))
    return str(file)


def test_shards_of_large_have_the_loss_of_one_process_and_a_whole_checkpoint(
    tmp_path: Path,
) -> None:
    write_patterned_dataset(tmp_path / "session_dataset", train=8, valid=4)
    (tmp_path / "semantic_ids").mkdir()
    catalogue().save(tmp_path / "semantic_ids")
    job = ["--config", job_file(tmp_path, "two", devices=2, sharding="shards")]
    subprocess.run([*LAUNCH, "-m", "onerec.training", *job], check=True)
    main(["--config", job_file(tmp_path, "one")])
    one, two = (json.loads((tmp_path / n / "history.json").read_text()) for n in ("one", "two"))
    for expected, found in zip(one["epochs"], two["epochs"], strict=True):
        for name in ("train_loss", "valid_loss"):
            assert found[name] == pytest.approx(expected[name], rel=1e-3), name
    assert two["epochs"][1]["train_loss"] < two["epochs"][0]["train_loss"]
    model, _ = load_model(tmp_path / "two", expected_tokenizer_version=None)
    assert sum(p.numel() for p in model.parameters()) > 200e6
