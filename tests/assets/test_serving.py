"""Recommendations: where they are, who makes them, also after a failure."""

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from assets import serving
from assets.support import PIPELINE
from onerec.artifacts import Artifact, ArtifactStore, read_json, write_json
from onerec.evaluation.metric_table import MetricTable
from onerec.promotion.champion import best_simple_system
from onerec.schema import RECOMMENDATIONS
from onerec.serving.bundle import load_bundle
from onerec.serving.current import read_served
from onerec.serving.recommender import write_bundle
from resources.warehouse import Warehouse
from tests.assets.small_night import ASSETS, CHECKS, DAY, NEXT_DAY, RUN, resources
from tests.core.evaluation import night as small
from tests.damaged_warehouse import write_damaged


def test_recommendations_are_in_parquet_and_in_the_warehouse(
    night_home: Path, night_result: dg.ExecuteInProcessResult
) -> None:
    artifact = ArtifactStore(str(night_home / "artifacts")).latest("recommendations", DAY)
    table = pq.read_table(artifact.path / "recommendations.parquet")
    champion = ArtifactStore(str(night_home / "artifacts")).latest("champion", DAY)
    simple = read_json(champion.path / "champion.json")["simple_system"]
    assert set(table.column("model_version").to_pylist()) == {simple}
    assert table.num_rows == PIPELINE.serving.list_length * small.NUM_USERS
    for_consumers = pq.read_table(night_home / "serving/current/recommendations.parquet")
    assert for_consumers.drop_columns("title").equals(table)
    with duckdb.connect(str(night_home / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "select count(*), count(distinct user_id), min(serve_date)::varchar "
            "from recommendations where partition_date = ?",
            [DAY],
        ).fetchone()
    assert rows == (table.num_rows, small.NUM_USERS, NEXT_DAY)


def test_a_warehouse_that_is_held_does_not_keep_consumers_waiting(
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    artifact = ArtifactStore(str(night_home / "artifacts")).latest("recommendations", DAY)
    table = pq.read_table(artifact.path / "recommendations.parquet")
    held = Warehouse(path=str(night_home / "warehouse.duckdb"), lock_wait_seconds=0.2)
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
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    """A night with an earlier champion: the incumbent is measured, and somebody serves."""
    shutil.copytree(night_home, tmp_path, dirs_exist_ok=True)
    store = ArtifactStore(str(tmp_path / "artifacts"))
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
            resources=resources(tmp_path),
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
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
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
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    measured = MetricTable.load(store.latest("offline_metrics", DAY).path)
    for name in ("champion", "recommendations"):
        shutil.rmtree(tmp_path / "artifacts" / name)
    made = degraded(tmp_path, "champion: no memory")
    table = pq.read_table(made.path / "recommendations.parquet")
    assert set(table.column("model_version").to_pylist()) == {best_simple_system(measured)}
    shutil.rmtree(tmp_path / "artifacts" / "offline_metrics")
    made = degraded(tmp_path, "offline_metrics: no memory")
    table = pq.read_table(made.path / "recommendations.parquet")
    assert set(table.column("model_version").to_pylist()) == {"popularity"}


def store_own(store: ArtifactStore, item_id: str) -> Artifact:
    """Recommendations as the day's own nightly run stores them before it publishes them."""
    row = {"user_id": "u", "serve_date": date.fromisoformat(NEXT_DAY), "rank": 1, "score": 0.0}
    row |= {"item_id": item_id, "model_version": "own", "tokenizer_version": "t"}
    with store.write("recommendations", DAY, config={}, upstream={}, code_version="1") as draft:
        (draft.path / "bundle").mkdir()
        write_json(draft.path / "bundle" / "simple_system.json", {})
        pq.write_table(
            pa.Table.from_pylist([row], schema=RECOMMENDATIONS), draft.path / serving.TABLE
        )
        draft.metadata |= {"degraded": None, "sessions_until": DAY, "model_version": "own"}
    return draft.artifact


def test_a_damaged_warehouse_does_not_keep_consumers_waiting(tmp_path: Path) -> None:
    own = store_own(ArtifactStore(str(tmp_path / "artifacts")), "a")
    file = tmp_path / "warehouse.duckdb"
    write_damaged(file)
    table = pq.read_table(own.path / serving.TABLE)
    shown = serving.publish(own, table, Warehouse(path=str(file)), tmp_path / "serving")
    assert shown["current"] == "yes"
    assert "Corrupt" in shown["titles"]


def serve_degraded(home: Path) -> dg.ExecuteInProcessResult:
    fields = {"reason": "champion: no memory"}
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [serving.recommendations],
            partition_key=DAY,
            resources=resources(home),
            run_config={"ops": {"recommendations": {"config": {"degraded": fields}}}},
            instance=instance,
        )


def test_what_a_day_s_own_nightly_run_made_is_published_and_never_replaced(tmp_path: Path) -> None:
    """It may have come to its end since the run of `serve_degraded` was requested."""
    store = ArtifactStore(str(tmp_path / "artifacts"))
    own = store_own(store, "a")
    for _ in range(2):
        assert serve_degraded(tmp_path).success
        assert store.latest("recommendations", DAY).version == own.version
        served = read_served(tmp_path / "serving")
        assert served is not None
        assert (served.version, served.degraded) == (own.version, None)
