"""The encoder-decoder of OneRec v1 and the lazy decoder of OneRec-V2, at equal parameters."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from benchmarks.cost import training_cost
from benchmarks.section import Section, Table, side_by_side
from onerec.config import ModelConfig, TokenizerConfig, TrainingConfig
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator.config import SimulatorConfig
from onerec.model import OneRec, lookup, session_nll
from onerec.tokenizer.codebook import fit_codebook
from onerec.tokenizer.semantic_ids import assign_semantic_ids
from onerec.training.batches import ShuffledBatches, epoch_seed
from onerec.training.generator import pretraining_settings
from onerec.training.generator_module import token_nll
from onerec.training.optimizer import adamw, rate_share

HISTORY, ITEMS, THREADS = 20, 5, 2
MODEL = ModelConfig(
    d_model=128,
    num_heads=4,
    d_ff=512,
    encoder_layers=4,
    decoder_layers=4,
    num_experts=1,
    active_experts=1,
    history_tokens="sid_tokens",
    separator=False,
)
"""The peers' shape; a lazy block costs what the mean of an encoder and a decoder block does."""
ARCHITECTURES = {
    "encoder-decoder, 4 + 4 blocks": MODEL,
    "lazy decoder, 8 blocks": dataclasses.replace(
        MODEL, architecture="lazy_decoder", decoder_layers=8
    ),
    "lazy decoder, 8 blocks, 1 key head": dataclasses.replace(
        MODEL, architecture="lazy_decoder", decoder_layers=8, context_kv_heads=1
    ),
}
TRAINING = TrainingConfig(learning_rate=1e-3)


def run(quick: bool) -> Section:
    """Train both on the same simulated sessions, then time their steps alternately."""
    torch.set_num_threads(THREADS)
    steps, batch_size, users, days = (2, 4, 200, 3) if quick else (300, 32, 5400, 14)
    history, targets, day, codes, size = simulated_sessions(users, days)
    schedule = dataclasses.replace(TRAINING, batch_size=batch_size)
    learned, held_out = day < days - 1, day == days - 1
    shape = {
        "codebook_size": size,
        "num_sid_tokens": codes.shape[1],
        "history_length": HISTORY,
        "session_items": ITEMS,
    }
    models, losses = {}, {}
    for name, config in ARCHITECTURES.items():
        torch.manual_seed(0)
        models[name] = OneRec(config, **shape)
        fit_architecture(models[name], history[learned], targets[learned], codes, steps, schedule)
        losses[name] = validation_loss(models[name], history[held_out], targets[held_out], codes)
    batch = history[learned][:batch_size], targets[learned][:batch_size]
    times = side_by_side(
        {name: lambda m=model: step(m, *batch, codes, None) for name, model in models.items()},
        repeats=1 if quick else 10,
        warm_up=0 if quick else 2,
    )
    tokens = int((batch[0] >= 0).sum() + (batch[1] >= 0).sum()) * codes.shape[1]
    costs = {name: training_cost(config, **shape) for name, config in ARCHITECTURES.items()}
    rows = [
        [
            name,
            f"{costs[name].parameters / 1e6:.2f} M",
            losses[name],
            costs[name].flops * batch_size / 1e9,
            costs[name].activation_bytes * batch_size / 2**20,
            tokens / times[name].best,
        ]
        for name in ARCHITECTURES
    ]
    first, lazy = list(ARCHITECTURES)[:2]
    return Section(
        title="Architectures",
        text=(
            f"Both architectures on {int(learned.sum()):,} simulated user-days, {steps} steps of "
            f"{batch_size} sessions, history {HISTORY} x {codes.shape[1]} SID tokens, "
            f"{ITEMS} target items, {size} codes, dropout {MODEL.dropout}, float32, {THREADS} "
            f"threads; validation on the {int(held_out.sum()):,} user-days of the day after. A "
            "loss without knowledge is "
            f"{np.log(size):.3f}. Operations and activations count full histories; tokens are "
            "SID tokens read and predicted."
        ),
        tables=[_table(rows, steps)],
        figures={
            "lazy_loss_minus_encoder_decoder": losses[lazy] - losses[first],
            "lazy_flops_over_encoder_decoder": costs[lazy].flops / costs[first].flops,
            "lazy_tokens_over_encoder_decoder": times[first].best / times[lazy].best,
        },
    )


def _table(rows: list[list[Any]], steps: int) -> Table:
    return Table(
        caption="OneRec v1 and OneRec-V2 at equal parameters",
        columns=[
            "architecture",
            "parameters",
            f"validation loss after {steps} steps",
            "GFLOP per step",
            "activations MiB per step",
            "tokens/s",
        ],
        rows=rows,
    )


def simulated_sessions(users: int, days: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Watched items of the simulated app, a row per user and day with enough earlier items.

    Returns:
        Histories (R, 20) and targets (R, 5) of item numbers, -1 padded; the day (R,); semantic IDs
        (N, 4) from topic, subtopic and author; codes per token.
    """
    config = SimulatorConfig(initial_users=users, activity=0.5)
    source = SimulatedSource(config)
    watched = []
    for number in range(days):
        events = source.events(config.first_day + np.timedelta64(number, "D").item())
        events = events.filter(pc.field("watch_seconds") >= 10)
        names = (events[c].to_numpy(zero_copy_only=False) for c in ("user_id", "item_id"))
        who, what = (np.char.lstrip(n.astype(str), "uv").astype(np.int64) for n in names)
        watched.append(np.stack([who, np.full(len(who), number), np.arange(len(who)), what]))
    user, day, order, item = np.concatenate(watched, axis=1)
    by_time = np.lexsort((order, day, user))
    user, day, item = user[by_time], day[by_time], item[by_time]
    row = np.arange(len(user))
    first_of_user = np.maximum.accumulate(np.where(np.r_[True, user[1:] != user[:-1]], row, 0))
    visit = np.r_[True, (user[1:] != user[:-1]) | (day[1:] != day[:-1])]
    starts = row[visit & (row - first_of_user >= 5)]

    def window(offsets: np.ndarray, same: np.ndarray) -> Tensor:
        at = starts[:, None] + offsets
        inside = (at >= 0) & (at < len(item))
        at = at.clip(0, len(item) - 1)
        kept = inside & (same[at] == same[starts][:, None])
        return torch.from_numpy(np.where(kept, item[at], -1))

    history = window(np.arange(-HISTORY, 0), user)
    targets = window(np.arange(ITEMS), user * days + day)
    codes, size = content_ids(source, days)
    return history, targets, torch.from_numpy(day[starts]), codes, size


def content_ids(source: SimulatedSource, days: int) -> tuple[Tensor, int]:
    """Semantic IDs of all items, from random vectors of their topic, subtopic and author."""
    items = source.world.items(days - 1)
    rng = np.random.default_rng(0)
    keys = (items.topic, items.topic * 1000 + items.subtopic, items.author)
    vectors = np.zeros((len(items), 32), np.float32)
    for weight, key in zip((1.0, 0.7, 0.4), keys, strict=True):
        _, value = np.unique(key, return_inverse=True)
        vectors += weight * rng.standard_normal((value.max() + 1, 32), np.float32)[value]
    tensor = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=1)
    tokenizer = TokenizerConfig(codebook_size=32)
    codebook, codes = fit_codebook(tensor, tokenizer)
    names = np.array([f"i{n}" for n in range(len(items))], dtype=object)
    seen = np.full(len(items), "2026-06-01", "datetime64[D]")
    return assign_semantic_ids(codebook, codes, tensor, names, seen).codes, tokenizer.codebook_size


def step(
    model: OneRec,
    history: Tensor,
    targets: Tensor,
    codes: Tensor,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    """Forward and backward pass, and a step of the optimiser if given."""
    read, (written, mask) = lookup(codes, history), lookup(codes, targets)
    loss = session_nll(model(*read, written), written, mask)
    model.zero_grad()
    loss.backward()
    if optimizer is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING.gradient_clip)
        optimizer.step()


def fit_architecture(
    model: OneRec,
    history: Tensor,
    targets: Tensor,
    codes: Tensor,
    steps: int,
    config: TrainingConfig,
) -> None:
    """Train as `onerec.training` does, but for a number of steps."""
    model.train()
    optimizer = adamw(model, config.learning_rate, config.weight_decay)
    settings = pretraining_settings(config, steps=steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: rate_share(done, total_steps=steps, settings=settings)
    )
    order = ShuffledBatches(len(history), config.batch_size, seed=0)
    torch.manual_seed(epoch_seed(0, 0, 1))
    taken = 0
    while taken < steps:
        for rows in order:
            if taken == steps:
                break
            step(model, history[rows], targets[rows], codes, optimizer)
            schedule.step()
            taken += 1
        order.set_epoch(order.epoch + 1)


@torch.no_grad()
def validation_loss(model: OneRec, history: Tensor, targets: Tensor, codes: Tensor) -> float:
    """Mean negative log-likelihood per token, in nats."""
    model.eval()
    parts: list[Any] = [
        token_nll(model, h, t, codes)
        for h, t in zip(history.split(256), targets.split(256), strict=True)
    ]
    *sums, items = torch.stack(parts).sum(0).tolist()
    model.train()
    return sum(sums) / (items * codes.shape[1])
