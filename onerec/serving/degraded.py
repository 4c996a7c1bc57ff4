"""Degraded serving after a failed nightly run: the last champion on the newest valid sessions.

Damaged artifacts are skipped: the newest undamaged one of each kind is used.
"""

import logging
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from onerec.artifacts import Artifact, ArtifactError, ArtifactStore, read_json
from onerec.catalogue import Catalogue
from onerec.config import BeamConfig
from onerec.evaluation.metric_table import MetricTable
from onerec.promotion.champion import DECISION, best_simple_system, filters_seen
from onerec.promotion.rule import POPULARITY
from onerec.serving.bundle import add_recency_prior, copy_bundle
from onerec.serving.simple_recommender import write_simple_bundle
from onerec.session_dataset.newest_watches import WatchesBefore
from onerec.session_dataset.reader import read_session_config
from onerec.tokenizer.semantic_ids import load_semantic_ids

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FallbackInputs:
    """The artifacts that degraded recommendations are made from.

    Attributes:
        session_dataset: The newest valid one.
        champion: The last one; None where there never was one.
        baselines: The last ones, where there is no champion.
    """

    session_dataset: Artifact
    champion: Artifact | None
    baselines: Artifact | None

    @property
    def read(self) -> dict[str, Artifact]:
        """By asset."""
        found = (self.session_dataset, self.champion, self.baselines)
        return {artifact.asset: artifact for artifact in found if artifact is not None}


def fallback_inputs(store: ArtifactStore, day: str, sessions_until: str) -> FallbackInputs:
    """Find artifacts to serve day D from although its nightly run failed.

    Args:
        store: The artifacts.
        day: Day D; artifacts of later days are not used.
        sessions_until: The newest day whose sessions are valid.

    Raises:
        ArtifactError: There are no sessions, or neither champion nor baselines.
    """
    sessions = newest_valid(store, "session_dataset", min(day, sessions_until))
    champion = newest_valid(store, "champion", day)
    if champion is not None and read_json(champion.path / DECISION)["model"] is None:
        champion = None  # published before a simple system was a champion too
    baselines = newest_valid(store, "baselines", day) if champion is None else None
    if sessions is None or (champion is None and baselines is None):
        missing = "session_dataset" if sessions is None else "champion and no baselines"
        raise ArtifactError(
            f"nothing can be served for {day}: there is no {missing} of that day or before; fix "
            "the nightly run and run it again"
        )
    return FallbackInputs(session_dataset=sessions, champion=champion, baselines=baselines)


def newest_valid(store: ArtifactStore, asset: str, day: str) -> Artifact | None:
    """The newest undamaged artifact of an asset up to a day, if any."""
    for partition in reversed([p for p in store.partitions(asset) if p <= day]):
        try:
            return store.latest(asset, partition).verify()
        except ArtifactError as error:
            log.warning("%s", error)
    return None


def write_fallback_bundle(
    directory: Path,
    store: ArtifactStore,
    inputs: FallbackInputs,
    config: BeamConfig,
    serve_date: date,
    *,
    today: Catalogue | None = None,
) -> str:
    """Write the bundle that serves after a failure; returns the model version.

    It recommends the items that it was published with and that are still in today's catalogue.

    Args:
        directory: Gets the bundle.
        store: The artifacts.
        inputs: What `fallback_inputs` found.
        config: Decoding settings; a simple system uses `filter_seen` and the batch size.
        serve_date: The day that the recommendations are meant for.
        today: The day's catalogue; None where it cannot be read, then the bundle's is used.
    """
    version = _write_bundle(directory, store, inputs, config, serve_date)
    if today is not None:
        own = load_semantic_ids(directory)
        replace(own, withdrawn_on=today.withdrawn_days(own.item_ids)).save(directory)
    return version


def _write_bundle(
    directory: Path,
    store: ArtifactStore,
    inputs: FallbackInputs,
    config: BeamConfig,
    serve_date: date,
) -> str:
    """The bundle as it was published; returns the model version."""
    if inputs.champion is not None:
        copy_bundle(directory, inputs.champion.path)
        add_recency_prior(directory, WatchesBefore(inputs.session_dataset.path, serve_date))
        return model_version(read_json(inputs.champion.path / DECISION)["model"])
    fitted = inputs.baselines
    assert fitted is not None, "fallback_inputs finds one or the other"
    catalogue = store.get(
        "semantic_ids", fitted.partition, fitted.manifest["upstream"]["semantic_ids"]
    )
    system = _best_measured(store, fitted)
    write_simple_bundle(
        directory,
        system=system,
        baselines=fitted.path,
        semantic_ids=catalogue.path,
        history_length=read_session_config(inputs.session_dataset.path).history_length,
        config=config,
    )
    return system


def _best_measured(store: ArtifactStore, baselines: Artifact) -> str:
    """The best simple system by the metrics of the baselines' day; popularity without metrics."""
    measured = newest_valid(store, "offline_metrics", baselines.partition)
    if measured is None or measured.manifest["upstream"].get("baselines") != baselines.version:
        return POPULARITY
    return best_simple_system(MetricTable.load(measured.path), filter_seen=filters_seen(measured))


def model_version(model: dict[str, Any]) -> str:
    """How recommendations name the `model` of a `champion.json`."""
    return model.get("system") or model["version"]
