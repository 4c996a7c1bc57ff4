"""The same answer for a user however they ask, from a directory."""

import dataclasses
import datetime
import logging

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import load_file, save_file

from onerec.config import BeamConfig, RewardConfig
from onerec.evaluation.baselines import FittedBaselines
from onerec.evaluation.baselines.simple import ItemKNN, Popularity
from onerec.generation import Trie, generate_sessions, rank_items
from onerec.generation.beam import read_histories
from onerec.generation.ranking import CONTENT_SIMILARITY
from onerec.model import TokenizerVersionMismatchError, save_model, session_logp
from onerec.ranked_lists import last_items
from onerec.reward.model import RewardModel, RewardShape, save_reward
from onerec.reward.scoring import score_sessions
from onerec.serving.recommender import Recommender, write_bundle
from onerec.serving.simple_recommender import SimpleRecommender
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from tests.core.model.small import small_model, unique_codes
from tests.core.reward.planted import planted_trees

N, K, T, MODEL_HISTORY, SESSION = 40, 4, 3, 6, 3


def semantic_ids(directory, tokenizer_version="g1"):
    days = np.full(N, np.datetime64(datetime.date(2026, 6, 1)), dtype="datetime64[D]")
    ids = SemanticIds(
        item_ids=np.array([f"item-{i}" for i in range(N)], dtype=object),
        codes=unique_codes(N, K, T),
        tokenizer_version=tokenizer_version,
        first_seen=days,
        codebook_size=K,
    )
    directory.mkdir()
    ids.save(directory)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(N, 5, generator=generator))
    save_file({"vectors": vectors}, directory / "vectors.safetensors")


@pytest.fixture
def parts(tmp_path):
    semantic_ids(tmp_path / "ids")
    save_model(small_model().float(), tmp_path / "model", tokenizer_version="g1")
    return tmp_path


@pytest.fixture
def recommender(parts):
    write_bundle(
        parts / "bundle",
        checkpoint=parts / "model",
        semantic_ids=parts / "ids",
        config=BeamConfig(beam=8, batch_size=3),
    )
    return Recommender.load(parts / "bundle")


HISTORIES = [
    ["item-1", "item-7", "item-3"],
    [],
    [f"item-{i}" for i in range(12)],  # longer than the model reads
    ["item-5"],
    ["item-9", "item-9", "item-2"],
]


@pytest.mark.parametrize("k", [1, 3, 5, 30])
def test_the_same_alone_in_a_batch_and_as_arrow(recommender, k):
    together = recommender.recommend_batch(HISTORIES, k)
    backwards = recommender.recommend_batch(HISTORIES[::-1], k)[::-1]
    arrow = recommender.recommend_batch(pa.chunked_array([HISTORIES[:2], HISTORIES[2:]]), k)
    for user, history in enumerate(HISTORIES):
        alone = recommender.recommend(history, k)
        for other in (together, backwards, arrow):
            assert [r.item_id for r in alone] == [r.item_id for r in other[user]]
            assert [r.score for r in alone] == pytest.approx(
                [r.score for r in other[user]], abs=1e-9
            )


@pytest.mark.parametrize(
    "histories",
    [
        [["item-1", 5]],
        [[5, "item-1"]],
        [["item-1"], [5]],
        [[2**80, "item-1", None]],
        [[]],
        [np.array([5, 7])],
    ],
)
def test_integers_are_read_as_text_beside_texts_too(recommender, histories):
    ids = recommender.semantic_ids.item_ids.copy()
    ids[5:7] = ["5", str(2**80)]
    numbered = Recommender(
        small_model(),
        dataclasses.replace(recommender.semantic_ids, item_ids=ids),
        config=recommender.config,
    )
    index = {item: place for place, item in enumerate(ids)}
    known = [[index[str(i)] for i in history if str(i) in index] for history in histories]
    found = numbered.index_histories(histories)
    assert [[i for i in row if i >= 0] for row in found.tolist()] == known


def test_precision_goes_with_the_bundle_and_batches_are_told(parts):
    found = {}
    for precision in ("float32", "float64"):
        write_bundle(
            parts / precision,
            checkpoint=parts / "model",
            semantic_ids=parts / "ids",
            config=BeamConfig(beam=8, batch_size=3, serving_precision=precision),
        )
        loaded = Recommender.load(parts / precision)
        told: list[tuple[int, int]] = []
        ranking = loaded.rank(
            loaded.index_histories(HISTORIES), 5, on_batch=lambda *done, t=told: t.append(done)
        )
        assert loaded.model.dtype is getattr(torch, precision)
        assert told == [(3, 5), (5, 5)]
        found[precision] = ranking.scores
    assert found["float32"] == pytest.approx(found["float64"], abs=1e-4)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="serving_precision='bf16': use 'float64' or 'float32'"):
        BeamConfig(serving_precision="bf16")


def test_lists_are_ranked_distinct_and_without_what_was_seen(recommender):
    for history, row in zip(HISTORIES, recommender.recommend_batch(HISTORIES, 20), strict=True):
        ids = [r.item_id for r in row]
        assert len(row) == 20
        assert [r.rank for r in row] == list(range(1, 21))
        assert len(set(ids)) == 20
        assert not set(ids) & set(history)
        assert all(r.reward is None for r in row)


@pytest.mark.parametrize("rewarded", [False, True])
def test_a_share_of_the_list_is_kept_for_new_items(recommender, parts, rewarded):
    new = ["item-20", "item-21", "item-22", "item-23"]
    first_seen = recommender.semantic_ids.first_seen.copy()
    first_seen[20:24] += np.timedelta64(3, "D")
    first_seen[20] -= np.timedelta64(2, "D")  # no longer new after two days
    ids = dataclasses.replace(recommender.semantic_ids, first_seen=first_seen)
    reward, vectors = None, None
    if rewarded:
        shape = RewardShape(vector_dim=5, num_items=N, history_length=MODEL_HISTORY)
        reward = RewardModel(RewardConfig(d_model=8, num_heads=2), shape)
        vectors = load_file(parts / "ids" / "vectors.safetensors")["vectors"]
    plain, kept = (
        Recommender(
            small_model(),
            ids,
            config=BeamConfig(beam=8, new_item_share=share, new_item_days=2),
            reward=reward,
            vectors=vectors,
        )
        for share in (0.0, 0.25)
    )
    for history in HISTORIES:
        before, after = ([r.item_id for r in x.recommend(history, 8)] for x in (plain, kept))
        assert len(set(after)) == 8
        assert len(set(after) & set(new[1:])) >= 2
        others = [item for item in after if item not in new[1:]]
        assert others == [item for item in before if item not in new[1:]][: len(others)]
        if not set(before) & set(new[1:]):
            assert [after.index(item) for item in after if item in new[1:]] == [3, 7]
    assert plain.recommend([], 3) == kept.recommend([], 3), "a quarter of three places is none"


def test_what_may_be_listed_is_prepared_once(recommender, monkeypatch):
    first_seen = recommender.semantic_ids.first_seen.copy()
    first_seen[20:] += np.timedelta64(3, "D")
    ids = dataclasses.replace(recommender.semantic_ids, first_seen=first_seen)
    built, build = [], Trie.build
    monkeypatch.setattr(Trie, "build", staticmethod(lambda *of: built.append(of) or build(*of)))
    kept = Recommender(small_model(), ids, config=BeamConfig(beam=8, new_item_share=0.25))
    for _ in range(3):
        kept.recommend([], 8)
    assert len(built) == 1 + 1, "all items, and the new ones"
    for _ in range(3):
        kept.rank(np.full((2, 3), -1), 8, candidates=np.arange(N) % 2 == 0)
    assert len(built) == 2 + 2, "the candidates, and the new ones among them"


@pytest.mark.parametrize("own_layers", [0, 2])
def test_a_dense_head_serves_from_a_bundle(parts, own_layers):
    torch.manual_seed(1)
    model = small_model(dense_head=True, dense_encoder_layers=own_layers)
    vectors = load_file(parts / "ids" / "vectors.safetensors")["vectors"]
    model.add_dense_head(N - 3, 5).vectors.copy_(vectors[:-3])  # three items came since
    model.dense_share = 0.98
    save_model(model.float(), parts / "dense", tokenizer_version="g1")
    write_bundle(
        parts / "bundle",
        checkpoint=parts / "dense",
        semantic_ids=parts / "ids",
        config=BeamConfig(beam=8),
    )
    loaded = Recommender.load(parts / "bundle")
    assert loaded.model.dense is not None
    assert len(loaded.model.dense.table()) == N
    rows = torch.from_numpy(loaded.index_histories([HISTORIES[0]]))
    with torch.no_grad():
        logits = loaded.model.dense_logits(read_histories(loaded.model, rows, loaded.codes))
    logits[0, rows[0]] = -torch.inf
    first = loaded.recommend(HISTORIES[0], 1)[0]
    assert first.item_id == f"item-{int(logits.argmax())}"


@pytest.mark.parametrize(("rewarded", "own_layers"), [(False, 0), (True, 0), (False, 2)])
def test_a_dense_head_orders_the_new_items_by_content_alone(parts, rewarded, own_layers):
    """By hand: item-7 to item-16 are new, and a tenth of 20 places holds two of them."""
    torch.manual_seed(2)
    model = small_model(dense_head=True, dense_encoder_layers=own_layers).eval()
    vectors = load_file(parts / "ids" / "vectors.safetensors")["vectors"]
    head = model.add_dense_head(N, 5)
    head.vectors.copy_(vectors)
    torch.nn.init.normal_(head.items.weight, std=3.0)
    torch.nn.init.normal_(head.known.weight)
    model.dense_share, model.reward_weight = 0.3, 1.0 if rewarded else 0.0
    save_model(model.float(), parts / "dense", tokenizer_version="g1")
    ids = load_semantic_ids(parts / "ids")
    first_seen = ids.first_seen.copy()
    first_seen[7:17] += np.timedelta64(3, "D")
    dataclasses.replace(ids, first_seen=first_seen).save(parts / "ids")
    shape = RewardShape(vector_dim=5, num_items=N, history_length=MODEL_HISTORY)
    (parts / "reward").mkdir()
    save_reward(RewardModel(RewardConfig(d_model=8, num_heads=2), shape), parts / "reward")
    write_bundle(
        parts / "bundle",
        checkpoint=parts / "dense",
        semantic_ids=parts / "ids",
        reward=parts / "reward" if rewarded else None,
        config=BeamConfig(beam=8, batch_size=2, new_item_share=0.1),
    )
    prior = torch.linspace(0, 1, N)
    save_file({"prior": prior}, parts / "bundle" / "item_prior.safetensors")
    loaded = Recommender.load(parts / "bundle")
    together, brought = loaded.recommend_batch(HISTORIES, 20), 0
    for history, row in zip(HISTORIES, together, strict=True):
        assert [r.item_id for r in row] == [r.item_id for r in loaded.recommend(history, 20)]
        rows = torch.from_numpy(loaded.index_histories([history]))
        recent = last_items(rows.long(), MODEL_HISTORY)
        with torch.no_grad():
            memory = read_histories(loaded.model, recent, loaded.codes)
            content = (vectors @ head.known.weight.T).double()
            state = memory.states[0, 0] if memory.dense is None else memory.dense[0]
            state = head.state(state.float()).double()
            near = head.similarity(recent, torch.arange(N))[0]
            scores = (content @ state).log_softmax(0) + prior + CONTENT_SIMILARITY * near
        seen = {int(i) for i in rows[0] if i >= 0}
        best = sorted((i for i in range(7, 17) if i not in seen), key=lambda i: -scores[i])[:2]
        place = [r.item_id for r in row]
        for most, item in zip((10, 20), best, strict=True):
            rank = place.index(f"item-{item}") + 1
            assert rank <= most
            if rank == most:  # kept, and not there by itself
                brought += 1
                assert row[rank - 1].score == pytest.approx(float(scores[item]), abs=1e-6)
        assert all((r.reward is not None) == rewarded for r in row)
    assert brought > 2


def test_integer_ids_are_read_as_text():
    ids = np.array(["7", "8", "9", "10"], object)
    catalogue = SemanticIds(
        item_ids=ids,
        codes=torch.tensor([[n % 2, n // 2] for n in range(4)]),
        tokenizer_version="t",
        first_seen=np.full(4, np.datetime64("2026-06-01", "D")),
        codebook_size=2,
    )
    watches = Popularity(np.array([4.0, 3.0, 2.0, 1.0]), np.ones(4, bool))
    fitted = FittedBaselines(
        exposures=watches.weights, popularity=watches, popularity_recent=watches,
        item_knn=ItemKNN(sp.csr_array((4, 4)), watches.weights, watches.candidates),
    )  # fmt: skip
    recommender = SimpleRecommender("popularity", fitted, catalogue, history_length=3)
    assert [r.item_id for r in recommender.recommend([7, 9], 4)] == ["8", "10"]
    assert [r.item_id for r in recommender.recommend(["7", "9"], 4)] == ["8", "10"]
    assert recommender.index_histories([[7, 10], [], [8]]).tolist() == [[0, 3], [-1, -1], [1, -1]]


@pytest.mark.parametrize(
    ("filter_seen", "exclude_seen", "without"),
    [(True, None, True), (False, None, False), (False, True, True), (True, False, False)],
)
def test_seen_items_are_left_out_as_the_bundle_says_unless_the_caller_does(
    parts, filter_seen: bool, exclude_seen: bool | None, without: bool
):
    write_bundle(
        parts / "bundle",
        checkpoint=parts / "model",
        semantic_ids=parts / "ids",
        config=BeamConfig(beam=8, filter_seen=filter_seen),
    )
    recommender = Recommender.load(parts / "bundle")
    everything = len(recommender.semantic_ids)
    found = recommender.recommend(HISTORIES[0], everything, exclude_seen=exclude_seen)
    seen = set(HISTORIES[0]) & {r.item_id for r in found}
    assert bool(seen) is not without


def test_by_log_probability_alone_a_list_holds_the_best_first_items(recommender):
    history = recommender.index_histories([HISTORIES[0]])
    listed = recommender.rank(history, 20, exclude=history)
    first, logp = rank_items(
        recommender.model,
        last_items(torch.from_numpy(history), MODEL_HISTORY),
        recommender.codes,
        recommender.trie,
        top_k=N - 3,
        beam=N - 3,
        exclude=torch.from_numpy(history),
    )
    assert listed.items[0].tolist() == first[0, :20].tolist()
    assert listed.scores[0].tolist() == pytest.approx(logp[0, :20].tolist())
    with torch.no_grad():
        alone = session_logp(
            recommender.model,
            last_items(torch.from_numpy(history), MODEL_HISTORY),
            torch.from_numpy(listed.items[:, :1]),
            recommender.codes,
        )
    assert listed.scores[0, 0] == pytest.approx(alone.item(), abs=1e-9)


def test_unknown_items_are_ignored_and_counted(recommender, caplog):
    with caplog.at_level(logging.WARNING):
        mixed = recommender.recommend(["nope", "item-1", "item-7", "?", "item-3"])
    assert "2 of 5 history items" in caplog.text
    assert mixed == recommender.recommend(HISTORIES[0])
    assert recommender.recommend(["nope", "?"]) == recommender.recommend([])


def test_seen_items_may_come_back_when_asked(recommender):
    everything = recommender.recommend(HISTORIES[0], N, exclude_seen=False)
    assert {r.item_id for r in everything} == {f"item-{i}" for i in range(N)}
    assert len(recommender.recommend(HISTORIES[0], N)) == N - 3


def test_fewer_legal_items_than_a_session(recommender):
    seen = [f"item-{i}" for i in range(N - 2)]
    row = recommender.recommend(seen, 5)
    assert {r.item_id for r in row} == {f"item-{N - 2}", f"item-{N - 1}"}
    assert recommender.recommend([f"item-{i}" for i in range(N)], 5) == []


def test_nobody_asks(recommender):
    assert recommender.recommend_batch([], 5) == []
    with pytest.raises(ValueError, match="k=0"):
        recommender.recommend([], 0)
    with pytest.raises(ValueError, match="use a list of item ids"):
        recommender.recommend("item-1")


def test_only_the_recent_items_are_read(recommender):
    recent = HISTORIES[2][-MODEL_HISTORY:]
    full = recommender.recommend(HISTORIES[2], 5, exclude_seen=False)
    assert full == recommender.recommend(recent, 5, exclude_seen=False)


@pytest.mark.parametrize("grown", [False, True])
def test_a_bundle_carries_the_trees_beside_a_reward_model(parts, grown):
    shape = RewardShape(
        vector_dim=5, num_items=N, history_length=MODEL_HISTORY, item_facts=("rate",)
    )
    reward = RewardModel(RewardConfig(d_model=8, num_heads=2), shape).eval()
    with torch.no_grad():
        reward.facts.of_items.normal_()
    if grown:
        reward.boosting = planted_trees(reward.signals, num_facts=14)
    (parts / "reward").mkdir()
    save_reward(reward, parts / "reward")
    bundle = parts / "rewarded"
    write_bundle(
        bundle, checkpoint=parts / "model", semantic_ids=parts / "ids", reward=parts / "reward"
    )
    assert (bundle / "reward" / "boosting.json").exists() == grown
    served = Recommender.load(bundle).reward
    assert served is not None
    assert (served.boosting is None) != grown
    vectors = load_file(parts / "ids" / "vectors.safetensors")["vectors"].double()
    history, sessions = torch.full((1, MODEL_HISTORY), -1), torch.arange(N)[None, :, None]
    expected = score_sessions(reward.double(), vectors, history, sessions)
    torch.testing.assert_close(score_sessions(served, vectors, history, sessions), expected)
    reward.boosting = None
    alone = score_sessions(reward, vectors, history, sessions)
    assert torch.allclose(alone, expected) != grown
    save_reward(reward, parts / "reward")  # a bundle written again keeps no trees of before
    write_bundle(
        bundle, checkpoint=parts / "model", semantic_ids=parts / "ids", reward=parts / "reward"
    )
    assert not (bundle / "reward" / "boosting.json").exists()


@pytest.mark.parametrize("weight", [0.0, 1.5, 1000.0])
def test_lists_are_ordered_by_log_probability_plus_weighted_reward(parts, weight):
    torch.manual_seed(0)
    model = small_model().float()
    model.reward_weight = weight
    save_model(model, parts / "model", tokenizer_version="g1")
    shape = RewardShape(vector_dim=5, num_items=N, history_length=MODEL_HISTORY)
    (parts / "reward").mkdir()
    save_reward(RewardModel(RewardConfig(d_model=8, num_heads=2), shape), parts / "reward")
    write_bundle(
        parts / "rewarded",
        checkpoint=parts / "model",
        semantic_ids=parts / "ids",
        reward=parts / "reward",
        config=BeamConfig(beam=64, batch_size=3),
    )
    recommender = Recommender.load(parts / "rewarded")
    rows = recommender.recommend_batch(HISTORIES, 5)
    for history, row in zip(HISTORIES, rows, strict=True):
        rewards = [r.reward for r in row]
        assert all(isinstance(r, float) for r in rewards)
        seen = torch.from_numpy(recommender.index_histories([history]))
        recent = last_items(seen, MODEL_HISTORY)
        beams = generate_sessions(
            recommender.model,
            recent,
            recommender.codes,
            recommender.trie,
            num_items=SESSION,
            beam=64,
            exclude=seen,
        )
        of_sessions = recommender._rewards(recent, beams.items)
        best = (beams.logp + weight * of_sessions).argmax()
        listed = [f"item-{i}" for i in beams.items[0, best].tolist()]
        head = SESSION if weight else 0  # a session begins a list only where its reward counts
        assert [r.item_id for r in row[:head]] == listed[:head]
        assert rewards[:head] == pytest.approx([of_sessions[0, best].item()] * head, abs=1e-9)
        if head:  # each item's own log-probability; together they are the session's
            assert sum(r.score for r in row[:head]) == pytest.approx(beams.logp[0, best].item())
        values = [r.score + weight * r.reward for r in row[head:]]
        assert values == sorted(values, reverse=True)
        alone = recommender.recommend(history, 5)
        assert [r.item_id for r in alone] == [r.item_id for r in row]


def test_a_bundle_of_two_tokenizer_versions_is_refused(parts):
    semantic_ids(parts / "other", tokenizer_version="g2")
    with pytest.raises(TokenizerVersionMismatchError, match=r"'g1'.*'g2'"):
        write_bundle(parts / "x", checkpoint=parts / "model", semantic_ids=parts / "other")
    assert not (parts / "x").exists()


def test_a_directory_that_is_no_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recommender\.json is missing"):
        Recommender.load(tmp_path)
