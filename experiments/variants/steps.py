"""A variant of a night: what it changes, and which of the night's stages have to be made again.

A stage is made again when the settings it reads differ from those it was published with, or when a
stage that it reads is made again; everything before the earliest such stage is reused. Two variants
that agree up to a stage share it: its key says all that it depends on.

Evaluation always stands on the published night: its test day, cases, candidates, item vectors and
reward_models, so that every variant is asked the same question.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from onerec.config import GROUP_METHODS, AlignmentConfig, BeamConfig, PipelineConfig, require

PRETRAINED, ALIGNED = "pretrained", "aligned"
CRITERIA = ("good_min_watched_items", "good_min_watch_seconds", "good_min_positive_interactions")
CHANGEABLE: dict[str, tuple[str, ...]] = {
    "sessions": (*CRITERIA, "session_items", "history_length"),
    "tokenizer": (),
    "model": (),
    "training": (),
    "decoding": (),
    "alignment": (),
}
"""PipelineConfig that a variant may change, and the fields where not all; the others would need
what no artifact holds (the log, the catalogue's texts) or would move the reward_models."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What one line of a comparison changes.

    Attributes:
        name: Its name in tables.
        overrides: As `PipelineConfig.override` takes them.
        seed: Added to the seeds of pretraining and alignment; 0 is the night as it was published.
        measured: `pretrained` stops there, `aligned` goes through the rounds.
        sample_share: Preferences for this share of the good training sessions (the paper's r_DPO)
            instead of for `alignment.sample_users` users.
        elite_iterations: Further steps of the cross-entropy method after pretraining: sessions that
            the model generates for training users, the elite of them by the training reward, and
            a training on those.
        elite_share: Share of a user's generated sessions that are elite.
    """

    name: str
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    measured: str = ALIGNED
    sample_share: float | None = None
    elite_iterations: int = 0
    elite_share: float = 0.1

    def __post_init__(self) -> None:
        require(
            self.measured in (PRETRAINED, ALIGNED),
            "measured",
            self.measured,
            f"use {PRETRAINED!r} or {ALIGNED!r}",
        )
        require(self.seed >= 0, "seed", self.seed, "use 0 or more")
        require(0 < self.elite_share <= 1, "elite_share", self.elite_share, "use a share in (0, 1]")
        require(
            self.sample_share is None or 0 < self.sample_share <= 1,
            "sample_share",
            self.sample_share,
            "use a share in (0, 1], or None for alignment.sample_users",
        )
        for stage, values in self.overrides.items():
            require(
                stage in CHANGEABLE,
                f"overrides of {self.name}",
                stage,
                f"a variant can change {', '.join(CHANGEABLE)}; run a night of its own for others",
            )
            allowed = CHANGEABLE[stage]
            for name in values:
                require(
                    not allowed or name in allowed,
                    f"overrides of {self.name}: {stage}.{name}",
                    values[name],
                    f"of this stage a variant can change {', '.join(allowed)}",
                )

    def stages(self, base: PipelineConfig) -> PipelineConfig:
        """The night's settings with the changes and the seed.

        Raises:
            ValueError: A setting is unknown, or asks for more than the night's sessions hold.
        """
        changed = base.override(self.overrides)
        for name in ("session_items", "history_length"):
            wanted, held = getattr(changed.sessions, name), getattr(base.sessions, name)
            require(
                wanted <= held,
                f"sessions.{name}",
                wanted,
                f"the published sessions hold {held}; run a night with more of them",
            )
        seeds = {
            stage: {"seed": getattr(changed, stage).seed + self.seed}
            for stage in ("training", "alignment")
        }
        return changed.override(seeds)


@dataclass(frozen=True)
class Step:
    """A stage of a variant.

    Attributes:
        name: `sessions`, `tokens`, `pretraining`, `elite_1`, ..., `pairs_1`, `alignment_1`, ...
        settings: What it reads of the settings, JSON-able.
        needs: Names of the steps it reads.
        made: It has to be made again; otherwise the published one is used.
        key: Hash of the settings and of everything it depends on.
    """

    name: str
    settings: Mapping[str, Any]
    needs: tuple[str, ...]
    made: bool
    key: str


def plan(variant: Variant, base: PipelineConfig, published: Mapping[str, str]) -> list[Step]:
    """The steps of a variant in their order.

    Args:
        variant: The variant.
        base: The settings that the night was published with.
        published: Version of the published artifact of each step that can be reused; a step that
            is not in it is always made.
    """
    ours, theirs = variant.stages(base), base
    wanted = _steps(ours, variant)
    reference = {name: settings for name, settings, _ in _steps(theirs, None)}
    found: dict[str, Step] = {}
    for name, settings, needs in wanted:
        again = (
            name not in published
            or settings != reference.get(name)
            or any(found[need].made for need in needs)
        )
        parts = [name, settings, [found[need].key for need in needs], published.get("night", "")]
        key = _digest(parts) if again else published[name]
        found[name] = Step(name, settings, needs, again, key)
    return list(found.values())


def earliest_made(steps: Sequence[Step]) -> str | None:
    """Name of the first step that is made again; None when all are reused."""
    return next((step.name for step in steps if step.made), None)


def _steps(
    stages: PipelineConfig, variant: Variant | None
) -> list[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Name, settings and needs of every step; without a variant those of a published night."""
    sessions = asdict(stages.sessions)
    tokenizer = asdict(stages.tokenizer)
    del tokenizer["quality_tolerance"]  # decides whether a codebook is used, not what it is
    data = ("sessions", "tokens")
    steps: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
        ("sessions", {name: sessions[name] for name in CHANGEABLE["sessions"]}, ()),
        ("tokens", tokenizer, ()),
        ("pretraining", {"model": asdict(stages.model), "training": asdict(stages.training)}, data),
    ]
    start = "pretraining"
    for number in range(1, (variant.elite_iterations if variant else 0) + 1):
        assert variant is not None
        settings = {
            "share": variant.elite_share,
            "seed": stages.alignment.seed + number,
            "decoding": sampled_with(stages.decoding),
            "training": asdict(stages.training),
        }
        steps.append((f"elite_{number}", settings, (*data, start)))
        start = f"elite_{number}"
    if variant is not None and variant.measured == PRETRAINED:
        return steps
    share = {"sample_share": variant.sample_share} if variant and variant.sample_share else {}
    for number in range(1, stages.alignment.rounds + 1):
        compared = compared_with(stages.alignment) | sampled_with(stages.decoding) | share
        steps.append((f"pairs_{number}", {**compared, "round": number}, (*data, start)))
        learned = asdict(stages.alignment)
        del learned["rounds"]
        needs = (*data, start, f"pairs_{number}")
        steps.append((f"alignment_{number}", learned, needs))
        start = f"alignment_{number}"
    return steps


def compared_with(alignment: AlignmentConfig) -> dict[str, Any]:
    """What decides which sessions are compared; losses over the same kind of pairs agree in it."""
    compared: dict[str, Any] = {"source": alignment.pairs, "seed": alignment.seed}
    compared["users"] = alignment.sample_users
    if alignment.pairs == "sampling":
        compared["temperature"] = alignment.temperature
    if alignment.method in GROUP_METHODS:
        return {**compared, "kind": "groups", "size": alignment.group_size}
    if alignment.method == "sdpo":
        return {**compared, "kind": "best and worse", "size": alignment.num_rejected}
    return {**compared, "kind": "pairs"}


def sampled_with(decoding: BeamConfig) -> dict[str, Any]:
    """What decides which sessions are generated to be compared; the beam only ranks."""
    names = ("candidates", "batch_size", "filter_seen")
    return {name: getattr(decoding, name) for name in names}


def with_share(stages: PipelineConfig, share: float | None, num_sessions: int) -> PipelineConfig:
    """Preferences for a share of the good training sessions, where one is asked for."""
    if share is None:
        return stages
    users = max(1, round(share * num_sessions))
    return replace(stages, alignment=replace(stages.alignment, sample_users=users))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
