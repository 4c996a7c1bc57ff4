"""Groups hold what the method compares: everything drawn, or the best against the worst."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from onerec.alignment.candidates import sample_contexts
from onerec.alignment.groups import PreferenceGroups, make_groups
from onerec.alignment.pairs import illegal_sessions, make_pairs
from onerec.alignment.preferences import (
    check_method,
    in_wrong_order,
    load_preferences,
    save_preferences,
)
from onerec.config import AlignmentConfig
from onerec.generation import Trie, generate_sessions
from onerec.model import session_logp
from onerec.reward.scoring import scalar_reward, score_sessions
from onerec.schema import PREFERENCE_GROUPS
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
    planted_pairs,
    reward_model,
    session_generator,
)

ALL = torch.ones(NUM_ITEMS, dtype=torch.bool)


CONTEXTS = sample_contexts(good_sessions(40, 1), 12, 0)


def groups(method: str, pairs: str = "beams", trie: Trie = TRIE, **changes) -> PreferenceGroups:
    settings = {"method": method, "pairs": pairs, "group_size": 4, "num_rejected": 2} | changes
    made_by = session_generator(trie=trie)
    return make_groups(made_by, ensemble(), CONTEXTS, AlignmentConfig(**settings))


def scores(history: torch.Tensor, sessions: torch.Tensor) -> torch.Tensor:
    evaluator, vectors = reward_model()
    return scalar_reward(score_sessions(evaluator, vectors, history, sessions).double(), REWARD)


@pytest.mark.parametrize("pairs", ["beams", "sampling"])
@pytest.mark.parametrize("method", ["grpo", "sdpo"])
def test_rewards_and_log_probabilities_are_those_of_the_sessions(method: str, pairs: str):
    made = groups(method, pairs)
    assert len(made) > 8
    torch.testing.assert_close(made.rewards, scores(made.history, made.sessions))
    with torch.no_grad():
        logp = session_logp(generator(), made.history, made.sessions, CATALOGUE)
    torch.testing.assert_close(made.logp.float(), logp, atol=1e-4, rtol=0)
    assert illegal_sessions(made.sessions, ALL) == 0
    assert made.sessions.shape == (len(made), 4 if method == "grpo" else 3, ITEMS)


def test_grpo_takes_the_most_probable_beams():
    made = groups("grpo")
    for i in range(len(made)):
        history = made.history[i : i + 1]
        beams = generate_sessions(
            generator(), history, CATALOGUE, TRIE, num_items=ITEMS, beam=DECODING.candidates,
            exclude=history,
        )  # fmt: skip
        assert torch.equal(made.sessions[i], beams.items[0, :4])


def test_sdpo_takes_the_best_and_the_worst():
    made = groups("sdpo", num_rejected=2)
    for i in range(len(made)):
        history = made.history[i : i + 1]
        beams = generate_sessions(
            generator(), history, CATALOGUE, TRIE, num_items=ITEMS, beam=DECODING.candidates,
            exclude=history,
        )  # fmt: skip
        ordered = scores(history, beams.items)[0].sort().values
        expected = [ordered[-1], ordered[0], ordered[1]]
        assert made.rewards[i].tolist() == pytest.approx([float(v) for v in expected])


def test_with_one_rejected_session_sdpo_has_the_pairs_of_dpo():
    made = groups("sdpo", num_rejected=1)
    pairs = make_pairs(session_generator(), ensemble(), CONTEXTS, AlignmentConfig())
    assert torch.equal(made.sessions, pairs.sessions)
    assert torch.equal(made.rewards, pairs.rewards)


def test_draws_are_draws_and_a_seed_is_a_sample():
    made, again = groups("grpo", "sampling"), groups("grpo", "sampling")
    other = groups("grpo", "sampling", seed=9)
    assert torch.equal(made.sessions, again.sessions)
    assert not torch.equal(made.sessions, other.sessions)
    assert made.stats["candidates"] == 4  # nothing is drawn to be thrown away


def test_pairs_can_come_from_draws():
    alignment = AlignmentConfig(method="dpo", pairs="sampling")
    pairs = make_pairs(session_generator(), ensemble(), CONTEXTS, alignment)
    assert len(pairs) > 8
    torch.testing.assert_close(pairs.rewards, scores(pairs.history, pairs.sessions))
    assert bool((pairs.chosen_reward > pairs.rejected_reward).all())


def test_contexts_with_too_few_sessions_are_counted():
    trie = Trie.build(CATALOGUE, CODES, torch.arange(NUM_ITEMS) < 2)
    stats = groups("grpo", trie=trie).stats
    assert stats["skipped_too_few_sessions"] == stats["contexts"] > 0
    with pytest.raises(ValueError, match="candidates=6: grpo compares 8"):
        groups("grpo", group_size=8)


@pytest.mark.parametrize("method", ["grpo", "sdpo"])
def test_saved_and_loaded(method: str, tmp_path: Path):
    made = groups(method)
    ids = SemanticIds(
        item_ids=np.array([f"item-{i}" for i in range(NUM_ITEMS)], dtype=object),
        codes=CATALOGUE,
        tokenizer_version="g",
        first_seen=np.full(NUM_ITEMS, np.datetime64("2026-06-01")),
        codebook_size=CODES,
    )
    save_preferences(made, ids.item_ids, tmp_path)
    assert pq.read_schema(tmp_path / "groups.parquet").equals(PREFERENCE_GROUPS)
    again = load_preferences(tmp_path, ids, history_length=HISTORY, session_items=ITEMS)
    assert isinstance(again, PreferenceGroups)
    for name in ("history", "sessions", "targets", "rewards", "logp"):
        assert torch.equal(getattr(again, name), getattr(made, name)), name
    assert again.stats == made.stats
    assert again.user_ids.tolist() == made.user_ids.tolist()


def test_a_method_cannot_learn_from_what_another_needs():
    check_method(planted_pairs(3, 0), AlignmentConfig())
    check_method(groups("sdpo"), AlignmentConfig(method="sdpo"))
    check_method(groups("ecpo"), AlignmentConfig(method="grpo"))
    for preferences, method in (
        (planted_pairs(3, 0), "grpo"),
        (planted_pairs(3, 0), "sdpo"),
        (groups("grpo"), "sdpo"),
        (groups("sdpo"), "ipa"),
    ):
        with pytest.raises(ValueError, match=f"method='{method}' learns from"):
            check_method(preferences, AlignmentConfig(method=method))


def test_wrong_orders_are_counted():
    pairs = planted_pairs(5, 0)
    assert in_wrong_order(pairs) == 0
    assert in_wrong_order(dataclasses.replace(pairs, rejected_reward=pairs.chosen_reward)) == 5
    ordered, drawn = groups("sdpo"), groups("grpo")
    assert in_wrong_order(ordered) == 0
    assert in_wrong_order(dataclasses.replace(ordered, rewards=ordered.rewards.flip(1))) == len(
        ordered
    )
    assert in_wrong_order(dataclasses.replace(drawn, rewards=drawn.rewards.flip(1))) == 0
    alike = torch.full_like(drawn.rewards, 0.3)
    assert in_wrong_order(dataclasses.replace(drawn, rewards=alike)) == len(drawn)


def test_zero_spread_groups_are_kept_and_counted():
    indifferent = ensemble()
    for parameter in indifferent.models[0].parameters():
        torch.nn.init.zeros_(parameter)

    def made(**settings) -> PreferenceGroups:
        alignment = AlignmentConfig(**settings)
        return make_groups(session_generator(), indifferent, CONTEXTS, alignment)

    kept = made(method="grpo", group_size=3)
    assert kept.stats["zero_spread_share"] == 1.0
    assert len(kept) == len(CONTEXTS)
    assert made(method="sdpo", num_rejected=2).stats["skipped_equal_rewards"] == len(CONTEXTS)


def test_an_ensemble_chooses_by_its_lower_bound():
    """Of two models that disagree the highest mean - c * deviation, by brute force."""
    pairs, plain = (
        make_pairs(
            session_generator(),
            ensemble(0, 1, config=dataclasses.replace(REWARD, ensemble_caution=caution)),
            CONTEXTS,
            AlignmentConfig(),
        )
        for caution in (3.0, 0.0)
    )
    reward_models, vectors = ensemble(0, 1).models, ensemble().vectors
    assert not torch.equal(pairs.chosen, plain.chosen)
    for i in range(len(pairs)):
        history = pairs.history[i : i + 1]
        beams = generate_sessions(
            generator(), history, CATALOGUE, TRIE, num_items=ITEMS, beam=DECODING.candidates,
            exclude=history,
        )  # fmt: skip
        a, b = (
            scalar_reward(score_sessions(j, vectors, history, beams.items).double(), REWARD)[0]
            for j in reward_models
        )
        bound = (a + b) / 2 - 3.0 * (a - b).abs() / 2
        assert torch.equal(pairs.chosen[i], beams.items[0, bound.argmax()])
        assert torch.equal(pairs.rejected[i], beams.items[0, (a + b).argmin()])
        assert float(pairs.chosen_reward[i]) == pytest.approx(float((a + b)[bound.argmax()]) / 2)
