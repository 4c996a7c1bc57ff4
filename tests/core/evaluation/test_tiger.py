"""TIGER as a baseline: it learns an order, lists legal items, is kept whole, knows no test day."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from onerec.config import EvaluationConfig, TokenizerConfig, TrainingConfig
from onerec.evaluation.baselines import (
    BaselineInputs,
    fit_baselines,
    fit_learned,
    load_baselines,
)
from onerec.evaluation.baselines.sequence_training import Recipe, fit_tiger
from onerec.evaluation.baselines.sequences import NewestWindows, WindowData
from onerec.evaluation.baselines.tiger import tiger_codes, window_loss
from onerec.model import encode_items, lookup
from onerec.session_dataset.eval_users import EvalUsers
from onerec.session_dataset.interactions import load_interactions
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, NUM_ITEMS
from tests.core.model.small import small_model, unique_codes

MANY, LENGTH, SIZE = 24, 5, 4
CYCLE = np.stack([(start + np.arange(LENGTH + 1)) % MANY for start in range(MANY)] * 12)
"""What follows item i is item i + 1."""
CONFIG = EvaluationConfig(baselines="popularity,tiger", baseline_epochs=12, baseline_width=32)
TOKENIZER = TokenizerConfig(
    method="rqvae", num_levels=2, codebook_size=small.CODES, rqvae_epochs=3, rqvae_latent_dim=4
)
VECTORS = np.random.default_rng(0).standard_normal((NUM_ITEMS, 6)).astype(np.float32)


def test_learns_what_follows_and_lists_candidates_only() -> None:
    history = np.full((MANY, LENGTH + 2), -1)
    history[:, :4] = (np.arange(MANY)[:, None] + np.arange(4)) % MANY
    targets = ((np.arange(MANY) + 4) % MANY)[:, None]
    codes = unique_codes(MANY, SIZE, 3)
    candidates = np.ones(MANY, dtype=bool)
    seen: list[dict] = []
    data = WindowData(
        windows=CYCLE, valid=EvalUsers(np.arange(MANY), history, targets), candidates=candidates
    )
    recipe = Recipe(learning_rate=1e-2, batch_items=256, warmup_steps=5)
    ranker = fit_tiger(data, codes, SIZE, CONFIG, recipe=recipe, on_epoch=seen.append)
    assert (ranker.rank(history, 1).items == targets).mean() > 0.5  # by chance 1 / 24
    assert seen[-1]["train_loss"] < seen[0]["train_loss"]
    some = np.arange(MANY) % 3 == 0
    lists = dataclasses.replace(ranker, candidates=some).rank(history, 10).items
    assert (np.sort(lists[:, :8], 1) == np.flatnonzero(some)).all()
    assert (lists[:, 8:] == -1).all()
    longer = np.concatenate([np.full((MANY, 3), 7), history[:, :4]], 1)  # more than it reads
    again = ranker.rank(longer[:, -LENGTH:], 5).items
    assert (ranker.rank(longer, 5).items == again).all()


def test_the_newest_days_are_learned_last() -> None:
    """Of them what follows item i is item i + 2."""
    history = np.full((MANY, LENGTH + 1), -1)
    history[:, :4] = (np.arange(MANY)[:, None] + np.arange(4)) % MANY
    moved = (history[:, 3:4] + 2) % MANY
    items = history.copy()
    items[:, 4:5] = moved
    data = WindowData(
        windows=CYCLE,
        valid=EvalUsers(np.arange(MANY), history, (history[:, 3:4] + 1) % MANY),
        candidates=np.ones(MANY, dtype=bool),
        newest=NewestWindows(
            items=np.tile(items, (12, 1)), learned=np.tile(np.arange(6) == 4, (12 * MANY, 1))
        ),
    )
    recipe = Recipe(learning_rate=1e-2, batch_items=256, warmup_steps=5)
    phase = TrainingConfig(fresh_epochs=8, fresh_learning_rate=1e-2)
    codes = unique_codes(MANY, SIZE, 3)
    ranker = fit_tiger(data, codes, SIZE, CONFIG, recipe=recipe, newest=phase)
    assert (ranker.rank(history, 1).items == moved).mean() > 0.5


def test_the_loss_is_the_mean_over_every_item_from_those_before_it() -> None:
    model = small_model(causal_encoder=True, history_tokens="sid_tokens", session_items=1)
    codes = unique_codes(9, 4, 3)
    windows = torch.tensor([[3, 1, 4, -1, -1], [5, 8, -1, -1, -1]])
    expected = []
    for row in windows:
        known = row[row >= 0]
        for place, item in enumerate(known):
            read, there = lookup(codes, known[None, :place])
            logits = model(read, there, codes[item][None, None])[0, 0]
            expected.append(F.cross_entropy(logits, codes[item]))
    found = window_loss(model, windows, windows >= 0, codes)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    learned = torch.tensor([[False, True, False, False, False], [True, False, False, False, False]])
    found = window_loss(model, windows, learned, codes)
    torch.testing.assert_close(found, (expected[1] + expected[3]) / 2)


def test_a_dense_head_learns_the_same_items_beside_the_tokens() -> None:
    model = small_model(causal_encoder=True, session_items=1, dense_head=True)
    model.add_dense_head(9, 2).to(model.dtype)
    model.eval()  # no item is left out
    codes = unique_codes(9, 4, 3)
    windows = torch.tensor([[3, 1, 4, -1, -1], [5, 8, -1, -1, -1]])
    expected = []
    for history, item in (([3], 1), ([3, 1], 4), ([5], 8)):
        memory = model.encode(*encode_items(model, torch.tensor([history]), codes))
        tokens = F.cross_entropy(model.decode(memory, codes[item][None, None])[0, 0], codes[item])
        dense = F.cross_entropy(model.dense_logits(memory), torch.tensor([item]))
        expected.append(tokens + dense / 3)
    found = window_loss(model, windows, windows >= 0, codes, first=1)
    torch.testing.assert_close(found, torch.stack(expected).mean())


def test_ids_are_unique_and_new_items_change_no_others() -> None:
    ids = small.catalogue()
    candidates = ids.known_before(DAY)
    codes = tiger_codes(ids, VECTORS, candidates, TOKENIZER)
    assert codes.shape == (NUM_ITEMS, 3)
    assert len(torch.unique(codes, dim=0)) == NUM_ITEMS
    moved = VECTORS.copy()
    moved[~candidates] *= -3  # what is first seen on the test day
    again = tiger_codes(ids, moved, candidates, TOKENIZER)
    assert torch.equal(codes[candidates], again[candidates])
    with pytest.raises(ValueError, match="3 item vectors for 40 semantic IDs"):
        tiger_codes(ids, VECTORS[:3], candidates, TOKENIZER)


def test_a_night_fits_keeps_and_reads_it_and_never_sees_the_test_day(tmp_path: Path) -> None:
    ids = small.catalogue()
    candidates = ids.known_before(DAY)
    config = dataclasses.replace(CONFIG, baseline_epochs=1, baseline_width=8)
    rows = small.rows()

    def fitted(name: str, sessions: list[dict]):
        directory = small.write_sessions(tmp_path / name, sessions)
        inputs = BaselineInputs(
            session_dataset=directory,
            semantic_ids=ids,
            candidates=candidates,
            test_day=DAY,
            history_length=6,
            vectors=VECTORS,
        )
        learned = fit_learned(inputs, config)
        log = load_interactions(directory, ids, test_day=DAY)
        counted = fit_baselines(log, candidates, neighbours=10)
        return dataclasses.replace(counted, learned=learned)

    whole = fitted("whole", rows)
    assert list(whole.rankers) == [
        "popularity",
        "popularity_recent",
        "own_repeats",
        "itemknn",
        "tiger",
    ]
    (tmp_path / "kept").mkdir()
    whole.save(tmp_path / "kept")
    history = np.array([[3, 9, -1], [-1, -1, -1]])
    lists = whole.rankers["tiger"].rank(history, 9).items
    loaded = load_baselines(tmp_path / "kept").rankers["tiger"]
    assert (loaded.rank(history, 9).items == lists).all()
    assert candidates[lists].all()
    other = [row if row["split"] != "test" else {**row, "item_ids": ["i00"] * 4} for row in rows]
    without = fitted("other", other)
    assert (without.rankers["tiger"].rank(history, 9).items == lists).all()
