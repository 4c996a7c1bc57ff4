"""A variant: changes to the settings of a published nightly run, a row of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onerec.config import PipelineConfig, require

DEFAULT = "default"
"""The pretrained variant that changes nothing."""
CRITERIA = (
    "good_min_watched_items",
    "good_min_watch_seconds",
    "good_min_positive_interactions",
    "good_min_positives",
)
CHANGEABLE: dict[str, tuple[str, ...]] = {
    "sessions": (*CRITERIA, "session_items", "history_length"),
    "tokenizer": (),
    "model": (),
    "training": (),
    "decoding": (),
    "alignment": (),
}
"""Stages that a variant may change, with the allowed fields where not all are. Other settings would
need inputs that no artifact has (the log, the catalogue's texts) or change the reward models."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Changes to a published nightly run's settings.

    Attributes:
        overrides: Arguments of `PipelineConfig.override`.
        start: For an aligned variant, the pretrained variant that it starts from.
        sample_share: Preferences for this share of the good training sessions (the paper's r_DPO)
            instead of for `alignment.sample_users` users.
        elite_share: Instead of preferences, a further step of the cross-entropy method: training on
            this share of the sessions that the start generates, best by the training reward.
        true_pairs: Preferences by the simulator's ground truth, the expected watch seconds of a
            session, instead of by the reward model: an oracle, for simulated apps only.
    """

    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    start: str = DEFAULT
    sample_share: float | None = None
    elite_share: float | None = None
    true_pairs: bool = False

    def __post_init__(self) -> None:
        for name in ("sample_share", "elite_share"):
            share = getattr(self, name)
            require(share is None or 0 < share <= 1, name, share, "use a share in (0, 1], or None")
        for stage, values in self.overrides.items():
            require(
                stage in CHANGEABLE,
                "overrides",
                stage,
                f"a variant can change {', '.join(CHANGEABLE)}; make a nightly run for others",
            )
            allowed = CHANGEABLE[stage]
            for name in values:
                require(
                    not allowed or name in allowed,
                    f"overrides of {stage}.{name}",
                    values[name],
                    f"of this stage a variant can change {', '.join(allowed)}",
                )

    def settings(self, base: PipelineConfig, seed: int) -> PipelineConfig:
        """The nightly run's settings with the changes; the seed is added to the stages' own.

        Raises:
            ValueError: A setting is unknown, or asks for more than the nightly run's sessions hold.
        """
        require(seed >= 0, "seed", seed, "use 0 or more")
        changed = base.override(self.overrides)
        for name in ("session_items", "history_length"):
            wanted, held = getattr(changed.sessions, name), getattr(base.sessions, name)
            require(
                wanted <= held,
                f"sessions.{name}",
                wanted,
                f"the published sessions hold {held}; run a nightly run with more of them",
            )
        seeds = {
            stage: {"seed": getattr(changed, stage).seed + seed}
            for stage in ("training", "alignment")
        }
        return changed.override(seeds)
