"""The codebook of a tokenizer generation, and the semantic IDs that are appended to it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date
from typing import Any

import dagster as dg

from assets.support import (
    DAILY,
    DAY_BY_DAY,
    POOL_WAREHOUSE,
    STAGES,
    code_version,
    launchpad,
    published,
    to_core,
    upstream,
)
from onerec.artifacts import Artifact, ArtifactError, ArtifactStore, read_json, write_json
from onerec.config import TokenizerConfig
from resources.stores import Artifacts
from resources.warehouse import Warehouse

VERSION = code_version("tokenizer")


class TokenizerLaunchpad(launchpad(STAGES.tokenizer)):
    """Settings of the tokenizer."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="items",
    kinds={"pytorch"},
    code_version=VERSION,
    deps=[upstream("item_embeddings")],
)
def codebook(
    context: dg.AssetExecutionContext, config: TokenizerLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """Opens a tokenizer generation: residual balanced K-means over items first seen before day D.

    Every model after it starts from scratch, so it is refitted weekly or on demand only.
    """
    from onerec.embeddings.item_embeddings import load_item_embeddings
    from onerec.tokenizer.generations import open_generation

    core, day = to_core(config, TokenizerConfig), date.fromisoformat(context.partition_key)
    embeddings = artifacts.store.latest("item_embeddings", context.partition_key)
    with artifacts.store.write(
        "codebook",
        context.partition_key,
        config=asdict(core),
        upstream={"item_embeddings": embeddings.version},
        code_version=VERSION,
        seed=core.seed,
    ) as draft:
        opened = open_generation(
            load_item_embeddings(embeddings.path),
            day,
            core,
            draft.path,
            on_progress=context.log.info,
        )
        diagnostics = opened.diagnostics(draft.path)
        write_json(draft.path / "diagnostics.json", diagnostics)
        draft.row_counts["rows"] = len(opened.ids)
        draft.metadata["generation"] = opened.ids.generation
    return published(draft.artifact, tokenizer_metadata(opened.ids.generation, diagnostics))


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="items",
    kinds={"pytorch", "duckdb"},
    pool=POOL_WAREHOUSE,
    code_version=VERSION,
    deps=[
        upstream("item_embeddings"),
        upstream("codebook"),
        upstream("semantic_ids", first=-1, last=-1),
    ],
)
def semantic_ids(
    context: dg.AssetExecutionContext, warehouse: Warehouse, artifacts: Artifacts
) -> dg.MaterializeResult:
    """The ID of every item known on day D. Inside a generation it only grows.

    Built on the last earlier night of the codebook's generation, so that a repeated run gives the
    same IDs.
    """
    from onerec.embeddings.item_embeddings import load_item_embeddings
    from onerec.tokenizer.generations import append_night, load_tokenized

    store, partition = artifacts.store, context.partition_key
    book, earlier = generation_until(store, partition)
    embeddings = store.latest("item_embeddings", partition)
    read = {"item_embeddings": embeddings, "codebook": book, "semantic_ids": earlier}
    with store.write(
        "semantic_ids",
        partition,
        config={},
        upstream={name: artifact.version for name, artifact in read.items() if artifact},
        code_version=VERSION,
    ) as draft:
        night = append_night(
            book.path,
            load_tokenized(earlier.path) if earlier else None,
            load_item_embeddings(embeddings.path),
        )
        night.save(draft.path)
        diagnostics = night.diagnostics(book.path)
        write_json(draft.path / "diagnostics.json", diagnostics)
        draft.row_counts["rows"] = len(night.ids)
        draft.metadata["generation"] = night.ids.generation
    warehouse.replace_partition("semantic_ids", date.fromisoformat(partition), night.ids.to_table())
    return published(draft.artifact, tokenizer_metadata(night.ids.generation, diagnostics))


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "every_code_is_used",
            asset="codebook",
            blocking=True,
            description="No level of the codebook has a dead code.",
        ),
        dg.AssetCheckSpec(
            "codes_are_balanced",
            asset="codebook",
            blocking=True,
            description="At every level the most and the least used code differ by at most one.",
        ),
    ]
)
def codebook_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """A generation that opens unbalanced would stay so."""
    path = artifacts.store.latest("codebook", context.partition_key).path
    levels = read_json(path / "diagnostics.json")["levels"]
    used = [level["utilisation"] for level in levels]
    spread = [level["size_spread"] for level in levels]
    yield dg.AssetCheckResult(
        check_name="every_code_is_used",
        asset_key="codebook",
        passed=min(used) == 1.0,
        metadata={"utilisation per level": dg.MetadataValue.json(used)},
    )
    yield dg.AssetCheckResult(
        check_name="codes_are_balanced",
        asset_key="codebook",
        passed=max(spread) <= 1,
        metadata={"largest less smallest per level": dg.MetadataValue.json(spread)},
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "ids_are_unique",
            asset="semantic_ids",
            blocking=True,
            description="No two items share an ID, and every digit is in [0, K).",
        ),
        dg.AssetCheckSpec(
            "published_ids_did_not_move",
            asset="semantic_ids",
            blocking=True,
            description="Every row of the earlier night of this generation is there unchanged.",
        ),
        dg.AssetCheckSpec(
            "every_item_has_an_id",
            asset="semantic_ids",
            blocking=True,
            description="The catalogue of day D is covered.",
        ),
    ]
)
def semantic_ids_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """What every model after it takes for granted."""
    from onerec.embeddings.item_embeddings import load_item_embeddings
    from onerec.tokenizer.semantic_ids import load_semantic_ids

    store, partition = artifacts.store, context.partition_key
    ids = load_semantic_ids(store.latest("semantic_ids", partition).path)
    book, earlier = generation_until(store, partition)
    before = load_semantic_ids((earlier or book).path)
    embeddings = load_item_embeddings(store.latest("item_embeddings", partition).path)
    moved = ids.num_moved_since(before)
    missing = int((ids.index_of(embeddings.item_ids) < 0).sum())
    repeated = ids.num_invalid()
    for name, failures in (
        ("ids_are_unique", repeated),
        ("published_ids_did_not_move", moved),
        ("every_item_has_an_id", missing),
    ):
        yield dg.AssetCheckResult(
            check_name=name,
            asset_key="semantic_ids",
            passed=failures == 0,
            metadata={"items": len(ids), "failures": failures},
        )


def generation_until(store: ArtifactStore, partition: str) -> tuple[Artifact, Artifact | None]:
    """The codebook in force on a day, and the last earlier night of its generation, if any."""
    book = store.latest_until("codebook", partition)
    if book is None:
        raise ArtifactError(
            f"codebook: no generation was opened up to {partition}; materialise codebook for "
            f"{partition} first, or run the job weekly_retokenize"
        )
    earlier = store.latest_until("semantic_ids", partition, inclusive=False)
    same = earlier and (
        earlier.manifest["metadata"]["generation"] == book.manifest["metadata"]["generation"]
    )
    return book, earlier if same else None


def tokenizer_metadata(generation: str, diagnostics: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and pictures for the asset's page."""
    from onerec.pictures import line_chart, svg_markdown

    levels = diagnostics["levels"]
    usage = {f"level {i + 1}": sorted(v["usage"], reverse=True) for i, v in enumerate(levels)}
    error = {"left over": [1.0] + [level["relative_mse"] for level in levels]}
    pictures = [
        line_chart(usage, "Items per code, most used first", "code", "items"),
        line_chart(error, "Relative squared error left after a level", "level", "share"),
    ]
    per_level = {
        f"{name}, level {i + 1}": level[name]
        for i, level in enumerate(levels)
        for name in ("utilisation", "entropy", "entropy_share", "gini", "size_spread")
    }
    return {
        "generation": generation,
        "collision rate before the separating digit": diagnostics["collision_rate"],
        "relative squared error": levels[-1]["relative_mse"],
        "items whose codes are the nearest": diagnostics["argmin_agreement"],
        **per_level,
        "pictures": dg.MetadataValue.md("\n\n".join(map(svg_markdown, pictures))),
    }
