"""The training loop of all models: `fit` trains a module and leaves the best weights in it."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from onerec.training.batches import Rows, loader_of
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.epoch_selection import EpochSelection
from onerec.training.fit_module import FitModule
from onerec.training.fit_settings import FitSettings
from onerec.training.progress import ProgressReport, TrainingProgress
from onerec.training.resume import RESUME, RandomState, ResumeCheckpoint
from onerec.training.runtime import Runtime, precision_of, process_rank
from onerec.training.scratch import Scratch, claim, digest
from onerec.training.sharding import strategy_of, whole_weights
from onerec.training.step_log import NonFiniteError, StepLog

CHANGES_NO_NUMBER = ("checkpoint_every_steps", "workers", "num_workers", "shard_rows")
"""Fields of the runtime that may change between a killed training and its continuation; but for
the first they are of other stages."""
REPORT_EVERY = 50
"""Steps between progress reports, each of which synchronises the device."""


class TrainingDivergedError(RuntimeError):
    """A loss, metric or weight became NaN or inf; the message names step and last checkpoint."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Losses, metrics and timings of a training.

    Attributes:
        history: An entry per epoch: `epoch` (from 1), `train_loss`, `learning_rate` and the
            module's validation metrics; with `measure_start` an entry of epoch 0 is the first.
        best_epoch: The epoch whose weights the model has.
        steps: Name of a scalar -> its value at every optimiser step; `loss` is always there.
        seconds: Time of this call's steps, without validation.
        total_seconds: The same including earlier calls that were killed.
        rows_per_second: Training rows per second of all processes; None when a finished training
            was only loaded.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    steps: dict[str, list[float]]
    seconds: float
    total_seconds: float
    rows_per_second: float | None


def fit(
    module: FitModule,
    rows: Rows,
    batches: Sampler[Tensor],
    settings: FitSettings,
    *,
    runtime: Runtime,
    scratch: Scratch | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> FitResult:
    """Train `module.model`, from the weights that it has, in place.

    It trains in the mode that it is in, with dropout or without. It ends on the CPU in evaluation
    mode and in the type that it had, with the weights of the best epoch by `settings.monitor`, or
    of the last epoch without one. Call it inside `reproducible(runtime)`.

    Killed at any moment and called again with the same arguments and a `scratch` directory, it
    resumes from the last checkpoint (`Runtime.checkpoint_every_steps`) and ends with the same
    weights as an uninterrupted run on the same machine. On several devices every process calls it
    with the same arguments.

    Args:
        module: The model with its loss and validation metrics.
        rows: Training data.
        batches: Row numbers of global batches, equal in all processes; `set_epoch` may reorder.
        settings: Budget, optimiser, schedule, and which epoch is kept.
        runtime: Hardware, and checkpoint interval.
        scratch: Directory to resume from; None: a killed training starts over.
        on_epoch: Called with each entry of the history.
        on_progress: Called every `REPORT_EVERY` steps and at the end of an epoch.

    Raises:
        TrainingDivergedError: A loss, metric or weight became NaN or inf.
        ValueError: Several devices, and no launcher has started a process for each.
    """
    rank = process_rank(runtime)
    assert scratch is not None or runtime.processes == 1, "processes share files of weights"
    order = DistributedBatches(
        batches, rank=rank, world_size=runtime.processes, accumulation=settings.accumulation
    )
    module.prepare(settings, total_steps=settings.max_epochs * order.steps)
    with _directory(scratch) as directory:
        steps = StepLog(settings.accumulation)
        selection = EpochSelection(settings, steps, directory, on_epoch)
        progress = ProgressReport(
            on_progress, every=REPORT_EVERY, num_rows=len(rows), steps=steps, selection=selection
        )
        every = runtime.checkpoint_every_steps if scratch else 0
        state = ResumeCheckpoint(
            directory, every=every, order=order, steps=steps, selection=selection
        )
        callbacks = [RandomState(settings.epoch_seed), steps, selection, progress, state]
        trainer = _trainer(runtime, settings, callbacks)
        _connect_processes(trainer, module)
        if scratch is not None and rank == 0:
            claim(directory, _fingerprint(module, rows, settings, runtime, scratch.identity))
        _fit_to_best_weights(trainer, module, loader_of(order, rows), state, selection)
    rate = progress.rows_per_second(order.steps) if steps.steps_timed else None
    return _result(steps, selection, rate)


def _connect_processes(trainer: L.Trainer, module: FitModule) -> None:
    """Connect the processes now: barriers are needed before Lightning would connect them."""
    if trainer.world_size > 1:
        trainer.strategy.connect(module)
        trainer.strategy.setup_environment()


def _fit_to_best_weights(
    trainer: L.Trainer,
    module: FitModule,
    loader: DataLoader,
    state: ResumeCheckpoint,
    selection: EpochSelection,
) -> None:
    """Run the trainer, from the last checkpoint if there is one."""
    whole = module.model
    dtype = next(whole.parameters()).dtype
    if isinstance(trainer.strategy, ModelParallelStrategy):
        module.model = copy.deepcopy(whole)  # shards are cut in place
    trainer.strategy.barrier()  # the first process has claimed the directory
    resume = state.scratch / RESUME
    ckpt_path = resume if resume.exists() else None
    try:
        trainer.fit(module, loader, ckpt_path=ckpt_path, weights_only=True)
    except NonFiniteError as error:
        raise TrainingDivergedError(_divergence(error, state)) from error
    trainer.strategy.barrier()  # the first process has written the last weights
    if module.model is not whole:
        whole.load_state_dict(whole_weights(module.model))
        module.model = whole
    module.to(device="cpu", dtype=dtype).eval()  # 'bf16-true' has converted the model
    if module.settings.monitor is not None:
        module.model.load_state_dict(load_file(selection.best_weights))
    trainer.strategy.barrier()  # the first process may delete what the others have read


def _result(steps: StepLog, selection: EpochSelection, rows_per_second: float | None) -> FitResult:
    return FitResult(
        history=selection.history,
        best_epoch=selection.best_epoch,
        steps=steps.steps,
        seconds=steps.seconds,
        total_seconds=steps.earlier_seconds + steps.seconds,
        rows_per_second=rows_per_second,
    )


@contextmanager
def _directory(scratch: Scratch | None) -> Iterator[Path]:
    """The scratch directory, or a temporary one."""
    if scratch is not None:
        yield scratch.directory
    else:
        with TemporaryDirectory() as directory:
            yield Path(directory)


def _trainer(runtime: Runtime, settings: FitSettings, callbacks: Sequence[L.Callback]) -> L.Trainer:
    """A Lightning trainer that writes nothing itself; callbacks save what is needed."""
    return L.Trainer(
        accelerator=runtime.torch_device(),
        devices=runtime.devices,
        num_nodes=runtime.num_nodes,
        strategy=strategy_of(runtime),
        precision=precision_of(runtime),  # pyright: ignore
        max_epochs=settings.max_epochs,
        gradient_clip_val=settings.gradient_clip or None,
        accumulate_grad_batches=settings.accumulation,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
    )


def _divergence(error: NonFiniteError, state: ResumeCheckpoint) -> str:
    kept = (
        f"the last good checkpoint, of {state.last_written}, is kept in {state.scratch}"
        if state.last_written
        else "there is no good checkpoint yet"
    )
    return f"{error}; {kept}. Lower learning_rate or gradient_clip, or lengthen warmup_share"


def _fingerprint(
    module: FitModule,
    rows: Rows,
    settings: FitSettings,
    runtime: Runtime,
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that unfinished work depends on, except the code."""
    hardware = dataclasses.asdict(runtime)
    for name in CHANGES_NO_NUMBER:
        del hardware[name]
    return {
        "settings": dataclasses.asdict(settings),
        "runtime": hardware,
        "torch": torch.__version__,
        "weights": digest(module.model.state_dict().values()),
        "rows": digest(rows.tensors),
        **identity,
    }
