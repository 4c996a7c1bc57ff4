"""Runs that asked the same question can be compared; others are told why not."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from onerec.evaluation.baselines import fit_baselines
from onerec.evaluation.comparison import compare_runs, protocol_of, write_protocol
from onerec.evaluation.evaluate import Night
from onerec.evaluation.interactions import Interactions
from onerec.reward.model import RewardModel, RewardShape
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, EVALUATION, NUM_ITEMS, REWARD


def evaluator(seed: int) -> RewardModel:
    torch.manual_seed(seed)
    return RewardModel(REWARD, RewardShape(vector_dim=6, num_items=NUM_ITEMS, history_length=6))


def night(**changes) -> Night:
    ids = small.catalogue()
    nothing = np.zeros(0, dtype=np.int64)
    window = Interactions(
        num_items=NUM_ITEMS, user=nothing, item=nothing, age=nothing, is_watched=nothing == 1,
        past_user=nothing, past_item=nothing, user_ids=np.zeros(0, dtype=object),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    return dataclasses.replace(
        Night(
            test_day=DAY,
            user_ids=np.array([f"u{i}" for i in range(30)], dtype=object),
            history=rng.integers(0, NUM_ITEMS, (30, 6)),
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


def run(directory: Path, asked: Night, **columns: np.ndarray) -> Path:
    directory.mkdir()
    write_protocol(directory, asked)
    pq.write_table(pa.table(columns), directory / "cases.parquet")
    return directory


def difference(ours: Path, theirs: Path, metric: str = "recall@10"):
    return compare_runs(
        ours, theirs, system="dpo", other="itemknn", metric=metric, config=EVALUATION
    )


def test_paired_over_the_same_cases(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random(30)
    ours = run(tmp_path / "a", night(), **{"dpo_recall@10": values + 0.1})
    theirs = run(tmp_path / "b", night(), **{"itemknn_recall@10": values})
    assert difference(ours, theirs) == pytest.approx((0.1, 0.1, 0.1))


def test_rows_of_the_table_do_not_matter_items_do() -> None:
    """The same items under other row numbers ask the same question."""
    asked, ids = night(), small.catalogue()
    turned = dataclasses.replace(
        ids,
        item_ids=ids.item_ids[::-1].copy(),
        codes=ids.codes.flip(0),
        first_seen=ids.first_seen[::-1].copy(),
    )
    again = night(
        semantic_ids=turned,
        history=NUM_ITEMS - 1 - asked.history,
        targets=NUM_ITEMS - 1 - asked.targets,
        candidates=asked.candidates[::-1].copy(),
    )
    assert protocol_of(again) == protocol_of(asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_day": DAY - timedelta(days=1)}, "compare runs of one test day"),
        (
            {"semantic_ids": small.catalogue(tokenizer_version="other")},
            "'other'.*one tokenizer version",
        ),
        ({"targets": np.zeros((30, 3), dtype=np.int64)}, "cases=.*one session_dataset"),
        ({"history": np.zeros((30, 6), dtype=np.int64)}, "cases=.*one session_dataset"),
        ({"candidates": np.ones(NUM_ITEMS, dtype=bool)}, "one catalogue for both"),
    ],
)
def test_another_question_is_an_error(tmp_path: Path, changes: dict, message: str) -> None:
    column = {"dpo_recall@10": np.ones(30), "itemknn_recall@10": np.ones(30)}
    ours = run(tmp_path / "a", night(), **column)
    theirs = run(tmp_path / "b", night(**changes), **column)
    with pytest.raises(ValueError, match=message):
        difference(ours, theirs)


def test_rewards_need_one_judge(tmp_path: Path) -> None:
    names = [f"{s}_{m}" for s in ("dpo", "itemknn") for m in ("recall@10", "evaluator_reward")]
    column = {name: np.ones(30) for name in names}
    ours = run(tmp_path / "a", night(), **column)
    reward_models = {"evaluator": evaluator(5), "training": evaluator(1)}
    theirs = run(tmp_path / "b", night(reward_models=reward_models), **column)
    assert difference(ours, theirs).mean == 0
    with pytest.raises(ValueError, match="two different evaluator models"):
        difference(ours, theirs, "evaluator_reward")


def test_a_missing_column_says_what_there_is(tmp_path: Path) -> None:
    ours = run(tmp_path / "a", night(), **{"ipa_recall@10": np.ones(30)})
    with pytest.raises(ValueError, match=r"dpo_recall@10: not in .*ipa_recall@10"):
        difference(ours, ours)
