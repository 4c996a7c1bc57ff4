import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from onerec.config import AlignmentConfig, EvaluationConfig
from onerec.evaluation.data import (
    EvaluationData,
    sample_cases,
)
from onerec.evaluation.generators import load_generator, load_incumbent
from onerec.evaluation.measure import SystemResult, evaluate, reward_aucs, summarise
from onerec.evaluation.metric_table import (
    Metric,
    MetricTable,
    read_case_metrics,
    write_case_metrics,
)
from onerec.evaluation.ndcg_by_weight import NOT_MEASURED
from onerec.evaluation.protocol import EvaluationProtocol
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.reward_weight import measured_on_test_day
from onerec.evaluation.systems import (
    NightlyGenerators,
    System,
    baseline_systems,
    nightly_systems,
    serving_systems,
)
from onerec.model import TokenizerVersionMismatchError, load_model, save_model
from onerec.model.recency_prior import RecencyPrior
from onerec.ranked_lists import is_excluded
from onerec.serving.recommender import Recommender
from onerec.statistics import bootstrap_mean
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    return small.write_artifacts(tmp_path_factory.mktemp("artifacts"))


Results = dict[str, SystemResult]


def load(root: Path, config: EvaluationConfig = small.EVALUATION) -> EvaluationData:
    return small.load_artifacts(root, config)


@pytest.fixture(scope="module")
def night(artifacts: Path) -> EvaluationData:
    return load(artifacts)


def systems_of(root: Path, night: EvaluationData, champion: Path | None = None):
    generators = NightlyGenerators(
        pretrained=root / "pretrained", aligned=root / "dpo", champion=champion
    )
    return nightly_systems(night, generators, small.DECODING)


@pytest.fixture(scope="module")
def measured(artifacts: Path, night: EvaluationData) -> Results:
    return evaluate(night, systems_of(artifacts, night))


@pytest.fixture(scope="module")
def metrics(night: EvaluationData, measured: Results) -> MetricTable:
    return summarise(night, measured)


def test_lists_are_as_long_as_the_cutoffs(artifacts: Path) -> None:
    config = dataclasses.replace(small.EVALUATION, cutoffs="3, 10", baselines="popularity")
    data = load(artifacts, config)
    found = evaluate(data, baseline_systems(data))["popularity"].values
    assert {metric.name for metric in found if metric.name.startswith("recall")} == {
        "recall@3",
        "recall@10",
    }


def test_cases_are_the_users_of_the_day_and_targets_were_there_before_it(
    night: EvaluationData,
) -> None:
    assert len(night.user_ids) == small.NUM_USERS // 2
    assert night.targets.max() < small.NUM_ITEMS - 3
    assert night.candidates.sum() == small.NUM_ITEMS - 3


def test_every_promised_number_is_there_with_its_interval(
    artifacts: Path, metrics: MetricTable
) -> None:
    systems = ["popularity", "popularity_recent", "own_repeats", "itemknn", "pretrained", "dpo"]
    assert metrics.systems("recall@10") == [*systems, "by_probability", "with_reward"]
    for system in metrics.systems("recall@10"):
        for metric in ("recall@10", "ndcg@10", "hit_rate@5", "mrr@20", "evaluator_reward"):
            found = metrics.find(system, metric)
            assert found.low <= found.mean <= found.high
    for system, reference in metrics.pairs():
        for metric in ("recall@10", "ndcg@10", "evaluator_reward", "reward_gap"):
            found = metrics.find(system, metric, reference=reference)
            assert found.low <= found.mean <= found.high
    aucs = {row.slice: row.interval for row in reward_aucs(artifacts / "reward")}
    assert aucs["swt"] == (0.7, 0.65, 0.75)
    assert np.isnan(aucs["wtr"]).all()


def test_a_generator_with_a_recency_prior_is_measured_without_it_too(
    artifacts: Path, night: EvaluationData, measured: Results, tmp_path: Path
) -> None:
    model, version = load_model(artifacts / "pretrained", expected_tokenizer_version=None)
    model.recency_prior = RecencyPrior(weight=1000.0)
    save_model(model, tmp_path / "pretrained", tokenizer_version=version)
    generators = NightlyGenerators(pretrained=tmp_path / "pretrained", aligned=artifacts / "dpo")
    systems = nightly_systems(night, generators, small.DECODING)
    assert "pretrained_without_recency" in systems["pretrained"].references
    found = evaluate(night, {n: systems[n] for n in ("pretrained_without_recency", "pretrained")})
    recall = Metric("recall@10")
    without = found["pretrained_without_recency"].values[recall]
    assert without.tolist() == measured["pretrained"].values[recall].tolist()
    assert found["pretrained"].values[recall].tolist() != without.tolist()
    lists = systems["pretrained"].ranker.rank(night.histories, 5, candidates=night.candidates)
    assert night.watches is not None
    watches = night.watches.count(night.semantic_ids, 1)
    best = np.sort(watches * night.candidates)[::-1][:5]
    assert (watches[lists.items] == best).all(), "the most watched of the day before"


def test_what_is_compared_with_what(metrics: MetricTable) -> None:
    baselines = ["itemknn", "own_repeats", "popularity", "popularity_recent"]
    assert metrics.pairs() == [
        # either model may be the challenger, whose bar is the best simple system
        *(("dpo", reference) for reference in (*baselines, "pretrained")),
        *(("pretrained", reference) for reference in baselines),
        ("with_reward", "by_probability"),  # these lists alone lack seen items
    ]


def test_what_only_the_training_reward_sees_is_the_gap(
    metrics: MetricTable, measured: Results
) -> None:
    gained = {
        name: measured["dpo"].values[Metric(f"{name}_reward")]
        - measured["pretrained"].values[Metric(f"{name}_reward")]
        for name in ("training", "evaluator")
    }
    expected = float((gained["training"] - gained["evaluator"]).mean())
    gap = metrics.find("dpo", "reward_gap", reference="pretrained")
    assert gap.mean == pytest.approx(expected)
    assert gap.low <= expected <= gap.high


def test_both_reward_models_give_the_papers_table(metrics: MetricTable) -> None:
    for name in ("evaluator", "training"):
        for tower in ("swt", "vtr", "wtr", "ltr"):
            mean, top = (
                metrics.find("dpo", f"{name}_{p}", slice=tower).mean for p in ("mean", "max")
            )
            assert 0 < mean <= top < 1


def test_a_list_longer_than_the_beam_is_still_whole(night: EvaluationData, artifacts: Path) -> None:
    narrow = dataclasses.replace(small.DECODING, beam=2)
    system = load_generator(artifacts / "dpo", night.semantic_ids, narrow)
    ranked = system.rank(night.histories, 20, candidates=night.candidates).items
    assert (ranked >= 0).all()
    assert (np.sort(ranked, 1)[:, 1:] != np.sort(ranked, 1)[:, :-1]).all()


def test_a_baseline_that_was_not_fitted_is_an_error(night: EvaluationData) -> None:
    config = dataclasses.replace(small.EVALUATION, baselines="popularity,cascade")
    with pytest.raises(ValueError, match="cascade is not among the fitted baselines"):
        baseline_systems(dataclasses.replace(night, config=config))
    only = dataclasses.replace(small.EVALUATION, baselines="popularity")
    assert list(baseline_systems(dataclasses.replace(night, config=only))) == ["popularity"]


def test_an_evaluator_of_the_rewards_users_is_refused(artifacts: Path, tmp_path: Path) -> None:
    for name in ("session_dataset", "semantic_ids", "baselines", "dpo", "reward"):
        (tmp_path / name).symlink_to(artifacts / name)
    (tmp_path / "evaluator").symlink_to(artifacts / "reward")
    with pytest.raises(ValueError, match="was trained as the 'reward' part"):
        load(tmp_path)


def test_generated_sessions_are_legal_and_free_of_repeats(metrics: MetricTable) -> None:
    assert metrics.systems("legal_share") == ["pretrained", "dpo"]
    assert metrics.lowest("legal_share") == 1
    assert metrics.lowest("repeat_free_share") == 1
    assert metrics.find("dpo", "generated_sessions").mean == 15 * small.DECODING.beam


@pytest.mark.parametrize("way", ["by_probability", "with_reward"])
def test_the_aligned_model_is_measured_as_users_would_get_it(
    night: EvaluationData, artifacts: Path, measured: Results, way: str
) -> None:
    aligned = load_generator(artifacts / "dpo", night.semantic_ids, small.DECODING)
    assert aligned.model.reward_weight > 0
    recommender = serving_systems(night, aligned, small.DECODING)[way].ranker
    history = night.histories
    listed = recommender.rank(history, 20, exclude=history, candidates=night.candidates)
    assert not is_excluded(listed.items, history).any()
    assert night.candidates[listed.items].all()
    values = per_case_metrics(listed.items, night.targets, (10,))
    assert measured[way].values[Metric("recall@10")] == pytest.approx(values["recall@10"])
    assert (listed.rewards is not None) == (way == "with_reward"), (
        "a reward model scores only there"
    )


def test_a_test_day_measures_every_weight_of_the_reward(
    night: EvaluationData, artifacts: Path, measured: Results
) -> None:
    """On all cases here, so that the two ends are what the table has for lists of those weights."""
    aligned = load_generator(artifacts / "dpo", night.semantic_ids, small.DECODING)
    weights = AlignmentConfig(reward_weights="0,0.25,0.5")
    found = measured_on_test_day(night, System(aligned), small.DECODING, weights)
    assert found.users == len(night.user_ids)
    assert tuple(found.ndcg) == (0.0, 0.25, 0.5)
    assert aligned.model.reward_weight == 0.5
    for weight, way in ((0.0, "by_probability"), (0.5, "with_reward")):
        expected = measured[way].values[Metric("ndcg@10")].mean()
        assert found.ndcg[weight] == pytest.approx(expected, abs=1e-6)
    one = AlignmentConfig(reward_weights="0.5")
    assert measured_on_test_day(night, System(aligned), small.DECODING, one) == NOT_MEASURED


def test_a_weight_of_earlier_test_days_replaces_the_checkpoints(
    night: EvaluationData, artifacts: Path
) -> None:
    generators = NightlyGenerators(pretrained=artifacts / "pretrained", aligned=artifacts / "dpo")
    for weight, counts in ((None, 0.5), (2.0, 2.0), (0.0, 0.0)):
        systems = nightly_systems(night, generators, small.DECODING, reward_weight=weight)
        served = systems["with_reward"].ranker
        assert isinstance(served, Recommender)
        assert served.model.reward_weight == counts
        assert (served.reward is None) == (counts == 0)


def test_no_baseline_lists_what_came_on_the_day(night: EvaluationData) -> None:
    rankers = night.baselines.rankers
    for ranker in rankers.values():
        ranked = ranker.rank(night.histories, small.NUM_ITEMS)
        assert ranked.items.max() < small.NUM_ITEMS - 3


def test_interval_is_the_bootstrap_of_the_cases(metrics: MetricTable, measured: Results) -> None:
    values = measured["popularity"].values[Metric("recall@10")]
    expected = bootstrap_mean(values, samples=50, seed=small.EVALUATION.seed)
    assert metrics.find("popularity", "recall@10") == pytest.approx(expected)


def test_confidence_sets_the_width_of_the_intervals(
    night: EvaluationData, measured: Results, metrics: MetricTable
) -> None:
    half = dataclasses.replace(night, config=dataclasses.replace(night.config, confidence=0.5))
    narrow = summarise(half, measured).find("popularity", "recall@10")
    wide = metrics.find("popularity", "recall@10")
    assert wide.low < narrow.low <= narrow.mean <= narrow.high < wide.high


def test_slices_add_up(measured: Results, metrics: MetricTable) -> None:
    values = measured["itemknn"].values
    short, long = (values[Metric("recall@10", f"{n}_history")] for n in ("short", "long"))
    everyone = values[Metric("recall@10")]
    assert np.where(np.isnan(short), long, short) == pytest.approx(everyone)
    cases = {row.slice: row.cases for row in metrics.rows if row[:3] == ("dpo", None, "recall@10")}
    assert cases["all"] == cases["short_history"] + cases["long_history"] == 15


def test_same_night_same_numbers(
    artifacts: Path, night: EvaluationData, metrics: MetricTable
) -> None:
    again = summarise(night, evaluate(night, systems_of(artifacts, night)))
    assert repr(again.rows) == repr(metrics.rows)  # NaN is not equal to itself


def test_case_metrics_are_what_the_means_are_made_of(
    tmp_path: Path, night: EvaluationData, measured: Results, metrics: MetricTable
) -> None:
    values = {name: result.values for name, result in measured.items()}
    rows = write_case_metrics(tmp_path, night.user_ids, values)
    assert rows == 15 * sum(len(result.values) for result in measured.values())
    found = read_case_metrics(tmp_path, system="dpo", metric="evaluator_reward")
    assert found.column("user_id").to_pylist() == night.user_ids.tolist()
    mean = found.column("value").to_numpy().mean()
    assert mean == pytest.approx(metrics.find("dpo", "evaluator_reward").mean)


def test_the_champion_before_is_one_of_the_systems(
    artifacts: Path, night: EvaluationData, measured: Results, tmp_path: Path
) -> None:
    """It is the pretrained generator here, so it is measured like it."""
    shutil.copytree(artifacts / "pretrained", tmp_path / "champion")
    small.write_catalogue(tmp_path / "champion", small.catalogue(30))
    results = evaluate(night, systems_of(artifacts, night, tmp_path / "champion"))
    assert list(results)[4:7] == ["pretrained", "champion", "dpo"]
    for metric, values in results["pretrained"].values.items():
        assert np.array_equal(results["champion"].values[metric], values, equal_nan=True)
    metrics = summarise(night, results)
    gain = metrics.find("dpo", "recall@10", reference="champion")
    assert gain == pytest.approx(metrics.find("dpo", "recall@10", reference="pretrained"))
    bars = [reference for system, reference in metrics.pairs() if system == "champion"]
    assert bars == ["itemknn", "own_repeats", "popularity", "popularity_recent"]


def test_too_many_cases_are_sampled_the_same_way_every_time(artifacts: Path) -> None:
    config = dataclasses.replace(small.EVALUATION, max_cases=6)
    first, again = load(artifacts, config), load(artifacts, config)
    assert len(first.user_ids) == 6
    assert first.user_ids.tolist() == again.user_ids.tolist()
    other = sample_cases(15, dataclasses.replace(config, seed=9))
    assert other.tolist() != sample_cases(15, config).tolist()


def test_a_test_day_without_users_has_no_case_and_nothing_to_measure(
    artifacts: Path, tmp_path: Path
) -> None:
    rows = [r for r in small.rows() if r["split"] != "test"]
    small.write_sessions(tmp_path / "session_dataset", rows)
    for name in ("semantic_ids", "baselines", "dpo", "evaluator", "reward"):
        (tmp_path / name).symlink_to(artifacts / name)
    empty = load(tmp_path)
    assert len(empty.user_ids) == EvaluationProtocol.of(empty).users == 0
    with pytest.raises(ValueError, match="no case on 2026-06-14"):
        evaluate(empty, {})


def test_checkpoint_of_another_tokenizer_version_is_an_error_that_names_both(
    night: EvaluationData, tmp_path: Path
) -> None:
    old = small.write_generator(tmp_path, seed=0, tokenizer_version="version-b")
    with pytest.raises(TokenizerVersionMismatchError, match=r"version-b.*version-a"):
        load_generator(old, night.semantic_ids, small.DECODING)


def test_incumbent_of_another_tokenizer_version_is_called_with_its_own_rows(
    night: EvaluationData, tmp_path: Path
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
    exclude, candidates = night.targets, night.candidates & (np.arange(small.NUM_ITEMS) > 4)
    for filters in ((None, None), (exclude, candidates)):
        ranked = system.rank(night.histories, 10, *filters)
        assert ranked.items.tolist() == direct.rank(night.histories, 10, *filters).items.tolist()
        assert not is_excluded(ranked.items, filters[0]).any()
    made = system.sessions(night.histories, candidates)
    assert torch.equal(made.items, direct.sessions(night.histories, candidates).items)
    assert candidates[made.items[made.exist]].all()


def test_incumbent_lists_only_what_the_day_knows(night: EvaluationData, tmp_path: Path) -> None:
    bundle = small.write_generator(tmp_path, seed=1, tokenizer_version="version-b")
    own = dataclasses.replace(night.semantic_ids, tokenizer_version="version-b")
    day = small.catalogue(20, late=0)  # half of what the incumbent knows
    system = load_incumbent(bundle, own, day, small.DECODING, test_day=DAY)
    lists = system.rank(np.array([[0, 5, -1]]), 25)
    assert sorted(lists.items[0].tolist()) == [-1] * 5 + list(range(20))
    assert (lists.items[0, :20] >= 0).all(), "no place of the list is lost"
