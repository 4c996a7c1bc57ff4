"""The codebook of a tokenizer version, and the semantic IDs that are appended to it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_TRAINER,
    POOL_WAREHOUSE,
    check_specs,
    launchpad,
    published,
    table_of,
    to_core,
    upstream,
)
from onerec.artifacts import read_json, write_json
from resources.stores import Artifacts
from resources.warehouse import Warehouse

if TYPE_CHECKING:
    from onerec.tokenizer.tokenized_catalogue import TokenizedCatalogue
    from onerec.tokenizer.versions import TokenizerManifest

CODEBOOK_CODE = code_version(__name__, "codebook")
SEMANTIC_IDS_CODE = code_version(__name__, "semantic_ids")


class TokenizerLaunchpad(launchpad(PIPELINE.tokenizer)):
    """Settings of the tokenizer."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="items",
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=CODEBOOK_CODE,
    deps=[CORRECTABLE, upstream("item_embeddings")],
)
def codebook(
    context: dg.AssetExecutionContext, config: TokenizerLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """Opens a tokenizer version: residual quantization of the items first seen before day D.

    Models of another version start from random weights, so it is refitted weekly or on demand. A
    refit that is worse than the current version on today's vectors is refused: it is kept with its
    figures, not used, and later days stay with the current version.
    """
    from onerec.embeddings.item_embeddings import load_item_embeddings
    from onerec.tokenizer.versions import accepted_codebook, current_version, open_tokenizer_version

    settings, day = to_core(config, PIPELINE.tokenizer), context.partition_key
    store = artifacts.store
    embeddings = store.latest("item_embeddings", day)
    parent = current_version(store, day, inclusive=False)
    with store.write(
        "codebook",
        day,
        config=asdict(settings),
        upstream={"item_embeddings": embeddings.version, **(parent.upstream() if parent else {})},
        code_version=CODEBOOK_CODE,
        seed=settings.seed,
    ) as draft:
        opened = open_tokenizer_version(
            load_item_embeddings(embeddings.path),
            date.fromisoformat(day),
            settings,
            draft.path,
            parent=parent,
            on_progress=context.log.info,
        )
        manifest = opened.manifest
        draft.row_counts["rows"] = len(opened.tokenized.ids)
        draft.metadata |= {
            "tokenizer_version": manifest.tokenizer_version,
            "accepted": manifest.accepted,
        }
        if not manifest.accepted:  # an accepted codebook of the same day stays current
            draft.metadata["stands"] = accepted_codebook(store, day)
    return published(
        draft.artifact,
        {
            **tokenizer_version_metadata(manifest),
            **tokenizer_metadata(opened.tokenized, opened.diagnostics),
            "opened by": context.run.job_name,
        },
    )


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="items",
    kinds={"pytorch", "duckdb"},
    pool=POOL_WAREHOUSE,
    code_version=SEMANTIC_IDS_CODE,
    deps=[
        CORRECTABLE,
        upstream("item_embeddings"),
        upstream("codebook"),
        upstream("semantic_ids", first=-1, last=-1),
    ],
)
def semantic_ids(
    context: dg.AssetExecutionContext, warehouse: Warehouse, artifacts: Artifacts
) -> dg.MaterializeResult:
    """The ID of every item known on day D. Inside a tokenizer version items are only appended.

    Built on the last earlier day of the current tokenizer version, so that a repeated run gives the
    same IDs.
    """
    from onerec.embeddings.item_embeddings import load_item_embeddings
    from onerec.tokenizer.versions import DIAGNOSTICS_FILE, require_current_version

    store, partition = artifacts.store, context.partition_key
    day = date.fromisoformat(partition)
    current = require_current_version(store, partition)
    embeddings = store.latest("item_embeddings", partition)
    with store.write(
        "semantic_ids",
        partition,
        config={},
        upstream={"item_embeddings": embeddings.version, **current.upstream()},
        code_version=SEMANTIC_IDS_CODE,
    ) as draft:
        tokenized = current.extended(load_item_embeddings(embeddings.path))
        tokenized.save(draft.path)
        diagnostics = tokenized.diagnostics(current.codebook.path)
        write_json(draft.path / DIAGNOSTICS_FILE, diagnostics)
        draft.row_counts["rows"] = len(tokenized.ids)
        draft.metadata["tokenizer_version"] = tokenized.ids.tokenizer_version
    warehouse.replace_partition("semantic_ids", day, tokenized.ids.to_table())
    titles = titles_of(warehouse.catalogue(day))
    return published(draft.artifact, tokenizer_metadata(tokenized, diagnostics, titles))


CODEBOOK_CHECKS = {
    "every_code_is_used": "The fit left no code unused at any level.",
    "codes_are_balanced": "In the fit the most and the least used code of a level differ "
    "by at most one item; items of a full leaf move on afterwards.",
    "no_worse_than_previous_version": "On today's vectors the new tokenizer version is at "
    "least as good as the current one, within quality_tolerance; otherwise it is rejected, "
    "and the same run goes on in the current version.",
}


@dg.multi_asset_check(specs=check_specs("codebook", CODEBOOK_CHECKS))
def codebook_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """Warnings only: an unbalanced first version is better than none, a refused one is not used."""
    from onerec.tokenizer.codebook import load_codebook
    from onerec.tokenizer.versions import DIAGNOSTICS_FILE, load_tokenizer_manifest

    path = artifacts.store.latest("codebook", context.partition_key).path
    book, manifest = load_codebook(path), load_tokenizer_manifest(path)
    diagnostics = read_json(path / DIAGNOSTICS_FILE)
    fit = diagnostics.get("fit") or {  # a codebook from before the fit was measured apart
        name: [level[name] for level in diagnostics["levels"]]
        for name in ("utilisation", "size_spread")
    }
    guarantee = "differ by at most one" if book.guarantees_balance else "none"
    refused = manifest.refused_because if manifest else []
    about = {
        "method": book.config.method,
        "guarantee on cluster sizes": guarantee,
        "items moved from a full leaf": fit.get("overflowed_items", 0),
    }
    remedy = (
        "nothing: this run and later ones go on in the current tokenizer version; to accept this "
        "one, materialise codebook again with a larger quality_tolerance"
    )
    for name, passed, metadata in (
        (
            "every_code_is_used",
            min(fit["utilisation"]) == 1.0,
            {"utilisation per level": dg.MetadataValue.json(fit["utilisation"]), **about},
        ),
        (
            "codes_are_balanced",
            max(fit["size_spread"]) <= 1,
            {"largest less smallest per level": dg.MetadataValue.json(fit["size_spread"]), **about},
        ),
        (
            "no_worse_than_previous_version",
            not refused,
            {
                **(tokenizer_version_metadata(manifest) if manifest else {}),
                **({"what to do": remedy} if refused else {}),
            },
        ),
    ):
        yield dg.AssetCheckResult(
            check_name=name,
            asset_key="codebook",
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=metadata,
        )


@dg.multi_asset_check(
    specs=check_specs(
        "semantic_ids",
        {
            "ids_are_unique": "No two items share an ID, and every token is in [0, K).",
            "published_ids_did_not_move": "Every row of the last earlier day of this tokenizer "
            "version is there unchanged.",
            "every_item_has_an_id": "The catalogue of day D is covered.",
        },
        blocking=True,
    )
)
def semantic_ids_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """Invariants of semantic IDs that every model relies on."""
    from onerec.embeddings.item_embeddings import load_item_embeddings
    from onerec.tokenizer.semantic_ids import load_semantic_ids
    from onerec.tokenizer.versions import require_current_version

    store, partition = artifacts.store, context.partition_key
    ids = load_semantic_ids(store.latest("semantic_ids", partition).path)
    current = require_current_version(store, partition)
    before = load_semantic_ids((current.last_ids or current.codebook).path)
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


def titles_of(catalogue: Any) -> dict[str, str]:
    """Titles of the items that have one."""
    rows = zip(catalogue["item_id"].to_pylist(), catalogue["title"].to_pylist(), strict=True)
    return {item: title for item, title in rows if title}


def tokenizer_version_metadata(manifest: "TokenizerManifest") -> dict[str, Any]:
    """The tokenizer version's manifest, with its quality before and after."""
    old = manifest.parent_quality or {}
    quality = [
        {"on today's vectors": name, "current version": old.get(name), "this version": new}
        for name, new in manifest.quality.items()
    ]
    return {
        "accepted": manifest.accepted,
        **({} if manifest.accepted else {"refused because": "; ".join(manifest.refused_because)}),
        "opened because": manifest.opened_because,
        "parent tokenizer version": manifest.parent or "none",
        "quality": table_of(quality),
    }


def tokenizer_metadata(
    tokenized: "TokenizedCatalogue",
    diagnostics: Mapping[str, Any],
    titles: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Figures and pictures for the asset's page."""
    from onerec.report.pictures import svg_markdown
    from onerec.tokenizer.visualisation import neighbours_by_prefix, pictures_of

    figures = (
        "relative_mse", "utilisation", "size_spread", "entropy_share", "gini", "hit_rate",
    )  # fmt: skip
    levels = [
        {"level": number, **{name: level[name] for name in figures}}
        for number, level in enumerate(diagnostics["levels"], start=1)
    ]
    return {
        "tokenizer_version": tokenized.ids.tokenizer_version,
        "codes per level": tokenized.ids.codebook_size,
        "collision rate before the disambiguation token": diagnostics["collision_rate"],
        **(
            {"items moved from a full leaf": diagnostics["fit"]["overflowed_items"]}
            if "fit" in diagnostics
            else {}
        ),
        "share of items whose codes are the nearest": diagnostics["argmin_agreement"],
        "levels": table_of(levels),
        "pictures": dg.MetadataValue.md(
            "\n\n".join(map(svg_markdown, pictures_of(tokenized, diagnostics)))
        ),
        "neighbours by ID prefix": table_of(neighbours_by_prefix(tokenized.ids, titles or {})),
    }
