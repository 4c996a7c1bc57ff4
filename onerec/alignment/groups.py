"""Groups of a user's generated sessions with their rewards, for losses that compare more than two.

Shapes: P groups, B users of a batch, N candidates, G sessions of a group, H history items, M items
of a session.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onerec.alignment.candidates import (
    OnBatch,
    ScoreCandidates,
    ScoredCandidates,
    scored_candidates,
)
from onerec.alignment.group_losses import STD_FLOOR
from onerec.config import GROUP_METHODS, AlignmentConfig
from onerec.evaluation.generators import SessionGenerator
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.generator_sessions import SessionTensors


@dataclass(frozen=True, kw_only=True)
class PreferenceGroups:
    """Groups of sessions; item indices, -1 padded.

    Attributes:
        user_ids: (P,) the users.
        history: (P, H) contexts the sessions were generated for.
        sessions: (P, G, M); for S-DPO the best one comes first.
        targets: (P, M) the logged good session of the same context, for L_NTP.
        rewards: (P, G) scalar rewards.
        logp: (P, G) see `ScoredCandidates`.
        stats: What `stats.json` holds.
    """

    user_ids: np.ndarray
    history: Tensor
    sessions: Tensor
    targets: Tensor
    rewards: Tensor
    logp: Tensor
    stats: dict[str, Any]

    def __len__(self) -> int:
        return len(self.user_ids)


def make_groups(
    generator: SessionGenerator,
    reward: RewardEnsemble,
    contexts: SessionTensors,
    alignment: AlignmentConfig,
    *,
    on_batch: OnBatch = lambda done, total: None,
    score: ScoreCandidates = scored_candidates,
) -> PreferenceGroups:
    """Generate sessions per context, score them, and keep several of each.

    For S-DPO the session of the best lower bound and the `num_rejected` of least reward among the
    N candidates. For GRPO and ECPO `group_size` draws, or the `group_size` most probable beams of
    N: draws are what the policy gradient is defined on, beams what MiniOneRec found to work.

    Args:
        generator, reward, contexts, on_batch, score: As in `make_pairs`; the generator is also the
            old policy of the group losses.
        alignment: The method, where sessions come from, and how many are kept.

    Returns:
        Groups in the order of the contexts; contexts with too few legal sessions are left out.
        Groups of equal rewards are kept for GRPO and ECPO, which learn nothing from them.
    """
    is_ordered = alignment.method not in GROUP_METHODS
    size, num_candidates = _sizes(alignment, generator.config.candidates)
    settings = {"num_candidates": num_candidates, "alignment": alignment, "on_batch": on_batch}
    found = [
        _group(made, size, is_ordered=is_ordered)
        for made in score(generator, reward, contexts, **settings)
    ]
    if not found:
        raise ValueError("0 contexts to generate for: there is no good session to train on")
    row, items, rewards, logp = (torch.cat(parts) for parts in zip(*found, strict=True))
    complete = logp.isfinite().all(1)
    better = rewards[:, 0] > rewards[:, 1:].amax(1) if is_ordered else torch.ones_like(complete)
    stats = {
        "contexts": len(complete),
        "groups": int((complete & better).sum()),
        "group_size": size,
        "best_first": is_ordered,
        "candidates": num_candidates,
        "skipped_too_few_sessions": int((~complete).sum()),
        "skipped_equal_rewards": int((complete & ~better).sum()),
    }
    row, items, rewards, logp = (t[complete & better] for t in (row, items, rewards, logp))
    return PreferenceGroups(
        user_ids=contexts.user_ids[contexts.user[row].numpy()],
        history=contexts.history[row].long(),
        sessions=items,
        targets=contexts.targets[row].long(),
        rewards=rewards,
        logp=logp,
        stats=stats | _reward_stats(rewards),
    )


def _sizes(alignment: AlignmentConfig, candidates: int) -> tuple[int, int]:
    """Size of a group, and number of generated sessions it is chosen from."""
    if alignment.method in GROUP_METHODS:
        size = alignment.group_size
        num_candidates = size if alignment.pairs == "sampling" else candidates
    else:
        size, num_candidates = 1 + alignment.num_rejected, candidates
    if num_candidates < size:
        raise ValueError(
            f"candidates={candidates}: {alignment.method} compares {size} sessions of "
            "each user; generate at least as many"
        )
    return size, num_candidates


def _reward_stats(rewards: Tensor) -> dict[str, float]:
    """Means over groups (P, G)."""
    if not len(rewards):
        return {}
    spread = rewards.std(1, correction=0)
    return {
        "reward_mean": float(rewards.mean()),
        "reward_max": float(rewards.amax(1).mean()),
        "reward_min": float(rewards.amin(1).mean()),
        "reward_spread": float(spread.mean()),
        "zero_spread_share": float((spread <= STD_FLOOR).double().mean()),
    }


def _group(
    made: ScoredCandidates, size: int, *, is_ordered: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, sessions (B, G, M), rewards (B, G) and log-probabilities (B, G) of the kept ones."""
    legal = made.logp.isfinite()
    if is_ordered:
        best = made.lower_bounds.masked_fill(~legal, -torch.inf)
        best = best.argsort(dim=1, descending=True, stable=True)[:, :1]
        worst = made.rewards.masked_fill(~legal, torch.inf).scatter(1, best, torch.inf)
        kept = torch.cat([best, worst.argsort(dim=1, stable=True)[:, : size - 1]], 1)
    else:
        kept = torch.arange(size).expand(len(made.row), -1)
    items = made.items.gather(1, kept.unsqueeze(-1).expand(-1, -1, made.items.shape[2]))
    return made.row, items, made.rewards.gather(1, kept), made.logp.gather(1, kept)
