"""Policy-gradient losses over groups of sessions with rewards: GRPO and ECPO.

`loss(group) -> (B,)`. Probabilities are of single tokens, as in DAPO and OneRec-V2's analysis; a
group's loss is a mean over all tokens of its sessions.

Shapes: B users, G sessions of each, X SID tokens of a session.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from onerec.config import require

STD_FLOOR = 1e-6
"""Groups whose rewards spread less than this have advantages of 0."""


class GroupBatch(NamedTuple):
    """Inputs of a group loss.

    Attributes:
        logp: (B, G, X) log-probability of each token under the policy.
        old_logp: (B, G, X) under the policy that made the sessions.
        ref_logp: (B, G, X) under the frozen start.
        mask: (B, G, X) bool, true where there is a token.
        rewards: (B, G).
    """

    logp: Tensor
    old_logp: Tensor
    ref_logp: Tensor
    mask: Tensor
    rewards: Tensor


class GroupLoss(Protocol):
    """Interface of a group loss."""

    def __call__(self, group: GroupBatch) -> Tensor:
        """(B,) loss per group."""
        ...


def advantages(rewards: Tensor) -> Tensor:
    """(r - mean) / std within each group; 0 where all rewards are alike.

    The standard deviation is that of the group itself, not an estimate for a larger one.

    Args:
        rewards: (B, G).

    Examples:
        >>> advantages(torch.tensor([[1.0, 2.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])).round(decimals=3)
        tensor([[-1.4140,  0.0000,  1.4140,  0.0000],
                [ 0.0000,  0.0000,  0.0000,  0.0000]])
    """
    centred = rewards - rewards.mean(-1, keepdim=True)
    spread = rewards.std(-1, correction=0, keepdim=True)
    return torch.where(spread > STD_FLOOR, centred / spread.clamp(min=STD_FLOOR), 0.0)


@dataclass(frozen=True)
class GRPO:
    """-1/sum|o| sum min(rho A, clip(rho, 1 - eps, 1 + eps) A) + beta_KL KL (Shao et al. 2024).

    `rho = pi / pi_old`, `KL = ref/pi - log(ref/pi) - 1` per token.

    Attributes:
        clip: eps.
        kl_weight: beta_KL; TRL's default is 0, the paper's 0.04.
    """

    clip: float = 0.2
    kl_weight: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.clip < 1, "clip", self.clip, "use a share in (0, 1), 0.2 is usual")
        require(self.kl_weight >= 0, "kl_weight", self.kl_weight, "use 0 or more")

    def __call__(self, group: GroupBatch) -> Tensor:
        """See `GroupLoss`."""
        gained = _clipped(group.logp - group.old_logp, advantages(group.rewards), self.clip)
        away = group.ref_logp - group.logp
        kl = away.exp() - away - 1
        return _mean_over_tokens(self.kl_weight * kl - gained, group.mask)


@dataclass(frozen=True)
class ECPO:
    """GRPO against `pi_old' = max(sg(pi) / (1 + eps + delta), pi_old)`, without KL (OneRec report).

    In GRPO a bad session's ratio may grow without bound, and its gradient with it; here the ratio
    of a token whose probability has already risen is 1 + eps + delta, and its gradient stays.

    Attributes:
        clip: eps.
        early_clip: delta, above 0.
    """

    clip: float = 0.2
    early_clip: float = 0.1

    def __post_init__(self) -> None:
        require(0 < self.clip < 1, "clip", self.clip, "use a share in (0, 1), 0.2 is usual")
        require(self.early_clip > 0, "early_clip", self.early_clip, "use more than 0, 0.1 is usual")

    def __call__(self, group: GroupBatch) -> Tensor:
        """See `GroupLoss`."""
        highest = torch.log1p(group.logp.new_tensor(self.clip + self.early_clip))
        old = torch.maximum(group.logp.detach() - highest, group.old_logp)
        gained = _clipped(group.logp - old, advantages(group.rewards), self.clip)
        return _mean_over_tokens(-gained, group.mask)


def _clipped(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """(B, G, X) the smaller of the gain and the gain with its ratio clipped."""
    ratio, advantage = log_ratio.exp(), advantage.to(log_ratio.dtype).unsqueeze(-1)
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def _mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean over the tokens of a group's sessions."""
    there = mask.sum((-2, -1)).clamp(min=1)
    return values.masked_fill(~mask, 0.0).sum((-2, -1)) / there
