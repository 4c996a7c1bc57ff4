"""Pretraining: a generator fitted to good sessions by next-token prediction; resumable."""

import dataclasses
import hashlib
import json
import logging
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from onerec.artifacts import read_json, write_json
from onerec.config import ModelConfig, TrainingConfig
from onerec.model import OneRec, expert_load, init_from_content, load_model, save_model
from onerec.model.checkpoint import WEIGHTS
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.training.batches import (
    AlikeBatches,
    OrderedBatches,
    TrimmedRows,
    loader_of,
)
from onerec.training.bookkeeping import RESUME, Bookkeeping, Progress
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.module import GeneratorModule
from onerec.training.runtime import (
    Runtime,
    compile_blocks,
    process_rank,
    quiet_trainer,
    reproducible,
)

log = logging.getLogger(__name__)

HISTORY = "history.json"
FINGERPRINT = "fingerprint.json"
REPORT_EVERY = 50
"""Steps between two looks at the loss; each look waits for the device."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What came out of a training.

    Attributes:
        history: One entry an epoch: `epoch` (from 1), `train_loss`, `valid_loss`,
            `valid_token_losses`, `learning_rate`.
        best_epoch: The epoch whose weights were kept.
        best_valid_loss: Its mean negative log-likelihood per token, in nats.
        uniform_loss: log K, what a model that knows nothing gets.
        token_perplexity: Per token of an ID, of the kept weights on the validation sessions.
        expert_load: Per sparse layer, the share of tokens that each expert got.
        num_parameters: Trained numbers.
        stopped_early: Patience ran out before the epochs did.
        tokens_per_second: Tokens encoded and predicted a second while training in this process;
            None when a finished training was only picked up, or another process did it.
        padding_waste: Share of the tokens of an epoch (the first) that are padding.
        loading_share: Share of the training time spent on making batches; None as above.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    best_valid_loss: float
    uniform_loss: float
    token_perplexity: list[float]
    expert_load: list[list[float]]
    num_parameters: int
    stopped_early: bool
    tokens_per_second: float | None
    padding_waste: float
    loading_share: float | None


def fit_generator(
    config: TrainingConfig,
    model_config: ModelConfig,
    train: SessionTensors,
    valid: SessionTensors,
    codes: Tensor,
    *,
    codebook_size: int,
    tokenizer_version: str,
    out_dir: Path,
    scratch: Path,
    initial: OneRec | None = None,
    vectors: Tensor | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    runtime: Runtime | None = None,
    report_every: int = REPORT_EVERY,
) -> TrainingReport:
    """Train a generator; write `model.safetensors`, `config.json` and `history.json`.

    Killed at any moment and called again with the same arguments, it goes on from the last state
    written (`Runtime.checkpoint_every_steps`), takes the same steps and writes the same bytes as an
    undisturbed run on the same machine. With other arguments what lies in `scratch` is thrown away.

    On several devices every process calls it with the same arguments; the first one writes.

    Args:
        config: Optimiser and schedule.
        model_config: Shape of the generator.
        train: Sessions to learn from.
        valid: Sessions whose loss chooses the epoch.
        codes: (N, T) semantic IDs.
        codebook_size: K, codes per token.
        tokenizer_version: Tokenizer version of `codes`, stamped on the checkpoint.
        out_dir: Where the three files go.
        scratch: A directory for unfinished work; the caller deletes it when the result is safe.
        initial: Weights to start from (same shape and tokenizer version); random ones by default.
        vectors: (N, Dv) item vectors; without `initial`, token embeddings start from them.
        on_progress: Called with messages about the loss every so many steps.
        runtime: Hardware.
        report_every: Steps between two looks at the loss.

    Raises:
        ValueError: A split has no session, or `initial` has another shape.
        TrainingDivergedError: A loss was not a number.
    """
    require_sessions(train, valid)
    runtime = runtime or Runtime()
    rank = process_rank(runtime)
    shape = {
        "codebook_size": codebook_size,
        "num_sid_tokens": codes.shape[1],
        "history_length": train.history.shape[1],
        "session_items": train.targets.shape[1],
    }
    with reproducible(runtime):
        torch.manual_seed(config.seed)
        model = OneRec(model_config, **shape)
        if initial is not None:
            _start_from(model, initial)
        elif vectors is not None:
            init_from_content(model, codes.long(), vectors)
        if runtime.compile:
            compile_blocks(model)

        def save_best(directory: Path) -> None:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            save_model(model, directory, tokenizer_version=tokenizer_version)

        batches = AlikeBatches(
            train.history,
            train.targets,
            config.batch_size,
            config.seed,
            window=config.length_window,
            history_tokens=model.tokens_per_history_item,
            target_tokens=model.num_sid_tokens + 1,
        )
        rows = TrimmedRows(train.history, train.targets)
        order = DistributedBatches(batches, rank=rank, world_size=runtime.processes)
        valid_order = DistributedBatches(
            OrderedBatches(len(valid), config.batch_size), rank=rank, world_size=runtime.processes
        )
        module = GeneratorModule(model, codes, config, total_steps=config.max_epochs * len(order))
        books = Bookkeeping(
            scratch=scratch,
            seed=config.seed,
            patience=config.patience,
            batch_size=config.batch_size,
            order=order,
            checkpoint_every_steps=runtime.checkpoint_every_steps,
            save_best=save_best,
            token_losses=module.token_losses,
            on_progress=on_progress,
            report_every=report_every,
        )
        trainer = quiet_trainer(
            runtime,
            max_epochs=config.max_epochs,
            gradient_clip=config.gradient_clip,
            callbacks=[books],
        )
        if runtime.processes > 1:
            trainer.strategy.setup_environment()  # Lightning would do it later: now they can wait
        if rank == 0:
            _claim(
                scratch,
                _fingerprint(config, model, tokenizer_version, train, valid, codes, runtime),
            )
        trainer.strategy.barrier()
        resume = scratch / RESUME
        trainer.fit(
            module,
            loader_of(order, rows),
            loader_of(valid_order, TrimmedRows(valid.history, valid.targets)),
            ckpt_path=resume if resume.exists() else None,
            weights_only=True,
        )
        best, _ = load_model(books.best_dir, expected_tokenizer_version=tokenizer_version)
        trainer.strategy.barrier()  # the first process may delete what the others have read
    report = _report(books, best, config, train, codebook_size, batches, rows)
    if rank == 0:
        _write(
            books.best_dir,
            out_dir,
            report,
            {**shape, "tokenizer_version": tokenizer_version},
            train,
            valid,
        )
    return report


def read_report(directory: Path) -> TrainingReport:
    """The report of a training that another process did; what its clock measured is None."""
    written = read_json(directory / HISTORY)
    names = {f.name for f in dataclasses.fields(TrainingReport)} - {"history"}
    summary = {name: written["summary"].get(name) for name in names}
    return TrainingReport(history=written["epochs"], **summary)


def require_sessions(
    train: SessionTensors, valid: SessionTensors, *, made_with: Mapping[str, Any] | None = None
) -> None:
    """Raise `ValueError` when a split has no session; `made_with` are the settings that made it."""
    for name, sessions in (("training", train), ("validation", valid)):
        if not len(sessions):
            settings = f" (it was made with {json.dumps(dict(made_with))})" if made_with else ""
            raise ValueError(
                f"no {name} session in the session_dataset{settings}: none is good and has a "
                "target with a semantic ID. Lower good_min_watched_items, good_min_watch_seconds "
                "or good_min_positive_interactions, widen window_days, or check that events and "
                "semantic_ids cover these days"
            )


def _start_from(model: OneRec, initial: OneRec) -> None:
    ours, theirs = model.state_dict(), initial.state_dict()
    differing = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
    )
    if differing:
        raise ValueError(
            f"the checkpoint to start from has another shape ({', '.join(differing[:3])}, ...): "
            "train with warm_start=false, or with the model settings it was trained with"
        )
    model.load_state_dict(theirs)


def _fingerprint(
    config: TrainingConfig,
    model: OneRec,
    tokenizer_version: str,
    train: SessionTensors,
    valid: SessionTensors,
    codes: Tensor,
    runtime: Runtime,
) -> dict[str, Any]:
    """Everything the unfinished work depends on, but the code."""
    return {
        "training": dataclasses.asdict(config),
        "model": dataclasses.asdict(model.config),
        "tokenizer_version": tokenizer_version,
        "runtime": _deciding(runtime),
        "torch": torch.__version__,
        "weights": _digest(model.state_dict().values()),
        "data": _digest([train.history, train.targets, valid.history, valid.targets, codes]),
    }


def _deciding(runtime: Runtime) -> dict[str, Any]:
    """The runtime without what changes no number."""
    settings = dataclasses.asdict(runtime)
    del settings["checkpoint_every_steps"]
    return settings


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _claim(scratch: Path, fingerprint: dict[str, Any]) -> None:
    """Keep what lies in `scratch` if it is of this very training, else start with nothing."""
    file = scratch / FINGERPRINT
    text = json.dumps(fingerprint, sort_keys=True)
    if file.exists() and file.read_bytes() == text.encode():
        broken = _unreadable(scratch)
        if broken is None:
            return
        log.warning("%s cannot be read: the training starts again from its beginning", broken)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    aside = file.with_suffix(".aside")
    aside.write_text(text)
    os.replace(aside, file)


def _unreadable(scratch: Path) -> Path | None:
    """The file of the unfinished training that is damaged, if there is one."""
    state = scratch / RESUME
    if not state.exists():
        return None
    try:
        with zipfile.ZipFile(state) as archive:
            if archive.testzip() is not None:  # torch.load does not look at the checksums
                return state
    except Exception:  # a damaged archive fails in many ways
        return state
    for weights in scratch.glob(f"best-*/{WEIGHTS}"):
        try:
            with safe_open(weights, framework="pt"):
                pass
        except (OSError, SafetensorError):
            return weights
    return None


def _report(
    books: Bookkeeping,
    best: OneRec,
    config: TrainingConfig,
    train: SessionTensors,
    size: int,
    order: AlikeBatches,
    rows: TrimmedRows,
) -> TrainingReport:
    entry = books.history[books.best_epoch - 1]
    num_sid_tokens = len(entry["valid_token_losses"])
    items = int((train.history >= 0).sum() + (train.targets >= 0).sum())
    rate = books.rows_per_second * items * num_sid_tokens / len(train) if books.steps_done else None
    loading = rows.seconds / max(books.training_seconds, 1e-9) if books.steps_done else None
    order.set_epoch(0)  # a run that was resumed reports what an undisturbed one does
    return TrainingReport(
        history=books.history,
        best_epoch=books.best_epoch,
        best_valid_loss=entry["valid_loss"],
        uniform_loss=math.log(size),
        # a diverged model's loss may be far beyond what exp can hold
        token_perplexity=[math.exp(min(loss, 100.0)) for loss in entry["valid_token_losses"]],
        expert_load=expert_load(best),
        num_parameters=sum(p.numel() for p in best.parameters()),
        stopped_early=len(books.history) < config.max_epochs,
        tokens_per_second=rate,
        padding_waste=order.padding_waste(),
        loading_share=loading,
    )


def _write(
    best_dir: Path,
    out_dir: Path,
    report: TrainingReport,
    identity: dict[str, Any],
    train: SessionTensors,
    valid: SessionTensors,
) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    for file in best_dir.iterdir():
        shutil.copyfile(file, out_dir / file.name)
    summary = dataclasses.asdict(report)
    epochs = summary.pop("history")
    for name in ("tokens_per_second", "loading_share"):
        del summary[name]  # an artifact holds nothing that a clock decides
    summary |= {"train_sessions": len(train), "valid_sessions": len(valid), **identity}
    write_json(out_dir / HISTORY, {"epochs": epochs, "summary": summary})
