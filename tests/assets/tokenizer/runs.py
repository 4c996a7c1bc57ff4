"""Runs of the embedding and tokenizer assets over a small catalogue."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from assets.item_embeddings import item_embeddings, item_embeddings_checks
from assets.tokenizer import (
    codebook,
    codebook_checks,
    semantic_ids,
    semantic_ids_checks,
)
from onerec.artifacts import ArtifactStore
from onerec.datasets import EventSource
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from resources.stores import Artifacts, Compute, Source
from resources.warehouse import Warehouse

DAYS = [date(2026, 6, 10) + timedelta(days=n) for n in range(5)]

ITEMS_A_DAY = 12

TOPICS = ("slow pasta recipe", "fast ski slope", "jazz guitar lesson")


SETTINGS: dict[str, Any] = {
    "item_embeddings": {
        "config": {
            "text_encoder": "hashed",
            "text_dim": 12,
            "collaborative_dim": 6,
            "attributes_dim": 4,
        }
    },
    # with so few items every refit differs by more than any sensible tolerance
    "codebook": {
        "config": {"num_levels": 2, "codebook_size": 6, "iterations": 5, "quality_tolerance": 1.0}
    },
}


class Supplied(Source):
    """A source that has nothing but vectors, or not even those."""

    vectors: list[float] = Field(default_factory=list)

    def open(self) -> EventSource:  # pyright: ignore[reportIncompatibleMethodOverride]
        @dataclass
        class Vectors:
            rows: list[float]

            def item_vectors(self) -> pa.Table | None:
                ids = [f"i{n:03d}" for n in range(len(self.rows))]
                vectors = pa.array([[v, 1.0] for v in self.rows], pa.list_(pa.float32()))
                return pa.table({"item_id": ids, "vector": vectors}) if ids else None

        return Vectors(self.vectors)  # pyright: ignore[reportReturnType]


def first_seen(item: int) -> date:
    """Two thirds of the items are there from the start, the rest arrive day by day."""
    return DAYS[0] - timedelta(days=3) if item < 48 else DAYS[(item - 48) // ITEMS_A_DAY]


def run(
    home: Path,
    store: ArtifactStore,
    day: date,
    *assets: dg.AssetsDefinition,
    vectors: list[float] | None = None,
    raise_on_error: bool = True,
    tokenizer: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    checks = [item_embeddings_checks, codebook_checks, semantic_ids_checks]
    names = [a.key.to_user_string() for a in assets]
    codebook_config = SETTINGS["codebook"]["config"] | (tokenizer or {})
    settings = SETTINGS | {"codebook": {"config": codebook_config}}
    return dg.materialize(
        [item_embeddings, codebook, semantic_ids, *checks],
        selection=dg.AssetSelection.assets(*names),
        partition_key=day.isoformat(),
        run_config={"ops": {n: c for n, c in settings.items() if n in names}},
        resources={
            "artifacts": Artifacts(url=store.root),
            "compute": Compute(),
            "warehouse": Warehouse(path=str(home / "warehouse.duckdb")),
            "source": Supplied(dataset="own", vectors=vectors or []),
        },
        raise_on_error=raise_on_error,
    )


ALL = (item_embeddings, codebook, semantic_ids)

NIGHT = (item_embeddings, semantic_ids)


def ids_of(store: ArtifactStore, day: date) -> SemanticIds:
    return load_semantic_ids(store.latest("semantic_ids", day.isoformat()).verify().path)


def failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    return sorted(c.check_name for c in result.get_asset_check_evaluations() if not c.passed)


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}
