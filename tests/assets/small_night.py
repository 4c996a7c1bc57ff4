"""Baselines to recommendations of a small nightly run: its inputs, assets and resources."""

from dataclasses import asdict
from pathlib import Path

from assets import baselines, evaluation, serving
from assets import champion as promotion
from assets.support import PIPELINE
from onerec.artifacts import ArtifactStore
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


def resources(home: Path) -> dict[str, object]:
    return {
        "artifacts": Artifacts(url=str(home / "artifacts")),
        "warehouse": Warehouse(path=str(home / "warehouse.duckdb")),
        "consumers": Consumers(root=str(home / "serving")),
        "compute": Compute(accelerator="cpu"),
    }
