"""Constrained beam search against `generate` of Hugging Face, no constraint, exact ranks.

The shape is that of published models: 20 history items of 4 tokens, 256 codes per token, 20,000
items, 4 + 4 layers of width 128 with 4 heads and feed-forward width 512, float32, 2 threads, random
weights. Our feed-forward layers are gated and have 1.5 times the weights of T5's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.generation_models import (
    BEAM,
    CODES,
    HISTORY,
    SESSION,
    SID_TOKENS,
    HuggingFace,
    peer_shaped,
    unique_codes,
)
from benchmarks.section import Section, Table, side_by_side
from benchmarks.trained_generator import structured_model
from onerec.config import PRESETS
from onerec.generation import Trie, generate_sessions, rank_items, score_catalogue
from onerec.model import OneRec, encode_items

THREADS = 2


@dataclass(frozen=True)
class BenchSize:
    """How much is measured."""

    items: int = 20_000
    batch: int = 64
    repeats: int = 7
    training_steps: int = 600
    exact_users: int = 64
    candidates: int = 128


QUICK = BenchSize(items=2_000, batch=4, repeats=1, training_steps=5, exact_users=2, candidates=24)


def run(quick: bool) -> Section:
    """All tables of the section."""
    torch.set_num_threads(1 if quick else THREADS)
    torch.manual_seed(0)
    size = QUICK if quick else BenchSize()
    figures: dict[str, float] = {}
    codes = unique_codes(size.items)
    trie = Trie.build(codes, CODES)
    history = torch.randint(0, size.items, (size.batch, HISTORY))
    model = peer_shaped()
    tables = [
        _against_peer(model, codes, trie, history, size, figures),
        _constraint(model, codes, trie, history, size, figures),
        _overlap(size, figures),
        _sessions(model, codes, trie, history, size, figures),
        _filters(model, codes, trie, history, size),
    ]
    return Section(
        title="Generation",
        text=(
            f"Constrained beam search, beam {BEAM}, {size.items:,} items, {SID_TOKENS} SID tokens "
            f"of {CODES} codes, batch {size.batch}, {HISTORY} history items as "
            f"{HISTORY * SID_TOKENS} tokens, 4 + 4 layers of width 128, 4 heads, feed-forward "
            "width 512, float32, "
            f"{THREADS} threads, random weights; reading the history is part of the time on both "
            "sides. The best of some runs in turn counts."
        ),
        tables=tables,
        figures=figures,
    )


def _against_peer(
    model: OneRec,
    codes: Tensor,
    trie: Trie,
    history: Tensor,
    size: BenchSize,
    figures: dict[str, float],
) -> Table:
    peer, compact = HuggingFace(codes), peer_shaped("items")
    small = history[: max(size.batch // 4, 1)]

    def ours(generator: OneRec, rows: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
        return lambda: rank_items(generator, rows, codes, trie, top_k=BEAM, beam=BEAM)

    runs: dict[str, tuple[int, Callable[[], Any]]] = {
        "Hugging Face T5, prefix_allowed_tokens_fn": (
            len(history), lambda: peer.generate(history)),
        "OneRec, the same": (len(history), ours(model, history)),
        "Hugging Face T5, no constraint": (
            len(history), lambda: peer.generate(history, constrained=False)),
        "OneRec, no constraint": (len(history), lambda: unconstrained(model, history, codes)),
        f"Hugging Face T5, prefix_allowed_tokens_fn, batch {len(small)}": (
            len(small), lambda: peer.generate(small)),
        f"OneRec, the same, batch {len(small)}": (len(small), ours(model, small)),
        "OneRec, one token per history item (its default)": (
            len(history), ours(compact, history)),
    }  # fmt: skip
    times = side_by_side({name: run for name, (_, run) in runs.items()}, repeats=size.repeats)
    found, logp = ours(model, history)()
    legal = {
        "Hugging Face T5, prefix_allowed_tokens_fn": peer.legal_share(peer.generate(history)),
        "OneRec, the same": _legal_share(found, logp, trie),
        "Hugging Face T5, no constraint": peer.legal_share(
            peer.generate(history, constrained=False)
        ),
    }
    rows = [
        [name, users / times[name].best, users / times[name].middle, legal.get(name, "")]
        for name, (users, _) in runs.items()
    ]
    peers, own = times["Hugging Face T5, prefix_allowed_tokens_fn"], times["OneRec, the same"]
    figures["beam_users_over_hf"] = peers.best / own.best
    figures["beam_legal_share"] = legal["OneRec, the same"]
    return Table(
        caption="Users per second, lists of 20 items",
        columns=["what", "users/s, best", "users/s, median", "legal share"],
        rows=rows,
    )


def _legal_share(items: Tensor, logp: Tensor, trie: Trie) -> float:
    """Share of beams that are distinct items of the catalogue within a user."""
    known = (items >= 0) & (items < trie.num_items) & logp.isfinite()
    ordered = items.sort(dim=1).values
    first = torch.ones_like(known)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return float((known.sum() - (~first).sum()) / known.numel())


# -------------------------------------------------------------------- the constraint alone


@torch.no_grad()
def unconstrained(model: OneRec, history: Tensor, codes: Tensor) -> Tensor:
    """The same beam search over all tokens, without the trie constraint."""
    memory = model.encode(*encode_items(model, history, codes))
    state = model.start_decoding(memory)
    logp, previous = torch.zeros(len(history), 1), None
    for level in range(SID_TOKENS):
        logits = model.step(state, slot=0, level=level, previous=previous).log_softmax(-1)
        scores = (logits + logp.unsqueeze(-1)).flatten(1)
        best = scores.topk(min(BEAM, scores.shape[1]), sorted=False).indices.sort(dim=-1).values
        logp, order = scores.gather(1, best).sort(dim=-1, descending=True, stable=True)
        best = best.gather(1, order)
        previous = best % CODES
        if level + 1 < SID_TOKENS:
            state.reorder(best // CODES)
    return logp


def _constraint(
    model: OneRec,
    codes: Tensor,
    trie: Trie,
    history: Tensor,
    size: BenchSize,
    figures: dict[str, float],
) -> Table:
    """Time of the trie's operations in a step, without the model."""
    beams = size.batch * BEAM
    rows: list[list[Any]] = []
    token_logp = torch.randn(size.batch, BEAM, CODES).log_softmax(-1)
    for depth in (1, 2, 3):
        per_beam = _constraint_at(depth, trie, token_logp, size)
        rows.append(
            [f"OneRec, depth {depth}", per_beam["constraint"],
             per_beam["narrow"] - per_beam["wide"]]
        )  # fmt: skip
        if depth == 2:
            figures["constraint_us_per_beam"] = per_beam["constraint"]
    rows.append(["Hugging Face, nested dict, depth 2", _peer_constraint(codes, beams, size), ""])

    steps = side_by_side(
        {
            "with": lambda: rank_items(model, history, codes, trie, top_k=BEAM, beam=BEAM),
            "without": lambda: unconstrained(model, history, codes),
        },
        repeats=size.repeats,
    )
    step = 1e6 * _step_seconds(model, history, codes, size.repeats) / beams
    figures["constraint_share_of_step"] = figures["constraint_us_per_beam"] / step
    rows.append([f"a whole step of {beams} beams", step, ""])
    rows.append(
        ["ablation: the search with the constraint less the search without it, per beam and step",
         1e6 * (steps["with"].best - steps["without"].best) / beams / SID_TOKENS, ""]
    )  # fmt: skip
    return Table(
        caption=(
            f"The constraint alone, {beams} beams: reading the children, taking their scores, "
            "closing the missing ones, following the chosen child"
        ),
        columns=["what", "us per beam", "top-k over legal tokens less top-k over all"],
        rows=rows,
    )


def _constraint_at(depth: int, trie: Trie, token_logp: Tensor, size: BenchSize) -> dict[str, float]:
    """Microseconds per beam of the constraint, and of top-k over legal and over all tokens."""
    rounds = 1 if size is QUICK else 50
    node = torch.randint(0, len(trie.code[depth - 1]), (size.batch, BEAM))
    column = torch.zeros(size.batch, BEAM, dtype=torch.long)
    parents = torch.arange(BEAM).expand(size.batch, -1)

    def legal_scores() -> Tensor:
        code, missing = trie.children(depth, node)
        return token_logp.gather(-1, code).add_(missing)

    def child() -> Tensor:
        moved = trie.first_child[depth][node.gather(1, parents)] + column
        return moved.clamp(max=len(trie.code[depth]) - 1)

    def top(scores: Tensor) -> Tensor:
        return scores.flatten(1).topk(BEAM, sorted=False).indices

    narrow = legal_scores()
    times = side_by_side(
        {
            "constraint": lambda: [(legal_scores(), child()) for _ in range(rounds)],
            "narrow": lambda: [top(narrow) for _ in range(rounds)],
            "wide": lambda: [top(token_logp) for _ in range(rounds)],
        },
        repeats=3 * size.repeats,
    )
    return {name: 1e6 * t.best / rounds / size.batch / BEAM for name, t in times.items()}


def _peer_constraint(codes: Tensor, beams: int, size: BenchSize) -> float:
    from transformers import PrefixConstrainedLogitsProcessor

    peer = HuggingFace(codes)
    process = PrefixConstrainedLogitsProcessor(peer.allowed, num_beams=BEAM)
    chosen = torch.randint(0, len(codes), (beams,))
    tokens = torch.cat([torch.zeros(beams, 1, dtype=torch.long), peer.tokens[chosen, :2]], 1)
    scores: Any = torch.randn(beams, 2 + SID_TOKENS * CODES)
    ids: Any = tokens
    times = side_by_side({"dict": lambda: process(ids, scores)}, repeats=size.repeats)
    return 1e6 * times["dict"].best / beams


@torch.no_grad()
def _step_seconds(model: OneRec, history: Tensor, codes: Tensor, repeats: int) -> float:
    """Seconds of the model's decoder step at depth 2 for all beams, without the encoder."""
    memory = model.encode(*encode_items(model, history, codes))
    seconds = []
    for _ in range(repeats):
        state = model.start_decoding(memory)
        previous = None
        for level in range(3):
            began = time.perf_counter()
            model.step(state, slot=0, level=level, previous=previous)
            seconds.append(time.perf_counter() - began if level == 2 else float("inf"))
            previous = torch.randint(0, CODES, (len(history), BEAM))
            state.reorder(torch.randint(0, state.beams, (len(history), BEAM)))
    return min(seconds)


# -------------------------------------------------------------------- against the exact list


def _overlap(size: BenchSize, figures: dict[str, float]) -> Table:
    model, codes, histories, loss = structured_model(
        size.items, steps=size.training_steps, users=size.exact_users
    )
    trie = Trie.build(codes, model.codebook_size)
    with torch.no_grad():
        exact = score_catalogue(model, histories, codes).topk(10, dim=1).indices
    random = OneRec(
        model.config, codebook_size=CODES, num_sid_tokens=SID_TOKENS, history_length=HISTORY,
        session_items=SESSION,
    ).eval()  # fmt: skip
    flat = score_catalogue(random, histories, codes).topk(10, dim=1).indices
    rows = []
    for beam in (10, 20, 30, 50, 100):
        shares = [
            _share(rank_items(m, histories, codes, trie, top_k=10, beam=beam)[0], best)
            for m, best in ((model, exact), (random, flat))
        ]
        rows.append([beam, *shares])
        if beam == 20:
            figures["beam_exact_overlap@10"] = shares[0]
    return Table(
        caption=(
            f"Beam search against exact scores of all {size.items:,} items, {len(histories)} "
            f"users: share of the exact ten best that it finds. A small model after "
            f"{size.training_steps} steps on items with structure ({loss:.2f} nats per token; "
            f"guessing is 5.55), and the same model with random weights"
        ),
        columns=["beam", "overlap@10, trained", "overlap@10, random weights"],
        rows=rows,
    )


def _share(found: Tensor, exact: Tensor) -> float:
    return float((found.unsqueeze(-1) == exact.unsqueeze(1)).any(1).float().mean())


# -------------------------------------------------------------------- sessions, filters


def _sessions(
    model: OneRec,
    codes: Tensor,
    trie: Trie,
    history: Tensor,
    size: BenchSize,
    figures: dict[str, float],
) -> Table:
    torch.manual_seed(1)
    tiny = PRESETS["tiny"]
    shape = tiny.sessions
    small = OneRec(
        tiny.model, codebook_size=CODES, num_sid_tokens=SID_TOKENS,
        history_length=shape.history_length, session_items=shape.session_items,
    ).eval()  # fmt: skip
    few = history[: max(size.batch // 4, 1)]

    def sessions(generator: OneRec, rows: Tensor, beam: int) -> Callable[[], object]:
        return lambda: generate_sessions(
            generator, rows, codes, trie, num_items=SESSION, beam=beam, exclude=rows
        )

    wide, narrow = size.candidates, tiny.decoding.beam
    runs = {
        f"this shape, beam {BEAM}": (len(history), sessions(model, history, BEAM)),
        f"this shape, N = {wide} candidates": (len(few), sessions(model, few, wide)),
        f"tiny preset, beam {narrow}": (len(history), sessions(small, history, narrow)),
        f"tiny preset, N = {wide} candidates": (len(few), sessions(small, few, wide)),
    }
    times = side_by_side(
        {name: run for name, (_, run) in runs.items()}, repeats=max(size.repeats // 2, 1)
    )
    rates = {name: users / times[name].best for name, (users, _) in runs.items()}
    figures["session_users_per_second"] = rates[f"this shape, N = {wide} candidates"]
    return Table(
        caption=f"Sessions of {SESSION} items, items of the history left out",
        columns=["what", "users/s", "minutes for 100,000 users"],
        rows=[[name, rate, 100_000 / rate / 60] for name, rate in rates.items()],
    )


def _filters(model: OneRec, codes: Tensor, trie: Trie, history: Tensor, size: BenchSize) -> Table:
    shared = torch.rand(size.items) < 0.5
    per_user = torch.rand(len(history), size.items) < 0.5
    options: dict[str, dict[str, Any]] = {
        "none": {},
        "items of the history left out": {"exclude": history},
        "an allow-list of half the items": {"allowed": shared},
        "an allow-list for every user": {"allowed": per_user},
    }
    times = side_by_side(
        {
            name: lambda filters=filters: rank_items(
                model, history, codes, trie, top_k=BEAM, beam=BEAM, **filters
            )
            for name, filters in options.items()
        },
        repeats=max(size.repeats // 2, 1),
    )
    return Table(
        caption="Filters, all masks on the same trie: lists of 20 items",
        columns=["filter", "users/s"],
        rows=[[name, len(history) / t.best] for name, t in times.items()],
    )
