"""Pairs really are the best and the worst of what the beam found."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from onerec.alignment.candidates import ScoredCandidates, sample_contexts
from onerec.alignment.pairs import (
    PreferencePairs,
    best_and_worst,
    illegal_sessions,
    load_pairs,
    make_pairs,
    save_pairs,
)
from onerec.config import AlignmentConfig
from onerec.generation import Trie, generate_sessions
from onerec.reward.scoring import scalar_reward, score_sessions
from onerec.schema import PREFERENCE_PAIRS
from onerec.tokenizer.semantic_ids import SemanticIds
from tests.core.alignment.world import (
    CATALOGUE,
    CODES,
    DECODING,
    HISTORY,
    ITEMS,
    NUM_ITEMS,
    REWARD,
    TRIE,
    ensemble,
    generator,
    good_sessions,
    reward_model,
    session_generator,
)


def _pairs(trie: Trie = TRIE, **changes: object) -> PreferencePairs:
    decoding = dataclasses.replace(DECODING, **changes)  # pyright: ignore
    contexts = sample_contexts(good_sessions(40, 1), 12, 0)
    made_by = session_generator(trie=trie, decoding=decoding)
    return make_pairs(made_by, ensemble(), contexts, AlignmentConfig())


@pytest.mark.parametrize("filter_seen", [True, False])
def test_pairs_are_best_and_worst_by_brute_force(filter_seen: bool):
    pairs = _pairs(filter_seen=filter_seen)
    assert len(pairs) > 8
    rewards, vectors = reward_model()
    model = generator()
    for i in range(len(pairs)):
        history = pairs.history[i : i + 1]
        beams = generate_sessions(
            model,
            history,
            CATALOGUE,
            TRIE,
            num_items=ITEMS,
            beam=DECODING.candidates,
            exclude=history if filter_seen else None,
        )
        scored = {}
        for k in range(DECODING.candidates):
            session = beams.items[:, k]
            if torch.isfinite(beams.logp[0, k]):
                value = scalar_reward(score_sessions(rewards, vectors, history, session), REWARD)
                scored[tuple(session[0].tolist())] = float(value)
        assert scored[tuple(pairs.chosen[i].tolist())] == pytest.approx(
            max(scored.values()), abs=1e-6
        )
        assert scored[tuple(pairs.rejected[i].tolist())] == pytest.approx(
            min(scored.values()), abs=1e-6
        )
        assert float(pairs.chosen_reward[i]) == pytest.approx(max(scored.values()), abs=1e-6)
        if filter_seen:
            assert not set(scored) & {tuple(history[0].tolist())}
            seen = set(history[0].tolist())
            assert not seen & {*pairs.chosen[i].tolist(), *pairs.rejected[i].tolist()}


def test_logps_are_the_samplers():
    from onerec.model import session_logp

    pairs = _pairs()
    with torch.no_grad():
        expected = session_logp(generator(), pairs.history, pairs.chosen, CATALOGUE)
    torch.testing.assert_close(pairs.chosen_logp.float(), expected, atol=1e-4, rtol=0)


def test_only_allowed_items_and_no_repeats():
    allowed = torch.arange(NUM_ITEMS) % 2 == 0
    pairs = _pairs(Trie.build(CATALOGUE, CODES, allowed), filter_seen=False)
    assert len(pairs) > 0
    assert illegal_sessions(pairs.sessions, allowed) == 0
    assert illegal_sessions(pairs.sessions, torch.arange(NUM_ITEMS) % 2 == 1) == len(pairs)
    repeated = dataclasses.replace(pairs, rejected=pairs.rejected[:, [0, 0, 1]])
    assert illegal_sessions(repeated.sessions, allowed) == len(pairs)


def test_contexts_without_a_choice_are_skipped_and_counted():
    """One legal session only: nothing to prefer. Then two with one reward: nothing either."""
    only = torch.arange(NUM_ITEMS) < 1
    contexts = good_sessions(4, 1)
    contexts = dataclasses.replace(contexts, targets=contexts.targets[:, :1])
    one = session_generator(
        trie=Trie.build(CATALOGUE, CODES, only),
        decoding=dataclasses.replace(DECODING, filter_seen=False),
    )
    pairs = make_pairs(one, ensemble(), contexts, AlignmentConfig())
    assert len(pairs) == 0
    assert pairs.stats["skipped_fewer_than_two_sessions"] == 4

    indifferent = ensemble()
    for parameter in indifferent.models[0].parameters():
        torch.nn.init.zeros_(parameter)
    pairs = make_pairs(session_generator(), indifferent, contexts, AlignmentConfig())
    assert pairs.stats["skipped_equal_rewards"] == 4


def test_ties_go_to_the_more_probable_session():
    items = torch.arange(8).reshape(1, 4, 2)
    logp = torch.tensor([[-1.0, -2.0, -3.0, -torch.inf]])
    rewards = torch.tensor([[0.5, 0.9, 0.9, 7.0]])
    row, towers = torch.arange(1), torch.zeros(1, 4, 4)
    found = best_and_worst(ScoredCandidates(row, items, logp, rewards, rewards, towers))
    assert found["chosen"].tolist() == [[2, 3]]
    assert found["rejected"].tolist() == [[0, 1]]
    assert found["num_sessions"].tolist() == [3]
    assert float(found["mean_reward"]) == pytest.approx(2.3 / 3)


def test_one_context_a_user_and_another_seed_another_sample():
    sessions = good_sessions(200, 3)
    sample = sample_contexts(sessions, 8, 0)
    assert len(sample) == 8
    assert len(set(sample.user.tolist())) == 8
    again = sample_contexts(sessions, 8, 0)
    assert torch.equal(sample.history, again.history)
    assert not torch.equal(sample.history, sample_contexts(sessions, 8, 1).history)
    assert len(sample_contexts(sessions, 999, 0)) == 12  # every user once


def test_saved_and_loaded(tmp_path: Path):
    pairs = _pairs()
    ids = SemanticIds(
        item_ids=np.array([f"item-{i}" for i in range(NUM_ITEMS)], dtype=object),
        codes=CATALOGUE,
        tokenizer_version="g",
        first_seen=np.full(NUM_ITEMS, np.datetime64("2026-06-01")),
        codebook_size=CODES,
    )
    save_pairs(pairs, ids.item_ids, tmp_path)
    assert pq.read_schema(tmp_path / "pairs.parquet").equals(PREFERENCE_PAIRS)
    again = load_pairs(tmp_path, ids, history_length=HISTORY, session_items=ITEMS)
    for name in ("history", "chosen", "rejected", "targets", "chosen_reward", "rejected_logp"):
        assert torch.equal(getattr(again, name), getattr(pairs, name)), name
    assert again.user_ids.tolist() == pairs.user_ids.tolist()
    assert again.stats == pairs.stats

    fewer = dataclasses.replace(ids, item_ids=np.array(["x"] * NUM_ITEMS, dtype=object))
    with pytest.raises(ValueError, match="not in the catalogue of tokenizer version g"):
        load_pairs(tmp_path, fewer, history_length=HISTORY, session_items=ITEMS)


def test_the_same_bytes_again(tmp_path: Path):
    ids = np.array([f"item-{i}" for i in range(NUM_ITEMS)], dtype=object)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_pairs(_pairs(), ids, tmp_path / name)
    for file in ("pairs.parquet", "stats.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
