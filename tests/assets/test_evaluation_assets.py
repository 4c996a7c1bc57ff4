"""Baselines to recommendations as Dagster runs them, from small artifacts of the stages before."""

import dataclasses
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

from assets import baselines, evaluation, report, serving
from assets import champion as promotion
from assets.nights_before import as_metadata
from assets.support import PIPELINE
from onerec.artifacts import Artifact, ArtifactStore, read_json, write_json
from onerec.config import SIMPLE_SYSTEMS
from onerec.evaluation.baselines import load_baselines
from onerec.evaluation.metric_table import MetricRow, MetricTable
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from onerec.evaluation.recency import PRIOR_WEIGHTS
from onerec.promotion.champion import best_simple_system, pin_champion
from onerec.report.nightly import load_report, text_table
from onerec.serving.bundle import load_bundle
from onerec.serving.current import read_served
from onerec.serving.recommender import write_bundle
from onerec.serving.simple_recommender import write_simple_bundle
from resources.stores import Artifacts, Compute, Consumers
from resources.warehouse import Warehouse
from tests.core.evaluation import night as small

DAY = small.DAY.isoformat()
NEXT_DAY = "2026-06-15"
ASSETS = [
    baselines.baselines,
    evaluation.offline_metrics,
    promotion.champion,
    serving.recommendations,
]
CHECKS = [evaluation.offline_metrics_checks, serving.recommendations_checks]
RUN = {
    "ops": {
        "baselines": {"config": {"neighbours": 5}},
        "offline_metrics": {"config": {"bootstrap_samples": 50}},
        "recommendations": {"config": {"beam": 8}},
    }
}


def publish(store: ArtifactStore, asset: str, fill) -> None:
    config = {"sessions": asdict(PIPELINE.sessions)} if asset == "session_dataset" else {}
    with store.write(asset, DAY, config=config, upstream={}, code_version="1") as draft:
        fill(draft.path)


def generator(seed: int):
    return lambda directory: small.write_generator(
        directory,
        seed=seed,
        history_length=PIPELINE.sessions.history_length,
        session_items=PIPELINE.sessions.session_items,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Everything that evaluation reads."""
    root = tmp_path_factory.mktemp("home")
    store = ArtifactStore(str(root / "artifacts"))
    publish(store, "session_dataset", lambda d: small.write_sessions(d, small.rows()))
    publish(store, "semantic_ids", lambda d: small.write_catalogue(d, small.catalogue()))
    publish(store, "pretrained_checkpoint", generator(0))
    publish(store, "dpo_checkpoint", generator(1))
    publish(store, "reward_model", lambda d: small.write_reward(d, seed=2))
    publish(store, "evaluator_model", lambda d: small.write_reward(d, seed=3, part="evaluator"))
    return root


def resources(home: Path) -> dict[str, object]:
    return {
        "artifacts": Artifacts(url=str(home / "artifacts")),
        "warehouse": Warehouse(path=str(home / "warehouse.duckdb")),
        "consumers": Consumers(root=str(home / "serving")),
        "compute": Compute(accelerator="cpu"),
    }


@pytest.fixture(scope="module")
def result(home: Path) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [*ASSETS, *CHECKS],
            partition_key=DAY,
            resources=resources(home),
            run_config=RUN,
            instance=instance,
        )


def test_the_night_ends_and_its_checks_pass(result: dg.ExecuteInProcessResult) -> None:
    assert result.success
    passed = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    # Untrained generators do not beat a simple system, which is a warning.
    assert passed.pop("beats_best_simple_system") is False
    assert set(passed) == {
        "every_id_is_legal",
        "sessions_are_repeat_free",
        "every_active_user_is_served",
        "no_item_is_repeated",
        "every_item_is_in_the_catalogue",
        "made_by_its_own_nightly_run",
    }
    assert all(passed.values())


def test_metadata_shows_the_table_and_pictures(result: dg.ExecuteInProcessResult) -> None:
    shown = result.asset_materializations_for_node("offline_metrics")[0].metadata
    rows = {r.data["system"]: r.data for r in shown["metrics"].records}
    assert re.fullmatch(r"0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]", str(rows["dpo"]["Recall@10"]))
    assert "dpo - popularity" in rows
    assert "data:image/svg+xml" in str(shown["Recall@10"].value)
    assert isinstance(shown["dpo_recall@10"].value, float)


def test_another_baseline_is_named_in_the_launchpad(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
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
    home: Path, result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
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


def test_an_untrained_challenger_is_refused_and_the_run_succeeds(
    home: Path, result: dg.ExecuteInProcessResult
) -> None:
    champion = ArtifactStore(str(home / "artifacts")).latest("champion", DAY)
    decision = read_json(champion.path / "champion.json")
    assert decision["promoted"] is False
    assert decision["reward_weight"] >= 0
    assert decision["serves"] == "simple system"
    assert decision["model"]["system"] == decision["simple_system"] in SIMPLE_SYSTEMS
    assert "is not significantly above" in decision["reasons"][0]


def test_recommendations_are_in_parquet_and_in_the_warehouse(
    home: Path, result: dg.ExecuteInProcessResult
) -> None:
    artifact = ArtifactStore(str(home / "artifacts")).latest("recommendations", DAY)
    table = pq.read_table(artifact.path / "recommendations.parquet")
    champion = ArtifactStore(str(home / "artifacts")).latest("champion", DAY)
    simple = read_json(champion.path / "champion.json")["simple_system"]
    assert set(table.column("model_version").to_pylist()) == {simple}
    assert table.num_rows == PIPELINE.serving.list_length * small.NUM_USERS
    for_consumers = pq.read_table(home / "serving/current/recommendations.parquet")
    assert for_consumers.drop_columns("title").equals(table)
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "select count(*), count(distinct user_id), min(serve_date)::varchar "
            "from recommendations where partition_date = ?",
            [DAY],
        ).fetchone()
    assert rows == (table.num_rows, small.NUM_USERS, NEXT_DAY)


def test_a_warehouse_that_is_held_does_not_keep_consumers_waiting(
    home: Path, result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    artifact = ArtifactStore(str(home / "artifacts")).latest("recommendations", DAY)
    table = pq.read_table(artifact.path / "recommendations.parquet")
    held = Warehouse(path=str(home / "warehouse.duckdb"), lock_wait_seconds=0.2)
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, held.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        shown = serving.publish(artifact, table, held, tmp_path / "serving")
        holder.communicate("\n")
    assert "was held by another process" in shown["warehouse"]
    assert shown["current"] == "yes"
    found = pq.read_table(tmp_path / "serving/current/recommendations.parquet")
    assert found.num_rows == table.num_rows


def test_a_champion_serves_and_its_bundle_answers_from_python(
    home: Path, result: dg.ExecuteInProcessResult
) -> None:
    """A night with an earlier champion: the incumbent is measured, and somebody serves."""
    store = ArtifactStore(str(home / "artifacts"))
    with store.write("champion", "2026-06-12", config={}, upstream={}, code_version="1") as draft:
        write_bundle(
            draft.path,
            checkpoint=store.latest("pretrained_checkpoint", DAY).path,
            semantic_ids=store.latest("semantic_ids", DAY).path,
            reward=store.latest("reward_model", DAY).path,
            config=small.DECODING,
        )
        model = {"asset": "dpo_checkpoint", "partition": "2026-06-12", "version": "old"}
        write_json(draft.path / "champion.json", {"promoted": True, "model": model})
    with dg.DagsterInstance.ephemeral() as instance:
        again = dg.materialize(
            [*ASSETS[1:], *CHECKS],
            partition_key=DAY,
            resources=resources(home),
            run_config={"ops": {k: v for k, v in RUN["ops"].items() if k != "baselines"}},
            instance=instance,
        )
    assert again.success
    measured = MetricTable.load(store.latest("offline_metrics", DAY).path)
    assert measured.systems("recall@10")[4:7] == ["pretrained", "champion", "dpo"]
    assert ("dpo", "champion") in measured.pairs()
    champion = store.latest("champion", DAY)
    decision = read_json(champion.path / "champion.json")
    assert decision["incumbent"]["model"]["version"] == "old"
    assert "evaluator_reward_difference" in decision["numbers"]
    table = pq.read_table(store.latest("recommendations", DAY).path / "recommendations.parquet")
    model = decision["model"]
    assert set(table.column("model_version").to_pylist()) == {model.get("system", model["version"])}
    bundle = load_bundle(store.latest("recommendations", DAY).path / "bundle")
    history = [r for r in small.rows() if r["user_id"] == "u01"]
    items = history[-1]["history_item_ids"] + history[-1]["item_ids"]
    mine = [r["item_id"] for r in table.to_pylist() if r["user_id"] == "u01"]
    assert [r.item_id for r in bundle.recommend(items, PIPELINE.serving.list_length)] == mine


def decide(home: Path, by_hand: dict[str, str]) -> dict:
    """`champion.json` of the day after a run of the job `decide_champion`."""
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(
            [promotion.champion, serving.recommendations],
            partition_key=DAY,
            resources=resources(home),
            run_config={"ops": {"champion": {"config": {"by_hand": by_hand}}}},
            instance=instance,
        )
    assert run.success
    champion = ArtifactStore(str(home / "artifacts")).latest("champion", DAY)
    return read_json(champion.path / "champion.json")


def served(home: Path) -> str:
    """Model version that consumers get."""
    found = read_served(home / "serving")
    assert found is not None
    return found.model_version


def test_an_operator_promotes_rolls_back_and_pins(
    home: Path, result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    shutil.rmtree(tmp_path / "artifacts" / "champion")
    dg.materialize(  # without an incumbent
        [evaluation.offline_metrics],
        partition_key=DAY,
        resources={k: v for k, v in resources(tmp_path).items() if k in ("artifacts", "compute")},
    )
    by_rule = decide(tmp_path, {})
    assert by_rule["serves"] == "simple system"

    promoted = decide(tmp_path, {"serve": "challenger", "reason": "the bar was a mistake"})
    assert promoted["model"] == promoted["challenger"]
    assert (promoted["rule_said"], promoted["by_hand"]) == (
        "simple system",
        "the bar was a mistake",
    )
    assert served(tmp_path) == promoted["challenger"]["version"]

    # a simple system of an earlier day is no incumbent, and can be gone back to
    with store.write("champion", "2026-06-12", config={}, upstream={}, code_version="1") as draft:
        write_simple_bundle(
            draft.path,
            system="popularity",
            baselines=store.latest("baselines", DAY).path,
            semantic_ids=store.latest("semantic_ids", DAY).path,
            history_length=5,
            config=small.DECODING,
        )
        model = {"asset": "baselines", "partition": "2026-06-12", "version": "v"}
        decision = {"promoted": False, "model": model | {"system": "popularity"}}
        write_json(draft.path / "champion.json", decision)
    back = decide(tmp_path, {"serve": "2026-06-12", "reason": "complaints"})
    assert back["serves"] == "earlier champion"
    assert served(tmp_path) == "popularity"

    pin_champion(store, store.latest("champion", "2026-06-12"), "a week of calm")
    pinned = decide(tmp_path, {})
    assert (pinned["serves"], pinned["by_hand"]) == ("earlier champion", "pinned: a week of calm")
    assert served(tmp_path) == "popularity"
    pin_champion(store, None, "over")
    assert "by_hand" not in decide(tmp_path, {})


def test_the_pretrained_model_serves_where_aligning_cost_recall(
    home: Path, result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    """Metrics in which the aligned model is significantly below the pretrained one."""
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    shutil.rmtree(tmp_path / "artifacts" / "champion")
    measured = store.latest("offline_metrics", DAY)
    metrics = MetricTable.load(measured.path)
    bar = best_simple_system(metrics)
    lists = metrics.find("pretrained", "recall@10").mean
    changed = {
        ("dpo", "pretrained"): (-0.006, -0.010, -0.002),
        ("pretrained", bar): (0.02, 0.01, 0.03),
        ("dpo", bar): (0.014, 0.01, 0.02),  # it would pass the gates, too
    }
    rows = [
        row._replace(**dict(zip(("value", "low", "high"), changed[key], strict=True)))
        if (key := (row.system, row.reference)) in changed and row.metric == "recall@10"
        else row
        for row in metrics.rows
    ]
    upstream = {k: v for k, v in measured.manifest["upstream"].items() if k != "champion"}
    with store.write(
        "offline_metrics",
        DAY,
        config=measured.manifest["config"],
        upstream=upstream,
        code_version="changed",
    ) as draft:
        for name in ("case_metrics.parquet", "protocol.json"):
            shutil.copyfile(measured.path / name, draft.path / name)
        MetricTable(tuple(rows)).save(draft.path)
    decision = decide(tmp_path, {})
    pretrained = store.latest("pretrained_checkpoint", DAY)
    assert (decision["serves"], decision["challenger_system"]) == ("challenger", "pretrained")
    assert decision["model"] == decision["challenger"]
    assert decision["model"]["asset"] == "pretrained_checkpoint"
    assert served(tmp_path) == pretrained.version
    assert f"significantly below the pretrained one's {lists:.4f}" in decision["challenger_reason"]
    assert "-0.0060 [-0.0100, -0.0020]" in decision["challenger_reason"]
    assert decision["reward_weight"] == 0
    bundle = store.latest("champion", DAY).path / "model.safetensors"
    assert bundle.read_bytes() == (pretrained.path / "model.safetensors").read_bytes()
    shown = text_table(load_report(store, DAY, "simulated"))
    assert f"the challenger is {decision['challenger_reason']}" in shown
    assert "challenger (the pretrained generator): promoted" in shown


def degraded(home: Path, reason: str, sessions_until: str = DAY) -> Artifact:
    """Recommendations as `serve_degraded` makes them, with their checks."""
    fields = {"reason": reason, "sessions_until": sessions_until}
    with dg.DagsterInstance.ephemeral() as instance:
        made = dg.materialize(
            [serving.recommendations, serving.recommendations_checks],
            partition_key=DAY,
            resources=resources(home),
            run_config={"ops": {"recommendations": {"config": {"degraded": fields}}}},
            instance=instance,
        )
        checks = {e.check_name: e for e in made.get_asset_check_evaluations()}
    assert made.success
    own = checks.pop("made_by_its_own_nightly_run")
    assert (own.passed, own.description) == (False, reason)
    assert all(check.passed for check in checks.values())
    artifact = ArtifactStore(str(home / "artifacts")).latest("recommendations", DAY)
    assert artifact.manifest["metadata"]["degraded"] == reason
    return artifact


def test_after_a_failure_the_last_champion_serves_on_the_newest_valid_sessions(
    home: Path, result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    for name in ("champion", "offline_metrics", "recommendations", "dpo_checkpoint"):
        shutil.rmtree(tmp_path / "artifacts" / name)
    for day in ("2026-06-11", "2026-06-12"):
        with store.write("champion", day, config={}, upstream={}, code_version="1") as draft:
            write_bundle(
                draft.path,
                checkpoint=store.latest("pretrained_checkpoint", DAY).path,
                semantic_ids=store.latest("semantic_ids", DAY).path,
                config=small.DECODING,
            )
            model = {"asset": "dpo_checkpoint", "partition": day, "version": f"of {day}"}
            write_json(draft.path / "champion.json", {"promoted": True, "model": model})
    made = degraded(tmp_path, "pretrained_checkpoint: loss became NaN or inf")
    table = pq.read_table(made.path / "recommendations.parquet")
    assert set(table.column("model_version").to_pylist()) == {"of 2026-06-12"}
    assert made.manifest["metadata"]["sessions_until"] == DAY

    damaged = store.latest("champion", "2026-06-12").path / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    made = degraded(tmp_path, "champion: damaged")
    table = pq.read_table(made.path / "recommendations.parquet")
    assert set(table.column("model_version").to_pylist()) == {"of 2026-06-11"}


def test_after_a_failure_without_a_champion_the_best_simple_system_serves(
    home: Path, result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    measured = MetricTable.load(store.latest("offline_metrics", DAY).path)
    shutil.rmtree(tmp_path / "artifacts" / "champion")
    made = degraded(tmp_path, "champion: no memory")
    table = pq.read_table(made.path / "recommendations.parquet")
    assert set(table.column("model_version").to_pylist()) == {best_simple_system(measured)}
    shutil.rmtree(tmp_path / "artifacts" / "offline_metrics")
    made = degraded(tmp_path, "offline_metrics: no memory")
    table = pq.read_table(made.path / "recommendations.parquet")
    assert set(table.column("model_version").to_pylist()) == {"popularity"}


def test_a_champion_is_not_decided_by_metrics_of_another_incumbent(
    home: Path, result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    """As when a backfill makes the champion of an earlier day after the metrics of this one."""
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    before = store.latest("champion", DAY).version
    with store.write("champion", "2026-06-13", config={}, upstream={}, code_version="1") as draft:
        model = {"asset": "dpo_checkpoint", "partition": "2026-06-13", "version": "new"}
        write_json(draft.path / "champion.json", {"promoted": True, "model": model})
    with pytest.raises(ValueError, match=f"materialise offline_metrics of {DAY} again"):
        dg.materialize(
            [promotion.champion],
            partition_key=DAY,
            resources={"artifacts": resources(tmp_path)["artifacts"]},
        )
    assert store.latest("champion", DAY).version == before


def test_one_repeat_in_a_thousand_sessions_stops_the_night() -> None:
    metrics = MetricTable(
        (
            MetricRow("dpo", None, "legal_share", "all", 1.0),
            MetricRow("dpo", None, "repeat_free_share", "all", 0.999),
            MetricRow("pretrained", None, "repeat_free_share", "all", 1.0),
            MetricRow("popularity", None, "recall@10", "all", 0.1, 0.05, 0.15, 10),
            MetricRow("dpo", "popularity", "recall@10", "all", 0.2, 0.1, 0.3, 10),
        )
    )
    found = {r.check_name: r for r in evaluation.check_metrics(metrics)}
    assert {name: r.passed for name, r in found.items()} == {
        "every_id_is_legal": True,
        "sessions_are_repeat_free": False,
        "beats_best_simple_system": True,
    }
    specs = {s.name: s.blocking for s in evaluation.offline_metrics_checks.check_specs}
    assert specs["sessions_are_repeat_free"]
    assert specs["every_id_is_legal"]
    assert not specs["beats_best_simple_system"]


def test_a_test_day_without_users_publishes_recommendations_and_skips_the_metrics(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SETTINGS", dataclasses.replace(report.SETTINGS, home=tmp_path))
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    store = ArtifactStore(str(tmp_path / "artifacts"))
    rows = [row for row in small.rows() if row["split"] != "test"]
    publish(store, "session_dataset", lambda d: small.write_sessions(d, rows))
    with dg.DagsterInstance.ephemeral() as instance:
        night = dg.materialize(
            [*ASSETS, report.nightly_report, *CHECKS],
            partition_key=DAY,
            resources=resources(tmp_path),
            run_config=RUN,
            instance=instance,
        )
    assert night.success
    assert "refused" in (tmp_path / "report" / "report.html").read_text()
    evaluations = {e.check_name: e for e in night.get_asset_check_evaluations()}
    assert all(e.passed for e in evaluations.values())
    assert evaluations["every_id_is_legal"].description == evaluation.SKIPPED
    shown = night.asset_materializations_for_node("offline_metrics")[0].metadata
    assert shown["metrics"].value == evaluation.SKIPPED
    decision = read_json(store.latest("champion", DAY).path / "champion.json")
    assert not decision["promoted"]
    assert "nobody watched" in decision["reasons"][0]
    served = pq.read_table(store.latest("recommendations", DAY).path / "recommendations.parquet")
    assert set(served["user_id"].to_pylist()) == {row["user_id"] for row in rows}
