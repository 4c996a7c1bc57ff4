"""Preference losses over pairs: small objects with one call.

Every loss maps log-probabilities of whole sessions, summed over their tokens, to one loss a user:
`loss(pairs) -> (B,)`. That is all a trainer needs of them, so another loss is another
object. Losses over groups with rewards are in `onerec.alignment.group_losses`.

Shapes: B users, L rejected sessions of each. Where a loss is about one pair, several rejected
sessions are several pairs, and the loss is their mean.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from onerec.config import require


class PairBatch(NamedTuple):
    """Inputs of a preference loss.

    Attributes:
        chosen_logp: (B,) log-probability of the better session under the policy.
        rejected_logp: (B, L) of the worse ones.
        ref_chosen_logp: (B,) under the frozen start; reference-free losses leave both alone.
        ref_rejected_logp: (B, L).
        chosen_tokens: (B,) tokens that each log-probability is a sum over.
        rejected_tokens: (B, L).
    """

    chosen_logp: Tensor
    rejected_logp: Tensor
    ref_chosen_logp: Tensor
    ref_rejected_logp: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    def moved(self, *, per_token: bool = False) -> tuple[Tensor, Tensor]:
        """(B, 1) and (B, L): `d_w`, `d_l`, log-ratios of the policy to its start.

        Args:
            per_token: Divide each by the session's own tokens.
        """
        chosen = (self.chosen_logp - self.ref_chosen_logp).unsqueeze(-1)
        rejected = self.rejected_logp - self.ref_rejected_logp
        if per_token:
            return chosen / self.chosen_tokens.unsqueeze(-1), rejected / self.rejected_tokens
        return chosen, rejected


class PreferenceLoss(Protocol):
    """Interface of a pair loss."""

    def __call__(self, pairs: PairBatch) -> Tensor:
        """(B,) loss per user."""
        ...


def margin(pairs: PairBatch) -> Tensor:
    """(B, L) how much more the policy moved to the chosen session than to each rejected one.

    `Delta = log pi(w)/ref(w) - log pi(l)/ref(l)`: 0 at the start, positive once it is learned.
    """
    chosen, rejected = pairs.moved()
    return chosen - rejected


@dataclass(frozen=True)
class DPO:
    """-log sigmoid(beta * Delta) (Rafailov et al. 2023); with self-hard pairs the L_DPO of IPA.

    Attributes:
        beta: How strongly the policy is held to its start; 0.1 is usual.
    """

    beta: float = 0.1

    def __call__(self, pairs: PairBatch) -> Tensor:
        """See `PreferenceLoss`."""
        return -F.logsigmoid(self.beta * margin(pairs)).mean(-1)


@dataclass(frozen=True)
class IPO:
    """(Delta_avg - 1 / (2 beta))^2: a margin to reach, not to widen for ever (Azar et al. 2023).

    Log-ratios are means over a session's tokens, as the authors confirmed to TRL.

    Attributes:
        beta: The smaller, the wider the margin.
    """

    beta: float = 0.1

    def __call__(self, pairs: PairBatch) -> Tensor:
        """See `PreferenceLoss`."""
        chosen, rejected = pairs.moved(per_token=True)
        return (chosen - rejected - 1 / (2 * self.beta)).square().mean(-1)


@dataclass(frozen=True)
class CDPO:
    """DPO for labels that are wrong with probability eps: the expected loss over both orders.

    `-(1 - eps) log sigmoid(beta Delta) - eps log sigmoid(-beta Delta)` (Mitchell 2023).

    Attributes:
        beta: As in DPO.
        label_noise: eps, below one half.
    """

    beta: float = 0.1
    label_noise: float = 0.1

    def __post_init__(self) -> None:
        _check_noise(self.label_noise)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """See `PreferenceLoss`."""
        as_labelled, swapped = _both_orders(self.beta, pairs)
        return ((1 - self.label_noise) * as_labelled + self.label_noise * swapped).mean(-1)


@dataclass(frozen=True)
class RDPO:
    """DPO whose expectation under wrong labels is DPO's under right ones ("robust").

    `[(1 - eps) L(w, l) - eps L(l, w)] / (1 - 2 eps)` with L the DPO loss (Ray Chowdhury et al.
    2024).

    Attributes:
        beta: As in DPO.
        label_noise: eps, below one half.
    """

    beta: float = 0.1
    label_noise: float = 0.1

    def __post_init__(self) -> None:
        _check_noise(self.label_noise)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """See `PreferenceLoss`."""
        as_labelled, swapped = _both_orders(self.beta, pairs)
        unbiased = (1 - self.label_noise) * as_labelled - self.label_noise * swapped
        return unbiased.mean(-1) / (1 - 2 * self.label_noise)


@dataclass(frozen=True)
class CPO:
    """-log sigmoid(beta (log pi(w) - log pi(l))) + alpha * NLL(w); no reference (Xu et al. 2024).

    Attributes:
        beta: Scale of the log-odds.
        nll_weight: alpha, of the chosen session's mean negative log-likelihood per token.
    """

    beta: float = 0.1
    nll_weight: float = 1.0

    def __call__(self, pairs: PairBatch) -> Tensor:
        """See `PreferenceLoss`."""
        odds = pairs.chosen_logp.unsqueeze(-1) - pairs.rejected_logp
        nll = -pairs.chosen_logp / pairs.chosen_tokens
        return -F.logsigmoid(self.beta * odds).mean(-1) + self.nll_weight * nll


@dataclass(frozen=True)
class SimPO:
    """-log sigmoid(beta (log pi(w)/|w| - log pi(l)/|l|) - gamma); no reference (Meng et al. 2024).

    Attributes:
        beta: Scale of the mean log-probability per token; the paper's 2.5.
        target_margin: gamma; the paper's 0.55 beta.
    """

    beta: float = 2.5
    target_margin: float = 1.375

    def __call__(self, pairs: PairBatch) -> Tensor:
        """See `PreferenceLoss`."""
        chosen = (pairs.chosen_logp / pairs.chosen_tokens).unsqueeze(-1)
        rejected = pairs.rejected_logp / pairs.rejected_tokens
        return -F.logsigmoid(self.beta * (chosen - rejected) - self.target_margin).mean(-1)


@dataclass(frozen=True)
class SDPO:
    """-log sigmoid(-log sum_l exp(beta (d_l - d_w))): one chosen against all rejected at once.

    A softmax over the L + 1 sessions (Chen et al. 2024); with L = 1 it is DPO.

    Attributes:
        beta: As in DPO.
    """

    beta: float = 0.1

    def __call__(self, pairs: PairBatch) -> Tensor:
        """See `PreferenceLoss`."""
        return -F.logsigmoid(-torch.logsumexp(-self.beta * margin(pairs), -1))


def ipa_loss(ntp: Tensor, preference: Tensor, *, ntp_weight: float, weight: float) -> Tensor:
    """What a round minimises: L_NTP + lambda * L_pref (OneRec v1, Algorithm 2).

    With `ntp_weight=1`, DPO as the preference loss and best against worst of the model's own beams
    it is IPA. Any other preference loss can be regularised by L_NTP in the same way.

    Args:
        ntp: L_NTP, a scalar.
        preference: L_pref, a scalar.
        ntp_weight: 1 in the paper; 0 leaves the log out.
        weight: lambda.
    """
    return ntp_weight * ntp + weight * preference


def _both_orders(beta: float, pairs: PairBatch) -> tuple[Tensor, Tensor]:
    """(B, L) DPO losses of the pairs as labelled, and with chosen and rejected exchanged."""
    delta = beta * margin(pairs)
    return -F.logsigmoid(delta), -F.logsigmoid(-delta)


def _check_noise(label_noise: float) -> None:
    require(
        0 <= label_noise < 0.5,
        "label_noise",
        label_noise,
        "use a share in [0, 0.5): at one half the labels say nothing",
    )
