"""Evaluations that asked the same have equal protocols; others say what differs."""

import dataclasses
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from onerec.evaluation.baselines import fit_baselines
from onerec.evaluation.data import EvaluationData
from onerec.evaluation.protocol import EvaluationProtocol
from onerec.reward.model import RewardModel, RewardShape
from onerec.session_dataset.incidence import incidence_of
from onerec.session_dataset.interactions import Interactions
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, EVALUATION, NUM_ITEMS, REWARD
from tests.core.reward.planted import planted_trees


def evaluator(seed: int, *, with_trees: bool = False) -> RewardModel:
    torch.manual_seed(seed)
    model = RewardModel(REWARD, RewardShape(vector_dim=6, num_items=NUM_ITEMS, history_length=6))
    if with_trees:
        model.boosting = planted_trees(model.signals, num_facts=2)
    return model


def data(**changes) -> EvaluationData:
    ids = small.catalogue()
    nothing, nobody = np.zeros(NUM_ITEMS), np.zeros(0, dtype=np.int64)
    window = Interactions(
        exposures=nothing,
        watches=nothing,
        recent_watches=nothing,
        watched=incidence_of(nobody, nobody, (0, NUM_ITEMS)),
    )
    rng = np.random.default_rng(0)
    return dataclasses.replace(
        EvaluationData(
            test_day=DAY,
            user_ids=np.array([f"u{i}" for i in range(30)], dtype=object),
            histories=rng.integers(0, NUM_ITEMS, (30, 6)),
            targets=rng.integers(0, NUM_ITEMS, (30, 3)),
            semantic_ids=ids,
            candidates=ids.known_before(DAY),
            vectors=torch.zeros(NUM_ITEMS, 6),
            baselines=fit_baselines(window, ids.known_before(DAY), neighbours=2),
            reward_models={"evaluator": evaluator(0), "training": evaluator(1)},
            config=EVALUATION,
            reward=REWARD,
            session_items=3,
        ),
        **changes,
    )


def test_rows_of_the_table_do_not_matter_items_do() -> None:
    """The same items under other row numbers ask the same question."""
    asked, ids = data(), small.catalogue()
    turned = dataclasses.replace(
        ids,
        item_ids=ids.item_ids[::-1].copy(),
        codes=ids.codes.flip(0),
        first_seen=ids.first_seen[::-1].copy(),
    )
    again = data(
        semantic_ids=turned,
        histories=NUM_ITEMS - 1 - asked.histories,
        targets=NUM_ITEMS - 1 - asked.targets,
        candidates=asked.candidates[::-1].copy(),
    )
    assert EvaluationProtocol.of(again) == EvaluationProtocol.of(asked)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"test_day": DAY - timedelta(days=1)}, {"test_day"}),
        ({"semantic_ids": small.catalogue(tokenizer_version="other")}, {"tokenizer_version"}),
        ({"targets": np.zeros((30, 3), dtype=np.int64)}, {"cases"}),
        ({"histories": np.zeros((30, 6), dtype=np.int64)}, {"cases"}),
        ({"candidates": np.ones(NUM_ITEMS, dtype=bool)}, {"candidates", "candidate_items"}),
        (
            {"reward_models": {"evaluator": evaluator(5), "training": evaluator(1)}},
            {"reward_models"},
        ),
        (
            {
                "reward_models": {
                    "evaluator": evaluator(0, with_trees=True),
                    "training": evaluator(1),
                }
            },
            {"reward_models"},
        ),
    ],
)
def test_another_question_differs_in_what_was_asked(changes: dict, parts: set[str]) -> None:
    asked, other = (asdict(EvaluationProtocol.of(d)) for d in (data(), data(**changes)))
    assert {name for name in asked if asked[name] != other[name]} == parts


def test_what_is_written_is_read(tmp_path: Path) -> None:
    protocol = EvaluationProtocol.of(data())
    protocol.save(tmp_path)
    assert EvaluationProtocol.load(tmp_path) == protocol
    assert (protocol.users, protocol.mean_targets, protocol.candidate_items) == (30, 3.0, 37)
