"""Preference pairs from real feedback: a user's best and worst logged sessions, by what they did.

No reward model and no generator chooses here, so there is nothing to over-optimise; but a user saw
the two sessions at different times, and what was never shown is never compared.

Shapes: R blocks, P pairs, H history items, M items of a session.
"""

import numpy as np
import torch
from torch import Tensor

from onerec.alignment.pairs import PreferencePairs
from onerec.config import BeamConfig, RewardConfig
from onerec.model import OneRec, session_logp
from onerec.reward.scoring import scalar_reward
from onerec.session_dataset.reward_blocks import RewardBlocks


def feedback_pairs(
    model: OneRec,
    blocks: RewardBlocks,
    codes: Tensor,
    allowed: Tensor,
    *,
    num_users: int,
    seed: int,
    decoding: BeamConfig,
    reward: RewardConfig,
    device: str = "cpu",
) -> PreferencePairs:
    """Each user's logged blocks of highest and lowest observed reward.

    The observed reward has the scalar reward's weights on the four labels. Of equal blocks the
    earlier one counts. Both sessions are told under the history of the earlier of the two, so that
    nothing in it happened after either; L_NTP imitates the better one under the same history.

    Args:
        model: The start of the round: gives the log-probabilities that are kept with the pairs.
        blocks: Of the training days, in time order, as `session_dataset` holds them.
        codes: (N, T) semantic IDs.
        allowed: (N,) bool, items that may be generated; blocks with others are left out, as are
            short blocks and blocks that repeat an item, which the model could never make.
        num_users: Users wanted; all with two different rewards where there are fewer.
        seed: Another seed takes other users.
        decoding: Batch size.
        reward: Weights of the labels.
        device: Where it runs.

    Returns:
        Pairs in the order of the users.

    Raises:
        ValueError: No block could have been generated.
    """
    rows = _complete(blocks, allowed)
    if not len(rows):
        raise ValueError(
            f"0 of {len(blocks)} logged blocks have as many different allowed items as a session: "
            "use method='dpo' with pairs='beams', or a smaller session_items"
        )
    user = blocks.user[rows].numpy()
    observed = scalar_reward(blocks.labels[rows].double(), reward).numpy()
    best, worst = (
        rows[order[np.unique(user[order], return_index=True)[1]]]
        for order in (np.lexsort((-observed, user)), np.lexsort((observed, user)))
    )
    rewards = scalar_reward(blocks.labels.double(), reward)
    differ = rewards[best] > rewards[worst]
    num_known = len(best)
    best, worst = best[differ], worst[differ]
    kept = np.sort(np.random.default_rng(seed).permutation(len(best))[:num_users])
    best, worst = best[kept], worst[kept]
    history = blocks.history[torch.minimum(best, worst)].long()
    sessions = torch.stack([blocks.items[best], blocks.items[worst]], 1).long()
    logp = _logp(model, history, sessions, codes, decoding.batch_size, device)
    return PreferencePairs(
        user_ids=blocks.user_ids[blocks.user[best].numpy()],
        history=history,
        chosen=sessions[:, 0],
        rejected=sessions[:, 1],
        targets=sessions[:, 0],
        chosen_reward=rewards[best],
        rejected_reward=rewards[worst],
        chosen_logp=logp[:, 0],
        rejected_logp=logp[:, 1],
        stats={
            "blocks": len(blocks),
            "complete_blocks": len(rows),
            "contexts": num_known,
            "pairs": len(best),
            "skipped_equal_rewards": num_known - int(differ.sum()),
            **_means(rewards[best], rewards[worst]),
        },
    )


def _complete(blocks: RewardBlocks, allowed: Tensor) -> Tensor:
    """Rows of the blocks that a generator could have made."""
    items = blocks.items.long()
    ordered = items.sort(-1).values
    repeats = (ordered[:, 1:] == ordered[:, :-1]).any(-1)
    legal = ((items >= 0) & allowed[items.clamp(min=0)]).all(-1)
    return (legal & ~repeats).nonzero()[:, 0]


@torch.no_grad()
def _logp(
    model: OneRec, history: Tensor, sessions: Tensor, codes: Tensor, batch_size: int, device: str
) -> Tensor:
    """(P, 2) in double precision on the CPU."""
    if not len(history):
        return torch.zeros(0, 2, dtype=torch.float64)
    model.to(device).eval()
    codes = codes.to(device)
    parts = [
        session_logp(model, h.to(device), s.to(device), codes).cpu().double()
        for h, s in zip(history.split(batch_size), sessions.split(batch_size), strict=True)
    ]
    return torch.cat(parts)


def _means(best: Tensor, worst: Tensor) -> dict[str, float]:
    if not len(best):
        return {}
    return {
        "reward_max": float(best.mean()),
        "reward_min": float(worst.mean()),
        "reward_margin_mean": float((best - worst).mean()),
    }
