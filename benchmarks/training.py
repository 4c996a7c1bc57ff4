"""A training step against Hugging Face's T5, at the shape of published TIGER-like models.

Widths are equal: 4 + 4 layers, width 128, 4 heads of 32, the same histories and targets, AdamW, two
threads. Our feed-forward layer is SwiGLU with three matrices, T5's has two; so the compared row has
SwiGLU with two thirds of T5's hidden width, rounded up to 344: equal weights and multiplications.
SwiGLU with the full 512 is a separate row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.section import Section, Table, Times, side_by_side
from onerec.config import ModelConfig
from onerec.model import OneRec
from onerec.training.batches import LENGTH_WINDOW, LengthGroupedBatches, SessionRows, loader_of
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.generator_module import next_token_loss
from onerec.training.optimizer import adamw
from onerec.training.runtime import compile_blocks

WIDTH, HEADS, LAYERS, T5_FF, SWIGLU_FF = 128, 4, 4, 512, 344
CODES, SID_TOKENS, HISTORY, SESSION, ITEMS = 256, 4, 20, 5, 20_000
RATE = 0.1
GEMM = 2048
"""Side of the square matrix product that measures the machine's peak rate."""


@dataclass(frozen=True)
class Case:
    """A model with its training step.

    Attributes:
        step: A complete step: zero gradients, loss, backward, AdamW.
        parameters: Trained parameters.
        tokens: History and target tokens of a step, without start and BOS tokens.
        targets: Supervised tokens of a step.
        gflop: Multiplications and additions of the step's matrix products, in 10^9.
    """

    step: Callable[[], object]
    parameters: int
    tokens: int
    targets: int
    gflop: float


def run(quick: bool) -> Section:
    """Measure; `quick` uses a small batch and one round, without torch.compile."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    batch = 4 if quick else 256
    cases = _cases(batch, compiled=not quick)
    square = torch.randn(GEMM, GEMM)
    runs = {name: case.step for name, case in cases.items()} | {"sgemm": lambda: square @ square}
    times = side_by_side(runs, repeats=1 if quick else 5)
    peak = 2 * GEMM**3 / times["sgemm"].best
    lengths_table, lengths_figures = _lengths(batch, quick=quick)
    seconds = {name: times[name].best for name in cases}
    pointwise = cases[_T5].targets / seconds[_T5]
    figures = {
        "train_tokens_over_t5_dropout": seconds[_T5] / seconds[_OURS],
        "train_tokens_over_t5": seconds[_T5_PLAIN] / seconds[_OURS_PLAIN],
        "train_tokens_over_t5_same_dropout_places": seconds[_T5_BRANCHES] / seconds[_OURS],
        "train_mfu": cases[_OURS].gflop * 1e9 / seconds[_OURS] / peak,
        "session_targets_over_pointwise_t5": (
            cases[_SESSION].targets / seconds[_SESSION] / pointwise
        ),
        **lengths_figures,
    }
    return Section(
        title="Training",
        text=(
            f"One step of {batch} sessions after {HISTORY} items of {SID_TOKENS} SID tokens: "
            f"{LAYERS} + "
            f"{LAYERS} layers, width {WIDTH}, {HEADS} heads of {WIDTH // HEADS}, AdamW, 2 threads, "
            "best of the rounds, all rows in turn. T5's feed-forward layer is relu with "
            f"{T5_FF}; ours is SwiGLU with {SWIGLU_FF} unless the row says otherwise, which is as "
            "many multiplications. T5 drops attention weights and hidden units too, we drop the "
            "outputs of branches; the row 'branches only' is T5 with dropout where ours is. Our "
            "cross-attention of few targets reads the encoder's states without projecting them "
            "first, so a step has fewer products than T5's for the same function; MFU counts "
            "those that were made (attention's backward recomputes one), against "
            f"{peak / 1e9:.0f} GFLOP/s of a {GEMM} x {GEMM} float32 product in the same run, for "
            "bf16 too. Figures compare rows with dropout unless they say otherwise."
        ),
        tables=[_table(cases, times, peak), lengths_table],
        figures=figures,
    )


_T5, _T5_PLAIN, _T5_BRANCHES = (
    "T5, dropout .1",
    "T5, no dropout",
    "T5, dropout .1 on branches only",
)
_OURS, _OURS_PLAIN, _SESSION = "ours, dropout .1", "ours, no dropout", "ours, sessions of 5 items"


def _cases(batch: int, *, compiled: bool) -> dict[str, Case]:
    cases = {
        _T5: _t5(batch, RATE),
        _T5_PLAIN: _t5(batch, 0.0),
        _T5_BRANCHES: _t5(batch, RATE, branches_only=True),
        "T5, dropout .1, bf16": _t5(batch, RATE, bf16=True),
        _OURS: _ours(batch),
        _OURS_PLAIN: _ours(batch, dropout=0.0),
        "ours, dropout .1, SwiGLU 512": _ours(batch, d_ff=T5_FF),
        "ours, no dropout, SwiGLU 512": _ours(batch, d_ff=T5_FF, dropout=0.0),
        "ours, dropout .1, bf16": _ours(batch, bf16=True),
        "ours, no dropout, bf16": _ours(batch, dropout=0.0, bf16=True),
        _SESSION: _ours(batch, items=SESSION),
        "ours, sessions of 5 items, 8 experts, top 2": _ours(
            batch, items=SESSION, num_experts=8, active_experts=2
        ),
    }
    if compiled:
        cases["ours, dropout .1, torch.compile"] = _ours(batch, compiled=True)
    return cases


def _table(cases: dict[str, Case], times: dict[str, Times], peak: float) -> Table:
    rows = []
    for name, case in cases.items():
        best = times[name].best
        rows.append(
            [
                name,
                f"{case.parameters / 1e6:.2f}",
                best,
                times[name].middle,
                case.tokens / best,
                case.targets / best,
                case.gflop,
                case.gflop * 1e9 / best / peak,
            ]
        )
    columns = [
        "step",
        "M parameters",
        "best s",
        "median s",
        "tokens/s",
        "targets/s",
        "GFLOP",
        "MFU",
    ]
    return Table(caption="One training step", columns=columns, rows=rows)


def _t5(batch: int, dropout: float, *, branches_only: bool = False, bf16: bool = False) -> Case:
    """Hugging Face's T5 on full histories, without padding and mask."""
    from transformers import T5Config, T5ForConditionalGeneration
    from transformers.models.t5.modeling_t5 import T5Attention, T5DenseActDense

    shape: dict[str, Any] = dict(
        vocab_size=CODES * SID_TOKENS + 1,
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=T5_FF,
        num_layers=LAYERS,
        num_decoder_layers=LAYERS,
        num_heads=HEADS,
        dropout_rate=dropout,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=CODES * SID_TOKENS,
    )
    config = T5Config(**shape)
    model = T5ForConditionalGeneration(config).train()
    if branches_only:
        for module in model.modules():
            if isinstance(module, T5Attention):
                module.dropout = 0.0
            elif isinstance(module, T5DenseActDense):
                module.dropout.p = 0.0
    read = torch.randint(1, CODES * SID_TOKENS, (batch, HISTORY * SID_TOKENS))
    labels = torch.randint(1, CODES * SID_TOKENS, (batch, SID_TOKENS))
    return _case(
        model,
        lambda: model(input_ids=read, labels=labels).loss,
        tokens=read.numel() + labels.numel(),
        targets=labels.numel(),
        bf16=bf16,
    )


def _model(items: int, **changes: Any) -> OneRec:
    shape: dict[str, Any] = {
        "d_model": WIDTH,
        "num_heads": HEADS,
        "d_ff": SWIGLU_FF,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "num_experts": 1,
        "active_experts": 1,
        "dropout": RATE,
        "history_tokens": "sid_tokens",
        "separator": False,
    }
    return OneRec(
        ModelConfig(**(shape | changes)),
        codebook_size=CODES,
        num_sid_tokens=SID_TOKENS,
        history_length=HISTORY,
        session_items=items,
    ).train()


def _ours(
    batch: int, *, items: int = 1, bf16: bool = False, compiled: bool = False, **changes: Any
) -> Case:
    model = _model(items, **changes)
    codes = torch.randint(0, CODES, (ITEMS, SID_TOKENS))
    history = torch.randint(0, ITEMS, (batch, HISTORY))
    targets = torch.randint(0, ITEMS, (batch, items))
    return _case(
        model,
        lambda: next_token_loss(model, history, targets, codes),
        tokens=(history.numel() + targets.numel()) * SID_TOKENS,
        targets=targets.numel() * SID_TOKENS,
        bf16=bf16,
        compiled=compiled,
    )


def _case(
    model: nn.Module,
    loss_of: Callable[[], Tensor],
    *,
    tokens: int,
    targets: int,
    bf16: bool,
    compiled: bool = False,
) -> Case:
    optimizer = adamw(model, 1e-3, 0.01)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        if isinstance(model, OneRec):
            model.update_expert_bias()

    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        step()
    if compiled and isinstance(
        model, OneRec
    ):  # after counting, which does not see compiled products
        compile_blocks(model)
    return Case(
        step=step,
        parameters=sum(p.numel() for p in model.parameters()),
        tokens=tokens,
        targets=targets,
        gflop=counter.get_total_flops() / 1e9,
    )


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flop(
    grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flop,
}
"""torch's FLOP counter covers GPU attention only."""


def _lengths(batch: int, *, quick: bool) -> tuple[Table, dict[str, float]]:
    """Sessions of 1 to 5 items after histories of geometric length, mean 20, cut at 20.

    Batches are grouped by length and trimmed, only trimmed, or padded to the longest row; a few of
    each are trained on. Throughput counts real tokens only.
    """
    rows = 200 * batch
    chance = torch.full((rows,), 1 / HISTORY)
    lengths = 1 + torch.distributions.Geometric(probs=chance).sample().long()
    sizes = torch.randint(1, SESSION + 1, (rows,))
    history, targets = _padded(lengths, HISTORY), _padded(sizes, SESSION)
    codes = torch.randint(0, CODES, (ITEMS, SID_TOKENS))
    steps = 1 if quick else 8
    found: dict[str, float] = {}
    table = []
    for name, window, trim in (
        ("grouped by length, trimmed", LENGTH_WINDOW, True),
        ("shuffled, trimmed", 1, True),
        ("shuffled, padded to the longest", 1, False),
    ):
        order = LengthGroupedBatches(
            history,
            targets,
            batch,
            0,
            window=window,
            history_tokens=SID_TOKENS,
            target_tokens=SID_TOKENS + 1,
        )
        waste = order.padding_waste() if trim else _untrimmed_waste(history, targets)
        source = SessionRows(history, targets)
        batches = []
        loader = loader_of(DistributedBatches(order), source)
        for _, (read, written, _) in zip(range(steps), loader, strict=False):
            batches.append((read, written) if trim else _widened(read, written))
        loading = source.seconds / steps
        real = SID_TOKENS * sum(int((r >= 0).sum() + (w >= 0).sum()) for r, w in batches)
        seconds = _seconds_of(batches, codes)
        share = loading / (loading + seconds / steps)
        table.append([name, waste, seconds / steps, real / seconds, share])
        if window > 1:
            found = {"padding_waste": waste, "train_loading_share": share}
    return Table(
        caption="Batches of sessions of unequal length",
        columns=["batches", "padding", "s a step", "real tokens/s", "share of loading"],
        rows=table,
    ), found


def _seconds_of(batches: list[tuple[Tensor, Tensor]], codes: Tensor) -> float:
    """Seconds of a step on each batch, after as many warm-up steps."""
    model = _model(SESSION)
    optimizer = adamw(model, 1e-3, 0.01)

    def steps() -> None:
        for read, written in batches:
            optimizer.zero_grad()
            next_token_loss(model, read, written, codes).backward()
            optimizer.step()

    return side_by_side({"steps": steps}, repeats=1)["steps"].best


def _padded(lengths: Tensor, width: int) -> Tensor:
    items = torch.randint(0, ITEMS, (len(lengths), width))
    return torch.where(torch.arange(width) < lengths.unsqueeze(1), items, -1)


def _widened(read: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
    widths = (HISTORY - read.shape[1], SESSION - written.shape[1])
    first, second = (
        nn.functional.pad(t, (0, width), value=-1)
        for t, width in zip((read, written), widths, strict=True)
    )
    return first, second


def _untrimmed_waste(history: Tensor, targets: Tensor) -> float:
    real = SID_TOKENS * int((history >= 0).sum()) + (SID_TOKENS + 1) * int((targets >= 0).sum())
    return 1 - real / (SID_TOKENS * history.numel() + (SID_TOKENS + 1) * targets.numel())
