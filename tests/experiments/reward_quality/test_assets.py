"""The reward model's tables as Dagster makes them, from a small night's artifacts."""

from dataclasses import asdict
from pathlib import Path

import dagster as dg

from experiments.reward_quality import assets as module
from onerec.artifacts import ArtifactStore
from onerec.config import RewardConfig, SessionConfig
from onerec.evaluation.metric_table import MetricTable, TableColumn
from resources.stores import Artifacts, Compute
from tests.core.evaluation import night as small

DAY = small.DAY.isoformat()


def test_tables_are_written_and_shown(tmp_path: Path, tables_dir: Path):
    store = ArtifactStore(str(tmp_path / "artifacts"))
    for asset, fill in (
        ("session_dataset", lambda d: small.write_sessions(d, small.rows())),
        ("semantic_ids", lambda d: small.write_catalogue(d, small.catalogue())),
        ("reward_model", lambda d: small.write_reward(d, seed=1)),
    ):
        config = {
            "session_dataset": {"sessions": asdict(SessionConfig())},
            "semantic_ids": {},
            "reward_model": asdict(RewardConfig(max_epochs=1)),
        }
        with store.write(asset, DAY, config=config[asset], upstream={}, code_version="1") as draft:
            fill(draft.path)
    result = dg.materialize(
        [module.reward_table],
        resources={"artifacts": Artifacts(url=store.root), "compute": Compute(accelerator="cpu")},
        run_config={"ops": {"reward_table": {"config": {"seeds": 1}}}},
    )
    metadata = result.asset_materializations_for_node("reward_table")[0].metadata
    assert metadata["day"].value == DAY
    quality, calibration = (
        MetricTable.load(tables_dir, f"reward_{name}_simulated.parquet")
        for name in ("quality", "calibration")
    )
    systems = [
        "base_rate",
        "lightgbm",
        "reward_model",
        "no_similarity",
        "history_mean",
        "no_history",
    ]
    assert list(dict.fromkeys(row.system for row in quality.rows)) == systems
    assert TableColumn("ece", "ltr") in {row.column for row in calibration.rows}
    shown = metadata["reward_quality_simulated"].records
    assert [record.data["system"] for record in shown] == systems
    assert "data:image/svg+xml" in metadata["calibration of ltr"].value
    section = (tables_dir / "reward_quality_simulated.md").read_text()
    assert f"data simulated {DAY}, {store.latest('session_dataset', DAY).version}" in section
