"""The systems of Amazon Beauty on a small planted world: heads, fusion, results, the table."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.amazon_beauty import SYSTEM_NAMES, item_representations, systems
from experiments.amazon_beauty.dense_head import DenseHeadRanker, OneRecWithDenseHead, candidates_of
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
from onerec.config import ModelConfig
from onerec.evaluation.metric_table import ALL, Metric, TableColumn
from onerec.generation import score_catalogue
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


def model(codes: torch.Tensor, *, dropout: float = 0.0) -> OneRecWithDenseHead:
    torch.manual_seed(0)
    shape = ModelConfig(
        d_model=16,
        num_heads=2,
        d_ff=24,
        encoder_layers=1,
        decoder_layers=1,
        num_experts=1,
        active_experts=1,
        dropout=dropout,
        causal_encoder=True,
    )
    vectors = torch.randn(len(codes), 5)
    return OneRecWithDenseHead(shape, codes, 4, vectors, history_length=6).eval()


def test_candidates_carry_exact_scores_of_both_heads_and_mix() -> None:
    codes = unique_codes(30, 4, 3)
    one = model(codes)
    torch.nn.init.normal_(one.head.items.weight)  # so that the heads disagree
    history = np.array([[3, 1, 4, -1], [9, -1, -1, -1]])
    found = candidates_of(one, history, beam=8, dense=8)
    with torch.no_grad():
        table = one.item_table()
        # the generator's exact scores, with the item vectors in what it reads
        encode = one.generator.encode
        rows = torch.from_numpy(history)
        vectors = torch.nn.functional.pad(table[rows.clamp(min=0)], (0, 0, 0, 2)) * 4.0
        one.generator.encode = lambda c, m: encode(c, m, vectors)  # pyright: ignore
        exact = score_catalogue(one.generator, rows, codes)
        del one.generator.encode
        states = [one.states(rows[i : i + 1, : int(n)], table) for i, n in ((0, 3), (1, 1))]
        dense = torch.stack([one.dense_logits(s[0, -1], table).log_softmax(-1) for s in states])
    first = ~found.generated_logp.isneginf()
    for row in range(2):
        items = found.items[row][first[row]]
        assert len(items) == len(items.unique())
        torch.testing.assert_close(found.generated_logp[row][first[row]], exact[row, items])
        torch.testing.assert_close(found.dense_logp[row][first[row]], dense[row, items])
        mixed = 0.75 * exact[row, items] + 0.25 * dense[row, items]
        assert (
            found.fused(0.25, 5)[row].tolist() == items[mixed.argsort(descending=True)][:5].tolist()
        )
    assert (found.fused(1.0, 5) == dense.topk(5).indices.numpy()).all()
    assert (found.fused(1.0, 5) == DenseHeadRanker(one).rank(history, 5).items).all()
    assert (found.generated(5) == exact.topk(5).indices.numpy()).all()


def test_the_loss_asks_every_item_but_the_first_of_both_heads() -> None:
    codes = unique_codes(30, 4, 3)
    one = model(codes)
    windows = torch.tensor([[3, 1, 4, -1], [9, 2, -1, -1]])
    expected = []
    table = one.item_table()
    for history, item in (([3], 1), ([3, 1], 4), ([9], 2)):
        rows = torch.tensor([history])
        logits = one.generator.decode(one.memory(rows, table), codes[item][None, None])[0, 0]
        sid_tokens = -logits.log_softmax(-1).gather(1, codes[item][:, None]).sum()
        dense = one.dense_logits(one.states(rows, table)[0, -1], table)
        expected.append(sid_tokens - dense.log_softmax(-1)[item])
    torch.testing.assert_close(one.loss(windows), torch.stack(expected).mean())


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
