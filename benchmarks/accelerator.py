"""On one GPU: training steps of `base` and `large`, and throughput of beam search.

Without a GPU nothing is measured and the section says so; `python -m benchmarks accelerator` fills
it on a machine with a GPU.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.cost import Cost
from benchmarks.presets import SESSION_ITEMS, build, cost_of, matmul_rate, training_step, with_depth
from benchmarks.section import Section, Table
from onerec.config import PRESETS, PipelineConfig
from onerec.generation import Trie, generate_sessions
from onerec.training.optimizer import adamw
from onerec.training.runtime import compile_blocks

BF16_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s of data sheets, by a word of the device's name."""
ITEMS = 1_000_000
USERS = 64
BEAMS = (32, 128)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of the measurement.

    Attributes:
        presets: Trained configurations by name.
        batches: Batch sizes in sessions, by preset.
        steps: Training steps on one batch.
        items: N, size of the catalogue.
        users: B, users per batch.
        beams: Beam widths.
        product: Side of the square matrix product that measures the device's peak rate.
        compiled: Whether to measure with `torch.compile` as well.
    """

    presets: dict[str, PipelineConfig]
    batches: dict[str, tuple[int, ...]]
    steps: int = 8
    items: int = ITEMS
    users: int = USERS
    beams: tuple[int, ...] = BEAMS
    product: int = 8192
    compiled: bool = True


def full_size() -> Size:
    """`base` and `large` as they are."""
    return Size(
        presets={name: PRESETS[name] for name in ("base", "large")},
        batches={"base": (64, 128), "large": (16, 32)},
    )


def quick_size() -> Size:
    """Small sizes for a smoke test on any machine."""
    narrow = {"model": {"d_model": 64, "num_heads": 2, "d_ff": 64}} | {
        "tokenizer": {"codebook_size": 64},
        "sessions": {"history_length": 4},
    }
    return Size(
        presets={n: with_depth(PRESETS[n].override(narrow), depth=1) for n in ("base", "large")},
        batches={"base": (2,), "large": (2,)},
        steps=2,
        items=500,
        users=2,
        beams=(4,),
        product=64,
        compiled=False,
    )


def run(quick: bool) -> Section:
    """Measure on the GPU; `quick` uses small shapes and also runs on a CPU."""
    if not torch.cuda.is_available() and not quick:
        return Section(
            title="Accelerator",
            text="No GPU was at hand: nothing was measured. On a machine with one, "
            "`make bench SECTIONS=accelerator` fills this section.",
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = quick_size() if quick else full_size()
    rate = matmul_rate(torch.bfloat16, device, size=size.product)
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    steps = list(_training_rows(size, device, rate, name))
    searches = list(_search_rows(size, device))
    return Section(
        title="Accelerator",
        text=f"{name}, torch {torch.__version__}. Weights and optimiser in float32, products in "
        f"bf16 (autocast), full histories of {size.presets['base'].sessions.history_length} items "
        f"and {SESSION_ITEMS} targets, every step of the same random batch with its own AdamW "
        "update; the best step counts. MFU: counted operations (without recomputation) over the "
        f"rate of a {size.product} x {size.product} bf16 product measured in the same process, "
        f"{rate / 1e12:.0f} TFLOP/s, and over the data sheet's.",
        tables=[
            Table(
                caption="Training steps in bf16",
                columns=["step", "parameters", "first loss", "last loss", "seconds", "tokens/s",
                         "supervised tokens/s", "MFU", "MFU by data sheet", "peak GiB"],
                rows=steps,
            ),
            Table(
                caption=f"Sessions of {SESSION_ITEMS} items by constrained beam search, `base`, "
                f"{size.items:,} items, {size.users} users at once",
                columns=["weights", "beams", "users/s", "minutes for a million users", "legal"],
                rows=searches,
            ),
        ],
    )  # fmt: skip


def _training_rows(size: Size, device: str, rate: float, name: str) -> Iterator[list[Any]]:
    peak = next((value for word, value in BF16_PEAK.items() if word in name), None)
    cases = [(p, b, False) for p in size.presets for b in size.batches[p]]
    if size.compiled:
        cases.append(("base", size.batches["base"][0], True))
    for preset, batch, compiled in cases:
        stages = size.presets[preset]
        label = f"`{preset}`, {batch} sessions" + (", torch.compile" if compiled else "")
        try:
            yield [label, *_steps(stages, batch, size.steps, device, rate, peak, compiled)]
        except torch.cuda.OutOfMemoryError:
            yield [label, "out of memory", *[""] * 8]
        if device == "cuda":
            torch.cuda.empty_cache()


def _steps(
    stages: PipelineConfig,
    batch: int,
    steps: int,
    device: str,
    rate: float,
    peak: float | None,
    compiled: bool,
) -> list[Any]:
    """Measure training steps of one preset; the row's cells after the label."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    history = stages.sessions.history_length
    model = build(dataclasses.replace(stages.model, dropout=0.0), stages, history).to(device)
    if compiled:
        compile_blocks(model)
    optimizer = adamw(model.train(), stages.training.learning_rate, stages.training.weight_decay)
    step = training_step(
        model, optimizer, stages, batch_size=batch, history=history, dtype=torch.bfloat16
    )
    losses, seconds = [], []
    for _ in range(steps):
        began = time.perf_counter()
        losses.append(step())  # reads the loss, so it waits for the device
        seconds.append(time.perf_counter() - began)
    best = min(seconds[1:])
    cost: Cost = cost_of(stages, history_length=history, batch_size=1)
    flops = batch * cost.flops
    tokens = batch * model.num_sid_tokens * (history + SESSION_ITEMS)
    memory = torch.cuda.max_memory_allocated() / GIB if device == "cuda" else float("nan")
    return [
        f"{cost.parameters / 1e6:,.0f} M", losses[0], losses[-1], best, tokens / best,
        batch * cost.supervised_tokens / best, flops / best / rate,
        flops / best / peak if peak else "", memory,
    ]  # fmt: skip


@torch.no_grad()
def _search_rows(size: Size, device: str) -> Iterator[list[Any]]:
    stages = size.presets["base"]
    history = stages.sessions.history_length
    torch.manual_seed(0)
    model = build(stages.model, stages, history).eval()
    codes = codes_with_disambiguation(size.items, model.codebook_size, model.num_sid_tokens)
    trie = Trie.build(codes, model.codebook_size).to(device)
    codes = codes.to(device)
    rows = torch.randint(0, size.items, (size.users, history), device=device)
    for (weights, dtype), beam in itertools.product(PRECISIONS.items(), size.beams):
        served = model.to(device=device, dtype=dtype)
        seconds, legal = [], 0.0
        for _ in range(3):
            began = time.perf_counter()
            found = generate_sessions(
                served, rows, codes, trie, num_items=SESSION_ITEMS, beam=beam, exclude=rows
            )
            legal = float((found.items >= 0).float().mean())  # waits for the device
            seconds.append(time.perf_counter() - began)
        rate = size.users / min(seconds)
        yield [weights, beam, rate, 1e6 / rate / 60, legal]


def codes_with_disambiguation(items: int, codebook_size: int, num_sid_tokens: int) -> torch.Tensor:
    """(N, T) distinct random semantic IDs whose last token is a small disambiguation token."""
    prefixes = torch.randint(0, codebook_size, (items, num_sid_tokens - 1))
    same, at = torch.unique(prefixes, dim=0, return_inverse=True)
    order = at.argsort(stable=True)
    first = torch.searchsorted(at[order], torch.arange(len(same)))
    place = torch.empty(items, dtype=torch.long)
    place[order] = torch.arange(items) - first[at[order]]
    return torch.cat([prefixes, place.unsqueeze(1)], 1)
