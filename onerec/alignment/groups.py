"""Groups of a user's generated sessions with their rewards, for losses that compare more than two.

Shapes: P groups, B users of a batch, N candidates, G sessions of a group, H history items, M items
of a session.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onerec.alignment.candidates import Candidates, scored_candidates
from onerec.alignment.group_losses import STD_FLOOR
from onerec.config import GROUP_METHODS, AlignmentConfig, BeamConfig, RewardConfig
from onerec.generation import Trie
from onerec.model import OneRec
from onerec.reward.model import RewardModel
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
        logp: (P, G) log-probability under the sampler.
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
    model: OneRec,
    reward_models: Sequence[RewardModel],
    vectors: Tensor,
    contexts: SessionTensors,
    codes: Tensor,
    trie: Trie,
    *,
    decoding: BeamConfig,
    reward: RewardConfig,
    alignment: AlignmentConfig,
    device: str = "cpu",
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> PreferenceGroups:
    """Generate sessions per context, score them, and keep several of each.

    For S-DPO the session of the best lower bound and the `num_rejected` of least reward among the
    N candidates. For GRPO and ECPO `group_size` draws, or the `group_size` most probable beams of
    N: draws are what the policy gradient is defined on, beams what MiniOneRec found to work.

    Args:
        model: The sampler, which is also the old policy and the reference of the round's training.
        reward_models: Those that train, never the evaluator.
        vectors, contexts, codes, trie, decoding, reward, device, on_batch: As in `make_pairs`.
        alignment: The method, where sessions come from, and how many are kept.

    Returns:
        Groups in the order of the contexts. A context with too few legal sessions gives none and
        is counted in `stats`; groups whose rewards are all alike are kept for GRPO and ECPO, which
        learn nothing from them, and counted.
    """
    learns_from_draws = alignment.method in GROUP_METHODS
    drawn = learns_from_draws and alignment.pairs == "sampling"
    size = alignment.group_size if learns_from_draws else 1 + alignment.num_rejected
    num_candidates = alignment.group_size if drawn else decoding.candidates
    if num_candidates < size:
        raise ValueError(
            f"candidates={decoding.candidates}: {alignment.method} compares {size} sessions of "
            f"each user; generate at least as many"
        )
    found = [
        _group(made, size, sort=not learns_from_draws)
        for made in scored_candidates(
            model,
            reward_models,
            vectors,
            contexts,
            codes,
            trie,
            num_candidates=num_candidates,
            decoding=decoding,
            reward=reward,
            alignment=alignment,
            device=device,
            on_batch=on_batch,
        )
    ]
    if not found:
        raise ValueError("0 contexts to generate for: there is no good session to train on")
    row, items, rewards, logp = (torch.cat(parts) for parts in zip(*found, strict=True))
    complete = logp.isfinite().all(1)
    ordered = torch.ones_like(complete)
    if not learns_from_draws:
        ordered = rewards[:, 0] > rewards[:, 1:].amax(1)
    keep = complete & ordered
    row, items, rewards, logp = (t[keep] for t in (row, items, rewards, logp))
    stats: dict[str, Any] = {
        "contexts": len(complete),
        "groups": len(row),
        "group_size": size,
        "best_first": not learns_from_draws,
        "candidates": num_candidates,
        "skipped_too_few_sessions": int((~complete).sum()),
        "skipped_equal_rewards": int((complete & ~ordered).sum()),
    }
    if len(row):
        spread = rewards.std(1, correction=0)
        stats |= {
            "reward_mean": float(rewards.mean()),
            "reward_max": float(rewards.amax(1).mean()),
            "reward_min": float(rewards.amin(1).mean()),
            "reward_spread": float(spread.mean()),
            "zero_spread_share": float((spread <= STD_FLOOR).double().mean()),
        }
    return PreferenceGroups(
        user_ids=contexts.user_ids[contexts.user[row].numpy()],
        history=contexts.history[row].long(),
        sessions=items,
        targets=contexts.targets[row].long(),
        rewards=rewards,
        logp=logp,
        stats=stats,
    )


def _group(made: Candidates, size: int, *, sort: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, sessions (B, G, M), rewards (B, G) and log-probabilities (B, G) of the kept ones."""
    legal = made.logp.isfinite()
    if sort:
        best = made.lower_bounds.masked_fill(~legal, -torch.inf)
        best = best.argsort(dim=1, descending=True, stable=True)[:, :1]
        worst = made.rewards.masked_fill(~legal, torch.inf).scatter(1, best, torch.inf)
        kept = torch.cat([best, worst.argsort(dim=1, stable=True)[:, : size - 1]], 1)
    else:
        kept = torch.arange(size).expand(len(made.row), -1)
    items = made.items.gather(1, kept.unsqueeze(-1).expand(-1, -1, made.items.shape[2]))
    return made.row, items, made.rewards.gather(1, kept), made.logp.gather(1, kept)
