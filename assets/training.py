"""Pretraining: the generator learns good sessions by next-token prediction."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.nights_before import NightsBefore, as_metadata, nights_before, on_nights_before
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_TRAINER,
    launchpad,
    published,
    to_core,
    upstream,
)
from assets.training_process import run_training
from onerec.artifacts import Artifact, ArtifactStore, read_json
from onerec.disk import require_free_space
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from onerec.training import TrainingJob, TrainingReport

CHECKPOINT = "pretrained_checkpoint"
CODE = code_version(__name__, CHECKPOINT)


class ModelLaunchpad(launchpad(PIPELINE.model)):
    """Shape of the generator."""


class TrainingLaunchpad(launchpad(PIPELINE.training)):
    """Optimiser and schedule."""


class PretrainLaunchpad(dg.Config):
    """What is trained, and how."""

    model: ModelLaunchpad = ModelLaunchpad()
    training: TrainingLaunchpad = TrainingLaunchpad()


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="models",
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[
        CORRECTABLE,
        *map(upstream, ("session_dataset", "semantic_ids")),
        *on_nights_before(CHECKPOINT, max(2, PIPELINE.training.recency_weight_days)),
    ],
)
def pretrained_checkpoint(
    context: dg.AssetExecutionContext,
    config: PretrainLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """The generator, fitted to the window's good sessions; day D - 1 chooses the epoch.

    It starts from the last checkpoint of the same tokenizer version and shape, which goes on with
    the newest days, or of the version whose numbers the codes have, if it has not learned the
    validation day; else from random weights. Killed and run again, it goes on from its last state.
    """
    from onerec.training import known_values, read_report, why_not_start_from

    began, day, store = time.monotonic(), context.partition_key, artifacts.store
    read = {name: store.latest(name, day) for name in ("session_dataset", "semantic_ids")}
    job = _job(config, compute, read, store, day)
    previous = _previous(store, read["session_dataset"])
    refused = why_not_start_from(previous.path if previous else None, job)
    context.log.info(f"random weights: {refused}" if refused else f"starts from {previous}")
    if previous and not refused:
        day_before = date.fromisoformat(previous.partition)
        read[CHECKPOINT], job = previous, job.starting_from(previous.path, day_before)
    key: dict[str, Any] = {
        "config": {"model": asdict(job.model), "training": asdict(job.training)},
        "upstream": {name: artifact.version for name, artifact in read.items()},
        "code_version": CODE,
    }
    days, beside = job.training.recency_weight_days, ("session_dataset",)
    before = nights_before(context, store, CHECKPOINT, key["config"], days, beside=beside)
    key["upstream"] |= before.upstream
    job = replace(job, earlier=before.measured)
    # weights and two moments, written twice, and the best weights; the draft
    needed = 8 * previous.size_bytes if previous else 0
    require_free_space(store.work, f"{CHECKPOINT}[{day}]", needed)
    scratch = store.scratch(CHECKPOINT, day, key)
    with store.write(CHECKPOINT, day, seed=job.training.seed, **key) as draft:
        clocked = run_training(context, job, out_dir=draft.path, scratch=scratch)
        report = read_report(draft.path)
        draft.metadata["best_valid_loss"] = report.best_valid_loss
        draft.metadata |= as_metadata(report.ndcg_by_weight)
    shutil.rmtree(scratch)
    starts = refused or f"{CHECKPOINT}[{read[CHECKPOINT].partition}]"
    shown = {"starts from": starts, "seconds": time.monotonic() - began, **facts(report)}
    shown["known values of attributes"] = known_values(draft.artifact.path, job.session_dataset)
    weights = list_weights(report, before, draft.artifact.path)
    return published(draft.artifact, {**shown, **weights, **clocked})


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "loss_is_finite",
            asset=CHECKPOINT,
            blocking=True,
            description="No loss of any epoch is NaN or inf.",
        ),
        dg.AssetCheckSpec(
            "beats_a_uniform_guess",
            asset=CHECKPOINT,
            blocking=True,
            description="The validation loss, and the training loss at the end of the last phase, "
            "are below log K, the loss of a uniform guess.",
        ),
    ]
)
def pretrained_checkpoint_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """A checkpoint that learned nothing stops the nightly run."""
    from math import isfinite

    history = read_json(
        artifacts.store.latest(CHECKPOINT, context.partition_key).path / "history.json"
    )
    newest = history["summary"].get("newest_history", [])
    epochs = [*history["epochs"], *newest]
    losses = [e[name] for e in epochs for name in ("train_loss", "valid_loss") if name in e]
    best, uniform = (history["summary"][name] for name in ("best_valid_loss", "uniform_loss"))
    # a warm start has the validation loss of the weights that it starts from
    last = newest[-1]["train_loss"] if newest else best
    shown = {"validation loss": best, "last training loss": last, "log K": uniform}
    for name, passed, metadata in (
        ("loss_is_finite", all(map(isfinite, losses)), {"epochs": len(epochs)}),
        ("beats_a_uniform_guess", max(best, last) < uniform, shown),
    ):
        yield dg.AssetCheckResult(
            passed=passed, check_name=name, asset_key=CHECKPOINT, metadata=metadata
        )


def _previous(store: ArtifactStore, session_dataset: Artifact) -> Artifact | None:
    """The last checkpoint that has not learned the validation day, which chooses the epoch and the
    weights of lists."""
    from onerec.session_dataset.newest_watches import split_day

    valid_day = split_day(session_dataset.path, "valid")
    return store.latest_until(CHECKPOINT, valid_day.isoformat()) if valid_day else None


def _job(
    config: PretrainLaunchpad,
    compute: Compute,
    read: Mapping[str, Artifact],
    store: ArtifactStore,
    day: str,
) -> "TrainingJob":
    """The core's job; lengths are those the sessions were built with."""
    from onerec.tokenizer.versions import current_version, load_tokenizer_manifest
    from onerec.training import TrainingJob

    sessions = read["session_dataset"].manifest["config"]["sessions"]
    current = current_version(store, day)
    version = load_tokenizer_manifest(current.codebook.path) if current else None
    return TrainingJob(
        session_dataset=read["session_dataset"].path,
        semantic_ids=read["semantic_ids"].path,
        history_length=sessions["history_length"],
        session_items=sessions["session_items"],
        numbered_like=version.numbered_like if version else None,
        model=to_core(config.model, PIPELINE.model),
        training=to_core(config.training, PIPELINE.training),
        runtime=compute.runtime(),
    )


def list_weights(
    report: "TrainingReport", before: NightsBefore, checkpoint: Path
) -> dict[str, Any]:
    """Metadata of the weights that were chosen for lists."""
    from onerec.evaluation.ndcg_by_weight import counted, pooled
    from onerec.model import read_config

    chosen = read_config(checkpoint)
    measured = [report.recency_ndcg, *before.measured.get("recency", ())]
    ndcg, earlier = pooled(measured), [day for day in counted(measured) if day is not measured[0]]
    has_own_encoder = chosen["model"]["dense_head"] and chosen["model"]["dense_encoder_layers"]
    is_untrained = has_own_encoder and not report.dense_ndcg.users
    untrained = {"dense head": "not trained: no user of the validation day chooses its share"}
    return {
        **(untrained if is_untrained else {}),
        "recency prior": chosen["recency_prior"]["weight"],
        "dense share": chosen["dense_share"],
        "weight of item neighbours": chosen.get("neighbour_weight", 0.0),
        "earlier days that chose the recency prior": len(earlier),
        "NDCG@10 by weight of the recency prior, all days that chose it": dg.MetadataValue.json(
            {str(weight): value for weight, value in ndcg.items()}
        ),
    }


def facts(report: "TrainingReport") -> dict[str, Any]:
    """Metadata of a training, with its loss curve."""
    from onerec.report.pictures import line_chart, svg_markdown

    shown = report.history or report.newest_history
    lines = {"training": [e["train_loss"] for e in shown]}
    if report.history:
        lines["validation"] = [e["valid_loss"] for e in shown]
    epochs = [e["epoch"] for e in shown]
    curve = line_chart(lines, "Loss per epoch", "epoch", "nats per token", x=epochs)
    return {
        "loss curve": dg.MetadataValue.md(svg_markdown(curve)),
        "validation loss": report.best_valid_loss,
        "loss of a uniform guess": report.uniform_loss,
        "best epoch": report.best_epoch,
        "epochs": len(report.history),
        "stopped early": report.stopped_early,
        "perplexity per token": dg.MetadataValue.json(report.token_perplexity),
        "expert load per layer": dg.MetadataValue.json(report.expert_load),
        "parameters": report.num_parameters,
        "padding waste": report.padding_waste,
        **_of_dense_head(report),
    }


def _of_dense_head(report: "TrainingReport") -> dict[str, Any]:
    """Of a dense head with its own encoder: how far its training went."""
    if not report.dense_history:
        return {}
    best = max(report.dense_history, key=lambda entry: entry.get("ndcg@10", entry["epoch"]))
    return {
        "dense head: NDCG@10 on the validation day": best.get("ndcg@10"),
        "dense head: best epoch": best["epoch"],
    }
