"""A round's objective over tokens: pair losses and group losses behind one interface.

Shapes: B users, G sessions of each, M items of a session, T SID tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from onerec.alignment.group_losses import GroupBatch, GroupLoss
from onerec.alignment.losses import PairBatch, PreferenceLoss


class PolicyBatch(NamedTuple):
    """Log-probabilities and rewards of a batch of sessions.

    Attributes:
        logp: (B, G, M, T) log-probability of each token under the policy.
        start_logp: (B, G, M, T) under the frozen start, which also made the sessions.
        mask: (B, G, M) bool, true where there is an item.
        rewards: (B, G).
    """

    logp: Tensor
    start_logp: Tensor
    mask: Tensor
    rewards: Tensor

    def pairs(self, best: Tensor, worse: Tensor) -> PairBatch:
        """One session of each user against others.

        Args:
            best: (B, 1) which one.
            worse: (B, L) which others.
        """
        logp = (self.logp.sum(-1) * self.mask).sum(-1)
        start = (self.start_logp.sum(-1) * self.mask).sum(-1)
        sid_tokens = self.mask.sum(-1) * self.logp.shape[-1]
        return PairBatch(
            logp.gather(1, best).squeeze(1),
            logp.gather(1, worse),
            start.gather(1, best).squeeze(1),
            start.gather(1, worse),
            sid_tokens.gather(1, best).squeeze(1),
            sid_tokens.gather(1, worse),
        )


class Objective(Protocol):
    """Interface of a round's objective."""

    def __call__(self, batch: PolicyBatch) -> Tensor:
        """(B,) loss per user."""
        ...

    def pairs(self, batch: PolicyBatch) -> PairBatch:
        """The better and the worse sessions, for the numbers that are kept of every method."""
        ...


@dataclass(frozen=True)
class PairObjective:
    """The first session of each user against the others.

    Attributes:
        loss: Of the comparison.
    """

    loss: PreferenceLoss

    def __call__(self, batch: PolicyBatch) -> Tensor:
        """See `Objective`."""
        return self.loss(self.pairs(batch))

    def pairs(self, batch: PolicyBatch) -> PairBatch:
        """See `Objective`."""
        users, sessions = batch.rewards.shape
        places = torch.arange(sessions, device=batch.rewards.device).expand(users, -1)
        return batch.pairs(places[:, :1], places[:, 1:])


@dataclass(frozen=True)
class GroupObjective:
    """All sessions of each user by their rewards; the start is old policy and reference in one.

    Attributes:
        loss: Of the group.
    """

    loss: GroupLoss

    def __call__(self, batch: PolicyBatch) -> Tensor:
        """See `Objective`."""
        mask = batch.mask.unsqueeze(-1).expand_as(batch.logp)
        logp, start, mask = (t.flatten(2) for t in (batch.logp, batch.start_logp, mask))
        return self.loss(GroupBatch(logp, start, start, mask, batch.rewards))

    def pairs(self, batch: PolicyBatch) -> PairBatch:
        """See `Objective`; the best against the worst by reward."""
        best = batch.rewards.argmax(1, keepdim=True)
        return batch.pairs(best, batch.rewards.argmin(1, keepdim=True))
