"""The codebook of a tokenizer version, and the semantic IDs that are appended to it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date
from typing import Any

import dagster as dg

from assets.code_version import code_version
from assets.support import (
    DAILY,
    DAY_BY_DAY,
    POOL_WAREHOUSE,
    STAGES,
    launchpad,
    published,
    to_core,
    upstream,
)
from onerec.artifacts import Artifact, ArtifactError, ArtifactStore, read_json, write_json
from onerec.config import TokenizerConfig
from resources.stores import Artifacts
from resources.warehouse import Warehouse

CODEBOOK_CODE = code_version(__name__, "codebook")
SEMANTIC_IDS_CODE = code_version(__name__, "semantic_ids")


class TokenizerLaunchpad(launchpad(STAGES.tokenizer)):
    """Settings of the tokenizer."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="items",
    kinds={"pytorch"},
    code_version=CODEBOOK_CODE,
    deps=[upstream("item_embeddings")],
)
def codebook(
    context: dg.AssetExecutionContext, config: TokenizerLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """Opens a tokenizer version: residual quantization of the items first seen before day D.

    Every model after it starts from scratch, so it is refitted weekly or on demand only. A refit
    that is worse than the tokenizer version in force on today's vectors is refused: it is kept, its
    manifest says why, and later nights go on with the old tokenizer version.
    """
    from onerec.embeddings.item_embeddings import load_item_embeddings
    from onerec.tokenizer.versions import (
        describe_tokenizer_version,
        load_tokenized,
        open_tokenizer_version,
    )

    core, day = to_core(config, TokenizerConfig), date.fromisoformat(context.partition_key)
    store, partition = artifacts.store, context.partition_key
    embeddings = store.latest("item_embeddings", partition)
    parent = codebook_in_force(store, partition, inclusive=False)
    night = last_night_of(store, partition, parent)
    read = {"item_embeddings": embeddings, "codebook": parent, "semantic_ids": night}
    catalogue = load_item_embeddings(embeddings.path)
    with store.write(
        "codebook",
        partition,
        config=asdict(core),
        upstream={name: artifact.version for name, artifact in read.items() if artifact},
        code_version=CODEBOOK_CODE,
        seed=core.seed,
    ) as draft:
        opened = open_tokenizer_version(
            catalogue, day, core, draft.path, on_progress=context.log.info
        )
        diagnostics = opened.diagnostics(draft.path)
        write_json(draft.path / "diagnostics.json", diagnostics)
        manifest = describe_tokenizer_version(
            draft.path,
            diagnostics,
            catalogue,
            day,
            parent_directory=parent.path if parent else None,
            published=load_tokenized(night.path) if night else None,
        )
        manifest.save(draft.path)
        draft.row_counts["rows"] = len(opened.ids)
        draft.metadata |= {
            "tokenizer_version": manifest.tokenizer_version,
            "accepted": manifest.accepted,
        }
        if not manifest.accepted:  # a codebook of the same day that was in force stays so
            draft.metadata["stands"] = standing_version(store, partition)
    shown = tokenizer_metadata(opened, diagnostics) | tokenizer_version_metadata(manifest)
    return published(draft.artifact, shown | {"opened by": context.run.job_name})


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="items",
    kinds={"pytorch", "duckdb"},
    pool=POOL_WAREHOUSE,
    code_version=SEMANTIC_IDS_CODE,
    deps=[
        upstream("item_embeddings"),
        upstream("codebook"),
        upstream("semantic_ids", first=-1, last=-1),
    ],
)
def semantic_ids(
    context: dg.AssetExecutionContext, warehouse: Warehouse, artifacts: Artifacts
) -> dg.MaterializeResult:
    """The ID of every item known on day D. Inside a tokenizer version it only grows.

    Built on the last earlier night of the codebook's tokenizer version, so that a repeated run
    gives the same IDs.
    """
    from onerec.embeddings.item_embeddings import load_item_embeddings
    from onerec.tokenizer.versions import append_night, load_tokenized

    store, partition = artifacts.store, context.partition_key
    book, earlier = tokenizer_version_until(store, partition)
    embeddings = store.latest("item_embeddings", partition)
    read = {"item_embeddings": embeddings, "codebook": book, "semantic_ids": earlier}
    with store.write(
        "semantic_ids",
        partition,
        config={},
        upstream={name: artifact.version for name, artifact in read.items() if artifact},
        code_version=SEMANTIC_IDS_CODE,
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
        draft.metadata["tokenizer_version"] = night.ids.tokenizer_version
    warehouse.replace_partition("semantic_ids", date.fromisoformat(partition), night.ids.to_table())
    titles = titles_of(warehouse.catalogue(date.fromisoformat(partition)))
    return published(draft.artifact, tokenizer_metadata(night, diagnostics, titles))


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
            description="At every level the most and the least used code differ by at most one. "
            "Methods that promise no balance get a warning and are not stopped.",
        ),
        dg.AssetCheckSpec(
            "no_worse_than_previous_version",
            asset="codebook",
            blocking=True,
            description="On today's vectors the new tokenizer version is at least as good as the "
            "one in "
            "force, within quality_tolerance; otherwise it is refused and the old one stays.",
        ),
    ]
)
def codebook_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """A tokenizer version that opens unbalanced would stay so; a worse one is not used at all."""
    from onerec.tokenizer.codebook import load_codebook
    from onerec.tokenizer.versions import load_tokenizer_manifest

    path = artifacts.store.latest("codebook", context.partition_key).path
    levels = read_json(path / "diagnostics.json")["levels"]
    book, manifest = load_codebook(path), load_tokenizer_manifest(path)
    used = [level["utilisation"] for level in levels]
    spread = [level["size_spread"] for level in levels]
    promise = "sizes that differ by at most one" if book.promises_balance else "nothing"
    severity = dg.AssetCheckSeverity.ERROR if book.promises_balance else dg.AssetCheckSeverity.WARN
    about = {"method": book.config.method, "what the method promises": promise}
    yield dg.AssetCheckResult(
        check_name="every_code_is_used",
        asset_key="codebook",
        passed=min(used) == 1.0,
        severity=severity,
        metadata={"utilisation per level": dg.MetadataValue.json(used), **about},
    )
    yield dg.AssetCheckResult(
        check_name="codes_are_balanced",
        asset_key="codebook",
        passed=max(spread) <= 1,
        severity=severity,
        metadata={"largest less smallest per level": dg.MetadataValue.json(spread), **about},
    )
    refused = manifest.refused_because if manifest else []
    remedy = (
        f"run nightly for {context.partition_key}: it goes on in the old tokenizer version; to "
        f"accept "
        "this one, materialise codebook again with a larger quality_tolerance"
    )
    yield dg.AssetCheckResult(
        check_name="no_worse_than_previous_version",
        asset_key="codebook",
        passed=not refused,
        metadata={
            **(tokenizer_version_metadata(manifest) if manifest else {}),
            **({"what to do": remedy} if refused else {}),
        },
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "ids_are_unique",
            asset="semantic_ids",
            blocking=True,
            description="No two items share an ID, and every token is in [0, K).",
        ),
        dg.AssetCheckSpec(
            "published_ids_did_not_move",
            asset="semantic_ids",
            blocking=True,
            description="Every row of the earlier night of this tokenizer version is there "
            "unchanged.",
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
    book, earlier = tokenizer_version_until(store, partition)
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


def tokenizer_version_until(
    store: ArtifactStore, partition: str
) -> tuple[Artifact, Artifact | None]:
    """The codebook in force on a day, and the last earlier night of its tokenizer version, if
    any."""
    book = codebook_in_force(store, partition)
    if book is None:
        raise ArtifactError(
            f"codebook: no tokenizer version was opened up to {partition}; materialise codebook "
            f"for "
            f"{partition} first, or run the job weekly_retokenize"
        )
    return book, last_night_of(store, partition, book)


def codebook_in_force(
    store: ArtifactStore, partition: str, *, inclusive: bool = True
) -> Artifact | None:
    """The last codebook up to (or before) a day that was not refused, if any."""
    for day in reversed(store.partitions("codebook")):
        if day > partition or (day == partition and not inclusive):
            continue
        version = standing_version(store, day)
        if version:
            return store.get("codebook", day, version)
    return None


def standing_version(store: ArtifactStore, day: str) -> str | None:
    """The codebook of a day that is in force: the current one, or the one it failed to replace."""
    if day not in store.partitions("codebook"):
        return None
    current = store.latest("codebook", day)
    made = current.manifest["metadata"]
    return current.version if made.get("accepted", True) else made.get("stands")


def last_night_of(store: ArtifactStore, partition: str, book: Artifact | None) -> Artifact | None:
    """The last night before a day, if it is of this codebook's tokenizer version."""
    earlier = store.latest_until("semantic_ids", partition, inclusive=False)
    if book is None or earlier is None:
        return None
    made, asked = earlier.manifest["metadata"], book.manifest["metadata"]
    return earlier if made["tokenizer_version"] == asked["tokenizer_version"] else None


def titles_of(catalogue: Any) -> dict[str, str]:
    """Titles of the items that have one."""
    rows = zip(catalogue["item_id"].to_pylist(), catalogue["title"].to_pylist(), strict=True)
    return {item: title for item, title in rows if title}


def tokenizer_version_metadata(manifest: Any) -> dict[str, Any]:
    """The tokenizer version's manifest, with its quality before and after."""
    old = manifest.parent_quality or {}
    rows = [
        f"| {name} | {f'{old[name]:.4f}' if name in old else 'n/a'} | {new:.4f} |"
        for name, new in manifest.quality.items()
    ]
    table = [
        "| on today's vectors | tokenizer version in force | this one |",
        "|---|---|---|",
        *rows,
    ]
    return {
        "quality": dg.MetadataValue.md("\n".join(table)),
        "opened because": manifest.opened_because,
        "parent tokenizer version": manifest.parent or "none",
        "accepted": manifest.accepted,
        **({} if manifest.accepted else {"refused because": "; ".join(manifest.refused_because)}),
    }


def tokenizer_metadata(
    night: Any, diagnostics: Mapping[str, Any], titles: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Numbers and pictures for the asset's page."""
    from onerec.pictures import bar_chart, line_chart, scatter, svg_markdown
    from onerec.tokenizer.visualisation import neighbours_by_prefix, projection

    levels = diagnostics["levels"]
    usage = {f"level {i + 1}": sorted(v["usage"], reverse=True) for i, v in enumerate(levels)}
    error = {"left over": [1.0] + [level["relative_mse"] for level in levels]}
    shares = {
        f"{name.replace('_', ' ')}, level {i + 1}": level[name]
        for i, level in enumerate(levels)
        for name in ("entropy_share", "hit_rate")
    } | {"collision rate": diagnostics["collision_rate"]}
    pictures = [
        line_chart(usage, "Items per code, most used first", "code", "items"),
        line_chart(error, "Relative squared error left after a level", "level", "share"),
        bar_chart(shares, "Entropy, neighbours that share the prefix, collisions", "share"),
        scatter(
            projection(night.ids.codes, night.vectors),
            "Items by first code",
            "first principal component",
            "second principal component",
        ),
    ]
    per_level = {
        f"{name}, level {i + 1}": level[name]
        for i, level in enumerate(levels)
        for name in ("utilisation", "entropy", "entropy_share", "gini", "size_spread", "hit_rate")
    }
    return {
        "tokenizer_version": night.ids.tokenizer_version,
        "collision rate before the disambiguation token": diagnostics["collision_rate"],
        "relative squared error": levels[-1]["relative_mse"],
        "items whose codes are the nearest": diagnostics["argmin_agreement"],
        **per_level,
        "pictures": dg.MetadataValue.md("\n\n".join(map(svg_markdown, pictures))),
        "neighbours by ID prefix": dg.MetadataValue.md(neighbours_by_prefix(night.ids, titles)),
    }
