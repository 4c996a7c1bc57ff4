import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from onerec.config import EvaluationConfig
from onerec.evaluation.baselines import fit_baselines
from onerec.evaluation.bootstrap import bootstrap_mean
from onerec.evaluation.evaluate import (
    Night,
    evaluate,
    load_night,
    measure,
    reward_aucs,
    sample_cases,
    summarise,
    ways_to_serve,
    write_cases,
)
from onerec.evaluation.generators import load_generator, load_incumbent
from onerec.evaluation.interactions import load_interactions
from onerec.evaluation.metrics import per_case_metrics
from onerec.model import TokenizerVersionMismatchError
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    small.write_sessions(root / "session_dataset", small.rows())
    ids = small.catalogue()
    small.write_catalogue(root / "semantic_ids", ids)
    window = load_interactions(root / "session_dataset", ids, test_day=DAY)
    (root / "baselines").mkdir()
    fit_baselines(window, ids.known_before(DAY), neighbours=5).save(root / "baselines")
    small.write_generator(root / "pretrained", seed=0)
    small.write_generator(root / "dpo", seed=1)
    small.write_reward(root / "evaluator", seed=2, part="evaluator")
    small.write_reward(root / "reward", seed=3)
    return root


def load(root: Path, config: EvaluationConfig = small.EVALUATION) -> Night:
    return load_night(
        test_day=DAY,
        session_dataset=root / "session_dataset",
        semantic_ids=root / "semantic_ids",
        baselines=root / "baselines",
        checkpoint=root / "dpo",
        evaluator=root / "evaluator",
        reward_model=root / "reward",
        config=config,
        reward=small.REWARD,
    )


@pytest.fixture(scope="module")
def night(artifacts: Path) -> Night:
    return load(artifacts)


@pytest.fixture(scope="module")
def measured(artifacts: Path, night: Night):
    checkpoints = {"pretrained": artifacts / "pretrained", "dpo": artifacts / "dpo"}
    return evaluate(night, checkpoints, small.DECODING)


@pytest.fixture(scope="module")
def metrics(artifacts: Path, night: Night, measured) -> dict:
    return summarise(night, measured) | reward_aucs(artifacts / "reward")


def test_cases_are_the_users_of_the_day_and_targets_were_there_before_it(night: Night) -> None:
    assert len(night.user_ids) == small.NUM_USERS // 2
    assert night.targets.max() < small.NUM_ITEMS - 3
    assert night.candidates.sum() == small.NUM_ITEMS - 3


def test_every_promised_number_is_there_with_its_interval(metrics: dict) -> None:
    for system in ("popularity", "itemknn", "pretrained", "dpo", "by_probability", "by_reward"):
        for metric in ("recall@10", "ndcg@10", "hit_rate@5", "mrr@20", "evaluator_reward"):
            low, mean, high = (metrics[f"{system}_{metric}{e}"] for e in ("_low", "", "_high"))
            assert low <= mean <= high
    for name in (
        "dpo_minus_pretrained_evaluator_reward",
        "dpo_minus_popularity_recall@10",
        "by_reward_minus_by_probability_recall@10",
    ):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    differences = [
        name.removesuffix("_recall@10")
        for name in metrics
        if name.startswith("by_") and "_minus_" in name and name.endswith("_recall@10")
    ]
    assert differences == ["by_reward_minus_by_probability"], "only these lists lack seen items"
    assert metrics["users"] == small.NUM_USERS // 2
    assert metrics["test_day"] == "2026-06-14"
    assert metrics["reward_auc_swt"] == 0.7
    assert (metrics["reward_auc_swt_low"], metrics["reward_auc_swt_high"]) == (0.65, 0.75)
    assert all(np.isnan(metrics[f"reward_auc_wtr{end}"]) for end in ("", "_low", "_high"))


def test_what_only_the_training_reward_sees_is_the_gap(metrics: dict, measured) -> None:
    gained = {
        evaluator: measured["dpo"].values[f"{evaluator}_reward"]
        - measured["pretrained"].values[f"{evaluator}_reward"]
        for evaluator in ("training", "evaluator")
    }
    expected = float((gained["training"] - gained["evaluator"]).mean())
    assert metrics["dpo_minus_pretrained_reward_gap"] == pytest.approx(expected)
    low, high = (metrics[f"dpo_minus_pretrained_reward_gap{e}"] for e in ("_low", "_high"))
    assert low <= expected <= high


def test_both_judges_give_the_papers_table(metrics: dict) -> None:
    for evaluator in ("evaluator", "training"):
        for tower in ("swt", "vtr", "wtr", "ltr"):
            mean, top = (metrics[f"dpo_{evaluator}_{tower}_{part}"] for part in ("mean", "max"))
            assert 0 < mean <= top < 1


def test_a_list_longer_than_the_beam_is_still_whole(night: Night, artifacts: Path) -> None:
    narrow = dataclasses.replace(small.DECODING, beam=2)
    system = load_generator(artifacts / "dpo", night.semantic_ids, night.candidates, narrow)
    ranked = system.rank(night.history, top_k=20)
    assert (ranked >= 0).all()
    assert (np.sort(ranked, 1)[:, 1:] != np.sort(ranked, 1)[:, :-1]).all()


def test_a_baseline_that_was_not_fitted_is_an_error(night: Night) -> None:
    config = dataclasses.replace(small.EVALUATION, baselines="popularity,cascade")
    with pytest.raises(ValueError, match="cascade is not among the night's fitted baselines"):
        evaluate(dataclasses.replace(night, config=config), {}, small.DECODING)
    only = dataclasses.replace(small.EVALUATION, baselines="popularity")
    assert list(evaluate(dataclasses.replace(night, config=only), {}, small.DECODING)) == [
        "popularity"
    ]


def test_an_evaluator_of_the_rewards_users_is_refused(artifacts: Path, tmp_path: Path) -> None:
    for name in ("session_dataset", "semantic_ids", "baselines", "dpo", "reward"):
        (tmp_path / name).symlink_to(artifacts / name)
    (tmp_path / "evaluator").symlink_to(artifacts / "reward")
    with pytest.raises(ValueError, match="was trained as the 'reward' part"):
        load(tmp_path)


def test_generated_sessions_are_legal_and_free_of_repeats(metrics: dict) -> None:
    assert metrics["legal_share"] == 1
    assert metrics["repeat_free_share"] == 1
    assert metrics["dpo_generated_sessions"] == 15 * small.DECODING.beam


@pytest.mark.parametrize("way", ["by_probability", "by_reward"])
def test_the_challenger_is_measured_as_users_would_get_it(
    night: Night, artifacts: Path, measured, way: str
) -> None:
    challenger = load_generator(
        artifacts / "dpo", night.semantic_ids, night.candidates, small.DECODING
    )
    bundle = ways_to_serve(night, challenger, small.DECODING)[way].recommender
    history = torch.from_numpy(night.history)
    listed = bundle.rank(history, 20, exclude=history)
    seen = (listed.items.unsqueeze(2) == history.unsqueeze(1)) & (history.unsqueeze(1) >= 0)
    assert not seen.any()
    values = per_case_metrics(listed.items.numpy(), night.targets, (10,))
    assert measured[way].values["recall@10"] == pytest.approx(values["recall@10"])
    has_reward = way == "by_reward"
    assert (listed.rewards[:, 0].isfinite() == has_reward).all(), (
        "a reward model chooses only there"
    )


def test_no_system_lists_what_came_on_the_day(night: Night, artifacts: Path) -> None:
    rankers = night.baselines.rankers
    for ranker in rankers.values():
        ranked = ranker.rank(night.history, top_k=small.NUM_ITEMS)
        assert ranked.max() < small.NUM_ITEMS - 3


def test_interval_is_the_bootstrap_of_the_cases(metrics: dict, measured) -> None:
    values = measured["popularity"].values["recall@10"]
    expected = bootstrap_mean(values, samples=50, seed=small.EVALUATION.seed)
    assert metrics["popularity_recall@10"] == pytest.approx(expected.mean)
    assert metrics["popularity_recall@10_low"] == pytest.approx(expected.low)


def test_slices_add_up(measured) -> None:
    values = measured["itemknn"].values
    recall = values["recall@10"]
    short, long = values["recall@10_short_history"], values["recall@10_long_history"]
    assert np.where(np.isnan(short), long, short) == pytest.approx(recall)


def test_same_night_same_numbers(artifacts: Path, night: Night, metrics: dict) -> None:
    checkpoints = {"pretrained": artifacts / "pretrained", "dpo": artifacts / "dpo"}
    again = summarise(night, evaluate(night, checkpoints, small.DECODING))
    assert json.dumps(again) == json.dumps({k: metrics[k] for k in again})


def test_cases_table_holds_what_the_means_are_made_of(
    tmp_path: Path, night: Night, measured, metrics: dict
) -> None:
    assert write_cases(tmp_path / "cases.parquet", night, measured) == 15
    table = pq.read_table(tmp_path / "cases.parquet").to_pandas()
    assert table["dpo_evaluator_reward"].mean() == pytest.approx(metrics["dpo_evaluator_reward"])
    assert table["user_id"].is_unique


def test_too_many_cases_are_sampled_the_same_way_every_time(artifacts: Path) -> None:
    config = dataclasses.replace(small.EVALUATION, max_cases=6)
    first, again = load(artifacts, config), load(artifacts, config)
    assert len(first.user_ids) == 6
    assert first.user_ids.tolist() == again.user_ids.tolist()
    other = sample_cases(15, dataclasses.replace(config, seed=9))
    assert other.tolist() != sample_cases(15, config).tolist()


def test_empty_test_day_is_a_clear_error(artifacts: Path, tmp_path: Path) -> None:
    rows = [r for r in small.rows() if r["split"] != "test"]
    small.write_sessions(tmp_path / "session_dataset", rows)
    for name in ("semantic_ids", "baselines", "dpo", "evaluator", "reward"):
        (tmp_path / name).symlink_to(artifacts / name)
    with pytest.raises(ValueError, match="no case on 2026-06-14"):
        load(tmp_path)


def test_checkpoint_of_another_generation_is_an_error_that_names_both(
    night: Night, tmp_path: Path
) -> None:
    old = small.write_generator(tmp_path, seed=0, tokenizer_version="version-b")
    with pytest.raises(TokenizerVersionMismatchError, match=r"version-b.*version-a"):
        evaluate(night, {"dpo": old}, small.DECODING)


def test_incumbent_of_the_same_generation_counts_like_the_same_checkpoint(
    artifacts: Path, night: Night, measured
) -> None:
    earlier = small.catalogue(30)
    system = load_incumbent(
        artifacts / "dpo", earlier, night.semantic_ids, small.DECODING, test_day=DAY
    )
    values = measure(night, system).values
    assert all(
        np.array_equal(values[k], v, equal_nan=True) for k, v in measured["dpo"].values.items()
    )


def test_incumbent_of_another_generation_is_spoken_to_in_its_own_rows(
    night: Night, tmp_path: Path
) -> None:
    """The same catalogue in reverse order is the same system; only its rows have other numbers."""
    bundle = small.write_generator(tmp_path, seed=1, tokenizer_version="version-b")
    day = dataclasses.replace(night.semantic_ids, tokenizer_version="version-b")
    direct = load_incumbent(bundle, day, day, small.DECODING, test_day=DAY)
    reverse = dataclasses.replace(
        day,
        item_ids=day.item_ids[::-1].copy(),
        codes=day.codes.flip(0),
        first_seen=day.first_seen[::-1].copy(),
    )
    system = load_incumbent(bundle, reverse, night.semantic_ids, small.DECODING, test_day=DAY)
    ranked = system.rank(night.history, top_k=10)
    assert ranked.tolist() == direct.rank(night.history, top_k=10).tolist()
    assert torch.equal(system.sessions(night.history).items, direct.sessions(night.history).items)
