from pathlib import Path

import numpy as np
import pytest

from onerec.artifacts import ArtifactStore, read_json, write_json
from onerec.config import EvaluationConfig
from onerec.evaluation.data import EvaluationData
from onerec.evaluation.measure import SystemResult, summarise
from onerec.evaluation.metric_table import Metric, MetricRow, MetricTable
from onerec.promotion.champion import (
    best_simple_system,
    check_incumbent,
    counted_signals,
    describe,
    evidence_of,
    keep_bundle,
    previous_champion,
    previous_simple_system,
    serving_reward_weight,
    weak_towers,
    write_decision,
)
from onerec.promotion.rule import Decision, Serves, decide, unmeasured
from tests.core.evaluation import night as small

USERS = 400
NOISE = np.random.default_rng(0).normal(0, 0.02, (6, USERS))


def metric_table(
    *,
    dpo: float,
    popularity: float,
    champion: tuple[float, float] | None = None,
    pretrained: float | None = None,
) -> MetricTable:
    """Systems that find a set share of the targets; the rewards of the night's models are 1."""

    def result(
        number: int, recall: float, reward: float, references: tuple[str, ...] = ()
    ) -> SystemResult:
        rewards = reward + NOISE[number]
        values = {
            Metric("recall@10"): recall + NOISE[number + 3],
            Metric("ndcg@10"): rewards,
            Metric("evaluator_reward"): rewards,
            Metric("training_reward"): rewards,
        }
        return SystemResult(values, {"legal_share": 1.0, "repeat_free_share": 1.0}, references)

    results = {"popularity": result(0, popularity, 1.0)}
    if champion is not None:
        results["champion"] = result(1, *champion, ("popularity",))
    if pretrained is not None:
        results["pretrained"] = result(0, pretrained, 1.0, tuple(results))
    results["dpo"] = result(2, dpo, 1.0, tuple(results))

    class Data:
        config = small.EVALUATION

    data: EvaluationData = Data()  # pyright: ignore
    return summarise(data, results)


@pytest.mark.parametrize(
    ("with_reward", "counts"), [(0.11, True), (0.0901, True), (0.0899, False), (None, False)]
)
def test_the_reward_counts_in_lists_where_that_costs_little_recall(
    with_reward: float | None, counts: bool
) -> None:
    found = {"by_probability": 0.1, "with_reward": with_reward}
    rows = (
        MetricRow(name, None, "recall@10", "all", value)
        for name, value in found.items()
        if value is not None
    )
    metrics = MetricTable(tuple(rows))
    weight = serving_reward_weight(metrics, "dpo", 0.3, tolerance=0.1)
    assert weight == (0.3 if counts else 0.0)
    assert serving_reward_weight(metrics, "pretrained", 0.3, tolerance=0.1) == 0


@pytest.mark.parametrize(
    ("dpo", "popularity", "champion", "serves"),
    [
        (0.12, 0.05, None, "challenger"),
        (0.05, 0.05, None, "simple system"),
        (0.12, 0.05, (0.12, 1.0), "challenger"),
        (0.12, 0.05, (0.20, 1.0), "incumbent"),
        (0.12, 0.05, (0.12, 1.2), "incumbent"),
        # a model that is no better than a simple system does not serve, whichever it is
        (0.04, 0.05, (0.04, 1.0), "simple system"),
        (0.04, 0.05, (0.08, 1.0), "incumbent"),
    ],
)
def test_the_bar_is_the_best_simple_system_and_the_incumbent(
    tmp_path: Path,
    dpo: float,
    popularity: float,
    champion: tuple[float, float] | None,
    serves: str,
) -> None:
    measured = metric_table(dpo=dpo, popularity=popularity, champion=champion)
    measured.save(tmp_path)
    metrics = MetricTable.load(tmp_path)  # the artifact is enough to decide again
    decision = decide(evidence_of(metrics, EvaluationConfig()))
    assert decision.serves == serves
    assert decision.numbers["simple_system_recall@10"] == pytest.approx(popularity, abs=0.005)
    assert ("evaluator_reward_difference" in decision.numbers) == (champion is not None)


def test_a_pretrained_model_that_aligning_made_worse_is_the_challenger() -> None:
    better = metric_table(dpo=0.12, popularity=0.05, pretrained=0.13, champion=(0.125, 1.0))
    decision = decide(evidence_of(better, EvaluationConfig()))
    assert (decision.serves, decision.challenger_system) == ("challenger", "pretrained")
    # its own rows decide: against a champion of .125 the aligned one would lose Recall
    assert decision.numbers["challenger_recall@10"] == pytest.approx(0.13, abs=0.005)
    assert decision.numbers["recall@10_difference"] == pytest.approx(0.005, abs=0.005)
    assert "aligned one's Recall@10 is significantly below" in decision.challenger_reason
    operators = EvaluationConfig(aligned_recall_tolerance=0.2)
    assert decide(evidence_of(better, operators)).challenger_system == "dpo"
    level = metric_table(dpo=0.13, popularity=0.05, pretrained=0.13)
    assert decide(evidence_of(level, EvaluationConfig())).challenger_system == "dpo"


def test_the_best_simple_system_is_the_one_with_the_highest_recall() -> None:
    found = {"popularity": 0.05, "popularity_recent": 0.08, "itemknn": 0.07, "sasrec_ce": 0.2}
    rows = [MetricRow(name, None, "recall@10", "all", value) for name, value in found.items()]
    assert best_simple_system(MetricTable(tuple(rows))) == "popularity_recent"
    with pytest.raises(ValueError, match="no simple system was measured"):
        best_simple_system(MetricTable(tuple(rows[3:])))


def test_own_repeats_are_a_bar_only_where_seen_items_may_be_served() -> None:
    found = {"popularity": 0.05, "own_repeats": 0.3}
    rows = [MetricRow(name, None, "recall@10", "all", value) for name, value in found.items()]
    metrics = MetricTable(tuple(rows))
    assert best_simple_system(metrics, filter_seen=False) == "own_repeats"
    assert best_simple_system(metrics, filter_seen=True) == "popularity"


def test_metrics_of_another_incumbent_are_an_error(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    incumbent = publish(store, "champion", "2026-06-01", {})
    for upstream, standing in (
        ({}, None),
        ({"champion": incumbent.version}, incumbent),
    ):
        with store.write(
            "offline_metrics", "2026-06-02", config={}, upstream=upstream, code_version="1"
        ) as draft:
            pass
        check_incumbent(draft.artifact, standing)
        other = None if standing else incumbent
        with pytest.raises(ValueError, match="materialise offline_metrics of 2026-06-02 again"):
            check_incumbent(draft.artifact, other)


def publish(store: ArtifactStore, asset: str, day: str, files: dict[str, object]):
    with store.write(asset, day, config={}, upstream={}, code_version="1") as draft:
        for name, value in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_json(draft.path / name, value)
    return draft.artifact


def decision(serves: Serves) -> Decision:
    reasons = [] if serves == "challenger" else ["because"]
    return Decision(serves, "itemknn", reasons, {"gate": not reasons}, [], {"x": 1.0})


def test_a_chain_of_nights_keeps_the_champion_until_one_is_better(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    verdicts: dict[str, Serves] = {
        "2026-06-01": "simple system",
        "2026-06-02": "challenger",
        "2026-06-03": "incumbent",
        "2026-06-04": "challenger",
        "2026-06-05": "simple system",
    }
    serving, incumbents = [], []
    for day, serves in verdicts.items():
        challenger = publish(store, "dpo_checkpoint", day, {"model.json": day})
        baselines = publish(store, "baselines", day, {"items.json": day})
        incumbent = previous_champion(store, day)
        incumbents.append(incumbent and incumbent.partition)
        with store.write("champion", day, config={}, upstream={}, code_version="1") as draft:
            if serves == "challenger":
                write_json(draft.path / "model.json", day)
            elif serves == "incumbent":
                assert incumbent is not None
                keep_bundle(draft.path, incumbent)
            description = describe(decision(serves), challenger, incumbent, baselines)
            write_decision(draft.path, description)
        file = draft.artifact.path / "model.json"
        model = read_json(draft.artifact.path / "champion.json")["model"]
        serving.append(model.get("system") or model["partition"])
        if file.exists():
            assert read_json(file) == serving[-1]
    assert serving == ["itemknn", "2026-06-02", "2026-06-02", "2026-06-04", "itemknn"]
    # a simple system is fitted every night: it is never an incumbent
    assert incumbents == [None, None, "2026-06-02", "2026-06-03", "2026-06-04"]
    assert previous_champion(store, "2026-06-06") is None
    refused = read_json(store.latest("champion", "2026-06-03").path / "champion.json")
    assert refused["promoted"] is False
    assert refused["reasons"] == ["because"]
    assert refused["incumbent"]["partition"] == "2026-06-02"


@pytest.mark.parametrize(
    ("champion", "stays"),
    [
        (None, "popularity"),
        ({"version": "v", "system": "itemknn"}, "itemknn"),
        ({"version": "v", "system": "of an earlier version"}, "popularity"),
    ],
)
def test_on_a_day_without_users_the_simple_system_that_serves_stays(
    tmp_path: Path, champion: dict[str, str] | None, stays: str
) -> None:
    store = ArtifactStore(str(tmp_path))
    if champion:
        publish(store, "champion", "2026-06-01", {"champion.json": {"model": champion}})
    day = "2026-06-02"
    decision = unmeasured(
        has_incumbent=previous_champion(store, day) is not None,
        simple_system=previous_simple_system(store, day),
    )
    challenger, baselines = (publish(store, name, day, {}) for name in ("dpo_checkpoint", "base"))
    description = describe(decision, challenger, None, baselines)
    assert (description["serves"], description["model"]["system"]) == ("simple system", stays)


def test_the_champion_of_the_night_itself_is_not_its_own_incumbent(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    publish(store, "champion", "2026-06-02", {"champion.json": {"model": {"version": "v"}}})
    assert previous_champion(store, "2026-06-02") is None
    assert previous_champion(store, "2026-06-03") is not None


def test_weak_towers_count_only_with_a_weight(tmp_path: Path) -> None:
    import dataclasses

    small.write_reward(tmp_path, seed=0)
    assert weak_towers(tmp_path, small.REWARD) == ("wtr",)
    assert weak_towers(tmp_path, dataclasses.replace(small.REWARD, weight_wtr=0.0)) == ()
    one = dataclasses.replace(small.REWARD, weight_wtr=0.0, weight_vtr=0.0, weight_ltr=0.0)
    assert counted_signals(tmp_path, small.REWARD) == ("swt", "vtr", "wtr", "ltr")
    assert counted_signals(tmp_path, one) == ("swt",)
