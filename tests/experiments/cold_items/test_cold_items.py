"""Items held out of a night's training days: what is learned, who is measured, what is chosen."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from experiments.cold_items.experiment import CHECKPOINTS, ColdItems, run_cold_items
from experiments.cold_items.held_out import RENAMED, HeldOutCatalogue, choose_held_out, hold_out
from experiments.cold_items.systems import ContentKNN, WithContentItems
from experiments.cold_items.table import (
    BASELINES,
    GENERATOR,
    HELD_OUT,
    LEARNED,
    LISTED,
    RECALL,
    SETTINGS,
    TENTH,
    ColdItemsRun,
    choose_setting,
    measure,
    pooled,
    table_of_cold_items,
)
from experiments.nightly_artifacts import PublishedNightlyRun, latest_night
from experiments.reporting.result_tables import Provenance
from experiments.reporting.seed_intervals import SeededValues
from onerec.config import EmbeddingConfig
from onerec.evaluation.baselines import Popularity
from onerec.evaluation.metric_table import Metric, TableColumn
from onerec.ranked_lists import RankedLists
from onerec.schema import ITEMS
from onerec.session_dataset.eval_users import EvalUsers, load_eval_users
from onerec.session_dataset.generator_sessions import load_session_tensors
from onerec.session_dataset.interactions import load_interactions
from tests.core.evaluation import night as tiny
from tests.experiments import published_night as small

EMBEDDINGS = EmbeddingConfig(text_encoder="hashed", text_dim=8, collaborative_dim=4)
SHARE = 0.25


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> PublishedNightlyRun:
    return latest_night(small.publish_night(tmp_path_factory.mktemp("artifacts")))


@pytest.fixture(scope="module")
def items() -> pa.Table:
    ids = tiny.catalogue()
    words = np.array(["red", "green", "blue", "sea", "hill"])
    number = np.arange(len(ids))
    titles = [f"{words[n % 5]} {words[n // 5 % 2]}" for n in number]
    columns = {
        "item_id": pa.array(ids.item_ids.tolist(), pa.string()),
        "title": pa.array(titles),
        "category": pa.array(words[number % 5].tolist()),
    }
    others = {f.name: pa.nulls(len(ids), f.type) for f in ITEMS if f.name not in columns}
    return pa.table({**columns, **others, "first_seen": pa.array(ids.first_seen)})


@pytest.fixture(scope="module")
def held(
    night: PublishedNightlyRun, items: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> HeldOutCatalogue:
    return hold_out(
        items,
        night.files["session_dataset"],
        choose_held_out(items, SHARE, 0, before=tiny.DAY),
        embeddings=EMBEDDINGS,
        tokenizer=night.base.tokenizer,
        day=tiny.DAY,
        out_dir=tmp_path_factory.mktemp("held") / "catalogue",
    )


def test_a_seeded_share_of_the_items_known_before_the_day(items: pa.Table):
    chosen = choose_held_out(items, SHARE, 0, before=tiny.DAY)
    assert len(chosen) == round(SHARE * (tiny.NUM_ITEMS - 3))
    assert chosen == choose_held_out(items, SHARE, 0, before=tiny.DAY)
    assert chosen != choose_held_out(items, SHARE, 1, before=tiny.DAY)
    assert not chosen & {f"i{n}" for n in range(tiny.NUM_ITEMS - 3, tiny.NUM_ITEMS)}


def test_no_event_of_a_held_out_item_is_learned(night: PublishedNightlyRun, held: HeldOutCatalogue):
    sessions, gone = night.files["session_dataset"], held.is_held_out
    assert gone.sum() == round(SHARE * (tiny.NUM_ITEMS - 3))
    assert load_interactions(sessions, held.learned, test_day=tiny.DAY).exposures[gone].sum() == 0
    real = load_interactions(sessions, held.real, test_day=tiny.DAY).exposures
    assert real[gone].sum() > 0
    for split in ("train", "valid"):
        learned = load_session_tensors(
            sessions, split, held.learned, history_length=6, session_items=3, good_only=False
        )
        for rows in (learned.history, learned.targets):
            assert not gone[rows[rows >= 0].numpy()].any()
    names = held.learned.item_ids[gone]
    assert all(name.startswith(RENAMED) for name in names)


def test_a_held_out_vector_depends_on_the_content_alone(
    night: PublishedNightlyRun, held: HeldOutCatalogue, items: pa.Table
):
    """Two held-out items of one title and category have one vector, whoever watched them."""
    of_items = zip(items["title"].to_pylist(), items["category"].to_pylist(), strict=True)
    content = dict(zip(items["item_id"].to_pylist(), of_items, strict=True))
    rows = np.flatnonzero(held.is_held_out)
    same = [
        (a, b)
        for a in rows
        for b in rows
        if a < b and content[held.real.item_ids[a]] == content[held.real.item_ids[b]]
    ]
    assert same
    for a, b in same:
        np.testing.assert_allclose(held.vectors[a], held.vectors[b], atol=1e-6)
    np.testing.assert_array_equal(
        load_file(held.directory / "vectors.safetensors")["vectors"], held.vectors
    )


def test_cases_watched_the_whole_catalogue_but_their_histories_did_not(
    night: PublishedNightlyRun, held: HeldOutCatalogue
):
    sessions, gone = night.files["session_dataset"], held.is_held_out
    cases = held.cases(sessions, "test", tiny.DAY, history_length=tiny.HISTORY)
    real = load_eval_users(
        sessions, "test", held.real, history_length=99, rankable=held.real.candidates(tiny.DAY)
    )
    np.testing.assert_array_equal(cases.targets, real.targets)
    assert gone[cases.targets[cases.targets >= 0]].any()
    for mine, theirs in zip(cases.history, real.history, strict=True):
        kept = [i for i in theirs.tolist() if i >= 0 and not gone[i]][-tiny.HISTORY :]
        # a history of the artifact holds no more than its length, held-out items among them
        assert [i for i in mine.tolist() if i >= 0] == kept


def test_content_neighbours_by_brute_force():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    candidates = np.array([True] * 6 + [False])
    knn = ContentKNN(vectors, np.zeros(7), candidates)
    history = np.array([[0, 3, -1], [5, -1, -1]])
    lists = knn.rank(history, 3, np.array([[1], [-1]]), np.array([False] + [True] * 6))
    for row, mine in enumerate(history):
        profile = np.mean([vectors[i] for i in mine if i >= 0], axis=0)
        legal = [i for i in range(1, 6) if not (row == 0 and i == 1)]
        best = sorted(legal, key=lambda i: -float(profile @ vectors[i]))[:3]
        assert lists.items[row].tolist() == best


def test_content_orders_what_kept_places_hold():
    popular = Popularity(np.array([9.0, 8.0, 7.0, 6.0, 1.0, 2.0]), np.ones(6, dtype=bool))
    content = ContentKNN(np.eye(6), popular.weights, popular.candidates)
    ranker = WithContentItems(popular, content, np.array([False] * 4 + [True] * 2), 0.5)
    assert ranker.rank(np.array([[4]]), 4).items.tolist() == [[0, 4, 1, 5]]


def values(everything: float, cold: float, users: int = 40) -> SeededValues:
    noise = np.random.default_rng(0).normal(0, 0.001, (1, users))
    return SeededValues(
        {
            RECALL: everything + noise,
            Metric(RECALL.name, LEARNED): everything + noise,
            Metric(RECALL.name, HELD_OUT): cold + noise,
            LISTED: cold + noise,
        }
    )


def test_the_setting_loses_nothing_overall_and_finds_most_held_out_items():
    measured = {
        GENERATOR: values(0.1, 0.0),
        "even": values(0.1, 0.02),
        "better": values(0.1, 0.03),
        "greedy": values(0.05, 0.2),
    }
    assert choose_setting(measured, ["even", "better", "greedy"]) == "better"
    assert choose_setting(measured, ["greedy"]) == GENERATOR


def test_seeds_become_rows_and_count_alike():
    def run(everything: float, cold: float, users_with_cold: int) -> ColdItemsRun:
        system = values(everything, cold)
        system.values[Metric(RECALL.name, HELD_OUT)][0, users_with_cold:] = np.nan
        measured = {name: system for name in (GENERATOR, *SETTINGS, *BASELINES)}
        return ColdItemsRun(dataset="toy", valid=measured, test=measured, share=SHARE)

    one, other = run(0.1, 0.2, 40), run(0.3, 0.4, 4)
    both = pooled([one, other])
    for metric in (RECALL, Metric(RECALL.name, HELD_OUT), LISTED):
        rows = both.test[GENERATOR].values[metric]
        np.testing.assert_array_equal(rows[0], one.test[GENERATOR].values[metric][0])
        np.testing.assert_array_equal(rows[1], other.test[GENERATOR].values[metric][0])
    assert both.cold_cases == 44
    made = Provenance(data="toy", config="x", seeds=(0, 1), budget="none", commit="abc")
    table = table_of_cold_items(both, made)
    cold = table.metrics.cell(GENERATOR, TableColumn(RECALL.name, HELD_OUT))
    assert cold.mean == pytest.approx(0.3, abs=0.001), "seeds count alike, not users"


def test_recall_by_slice_by_hand():
    class Same:
        def rank(
            self, histories, top_k, exclude=None, candidates=None, attributes=None
        ) -> RankedLists:
            return RankedLists.padded(np.array([[1, 2], [1, 2]]), np.zeros((2, 2)), top_k)

    cases = EvalUsers(np.array(["a", "b"]), np.zeros((2, 1), int), np.array([[1, 3], [2, -1]]))
    held_out = np.array([False, False, True, True])
    found = measure({"same": Same()}, cases, held_out, np.ones(4, dtype=bool))["same"].values
    assert found[RECALL].tolist() == [[0.5, 1.0]]
    np.testing.assert_array_equal(found[Metric(RECALL.name, LEARNED)], [[1.0, np.nan]])
    np.testing.assert_array_equal(found[Metric(RECALL.name, HELD_OUT)], [[0.0, 1.0]])
    assert found[LISTED].tolist() == [[0.5, 0.5]]


def test_from_a_night_to_the_table_and_again_after_a_kill(
    night: PublishedNightlyRun, items: pa.Table, tmp_path: Path
):
    lines: list[str] = []
    test = ColdItems(
        session_dataset=night.files["session_dataset"],
        test_day=night.test_day,
        base=night.base,
        catalogue=items,
        supplied=None,
        embeddings=EMBEDDINGS,
        share=SHARE,
        seed=0,
        runtime=small.RUNTIME,
        scratch=tmp_path,
        on_progress=lines.append,
    )
    made = run_cold_items(test, "toy")
    assert made.chosen in (GENERATOR, *SETTINGS)
    assert made.cold_cases > 0
    files = {name: tmp_path / name / "model.safetensors" for name in CHECKPOINTS}
    trained = {name: file.stat().st_mtime_ns for name, file in files.items()}
    again = run_cold_items(test, "toy")
    for name, system in made.test.items():
        for metric, column in system.values.items():
            np.testing.assert_array_equal(again.test[name].values[metric], column)
    assert trained == {name: file.stat().st_mtime_ns for name, file in files.items()}
    table = table_of_cold_items(
        made, Provenance(data="toy", config="x", seeds=(0,), budget="none", commit="abc")
    )
    assert table.systems[:1] == ["popularity"]
    assert "Chosen on the validation day" in table.findings[0]
    for system in ("generator", "dense head"):
        listed = made.test[f"{system}{TENTH}"].values[LISTED]
        assert (listed > 0).mean() > 0.5, "new items are held-out ones and few others"
