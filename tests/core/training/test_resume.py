"""A training killed at any step goes on as if nothing had happened; what is kept is always good."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Sampler

from onerec.training import (
    PretrainingData,
    Runtime,
    TrainingDivergedError,
    TrainingProgress,
    fit_generator,
)
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.resume import RESUME
from tests.core.training.small import MODEL, TRAINING, catalogue, patterned_sessions

STEPS = 13
"""Of an epoch: 400 sessions in batches of 32."""
EPOCHS = 3


def fit(
    directory: Path,
    *,
    every: int,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    micro_batch: int = 0,
) -> None:
    fit_generator(
        dataclasses.replace(TRAINING, max_epochs=EPOCHS, micro_batch=micro_batch),
        MODEL,
        PretrainingData(
            train=patterned_sessions(400, seed=1),
            valid=patterned_sessions(80, seed=2),
            semantic_ids=catalogue(),
        ),
        out_dir=directory / "out",
        scratch=directory / "scratch",
        on_progress=on_progress,
        runtime=Runtime(accelerator="cpu", threads=1, checkpoint_every_steps=every),
    )


def fit_and_write_losses(
    directory: Path,
    *,
    every: int,
    end: Callable[[], None] | None = None,
    after: int = 0,
    micro_batch: int = 0,
) -> None:
    """Train, one line per step (`epoch step loss`), and call `end` after some steps."""
    steps = 0

    def see(progress: TrainingProgress) -> None:
        nonlocal steps
        if progress.metrics:  # the end of an epoch, reported once more
            return
        with (directory / "losses").open("a") as lines:
            lines.write(f"{progress.epoch} {progress.step} {progress.loss!r}\n")
        steps += 1
        if end is not None and steps == after:
            end()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onerec.training.trainer.REPORT_EVERY", 1)
        fit(directory, every=every, on_progress=see, micro_batch=micro_batch)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def curve(directory: Path) -> dict[tuple[int, int], str]:
    """The loss of every step; a step taken twice has to repeat itself to the last bit."""
    losses: dict[tuple[int, int], str] = {}
    for line in (directory / "losses").read_text().splitlines():
        epoch, step, loss = line.split()
        assert losses.setdefault((int(epoch), int(step)), loss) == loss, "another loss than before"
    return losses


def files(directory: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in (directory / "out").iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    fit_and_write_losses(directory, every=0)
    return directory


def repeated_steps(directory: Path) -> int:
    return len((directory / "losses").read_text().splitlines()) - EPOCHS * STEPS


@pytest.mark.slow
def test_killed_at_several_steps_goes_on_with_the_same_losses(
    undisturbed: Path, tmp_path: Path
) -> None:
    """In the first epoch, inside the second, and at its last step, before the validation."""
    killed_after = {6: 4, STEPS + 5: STEPS + 4, 2 * STEPS: 2 * STEPS - 1}  # last state at
    last_state = 0
    for step, state in killed_after.items():
        program = (
            "from pathlib import Path; from tests.core.training.test_resume import *; "
            f"fit_and_write_losses(Path({str(tmp_path)!r}), every=4, end=kill_myself, "
            f"after={step - last_state})"
        )
        process = subprocess.run([sys.executable, "-c", program], check=False)
        assert process.returncode == -signal.SIGKILL
        last_state = state
    fit_and_write_losses(tmp_path, every=4)
    assert curve(tmp_path) == curve(undisturbed)
    assert len(curve(tmp_path)) == EPOCHS * STEPS
    assert files(tmp_path) == files(undisturbed)
    assert repeated_steps(tmp_path) == sum(k - s for k, s in killed_after.items()) == 4


@pytest.mark.parametrize(("every", "repeated"), [(0, 7), (3, 1), (7, 0), (1, 0)])
def test_goes_on_from_the_last_state_written(
    undisturbed: Path, tmp_path: Path, every: int, repeated: int
) -> None:
    """Interrupted at step 8 of epoch 2, where its 7 steps since the epoch are done."""

    def interrupt() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_and_write_losses(tmp_path, every=every, end=interrupt, after=STEPS + 8)
    fit_and_write_losses(tmp_path, every=every)
    assert curve(tmp_path) == curve(undisturbed)
    assert files(tmp_path) == files(undisturbed)
    assert repeated_steps(tmp_path) == repeated + 1


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "name"),
    [(empty, RESUME), (cut_off, RESUME), (flip, RESUME), (cut_off, "best-1.safetensors")],
)
def test_what_cannot_be_read_is_thrown_away_with_a_warning(
    damage: Callable[[Path], None],
    name: str,
    undisturbed: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Interrupted in epoch 2, the training starts again and ends as if undisturbed."""

    def interrupt() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_and_write_losses(tmp_path, every=4, end=interrupt, after=STEPS + 5)
    damage(tmp_path / "scratch" / name)
    fit_and_write_losses(tmp_path, every=4)
    assert f"{tmp_path / 'scratch' / name} cannot be read" in caplog.text
    assert curve(tmp_path) == curve(undisturbed)
    assert files(tmp_path) == files(undisturbed)
    assert repeated_steps(tmp_path) == STEPS + 5


def test_a_batch_in_pieces_is_resumed_between_two_batches(tmp_path: Path) -> None:
    """A state is one of whole optimiser steps, however many pieces a batch is computed in."""

    def interrupt() -> None:
        raise InterruptedError

    pieces = {"every": 3, "micro_batch": 11}
    (tmp_path / "whole").mkdir()
    fit_and_write_losses(tmp_path / "whole", **pieces)
    (tmp_path / "cut").mkdir()
    with pytest.raises(InterruptedError):
        fit_and_write_losses(tmp_path / "cut", **pieces, end=interrupt, after=STEPS + 8)
    fit_and_write_losses(tmp_path / "cut", **pieces)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert repeated_steps(tmp_path / "cut") == 2


@pytest.mark.parametrize("every", [5, 1])
def test_a_state_is_never_written_after_a_bad_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Losses wait to be looked at, at most until a state is to be written."""
    break_at(monkeypatch, STEPS + 9, lambda loss: loss * math.nan)
    last = {5: 5, 1: 8}[every]
    message = rf"training loss is nan at epoch 2, step 9 .* of epoch 2, step {last}, is kept in"
    with pytest.raises(TrainingDivergedError, match=message):
        fit(tmp_path, every=every)
    assert_finite(tmp_path)


def test_a_weight_that_is_no_number_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the step is finite, its gradient is not; the next loss would come too late."""

    def with_an_infinite_gradient(loss: torch.Tensor) -> torch.Tensor:
        loss.register_hook(lambda gradient: gradient * math.inf)
        return loss

    break_at(monkeypatch, 6, with_an_infinite_gradient)
    message = (
        r"training loss is finite but a weight became NaN or inf at epoch 1, step 6 .* "
        r"of epoch 1, step 4, is kept in"
    )
    with pytest.raises(TrainingDivergedError, match=message):
        fit(tmp_path, every=2)
    assert_finite(tmp_path)


def break_at(
    monkeypatch: pytest.MonkeyPatch, step: int, how: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Change the loss of one step, counted from 1 over the epochs."""
    import onerec.training.generator_module as module

    real, calls = module.next_token_loss, [0]

    def broken(*arguments: Any) -> torch.Tensor:
        calls[0] += 1
        loss = real(*arguments)
        return how(loss) if calls[0] == step else loss

    monkeypatch.setattr(module, "next_token_loss", broken)


def assert_finite(directory: Path) -> None:
    """The state that is left holds numbers only, in weights and in the optimiser's moments."""
    state = torch.load(directory / "scratch" / RESUME, weights_only=True)
    moments = [m for p in state["optimizer_states"][0]["state"].values() for m in p.values()]
    tensors = [*state["state_dict"].values(), *moments]
    assert moments
    assert all(bool(t.isfinite().all()) for t in tensors)


class Numbered(Sampler[torch.Tensor]):
    """Batch b of epoch e holds the rows 10 e + b, of which there are seven each."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in range(4):
            yield 100 * self.epoch + 10 * batch + torch.arange(7)


def rows_of(shares: DistributedBatches) -> list[list[int]]:
    return [share.rows.tolist() for share in shares]


def test_shares_make_up_every_batch_and_start_late_once() -> None:
    whole = [b.tolist() for b in Numbered()]
    parts = [DistributedBatches(Numbered(), rank=rank, world_size=3) for rank in range(3)]
    for part in parts:
        assert len(part) == part.steps == 4
        part.set_epoch(0)
    for batch, *shares in zip(whole, *map(rows_of, parts), strict=True):
        assert sorted(row for share in shares for row in share) == batch
        assert [len(s) for s in shares] == [3, 2, 2]
    late = DistributedBatches(Numbered())
    late.start_at(3)
    late.set_epoch(2)
    assert rows_of(late) == [list(range(230, 237))]
    assert rows_of(late) == [[r + 200 for r in b] for b in whole]


def test_pieces_of_every_process_make_up_a_batch() -> None:
    """Two processes in five pieces: ten shares of seven rows, three of them empty."""
    parts = [
        list(DistributedBatches(Numbered(), rank=rank, world_size=2, accumulation=5))
        for rank in range(2)
    ]
    assert [len(part) for part in parts] == [4 * 5, 4 * 5]
    for step, batch in enumerate(Numbered()):
        shares = [share for part in parts for share in part[5 * step : 5 * step + 5]]
        assert sorted(torch.cat([s.rows for s in shares]).tolist()) == batch.tolist()
        assert sorted(len(s.rows) for s in shares) == [0] * 3 + [1] * 7
        assert all(torch.equal(s.batch, batch) and s.shares == 10 for s in shares)
