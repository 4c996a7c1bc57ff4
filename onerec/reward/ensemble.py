"""An ensemble of reward models: the mean is the reward, the spread gives a lower confidence bound.

Sessions that one model scores far above the others are prone to reward hacking. Preference pairs
may therefore choose the session with the highest lower confidence bound, not the highest mean.

Shapes: E models, B users, K sessions per user, T towers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from onerec.config import RewardConfig
from onerec.config.feedback import Signal
from onerec.reward.model import RewardModel, load_reward
from onerec.reward.scoring import scalar_reward, score_sessions

MEMBERS = "members"
"""Directory in that of the first model, with a directory for each further model."""


class SessionScores(NamedTuple):
    """An ensemble's scores of sessions (B, K).

    Attributes:
        reward: (B, K) mean scalar reward.
        lower_bound: (B, K) mean minus `ensemble_caution` standard deviations over the models.
        towers: (B, K, T) mean predictions: probabilities, then expected values.
    """

    reward: Tensor
    lower_bound: Tensor
    towers: Tensor


@dataclass(frozen=True)
class RewardEnsemble:
    """Reward models of one partition, with item vectors and weights for scoring.

    Attributes:
        models: At least one; with one model the lower bound equals the reward.
        vectors: (N, Dv) item vectors of the partition they were trained in.
        config: Weights of the towers, and `ensemble_caution`.
    """

    models: Sequence[RewardModel]
    vectors: Tensor
    config: RewardConfig

    def __post_init__(self) -> None:
        assert self.models, "an ensemble has a model"
        assert all(m.signals == self.signals for m in self.models), "models of other signals"

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that the towers of every model predict."""
        return self.models[0].signals

    def score(self, history: Tensor, sessions: Tensor) -> SessionScores:
        """Score sessions with every model, in double precision from the probabilities on.

        Args:
            history: (B, H) item indices, -1 padded.
            sessions: (B, K, M) item indices.
        """
        towers = torch.stack(
            [score_sessions(m, self.vectors, history, sessions).double() for m in self.models]
        )
        rewards = scalar_reward(towers, self.config, self.signals)
        mean = rewards.mean(0)
        spread = rewards.std(0, correction=0)
        return SessionScores(mean, mean - self.config.ensemble_caution * spread, towers.mean(0))

    def to(self, device: str | torch.device) -> "RewardEnsemble":
        """The ensemble with its models moved to a device."""
        return replace(self, models=[model.to(device) for model in self.models])


def load_ensemble(directory: Path) -> list[RewardModel]:
    """Every model of a `reward_model` artifact, the one that `load_reward` reads first."""
    further = sorted((directory / MEMBERS).glob("*"), key=lambda p: int(p.name))
    return [load_reward(directory), *map(load_reward, further)]
