"""Preference losses: small objects with one call.

Every loss maps log-probabilities of whole sessions, summed over their digits, to one loss a pair:
`loss(chosen_logp, rejected_logp, ref_chosen_logp, ref_rejected_logp) -> (B,)`, where the `ref_`
ones are the frozen start's. A trainer knows no more about them than that, so another loss is
another object.
"""

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class PreferenceLoss(Protocol):
    """What the trainer calls."""

    def __call__(
        self,
        chosen_logp: Tensor,
        rejected_logp: Tensor,
        ref_chosen_logp: Tensor,
        ref_rejected_logp: Tensor,
    ) -> Tensor:
        """(B,) loss per pair from (B,) log-probabilities."""
        ...


@dataclass(frozen=True)
class DPO:
    """-log sigmoid(beta * margin), the IPA loss of OneRec v1 (section 3.3.2).

    Attributes:
        beta: How strongly the policy is held to its start; 0.1 is usual.
    """

    beta: float = 0.1

    def __call__(
        self,
        chosen_logp: Tensor,
        rejected_logp: Tensor,
        ref_chosen_logp: Tensor,
        ref_rejected_logp: Tensor,
    ) -> Tensor:
        delta = margin(chosen_logp, rejected_logp, ref_chosen_logp, ref_rejected_logp)
        return -F.logsigmoid(self.beta * delta)


def margin(
    chosen_logp: Tensor, rejected_logp: Tensor, ref_chosen_logp: Tensor, ref_rejected_logp: Tensor
) -> Tensor:
    """(B,) how much more the policy moved to the chosen session than to the rejected one.

    `Delta = log pi(w)/ref(w) - log pi(l)/ref(l)`: 0 at the start, positive once it is learned.
    """
    return (chosen_logp - ref_chosen_logp) - (rejected_logp - ref_rejected_logp)
