"""How each system of the Amazon Beauty table learns and is asked; all by one protocol.

Everything expensive is kept in the run's directory, so that a killed run goes on: the titles'
vectors, semantic IDs, and the state of a training after every epoch. Test users are asked once,
after everything has been chosen on validation users.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from experiments.amazon_beauty.dense_head import DenseOneRec, DenseRanker, candidates_of
from experiments.amazon_beauty.item_representations import (
    item_vectors,
    semantic_ids_of,
    text_vectors,
)
from experiments.amazon_beauty.reviews import HISTORY_LENGTH, Questions
from experiments.amazon_beauty.training import (
    TOP_K,
    Bench,
    Budget,
    Measured,
    means,
    metrics_of,
    train,
)
from onerec.config import ModelConfig, TokenizerConfig
from onerec.evaluation.baselines import fit_item_knn, fit_popularity
from onerec.evaluation.baselines.sequence_losses import NextItem
from onerec.evaluation.baselines.tiger import TigerRanker, tiger_shape, window_loss
from onerec.evaluation.baselines.transformer import SequenceModel, SequenceRanker, SequenceShape
from onerec.model import OneRec
from onerec.ranked_lists import Ranker
from onerec.session_dataset.interactions import Interactions

DENSE_SHARES = tuple(round(0.1 * step, 1) for step in range(11))
"""Mixtures of generator and dense head, of which validation chooses one."""
ASKED_AT_ONCE = 4096
CODES, LEVELS = 256, 3

BUDGETS: dict[str, Budget] = {
    "sasrec_ce": Budget(
        epochs=25, heads=2, dropout=0.4, batch_items=1024, crop_share=0.0, valid_users=100_000
    ),
    "tiger": Budget(epochs=25, layers=3, dropout=0.1, learning_rate=2e-3),
    "onerec": Budget(epochs=28, dropout=0.3, valid_users=10_000),
}
"""Sized for one core each: SASRec 25 minutes, TIGER and OneRec 45."""


def popularity(bench: Bench, budget: Budget | None = None) -> dict[str, Measured]:
    """The items most users chose."""
    return {"popularity": _counted(bench, lambda log, all_: fit_popularity(log, all_))}


def item_knn(bench: Bench, budget: Budget | None = None) -> dict[str, Measured]:
    """Cosine of the items' sets of users, 50 neighbours."""
    return {"itemknn": _counted(bench, lambda log, all_: fit_item_knn(log, all_, neighbours=50))}


def sasrec_ce(bench: Bench, budget: Budget) -> dict[str, Measured]:
    """SASRec with a softmax over the whole catalogue."""
    windows = bench.windows()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        shape = SequenceShape(
            num_items=bench.reviews.num_items,
            length=HISTORY_LENGTH,
            width=budget.width,
            layers=budget.layers,
            heads=budget.heads,
            dropout=budget.dropout,
        )
        model = SequenceModel(shape)
        ranker = SequenceRanker(model, np.ones(shape.num_items, dtype=bool))
        loss = NextItem()
        facts, seconds = train(
            bench,
            "sasrec_ce",
            model,
            budget,
            windows,
            lambda rows, draws: loss(model, rows, draws),
            lambda asked: ranker.rank(asked.history, TOP_K).items,
        )
    return {"sasrec_ce": _asked(bench, ranker, seconds, facts)}


def tiger(bench: Bench, budget: Budget) -> dict[str, Measured]:
    """TIGER: RQ-VAE on text alone, tokens read and written, one item at a time."""
    config = TokenizerConfig(
        method="rqvae",
        num_levels=LEVELS,
        codebook_size=CODES,
        seed=bench.seed,
        rqvae_hidden_dim=256,
        rqvae_epochs=200,
        rqvae_batch_size=1024,
    )
    codes = semantic_ids_of(bench, "tiger", text_vectors(bench), config)
    windows = bench.windows()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        model = OneRec(
            tiger_shape(
                budget.width, layers=budget.layers, heads=budget.heads, dropout=budget.dropout
            ),
            codebook_size=CODES,
            num_sid_tokens=LEVELS + 1,
            history_length=HISTORY_LENGTH,
            session_items=1,
        )
        ranker = TigerRanker(model, codes, np.ones(len(codes), dtype=bool))
        facts, seconds = train(
            bench,
            "tiger",
            model,
            budget,
            windows,
            lambda rows, draws: window_loss(model, rows, codes, first=1),
            lambda asked: ranker.rank(asked.history, TOP_K).items,
        )
    return {"tiger": _asked(bench, ranker, seconds, facts, beam=budget.beam)}


def onerec(bench: Bench, budget: Budget) -> dict[str, Measured]:
    """OneRec with balanced IDs of text and co-occurrence, and the same with its dense head."""
    vectors = item_vectors(bench)
    config = TokenizerConfig(num_levels=LEVELS, codebook_size=CODES, seed=bench.seed)
    codes = semantic_ids_of(bench, "onerec", vectors, config)
    windows = bench.windows()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        shape = ModelConfig(
            d_model=budget.width,
            num_heads=budget.heads,
            d_ff=3 * budget.width,
            encoder_layers=budget.layers,
            decoder_layers=budget.layers,
            num_experts=1,
            active_experts=1,
            dropout=budget.dropout,
            causal_encoder=True,
        )
        model = DenseOneRec(
            shape, codes, CODES, torch.from_numpy(vectors), history_length=HISTORY_LENGTH
        )
        ranker = DenseRanker(model)
        facts, seconds = train(
            bench,
            "onerec",
            model,
            budget,
            windows,
            lambda rows, draws: model.loss(rows),
            lambda asked: ranker.rank(asked.history, TOP_K).items,
            also=lambda: _heads(model, bench.some_valid(500), budget.beam),
        )
    beam = budget.beam
    valid = bench.some_valid(3000)
    found = candidates_of(model, valid.history, beam=beam, dense=beam)
    by_share = {
        share: means(metrics_of(found.fused(share, TOP_K), valid)) for share in DENSE_SHARES
    }
    best = max(DENSE_SHARES, key=lambda share: by_share[share]["ndcg@10"])
    bench.say(f"onerec: dense share {best} chosen on validation, {by_share[best]}")
    test = bench.reviews.questions("test")

    def on_progress(users: int) -> None:
        if users % 4096 == 0:
            bench.say(f"onerec: {users} of {len(test.targets)} test users asked")

    found = candidates_of(model, test.history, beam=beam, dense=beam, on_progress=on_progress)
    chosen = {"dense share": best, "validation by dense share": by_share}
    return {
        "onerec": Measured(metrics_of(found.generated(TOP_K), test), seconds, facts),
        "onerec_dense": Measured(
            metrics_of(found.fused(best, TOP_K), test), seconds, {**facts, **chosen}
        ),
        "onerec_dense_alone": Measured(metrics_of(found.fused(1.0, TOP_K), test), seconds, facts),
    }


SYSTEMS: dict[str, Callable[..., dict[str, Measured]]] = {
    "popularity": popularity,
    "itemknn": item_knn,
    "sasrec_ce": sasrec_ce,
    "tiger": tiger,
    "onerec": onerec,
}
"""Name on the command line -> what makes and asks it. OneRec gives several rows."""


def _heads(model: DenseOneRec, asked: Questions, beam: int) -> dict[str, float]:
    """Recall@10 of the beams alone and of an even mixture on a few users: to look at, no more."""
    found = candidates_of(model, asked.history, beam=beam, dense=beam)
    lists = {"beams' recall@10": found.generated(TOP_K), "mixed recall@10": found.fused(0.5, TOP_K)}
    return {name: means(metrics_of(ranked, asked))["recall@10"] for name, ranked in lists.items()}


def _counted(bench: Bench, fit: Callable[[Interactions, np.ndarray], Ranker]) -> Measured:
    began = time.perf_counter()
    items, users = bench.reviews.learned()
    nothing = np.zeros(0, dtype=np.int64)
    log = Interactions(
        num_items=bench.reviews.num_items,
        user=users,
        item=items,
        age=np.ones(len(items), dtype=np.int64),
        is_watched=np.ones(len(items), dtype=bool),
        past_user=nothing,
        past_item=nothing,
        user_ids=np.arange(bench.reviews.num_users),
    )
    ranker = fit(log, np.ones(bench.reviews.num_items, dtype=bool))
    return _asked(bench, ranker, time.perf_counter() - began, {})


def _asked(
    bench: Bench, ranker: Ranker, seconds: float, facts: Mapping[str, object], **settings: int
) -> Measured:
    """Ask the test users, once."""
    test = bench.reviews.questions("test")
    top_k, lists = max(TOP_K, settings.get("beam", 0)), []
    for start in range(0, len(test.targets), ASKED_AT_ONCE):
        part = test.history[start : start + ASKED_AT_ONCE]
        lists.append(ranker.rank(part, top_k).items[:, :TOP_K])
        bench.say(f"{start + len(part)} of {len(test.targets)} test users asked")
    return Measured(metrics_of(np.concatenate(lists), test), seconds, facts)
