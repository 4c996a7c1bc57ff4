"""The systems of Amazon Beauty on a small planted world: dense head, results, the table."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.amazon_beauty import SYSTEM_NAMES, item_representations, systems
from experiments.amazon_beauty.dense_head import DenseHeadRanker
from experiments.amazon_beauty.reviews import read_amazon
from experiments.amazon_beauty.table import LABELS, table_of_amazon_beauty
from experiments.amazon_beauty.training import (
    UNSEEN,
    Budget,
    SystemRun,
    cropped,
    load_results,
    save_results,
)
from experiments.reporting.results_page import section
from onerec.evaluation.baselines.tiger import TigerRanker
from onerec.evaluation.metric_table import ALL, Metric, TableColumn
from tests.core.model.small import unique_codes

NUM_ITEMS, NUM_USERS = 40, 150


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """After item i comes item i + 1, for users who begin anywhere."""
    directory = tmp_path / "data"
    directory.mkdir()
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, NUM_ITEMS, NUM_USERS), rng.integers(5, 12, NUM_USERS)
    lines = [
        " ".join(map(str, [u, *((s + np.arange(n)) % NUM_ITEMS + 1)]))
        for u, (s, n) in enumerate(zip(starts, lengths, strict=True))
    ]
    (directory / "sequences.txt").write_text("\n".join(lines) + "\n")
    items = [f"{i + 1}\tB{i}\ttitle {i}\tBrand|Kind {i % 4}" for i in range(NUM_ITEMS)]
    head = "item_id\tasin\ttitle\tattributes"
    (directory / "items.tsv").write_text("\n".join([head, *items]) + "\n")
    return directory


def test_the_head_alone_lists_what_a_generator_lists_whose_share_is_one() -> None:
    codes, budget = unique_codes(30, 4, 3), Budget(epochs=1, width=16, layers=1, heads=2)
    torch.manual_seed(0)
    model = systems._generator(budget, codes, torch.randn(30, 5)).eval()
    assert model.dense is not None
    torch.nn.init.normal_(model.dense.items.weight)
    history = np.array([[3, 1, 4, -1], [9, -1, -1, -1]])
    exclude = np.array([[3], [-1]])
    everything = np.ones(30, dtype=bool)
    model.dense_share = 1.0
    searched = TigerRanker(model, codes, everything).rank(history, 5, exclude)
    listed = DenseHeadRanker(model, codes).rank(history, 5, exclude, everything)
    assert (listed.items == searched.items).all()
    model.dense_share = 0.0
    assert (TigerRanker(model, codes, everything).rank(history, 5).items != listed.items).any()


def test_crops_begin_anywhere_and_keep_two_items() -> None:
    windows = torch.tensor([[3, 1, 4, 5, -1], [9, 2, -1, -1, -1]]).repeat(200, 1)
    draws = torch.Generator().manual_seed(0)
    found = {tuple(row) for row in cropped(windows, 1.0, draws).tolist()}
    longer = {(3, 1, 4, 5, -1), (1, 4, 5, -1, -1), (4, 5, -1, -1, -1)}
    assert found == longer | {(9, 2, -1, -1, -1)}
    assert torch.equal(cropped(windows, 0.0, draws), windows)


def test_planted_successors_are_found_and_the_table_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "CODES", 8)
    monkeypatch.setattr(systems, "LEVELS", 2)
    monkeypatch.setattr(item_representations, "TEXT_WIDTH", 4)
    monkeypatch.setattr(item_representations, "SHARED_WIDTH", 16)
    encoded = []

    def encode(texts: np.ndarray, on_progress) -> np.ndarray:
        encoded.append(len(texts))
        return np.random.default_rng(0).standard_normal((len(texts), 8)).astype(np.float32)

    monkeypatch.setattr(item_representations, "encode_minilm", encode)
    quick = Budget(
        epochs=2, width=32, heads=2, dropout=0.0, learning_rate=1e-2, warmup_steps=2, beam=15
    )
    budgets = dict.fromkeys(SYSTEM_NAMES, quick) | {"onerec": dataclasses.replace(quick, epochs=8)}
    lines: list[str] = []
    reviews = read_amazon(data)
    (tmp_path / "results").mkdir()
    for name in SYSTEM_NAMES:
        run = SystemRun(reviews, tmp_path / name, on_progress=lines.append)
        run.scratch.mkdir()
        (tmp_path / "results" / name).mkdir()
        save_results(tmp_path / "results" / name, systems.SYSTEMS[name](run, budgets[name]))
    assert any(line.startswith("epoch 8, train_loss") and "recall@10" in line for line in lines)
    assert encoded == [NUM_ITEMS] * 2, "once for each system that reads text"
    results = {
        row: result
        for name in SYSTEM_NAMES
        for row, result in load_results(tmp_path / "results" / name).items()
    }
    assert set(results) == set(LABELS)
    table = table_of_amazon_beauty(
        {row: [result] for row, result in results.items()}, reviews.sha256, [0]
    )
    rows = {(row.system, row.column): row for row in table.metrics.rows}
    by_chance = rows[LABELS["popularity"], TableColumn("recall@10")].value
    assert rows[LABELS["onerec_dense"], TableColumn("recall@10")].value > 0.9 > 0.6 > by_chance
    gap = rows[LABELS["onerec_dense"], TableColumn("recall@10", reference=LABELS["tiger"])]
    assert gap.low is not None
    assert gap.low <= gap.value
    seen, unseen = (
        results["itemknn"].values[Metric("recall@10", part)].mean() for part in (ALL, UNSEEN)
    )
    assert unseen >= seen, "nobody chooses an item twice, so the filter can only gain"
    published = [
        row for row in table.metrics.rows if row.system.startswith("published, not measured here")
    ]
    assert {row.value for row in published} >= {0.0648, 0.0859, 0.0927}
    assert all(row.low is None and row.system not in table.costs for row in published)
    assert sum("Goal" in finding for finding in table.findings) == 3
    assert "within 3 %" in section(table)


def test_nothing_of_validation_or_test_is_learned_from(data: Path, tmp_path: Path) -> None:
    """Other last two items: the same windows and the same co-occurrences."""
    reviews = read_amazon(data)
    other = dataclasses.replace(reviews, items=reviews.items.copy())
    for back in (1, 2):
        other.items[reviews.starts[1:] - back] = 0
    for mine, theirs in zip(reviews.learned(), other.learned(), strict=True):
        assert np.array_equal(mine, theirs)
    runs = [SystemRun(r, tmp_path) for r in (reviews, other)]
    assert torch.equal(runs[0].windows(), runs[1].windows())
