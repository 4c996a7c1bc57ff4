"""The baselines that a nightly run fits."""

import shutil
from pathlib import Path

import dagster as dg
import torch

from assets import baselines, evaluation
from assets.nights_before import as_metadata
from onerec.artifacts import Artifact, ArtifactStore, read_json, write_json
from onerec.evaluation.baselines import load_baselines
from onerec.evaluation.metric_table import MetricTable
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from onerec.evaluation.recency import PRIOR_WEIGHTS
from tests.assets.small_night import DAY, RUN, resources


def test_another_baseline_is_named_in_the_launchpad(night_home: Path, tmp_path: Path) -> None:
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
    named = {"baselines": "popularity,sasrec_ce"}
    small_run = {"baseline_epochs": 1, "baseline_width": 8}
    fitted = named | small_run | {"baseline_last_phase": False, "baseline_recency": False}
    measured = named | {"bootstrap_samples": 20}
    result = dg.materialize(
        [baselines.baselines, evaluation.offline_metrics],
        partition_key=DAY,
        resources=resources(tmp_path),
        run_config={
            "ops": {"baselines": {"config": fitted}, "offline_metrics": {"config": measured}}
        },
    )
    assert result.success
    store = ArtifactStore(str(tmp_path / "artifacts"))
    metrics = MetricTable.load(store.latest("offline_metrics", DAY).path)
    assert {"popularity", "sasrec_ce", "dpo"} <= set(metrics.systems("recall@10"))
    assert "itemknn" not in metrics.systems("recall@10")
    assert ("dpo", "sasrec_ce") in metrics.pairs()
    shown = result.asset_materializations_for_node("offline_metrics")[0].metadata
    assert "sasrec_ce" in {r.data["system"] for r in shown["metrics"].records}
    protocol = read_json(store.latest("offline_metrics", DAY).path / "protocol.json")
    assert protocol["tokenizer_version"] == "version-a"


def test_earlier_nightly_runs_help_to_choose_the_recency_prior_of_a_baseline(
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    first = store.latest("baselines", DAY)
    own = first.manifest["metadata"]["ndcg_by_weight"]
    assert own["itemknn"]["users"] > 0
    alone = load_baselines(first.path).item_knn_prior.weight
    other = 1.5 if alone != 1.5 else 0.25
    crowd = NdcgByWeight(10**6, {w: float(w == other) for w in PRIOR_WEIGHTS})
    named = {"baselines": "popularity"}  # which others are fitted does not matter
    sessions = store.latest("session_dataset", DAY).manifest["config"]
    for day, changed in (("2026-06-12", named), ("2026-06-13", {"neighbours": 6})):
        made_with = {"upstream": {}, "code_version": "1"}
        with store.write("session_dataset", day, config=sessions, **made_with):
            pass
        config = first.manifest["config"] | changed
        with store.write("baselines", day, config=config, **made_with) as draft:
            draft.metadata |= as_metadata({"itemknn": crowd})

    def made() -> Artifact:
        run_config = {"ops": {"baselines": RUN["ops"]["baselines"]}}
        dg.materialize(
            [baselines.baselines],
            partition_key=DAY,
            resources=resources(tmp_path),
            run_config=run_config,
        )
        return store.latest("baselines", DAY)

    again = made()
    assert load_baselines(again.path).item_knn_prior.weight == other
    assert again.manifest["metadata"]["ndcg_by_weight"] == own
    version = store.latest("baselines", "2026-06-12").version
    assert again.manifest["upstream"] == first.manifest["upstream"] | {
        "baselines[2026-06-12]": version
    }
    assert made().version == again.version


def test_sasrec_of_the_night_before_chooses_the_recency_prior(
    night_home: Path, tmp_path: Path
) -> None:
    """It could serve on the validation day; one of other items or histories could not."""
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    settings = {"baselines": "popularity,sasrec_ce", "baseline_epochs": 1, "baseline_width": 8}

    def made() -> tuple[Artifact, bool]:
        dg.materialize(
            [baselines.baselines],
            partition_key=DAY,
            resources=resources(tmp_path),
            run_config={"ops": {"baselines": {"config": settings}}},
        )
        found = store.latest("baselines", DAY)
        return found, found.manifest["metadata"]["ndcg_by_weight"]["sasrec_ce"]["as_served"]

    first, as_served = made()
    assert not as_served, "there was no night before"
    made_with = {"upstream": {}, "code_version": "1"}
    sessions = store.latest("session_dataset", DAY).manifest["config"]

    def night_of(day: str, **fitted_on: object) -> None:
        with store.write("session_dataset", day, config=sessions, **made_with):
            pass
        with store.write("baselines", day, config=first.manifest["config"], **made_with) as draft:
            shutil.copytree(first.path, draft.path, dirs_exist_ok=True)
            (draft.path / "manifest.json").unlink()
            stored = read_json(draft.path / "fitted_on.json")
            write_json(draft.path / "fitted_on.json", stored | fitted_on)
            draft.metadata |= first.manifest["metadata"]

    night_of("2026-06-12")
    assert not made()[1], "it has not learned the day before the validation day"
    night_of("2026-06-13")
    second, as_served = made()
    assert as_served
    weights = [
        load_baselines(a.path).learned["sasrec_ce"].model.state_dict() for a in (first, second)
    ]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())
    others = ({"tokenizer_version": "version-z"}, {"history_length": 99}, {"items": 10**6})
    for other in others:
        night_of("2026-06-13", **other)
        assert not made()[1], other
