from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.artifacts import ArtifactStore, read_json, write_json
from onerec.config import EvaluationConfig
from onerec.evaluation.champion import (
    decide_champion,
    describe,
    keep_bundle,
    previous_champion,
    reward_chooses,
    weak_towers,
    write_decision,
)
from onerec.evaluation.promotion import Decision
from tests.core.evaluation import night as small

USERS = 400


def offline_metrics(directory: Path, *, dpo: float, popularity: float, reward: float = 1.0) -> Path:
    """Metrics and cases in which each system finds a set share of the targets."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, (3, USERS))
    columns = {
        "user_id": [f"u{n}" for n in range(USERS)],
        "dpo_recall@10": dpo + noise[0],
        "popularity_recall@10": popularity + noise[1],
        "dpo_evaluator_reward": reward + noise[2],
    }
    pq.write_table(pa.table(columns), directory / "cases.parquet")
    numbers = {
        "dpo_legal_share": 1.0,
        "dpo_repeat_free_share": 1.0,
        "dpo_recall@10": float(np.mean(columns["dpo_recall@10"])),
    }
    write_json(directory / "metrics.json", numbers)
    return directory


@pytest.mark.parametrize(
    ("by_reward", "chooses"), [(0.11, True), (0.0901, True), (0.0899, False), (None, False)]
)
def test_the_reward_model_chooses_lists_where_that_costs_little_recall(
    tmp_path: Path, by_reward: float | None, chooses: bool
) -> None:
    numbers = {"by_probability_recall@10": 0.1, "by_reward_recall@10": by_reward}
    write_json(tmp_path / "metrics.json", numbers)
    assert reward_chooses(tmp_path, EvaluationConfig(recall_tolerance=0.1)) == chooses


def standing(recall: float, reward: float = 1.0) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1).normal(0, 0.02, (2, USERS))
    return {"recall@10": recall + noise[0], "evaluator_reward": reward + noise[1]}


@pytest.mark.parametrize(
    ("dpo", "popularity", "incumbent", "promoted"),
    [
        (0.12, 0.05, None, True),
        (0.05, 0.05, None, False),
        (0.12, 0.05, standing(0.12), True),
        (0.12, 0.05, standing(0.20), False),
        (0.12, 0.05, standing(0.12, reward=1.2), False),
        # popularity is no bar once there is a champion
        (0.04, 0.05, standing(0.04), True),
    ],
)
def test_judged_against_the_champion_or_popularity(
    tmp_path: Path, dpo: float, popularity: float, incumbent, promoted: bool
) -> None:
    directory = offline_metrics(tmp_path, dpo=dpo, popularity=popularity)
    assert decide_champion(directory, incumbent, small.EVALUATION).promoted is promoted


def publish(store: ArtifactStore, asset: str, day: str, files: dict[str, object]):
    with store.write(asset, day, config={}, upstream={}, code_version="1") as draft:
        for name, value in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_json(draft.path / name, value)
    return draft.artifact


def decision(promoted: bool) -> Decision:
    return Decision(promoted, [] if promoted else ["because"], {"gate": promoted}, [], {"x": 1.0})


def test_a_chain_of_nights_keeps_the_champion_until_one_is_better(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    verdicts = {"2026-06-01": False, "2026-06-02": True, "2026-06-03": False, "2026-06-04": True}
    reigning = []
    for day, promoted in verdicts.items():
        challenger = publish(store, "dpo_checkpoint", day, {"model.json": day})
        incumbent = previous_champion(store, day)
        with store.write("champion", day, config={}, upstream={}, code_version="1") as draft:
            if promoted:
                write_json(draft.path / "model.json", day)
            elif incumbent is not None:
                keep_bundle(draft.path, incumbent)
            write_decision(draft.path, describe(decision(promoted), challenger, incumbent))
        file = draft.artifact.path / "model.json"
        reigning.append(read_json(file) if file.exists() else None)
        model = read_json(draft.artifact.path / "champion.json")["model"]
        assert (model and model["partition"]) == reigning[-1]
    assert reigning == [None, "2026-06-02", "2026-06-02", "2026-06-04"]
    refused = read_json(store.latest("champion", "2026-06-03").path / "champion.json")
    assert refused["promoted"] is False
    assert refused["reasons"] == ["because"]
    assert refused["incumbent"]["partition"] == "2026-06-02"


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
