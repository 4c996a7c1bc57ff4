"""How each system of the Amazon Beauty table is trained and measured; all by one protocol.

Everything expensive is kept in the run's scratch directory, so that a killed run is resumed: the
titles' vectors, semantic IDs, and the state of a training after every epoch. Test users are ranked
once, after everything has been chosen on validation users.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from experiments.amazon_beauty.dense_head import DenseHeadRanker
from experiments.amazon_beauty.item_representations import (
    item_vectors,
    semantic_ids_of,
    text_vectors,
)
from experiments.amazon_beauty.reviews import HISTORY_LENGTH
from experiments.amazon_beauty.training import (
    TOP_K,
    BeautyResult,
    Budget,
    SystemRun,
    both_protocols,
    train_within_budget,
)
from onerec.config import ModelConfig, TokenizerConfig, TrainingConfig
from onerec.evaluation.baselines import Popularity, fit_item_knn
from onerec.evaluation.baselines.sequence_losses import LOSSES
from onerec.evaluation.baselines.tiger import TigerRanker, tiger_shape, window_loss
from onerec.evaluation.baselines.transformer import SequenceModel, SequenceRanker, SequenceShape
from onerec.evaluation.recency import RecencyCases
from onerec.model import OneRec, init_from_content
from onerec.ranked_lists import Ranker
from onerec.session_dataset.eval_users import EvalUsers
from onerec.session_dataset.incidence import incidence_of
from onerec.session_dataset.interactions import Interactions
from onerec.training.list_weights import choose_list_weights

USERS_AT_ONCE = 4096
CODES, LEVELS = 256, 3

PUBLISHED_SASREC = Budget(
    epochs=200, width=256, layers=1, heads=1, dropout=0.2, learning_rate=1e-3, weight_decay=0.0,
    batch_items=1024, crop_share=0.0, valid_users=5_000, warmup_steps=0, history=50,
    schedule="constant", patience=50,
)  # fmt: skip
"""SASRec with sampled softmax as published with eSASRec (2025): width, blocks, heads, dropout,
length, negatives, rate, epochs and patience are those of its configuration for Beauty; the size of
batches is ours."""
BUDGETS: dict[str, Budget | None] = {
    "popularity": None,
    "itemknn": None,
    "sasrec_ce": Budget(
        epochs=25, heads=2, dropout=0.4, batch_items=1024, crop_share=0.0, valid_users=100_000
    ),
    "sasrec_ss": PUBLISHED_SASREC,
    "esasrec": PUBLISHED_SASREC,
    "tiger": Budget(epochs=25, layers=3, dropout=0.1, learning_rate=2e-3),
    "onerec": Budget(epochs=28, dropout=0.3, valid_users=10_000),
}
"""By system; SASRec-CE, TIGER and OneRec are sized for 25 to 45 minutes of one core each, the
published settings for a GPU."""


def popularity(run: SystemRun, budget: None) -> dict[str, BeautyResult]:
    """The items most users chose."""
    return {"popularity": _counted(run, lambda log, all_: Popularity(log.watches, all_))}


def item_knn(run: SystemRun, budget: None) -> dict[str, BeautyResult]:
    """Cosine of the items' sets of users, 50 neighbours."""
    return {"itemknn": _counted(run, lambda log, all_: fit_item_knn(log, all_, neighbours=50))}


def sasrec(name: str, run: SystemRun, budget: Budget) -> dict[str, BeautyResult]:
    """SASRec or eSASRec by one of the losses of the nightly baselines."""
    loss = LOSSES[name]
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        shape = SequenceShape(
            num_items=run.reviews.num_items,
            length=budget.history,
            width=budget.width,
            layers=budget.layers,
            heads=budget.heads,
            dropout=budget.dropout,
            block=loss.block,
        )
        model = SequenceModel(shape)
        ranker = SequenceRanker(model, np.ones(shape.num_items, dtype=bool))
        facts, seconds = train_within_budget(
            run,
            model,
            budget,
            lambda rows, draws: loss(model, rows, rows >= 0, draws),
            lambda cases: ranker.rank(cases.history, TOP_K).items,
        )
    return {name: _test_result(run, ranker, seconds, facts, history=budget.history)}


def tiger(run: SystemRun, budget: Budget) -> dict[str, BeautyResult]:
    """TIGER: RQ-VAE on text alone, tokens read and written, one item at a time."""
    config = TokenizerConfig(
        method="rqvae",
        num_levels=LEVELS,
        codebook_size=CODES,
        seed=run.seed,
        rqvae_hidden_dim=256,
        rqvae_epochs=200,
        rqvae_batch_size=1024,
    )
    codes = semantic_ids_of(run, text_vectors(run), config)
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
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
        facts, seconds = train_within_budget(
            run,
            model,
            budget,
            lambda rows, draws: window_loss(model, rows, rows >= 0, codes, first=1),
            lambda cases: ranker.rank(cases.history, TOP_K).items,
        )
    return {"tiger": _test_result(run, ranker, seconds, facts, beam=budget.beam)}


def onerec(run: SystemRun, budget: Budget) -> dict[str, BeautyResult]:
    """OneRec with balanced IDs of text and co-occurrence, and with its dense head."""
    vectors = item_vectors(run)
    config = TokenizerConfig(num_levels=LEVELS, codebook_size=CODES, seed=run.seed)
    codes = semantic_ids_of(run, vectors, config)
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = _generator(budget, codes, torch.from_numpy(vectors))
        dense = DenseHeadRanker(model, codes)
        facts, seconds = train_within_budget(
            run,
            model,
            budget,
            lambda rows, draws: window_loss(model, rows, rows >= 0, codes, first=1),
            lambda cases: dense.rank(cases.history, TOP_K).items,
        )
    by_share = _choose_dense_share(run, model.eval(), codes)
    run.on_progress(f"dense share {model.dense_share} chosen on validation: {by_share}")
    chosen = {"dense share": model.dense_share, "validation by dense share": by_share}
    generated = TigerRanker(model, codes, np.ones(len(codes), dtype=bool))
    rows: dict[str, tuple[float, Ranker, dict[str, object]]] = {
        "onerec": (0.0, generated, facts),
        "onerec_dense": (model.dense_share, generated, {**facts, **chosen}),
        "onerec_dense_alone": (1.0, dense, facts),
    }
    results = {}
    for row, (share, ranker, about) in rows.items():
        model.dense_share = share
        results[row] = _test_result(run, ranker, seconds, about, beam=budget.beam)
    return results


def _generator(budget: Budget, codes: torch.Tensor, vectors: torch.Tensor) -> OneRec:
    """A causal generator of single items with a dense head; draws from the global RNG."""
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
        dense_head=True,
        dense_item_dropout=0.0,
    )
    model = OneRec(
        shape,
        codebook_size=CODES,
        num_sid_tokens=codes.shape[1],
        history_length=HISTORY_LENGTH,
        session_items=1,
    )
    init_from_content(model, codes, vectors)
    model.add_dense_head(*vectors.shape).vectors.copy_(vectors)
    return model


def _choose_dense_share(
    run: SystemRun, model: OneRec, codes: torch.Tensor
) -> Mapping[float, float]:
    """Give the model the share of highest NDCG@10 on validation users; NDCG@10 by share."""
    cases = run.validation_sample(3000)
    users = EvalUsers(np.arange(len(cases.targets)), cases.history, cases.targets)
    everything = np.ones(len(codes), dtype=bool)
    cases = RecencyCases(users=users, watches=np.zeros(len(codes)), candidates=everything)
    config = TrainingConfig(recency_prior=False, seed=run.seed)
    return choose_list_weights(model, codes, cases, config).dense.ndcg


SYSTEMS: dict[str, Callable[..., dict[str, BeautyResult]]] = {
    "popularity": popularity,
    "itemknn": item_knn,
    **{name: partial(sasrec, name) for name in ("sasrec_ce", "sasrec_ss", "esasrec")},
    "tiger": tiger,
    "onerec": onerec,
}
"""Partition -> what trains and measures it. OneRec gives several rows."""


def _counted(run: SystemRun, fit: Callable[[Interactions, np.ndarray], Ranker]) -> BeautyResult:
    began = time.perf_counter()
    items, users = run.reviews.learned()
    num_users, num_items = run.reviews.num_users, run.reviews.num_items
    counts = np.bincount(items, minlength=num_items)
    log = Interactions(
        exposures=counts,
        watches=counts.astype(float),
        recent_watches=counts.astype(float),
        watched=incidence_of(users, items, (num_users, num_items)),
    )
    ranker = fit(log, np.ones(num_items, dtype=bool))
    return _test_result(run, ranker, time.perf_counter() - began, {})


def _test_result(
    run: SystemRun,
    ranker: Ranker,
    seconds: float,
    facts: Mapping[str, object],
    *,
    beam: int = 0,
    history: int = HISTORY_LENGTH,
) -> BeautyResult:
    """Rank the test users, once without a filter and once without seen items."""
    test = run.reviews.cases("test", history)
    top_k, lists = max(TOP_K, beam), []
    for start in range(0, len(test.targets), USERS_AT_ONCE):
        part = test.of(slice(start, start + USERS_AT_ONCE))
        both = [ranker.rank(part.history, top_k, exclude).items for exclude in (None, part.seen)]
        lists.append([found[:, :TOP_K] for found in both])
        run.on_progress(f"{start + len(part.targets)} of {len(test.targets)} test users")
    everything, unseen = (np.concatenate(column) for column in zip(*lists, strict=True))
    return BeautyResult(both_protocols(everything, unseen, test), seconds, facts)
