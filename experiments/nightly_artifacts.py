"""The latest nightly run: its artifacts, and its settings from their manifests."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from onerec.artifacts import Artifact, ArtifactError, ArtifactStore, DamagedArtifactError
from onerec.config import (
    AlignmentConfig,
    BeamConfig,
    EvaluationConfig,
    ModelConfig,
    PipelineConfig,
    RewardConfig,
    SessionConfig,
    TokenizerConfig,
    TrainingConfig,
    WindowConfig,
)

NEEDED = (
    "session_dataset",
    "semantic_ids",
    "pretrained_checkpoint",
    "reward_model",
    "evaluator_model",
    "preference_pairs",
    "dpo_checkpoint",
    "baselines",
    "offline_metrics",
)
"""Artifacts of a nightly run that experiments read."""


@dataclass(frozen=True, kw_only=True)
class PublishedNightlyRun:
    """A nightly run whose artifacts are all published.

    Attributes:
        test_day: Day D.
        artifacts: Artifacts of `NEEDED` by name.
        base: The settings they were made with; `training.warm_start` is whether the generator *was*
            warm-started.
    """

    test_day: date
    artifacts: Mapping[str, Artifact]
    base: PipelineConfig

    @property
    def files(self) -> dict[str, Path]:
        """Directory of each artifact by name."""
        return {name: artifact.path for name, artifact in self.artifacts.items()}

    @property
    def versions(self) -> dict[str, str]:
        """Version of each artifact that experiments read, but for `offline_metrics`, of which they
        read settings only."""
        return {n: a.version for n, a in self.artifacts.items() if n != "offline_metrics"}


def latest_day(store: ArtifactStore, names: Sequence[str] = NEEDED) -> str:
    """The last day with all of some artifacts.

    Raises:
        ArtifactError: There is none.
    """
    days = set.intersection(*(set(store.partitions(name)) for name in names))
    if not days:
        raise ArtifactError(
            f"no day has all of {', '.join(names)}: run the job weekly_retokenize for one first"
        )
    return max(days)


def latest_night(store: ArtifactStore) -> PublishedNightlyRun:
    """The last nightly run with every artifact that variants need.

    Raises:
        ArtifactError: There is none.
    """
    day = latest_day(store)
    read = {name: store.latest(name, day) for name in NEEDED}
    return PublishedNightlyRun(
        test_day=date.fromisoformat(day), artifacts=read, base=_settings(store, read)
    )


def _settings(store: ArtifactStore, read: Mapping[str, Artifact]) -> PipelineConfig:
    """The settings of all stages."""

    def made_with(name: str) -> dict[str, Any]:
        return copy.deepcopy(dict(read[name].manifest["config"]))

    data, pretrained = made_with("session_dataset"), made_with("pretrained_checkpoint")
    pairs, measured = made_with("preference_pairs"), made_with("offline_metrics")
    decoding = pairs.pop("decoding")
    del measured["decoding"]
    pairs |= measured.pop("alignment", {})  # absent in those of an earlier version
    aligned = made_with("dpo_checkpoint")
    aligned.pop("gate", None)  # absent in those of an earlier version
    alignment = AlignmentConfig(**aligned)
    pairs["seed"] -= alignment.rounds  # the last round's; every round adds its number
    began = read["pretrained_checkpoint"].manifest["upstream"]
    pretrained["training"] |= {"warm_start": "pretrained_checkpoint" in began}
    return PipelineConfig(
        sessions=SessionConfig(**data["sessions"]),
        window=WindowConfig(**data["window"]),
        tokenizer=TokenizerConfig(**_codebook(store, read["semantic_ids"]).manifest["config"]),
        model=ModelConfig(**pretrained["model"]),
        training=TrainingConfig(**pretrained["training"]),
        reward=RewardConfig(**made_with("reward_model")),
        decoding=BeamConfig(**decoding),
        alignment=replace(alignment, **pairs),
        evaluation=EvaluationConfig(**measured),
    )


def _codebook(store: ArtifactStore, semantic_ids: Artifact) -> Artifact:
    """The codebook of some IDs, which may be of an earlier day."""
    version = semantic_ids.manifest["upstream"]["codebook"]
    for day in reversed(store.partitions("codebook")):
        try:
            return store.get("codebook", day, version)
        except DamagedArtifactError:
            raise
        except ArtifactError:
            continue
    raise ArtifactError(f"codebook: no version {version}, which {semantic_ids.asset} was made with")
