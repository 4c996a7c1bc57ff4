"""Costs of the presets, and measured optimiser steps of the large ones."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cost import Cost, training_cost
from benchmarks.section import Section, Table, side_by_side
from onerec.config import PRESETS, ModelConfig, PipelineConfig
from onerec.model import OneRec, lookup, session_nll
from onerec.training.optimizer import adamw

GIB, MIB = 2**30, 2**20
SESSION_ITEMS = 5
DEMO_ITEMS = 2000
"""Codebook size assumed where it depends on the catalogue: that of the demo."""
THREADS = 2


@dataclass(frozen=True)
class PresetSteps:
    """Optimiser steps on one batch: loss before each, and seconds of all but the first."""

    cost: Cost
    losses: list[float]
    seconds: float


def run(quick: bool) -> Section:
    """Count all presets; step `base` in full and `large` with fewer blocks."""
    torch.set_num_threads(THREADS)
    history, steps = (4, 2) if quick else (32, 5)
    base = PRESETS["base"]
    large = with_depth(PRESETS["large"], depth=1)
    if quick:  # smoke test
        small = {"model": {"d_model": 128, "d_ff": 256}}
        base, large = base.override(small), large.override(small)
    rate = matmul_rate(torch.float32, "cpu", size=1024)
    stepped = {
        "base, full shape": steps_of(base, batch_size=2, history=history, steps=steps),
        "large, 1 + 1 of 4 + 4 layers": steps_of(large, batch_size=2, history=history, steps=steps),
    }
    rows = [
        [
            name,
            f"{s.cost.parameters / 1e6:,.0f} M",
            s.losses[0],
            s.losses[-1],
            s.seconds,
            s.cost.supervised_tokens / s.seconds,
            s.cost.flops / s.seconds / rate,
        ]
        for name, s in stepped.items()
    ]
    for result in stepped.values():
        assert result.losses[-1] < result.losses[0], "the loss of a repeated batch has to fall"
    tables = [
        Table(
            caption="One training step per session, full histories, counted on the meta device "
            "(activations: float32, without recomputation)",
            columns=[
                "preset", "parameters", "active per token", "history tokens",
                "GFLOP per session", "GFLOP per supervised token",
                "weights GiB", "gradients GiB", "Adam GiB", "activations MiB per session",
            ],
            rows=[cost_row(name, stages) for name, stages in PRESETS.items()],
        ),
        Table(
            caption=f"{steps} steps on one batch of 2 sessions with {history} history items, "
            f"float32, {THREADS} threads; {rate / 1e9:.0f} GFLOP/s is this machine's sgemm",
            columns=[
                "model", "parameters", "first loss", "last loss", "seconds per step",
                "supervised tokens/s", "MFU",
            ],
            rows=rows,
        ),
    ]  # fmt: skip
    text = (
        "`base` takes real optimiser steps at its full width, depth and vocabulary, with short "
        "histories to bound the time; `large` is counted at its full shape on the meta device and "
        "steps with one encoder and one decoder block. MFU is the share of the measured rate of a "
        "square matrix product. The section Accelerator has both in full on a GPU."
    )
    figures = {
        "base_seconds_per_step": stepped["base, full shape"].seconds,
        "base_mfu": rows[0][-1],
    }
    return Section(title="Presets", text=text, tables=tables, figures=figures)


def cost_of(stages: PipelineConfig, **changes: Any) -> Cost:
    """The cost of a preset's training step."""
    shape: dict[str, Any] = {
        "codebook_size": stages.tokenizer.codes_per_level(DEMO_ITEMS),
        "num_sid_tokens": stages.tokenizer.num_levels + 1,
        "history_length": stages.sessions.history_length,
        "session_items": stages.sessions.session_items,
    }
    return training_cost(stages.model, **(shape | changes))


def cost_row(name: str, stages: PipelineConfig) -> list[Any]:
    cost = cost_of(stages)
    model = stages.model
    per_item = 1
    if model.history_tokens == "sid_tokens":
        per_item = stages.tokenizer.num_levels + 1 + model.separator
    weights = 4 * cost.parameters / GIB
    return [
        name,
        f"{cost.parameters / 1e6:,.1f} M",
        f"{cost.active_parameters / 1e6:,.1f} M",
        1 + per_item * stages.sessions.history_length,
        cost.flops / 1e9,
        cost.flops_per_supervised_token / 1e9,
        weights,
        weights,
        2 * weights,
        cost.activation_bytes / MIB,
    ]


def with_depth(stages: PipelineConfig, *, depth: int) -> PipelineConfig:
    """The preset with fewer encoder and decoder blocks."""
    return stages.override({"model": {"encoder_layers": depth, "decoder_layers": depth}})


def build(model: ModelConfig, stages: PipelineConfig, history: int) -> OneRec:
    torch.manual_seed(0)
    return OneRec(
        model,
        codebook_size=stages.tokenizer.codes_per_level(DEMO_ITEMS),
        num_sid_tokens=stages.tokenizer.num_levels + 1,
        history_length=history,
        session_items=SESSION_ITEMS,
    )


def steps_of(
    stages: PipelineConfig,
    *,
    batch_size: int,
    history: int,
    steps: int,
) -> PresetSteps:
    """AdamW steps on one random batch, without dropout so that losses are comparable."""
    model = build(dataclasses.replace(stages.model, dropout=0.0), stages, history)
    optimizer = adamw(model.train(), stages.training.learning_rate, stages.training.weight_decay)
    step = training_step(model, optimizer, stages, batch_size=batch_size, history=history)
    losses, seconds = [], []
    for _ in range(steps):
        began = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - began)
    cost = cost_of(stages, history_length=history, batch_size=batch_size)
    return PresetSteps(cost, losses, min(seconds[1:]))


def training_step(
    model: OneRec,
    optimizer: torch.optim.Optimizer,
    stages: PipelineConfig,
    *,
    batch_size: int,
    history: int,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], float]:
    """A function that takes one optimiser step on a random batch and returns the loss before it.

    Args:
        model: In training mode; without dropout its losses are comparable.
        optimizer: Optimiser of the model's weights.
        stages: Settings, of which gradient clipping is used.
        batch_size: Sessions per batch.
        history: H, items per history.
        dtype: Data type of matrix products; below float32 by autocast.
    """
    device = model.device.type
    generator = torch.Generator().manual_seed(1)
    items, sid_tokens = 1000, model.num_sid_tokens
    codes = torch.randint(0, model.codebook_size, (items, sid_tokens), generator=generator)
    histories = torch.randint(0, items, (batch_size, history), generator=generator)
    targets = torch.randint(0, items, (batch_size, SESSION_ITEMS), generator=generator)
    read, written = ([t.to(device) for t in lookup(codes, rows)] for rows in (histories, targets))

    def step() -> float:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = session_nll(model(*read, written[0]), *written)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), stages.training.gradient_clip)
        optimizer.step()
        model.update_expert_bias()
        return loss.item()

    return step


def matmul_rate(dtype: torch.dtype, device: str, *, size: int) -> float:
    """FLOP/s of a square matrix product, best of several runs."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / side_by_side({"mm": product}, repeats=20, warm_up=3)["mm"].best
