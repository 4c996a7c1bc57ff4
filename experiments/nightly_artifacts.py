"""A night as it was published: its files, its settings as the manifests tell them, its versions."""

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
"""Artifacts of a night that experiments stand on."""


@dataclass(frozen=True, kw_only=True)
class PublishedNight:
    """A night whose artifacts are all there.

    Attributes:
        test_day: Day D.
        files: Directory of each artifact by name: `session_dataset`, `semantic_ids`,
            `pretrained_checkpoint`, `preference_pairs`, `reward_model`, `evaluator_model`,
            `dpo_checkpoint`, `baselines`.
        base: The settings they were made with.
        versions: Version of each step that may be reused, and `night` (see `plan`).
    """

    test_day: date
    files: Mapping[str, Path]
    base: PipelineConfig
    versions: Mapping[str, str]


def chosen_day(store: ArtifactStore, wanted: str = "", names: Sequence[str] = NEEDED) -> str:
    """The day asked for, or the last one with every artifact published.

    Raises:
        ArtifactError: There is none, or the one asked for lacks some.
    """
    days = sorted(set.intersection(*(set(store.partitions(name)) for name in names)))
    if not days:
        raise ArtifactError(
            f"no day has all of {', '.join(names)}: run the job weekly_retokenize for one first"
        )
    if wanted and wanted not in days:
        raise ArtifactError(
            f"day={wanted!r}: it has not all of {', '.join(names)}; {', '.join(days[-5:])} have, "
            "use one of these or run its night first"
        )
    return wanted or days[-1]


def night_artifacts(store: ArtifactStore, day: str) -> dict[str, Artifact]:
    """The night's artifacts by name."""
    return {name: store.latest(name, day) for name in NEEDED}


def upstream_of(artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    """What a result depends on: every artifact's version but that of the night's own metrics."""
    return {name: a.version for name, a in artifacts.items() if name != "offline_metrics"}


def published_night(store: ArtifactStore, day: str) -> PublishedNight:
    """A night from its artifacts.

    `training.warm_start` of its settings says whether its generator *was* warm-started: a variant
    that says false then trains anew, and so does one that changes what pretraining reads, as it has
    no night before it. The rounds of a night with several are not reused.

    Args:
        store: The store.
        day: Day D.

    Raises:
        ArtifactError: An artifact is missing.
    """
    read = night_artifacts(store, day)
    base = _settings(store, read)
    versions = {
        "night": "-".join(f"{name}:{version}" for name, version in upstream_of(read).items()),
        "sessions": read["session_dataset"].version,
        "tokens": read["semantic_ids"].version,
        "pretraining": read["pretrained_checkpoint"].version,
    }
    if base.alignment.rounds == 1:
        versions["pairs_1"] = read["preference_pairs"].version
        versions["alignment_1"] = read["dpo_checkpoint"].version
    return PublishedNight(
        test_day=date.fromisoformat(day),
        files={name: artifact.path for name, artifact in read.items()},
        base=base,
        versions=versions,
    )


def _settings(store: ArtifactStore, read: Mapping[str, Artifact]) -> PipelineConfig:
    """What every stage was made with."""

    def made_with(name: str) -> dict[str, Any]:
        return copy.deepcopy(dict(read[name].manifest["config"]))

    data, pretrained = made_with("session_dataset"), made_with("pretrained_checkpoint")
    pairs, measured = made_with("preference_pairs"), made_with("offline_metrics")
    decoding = pairs.pop("decoding")
    del measured["decoding"]
    alignment = AlignmentConfig(**made_with("dpo_checkpoint"))
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
