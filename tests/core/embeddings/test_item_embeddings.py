"""Every item gets a unit vector, near those it resembles; days to come do not count."""

import dataclasses
import tracemalloc
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from onerec.config import EmbeddingConfig
from onerec.embeddings import text
from onerec.embeddings.item_embeddings import (
    ItemEmbeddings,
    embed_items,
    load_item_embeddings,
)
from onerec.shards import ShardFunction, columns_of

FIRST = date(2026, 6, 1)
HASHED = EmbeddingConfig(text_encoder="hashed", text_dim=8, collaborative_dim=8, attributes_dim=8)
CATALOGUE = {
    "item_id": pa.string(),
    "title": pa.string(),
    "category": pa.string(),
    "author_id": pa.string(),
    "first_seen": pa.date32(),
}


def catalogue(*rows: dict) -> pa.Table:
    """Items with defaults for what a row leaves out."""
    blank = {"title": None, "category": None, "author_id": None, "first_seen": FIRST}
    return pa.Table.from_pylist(
        [{**blank, **row} for row in rows], schema=pa.schema(list(CATALOGUE.items()))
    )


def two_topics(num_items: int = 40, **changed) -> pa.Table:
    """Even items are about cooking, odd ones about skiing."""
    titles = ("slow pasta recipe for dinner", "fast ski slope in deep snow")
    return catalogue(
        *(
            {"item_id": f"i{n:03d}", "title": f"{titles[n % 2]} {n}", **changed}
            for n in range(num_items)
        )
    )


def write_sessions(directory: Path, split: str, sessions: list[list[str]], **columns) -> Path:
    """One file of a `session_dataset`: all items positive, no histories unless given."""
    rows = {
        "item_ids": pa.array(sessions, pa.list_(pa.string())),
        "is_positive": pa.array([[True] * len(s) for s in sessions], pa.list_(pa.bool_())),
        "history_item_ids": pa.array([[] for _ in sessions], pa.list_(pa.string())),
        "split": pa.array([split] * len(sessions)),
    }
    (directory / f"split={split}").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows | columns), directory / f"split={split}" / "part-00000.parquet")
    (directory / "stats.json").write_text("{}")
    return directory


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """A session data set without a session."""
    return write_sessions(tmp_path / "sessions", "train", [])


def cosine(embeddings: ItemEmbeddings, a: str, b: str) -> float:
    rows = {item: row for row, item in enumerate(embeddings.item_ids)}
    return float(embeddings.vectors[rows[a]] @ embeddings.vectors[rows[b]])


def assert_usable(embeddings: ItemEmbeddings) -> None:
    assert embeddings.vectors.dtype == np.float32
    assert np.isfinite(embeddings.vectors).all()
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("encoder", ["hashed", "minilm"])
def test_like_titles_are_near(encoder: str, silent: Path) -> None:
    config = EmbeddingConfig(text_encoder=encoder, text_dim=16)
    found = embed_items(two_topics(), silent, None, config)
    assert_usable(found)
    assert found.flags["has_text"].all()
    assert not found.flags["has_collaborative"].any()
    assert cosine(found, "i000", "i002") > cosine(found, "i000", "i001") + 0.3


def test_the_sentence_encoder_reads_meaning_not_words(silent: Path) -> None:
    titles = ["a kitten naps", "a sleepy cat", "quarterly tax returns", "filing income tax"]
    rows = [{"item_id": f"i{n}", "title": title} for n, title in enumerate(titles)]
    found = embed_items(catalogue(*rows), silent, None, EmbeddingConfig())
    assert cosine(found, "i0", "i1") > max(cosine(found, "i0", "i2"), cosine(found, "i1", "i3"))


def test_items_are_ordered_by_first_day_then_id(silent: Path) -> None:
    later = FIRST + timedelta(days=1)
    table = catalogue(
        {"item_id": "b", "title": "one"},
        {"item_id": "a", "title": "two", "first_seen": later},
        {"item_id": "c", "title": "three"},
    )
    found = embed_items(table, silent, None, HASHED)
    assert found.item_ids.tolist() == ["b", "c", "a"]
    assert found.first_seen.tolist() == [FIRST, FIRST, later]


def test_items_watched_together_are_near(tmp_path: Path) -> None:
    groups = [[f"i{n:03d}" for n in range(g, 40, 4)] for g in range(4)]
    sessions = [
        [group[i] for i in np.random.default_rng(s).permutation(10)[:4]]
        for s in range(30)
        for group in groups
    ]
    config = EmbeddingConfig(text_encoder="none", collaborative_dim=4)
    table = two_topics(title=None)
    found = embed_items(table, write_sessions(tmp_path, "train", sessions), None, config)
    assert_usable(found)
    assert found.flags["has_collaborative"].all()
    likeness = found.vectors @ found.vectors.T
    same = np.arange(40)[:, None] % 4 == np.arange(40) % 4
    assert likeness[same].mean() > 0.9
    assert likeness[~same].mean() < 0.2  # which vectors the SVD picks differs between processors


def test_the_vectors_before_validation_have_not_seen_that_day(tmp_path: Path) -> None:
    halves = [[f"i{n:03d}" for n in range(g, 40, 2)] for g in range(2)]
    rng = np.random.default_rng(0)
    learned = [list(rng.choice(half, 3, replace=False)) for _ in range(60) for half in halves]
    of_the_day = [[f"i{n:03d}", f"i{n + 1:03d}"] for n in range(0, 40, 2)] * 5
    alone = write_sessions(tmp_path / "alone", "train", learned)
    both = write_sessions(tmp_path / "both", "train", learned)
    write_sessions(both, "valid", of_the_day)
    config = dataclasses.replace(HASHED, collaborative_shrinkage=0.0)
    without, found = (embed_items(two_topics(), where, None, config) for where in (alone, both))
    assert found.before_validation is not None
    np.testing.assert_array_equal(found.before_validation, without.vectors)
    assert np.abs(found.vectors - without.vectors).max() > 0.1
    found.save(tmp_path)
    loaded = load_item_embeddings(tmp_path)
    assert loaded.before_validation is not None
    np.testing.assert_array_equal(loaded.before_validation, found.before_validation)
    some = found.rows(np.array([3, 1]))
    assert some.before_validation is not None
    np.testing.assert_array_equal(some.before_validation, found.before_validation[[3, 1]])


def test_vectors_that_no_watch_moves_are_the_same_before_validation(silent: Path) -> None:
    found = embed_items(two_topics(), silent, None, HASHED)
    assert found.before_validation is None
    found.save(silent)
    assert load_item_embeddings(silent).before_validation is None


def test_histories_count_as_watched_together(tmp_path: Path) -> None:
    evens, odds = ([f"i{n:03d}" for n in range(g, 12, 2)] for g in range(2))
    sessions = [[item] for group in (evens, odds) for item in group]
    histories = [[o for o in group if o != item] for group in (evens, odds) for item in group]
    path = write_sessions(
        tmp_path, "valid", sessions, history_item_ids=pa.array(histories, pa.list_(pa.string()))
    )
    config = EmbeddingConfig(text_encoder="none", collaborative_dim=2)
    found = embed_items(two_topics(12, title=None), path, None, config)
    assert cosine(found, "i000", "i002") > 0.9
    assert cosine(found, "i000", "i001") < 0.1


def test_exposures_that_were_not_positive_do_not_count(tmp_path: Path) -> None:
    path = write_sessions(
        tmp_path, "train", [["i000", "i001"]] * 5, is_positive=pa.array([[True, False]] * 5)
    )
    found = embed_items(two_topics(4), path, None, HASHED)
    assert not found.flags["has_collaborative"].any()


def test_cold_items_lie_among_the_warm_ones_they_resemble(tmp_path: Path) -> None:
    warm = [[f"i{n:03d}" for n in range(g, 30, 2)] for g in range(2)]
    sessions = [
        [group[i] for i in np.random.default_rng(s).permutation(15)[:5]]
        for s in range(40)
        for group in warm
    ]
    path = write_sessions(tmp_path, "train", sessions)
    found = embed_items(two_topics(32), path, None, HASHED)
    assert found.flags["has_collaborative"].tolist() == [True] * 30 + [False] * 2
    likeness = found.vectors[30:] @ found.vectors[:30].T  # i030 is about cooking, i031 about skiing
    own = np.array([likeness[0, ::2].mean(), likeness[1, 1::2].mean()])
    other = np.array([likeness[0, 1::2].mean(), likeness[1, ::2].mean()])
    assert (own > 0.7).all()
    assert (other < 0.1).all()


def test_category_and_author_stand_in_for_missing_titles(silent: Path) -> None:
    rows = [
        {"item_id": f"i{n}", "category": ("12,9", "34")[n % 2], "author_id": f"a{n}"}
        for n in range(20)
    ]
    found = embed_items(catalogue(*rows), silent, None, HASHED)
    assert_usable(found)
    assert not found.flags["has_text"].any()
    assert found.flags["has_attributes"].all()
    assert cosine(found, "i0", "i2") > cosine(found, "i0", "i1") + 0.5


def test_an_item_without_any_feature_has_a_direction_of_its_own(silent: Path) -> None:
    rows = [{"item_id": f"x{n}"} for n in range(3)]
    table = pa.concat_tables([two_topics(), catalogue(*rows)])
    found = embed_items(table, silent, None, HASHED)
    assert_usable(found)
    assert found.has_nothing.tolist() == [False] * 40 + [True] * 3
    assert len(np.unique(found.vectors[40:], axis=0)) == 3
    again = embed_items(table, silent, None, HASHED)
    assert (again.vectors == found.vectors).all()


def test_a_catalogue_without_any_feature_still_gets_vectors(silent: Path) -> None:
    found = embed_items(two_topics(title=None), silent, None, HASHED)
    assert_usable(found)
    assert found.has_nothing.all()
    assert len(np.unique(found.vectors, axis=0)) == 40


def test_one_item_and_equal_items(silent: Path) -> None:
    for rows in ([{"item_id": "a", "title": "x"}], [{"item_id": i, "title": "x"} for i in "abc"]):
        assert_usable(embed_items(catalogue(*rows), silent, None, HASHED))


def four_relations(directory: Path, **changed) -> ItemEmbeddings:
    """16 items: bit 0 of the number is their topic, bit 1 their category, bit 2 their supplied
    vector, bit 3 with whom they are watched."""
    numbers = range(16)
    words = ("slow pasta recipe", "fast ski slope")
    table = catalogue(
        *(
            {"item_id": f"i{n:03d}", "title": words[n & 1], "category": "ab"[n >> 1 & 1]}
            for n in numbers
        )
    )
    vectors = [[1.0, 0.0] if n & 4 else [0.0, 1.0] for n in numbers]
    supplied = pa.table(
        {
            "item_id": [f"i{n:03d}" for n in numbers],
            "vector": pa.array(vectors, pa.list_(pa.float32())),
        }
    )
    groups = [[f"i{n:03d}" for n in numbers if n >> 3 == group] for group in (0, 1)]
    sessions = write_sessions(directory, "train", groups * 10)
    return embed_items(table, sessions, supplied, dataclasses.replace(HASHED, **changed))


@pytest.mark.parametrize(
    ("weight", "partner"),
    [
        ("text_weight", 14),
        ("attributes_weight", 13),
        ("supplied_weight", 11),
        ("collaborative_weight", 7),
    ],
)
def test_a_block_counts_by_its_weight(tmp_path: Path, weight: str, partner: int) -> None:
    """Item 0 and its partner are alike in this block alone."""
    none, little, much = (
        cosine(four_relations(tmp_path, **{weight: w}), "i000", f"i{partner:03d}")
        for w in (0.0, 0.5, 5.0)
    )
    assert none < little < much
    assert much > little + 0.2


def test_co_watching_of_few_sessions_gives_way_to_what_the_text_predicts(tmp_path: Path) -> None:
    trusted, doubted = (
        cosine(four_relations(tmp_path, collaborative_shrinkage=s), "i000", "i007")
        for s in (0.0, 1e6)
    )
    assert trusted > doubted + 0.2


@pytest.mark.parametrize("scale", [1e-20, 1e-7, 1e30])
def test_the_scale_of_supplied_vectors_does_not_matter(silent: Path, scale: float) -> None:
    numbers = np.random.default_rng(0).standard_normal((40, 5))
    ids = [f"i{n:03d}" for n in range(40)]
    plain, scaled = (
        embed_items(
            two_topics(title=None),
            silent,
            pa.table({"item_id": ids, "vector": list(vectors.astype(np.float32))}),
            HASHED,
        )
        for vectors in (numbers, numbers * scale)
    )
    np.testing.assert_allclose(scaled.vectors, plain.vectors, atol=1e-5)


def test_equal_supplied_vectors_say_nothing(silent: Path) -> None:
    supplied = pa.table(
        {"item_id": [f"i{n:03d}" for n in range(40)], "vector": [[0.1, 0.7, 1e6]] * 40}
    )
    with_them, without = (embed_items(two_topics(), silent, s, HASHED) for s in (supplied, None))
    np.testing.assert_array_equal(with_them.vectors, without.vectors)


def test_texts_are_not_padded_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(device: str) -> ShardFunction:
        return lambda table: columns_of(
            {
                "vectors": np.repeat(
                    pc.utf8_length(table["text"]).to_numpy().astype(np.float32)[:, None], 384, 1
                )
            }
        )

    monkeypatch.setattr(text, "load_minilm", load)
    texts = np.array(["a" * 1000, "bb", "c", "bb", *["d"] * 20_000], object)
    tracemalloc.start()
    vectors = text.encode_minilm(texts, lambda line: None)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert vectors[:5, 0].tolist() == [1000, 2, 1, 2, 1]
    # the vectors, and less than a tenth of a thousand characters of 4 bytes for each
    assert most < vectors.nbytes + 20_000 * 400


def test_supplied_vectors(silent: Path) -> None:
    generator = np.random.default_rng(0)
    mine = {f"i{n:03d}": generator.standard_normal(5) + 4 * (n % 2) for n in range(30)}
    supplied = pa.table(
        {
            "item_id": [*mine, "unknown"],
            "vector": pa.array([*mine.values(), np.zeros(5)], pa.list_(pa.float32())),
        }
    )
    found = embed_items(two_topics(title=None), silent, supplied, HASHED)
    assert_usable(found)
    assert found.flags["has_supplied"].tolist() == [True] * 30 + [False] * 10
    likeness = found.vectors[:30] @ found.vectors[:30].T
    same = np.arange(30)[:, None] % 2 == np.arange(30) % 2
    assert likeness[same].mean() > 0.3
    assert likeness[~same].mean() < -0.3


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, 2.0], r"item_vectors\['i003'\]: .*not have the 3 numbers.*leave the item out"),
        (None, r"item_vectors\['i003'\]: .*not have the 3 numbers"),
        ([1.0, float("nan"), 0.0], r"item_vectors\['i003'\]: .*holds NaN \(1 such items\)"),
        ([1.0, None, 0.0], r"item_vectors\['i003'\]: .*holds NaN"),
        ([1.0, float("inf"), 0.0], r"item_vectors\['i003'\]: .*holds NaN"),
    ],
)
def test_unusable_supplied_vectors_are_named(
    vector: list[float] | None, message: str, silent: Path
) -> None:
    vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], vector]
    supplied = pa.table(
        {
            "item_id": ["i001", "i002", "i003"],
            "vector": pa.array(vectors, pa.list_(pa.float32())),
        }
    )
    with pytest.raises(ValueError, match=message):
        embed_items(two_topics(), silent, supplied, HASHED)


def test_bad_catalogues_are_named(silent: Path) -> None:
    with pytest.raises(ValueError, match="no items"):
        embed_items(two_topics(0), silent, None, HASHED)
    twice = pa.concat_tables([two_topics(), two_topics(3)])
    with pytest.raises(ValueError, match="item 'i000' is there twice"):
        embed_items(twice, silent, None, HASHED)
    with pytest.raises(ValueError, match="before=2026-06-01: no item was first seen earlier"):
        embed_items(two_topics(), silent, None, HASHED, before=FIRST)


@pytest.mark.parametrize("encoder", ["hashed", "minilm"])
def test_nothing_of_the_test_day_moves_an_older_item(encoder: str, tmp_path: Path) -> None:
    day = FIRST + timedelta(days=5)
    ids = [f"i{n:03d}" for n in range(40)]
    sessions = [ids[n % 7 :: 7] for n in range(30)]
    quiet = write_sessions(tmp_path / "quiet", "train", sessions)
    loud = write_sessions(tmp_path / "loud", "train", sessions)
    write_sessions(loud, "test", [["i000", "i001", "future"]] * 50)
    (loud / "split=test" / "part-00001.parquet").write_bytes(b"not even Parquet")
    config = EmbeddingConfig(text_encoder=encoder, text_dim=8, collaborative_dim=8)
    arrived = catalogue(
        {"item_id": "future", "title": "pasta ski " * 200, "category": "c", "first_seen": day}
    )
    plain = embed_items(two_topics(), quiet, None, config, before=day)
    planted = embed_items(pa.concat_tables([two_topics(), arrived]), loud, None, config, before=day)
    assert planted.item_ids.tolist() == [*ids, "future"]
    np.testing.assert_allclose(
        planted.vectors[:40, : plain.vectors.shape[1]], plain.vectors, atol=1e-6
    )
    assert_usable(planted)


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    path = write_sessions(
        tmp_path, "train", [[f"i{n:03d}" for n in range(s, 40, 5)] for s in range(5)]
    )
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        embed_items(two_topics(), path, None, HASHED).save(tmp_path / name)
    for file in ("items.parquet", "vectors.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_saved_and_loaded(tmp_path: Path, silent: Path) -> None:
    found = embed_items(two_topics(), silent, None, HASHED)
    found.save(tmp_path)
    loaded = load_item_embeddings(tmp_path)
    assert (loaded.vectors == found.vectors).all()
    assert loaded.item_ids.tolist() == found.item_ids.tolist()
    assert loaded.first_seen.tolist() == found.first_seen.tolist()
    assert {n: f.tolist() for n, f in loaded.flags.items()} == {
        n: f.tolist() for n, f in found.flags.items()
    }


def test_odd_titles(silent: Path) -> None:
    titles = ["", "   ", "x" * 100_000, "\u4f60\u597d \u4e16\u754c", "\U0001f408" * 3, "a\x00b\n"]
    rows = [{"item_id": f"i{n}", "title": title} for n, title in enumerate(titles)]
    for encoder in ("hashed", "minilm"):
        config = EmbeddingConfig(text_encoder=encoder, text_dim=8)
        found = embed_items(catalogue(*rows), silent, None, config)
        assert_usable(found)
        assert found.flags["has_text"].tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"text_encoder": "bert"}, "text_encoder='bert'"), ({"text_weight": -1}, "text_weight=-1")],
)
def test_settings_are_checked(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingConfig(**changed)
