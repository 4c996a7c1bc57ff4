import numpy as np
import pytest
import torch

from onerec.evaluation.generated_sessions import (
    GeneratedSessions,
    audit,
    lists_as_sessions,
    session_rewards,
)
from onerec.evaluation.metric_table import Metric
from onerec.ranked_lists import RankedLists
from onerec.reward.model import RewardModel, RewardShape
from onerec.reward.scoring import score_sessions
from tests.core.evaluation.night import REWARD

CODES = torch.tensor([[0, 0, 0], [0, 1, 0], [2, 1, 0], [2, 1, 1], [3, 0, 0]])
ALL = np.ones(5, dtype=bool)


def made(*rows: list[list[int]]) -> GeneratedSessions:
    items = torch.tensor(rows)
    logp = torch.where((items == -1).all(-1), -torch.inf, -1.0)
    return GeneratedSessions(items, logp)


def shares(sessions: GeneratedSessions, candidates: np.ndarray = ALL) -> tuple[float, float, int]:
    found = audit(sessions, CODES, candidates)
    return found.legal_share, found.repeat_free_share, found.num_sessions


def test_all_legal_and_free_of_repeats() -> None:
    assert shares(made([[0, 1], [2, 3]], [[4, 0], [1, 2]])) == (1.0, 1.0, 4)


def test_missing_beams_are_no_sessions() -> None:
    assert shares(made([[0, 1], [-1, -1]])) == (1.0, 1.0, 1)


def test_a_case_without_any_session_is_not_legal() -> None:
    assert shares(made([[0, 1], [-1, -1]], [[-1, -1], [-1, -1]])) == (0.5, 1.0, 2)


def test_an_item_that_may_not_be_recommended_is_not_legal() -> None:
    candidates = np.array([True, True, True, True, False])
    assert shares(made([[0, 1], [0, 4]]), candidates) == (0.5, 1.0, 2)


def test_a_hole_and_an_index_beyond_the_table_are_not_legal() -> None:
    assert shares(made([[0, -1], [0, 7], [0, 1]])) == (pytest.approx(1 / 3), 1.0, 3)


def test_a_repeat_is_found() -> None:
    assert shares(made([[0, 0], [0, 1]])) == (1.0, 0.5, 2)


def test_equal_tokens_are_neither_legal_nor_different() -> None:
    codes = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 1], [2, 0]])
    found = audit(made([[0, 1], [2, 3]]), codes, ALL)
    assert (found.legal_share, found.repeat_free_share) == (0.5, 0.5)


@pytest.fixture
def evaluator() -> RewardModel:
    torch.manual_seed(0)
    return RewardModel(REWARD, RewardShape(vector_dim=4, num_items=5, history_length=3)).eval()


def test_rewards_are_of_the_best_session_and_over_the_beams(evaluator: RewardModel) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    history = torch.tensor([[0, 1, -1], [-1, -1, -1]])
    sessions = made([[0, 1], [2, 3]], [[4, 0], [-1, -1]])
    values = session_rewards(evaluator, vectors, history, sessions, REWARD, name="evaluator")
    first = score_sessions(evaluator, vectors, history[:1], sessions.items[:1])[0]
    second = score_sessions(evaluator, vectors, history[1:], sessions.items[1:, 0])
    assert values[Metric("evaluator_reward")] == pytest.approx(
        [float(first[0].sum()), float(second.sum())]
    )
    assert values[Metric("evaluator_mean", "vtr")][0] == pytest.approx(float(first[:, 1].mean()))
    assert values[Metric("evaluator_max", "ltr")][0] == pytest.approx(float(first[:, 3].max()))
    # the missing beam of the second case counts in neither
    assert values[Metric("evaluator_mean", "swt")][1] == pytest.approx(float(second[0, 0]))
    assert values[Metric("evaluator_max", "swt")][1] == pytest.approx(float(second[0, 0]))


def test_no_session_no_reward(evaluator: RewardModel) -> None:
    sessions = made([[-1, -1]])
    values = session_rewards(
        evaluator,
        torch.zeros(5, 4),
        torch.tensor([[0, -1, -1]]),
        sessions,
        REWARD,
        name="evaluator",
    )
    assert all(np.isnan(v).all() for v in values.values())


def test_a_list_is_one_session_if_it_is_long_enough() -> None:
    lists = RankedLists(np.array([[3, 1, 2], [4, -1, -1]]), np.zeros((2, 3)))
    sessions = lists_as_sessions(lists, session_items=2)
    assert sessions.items.tolist() == [[[3, 1]], [[4, -1]]]
    assert sessions.exist.tolist() == [[True], [False]]
