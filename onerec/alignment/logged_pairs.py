"""Preference pairs from real feedback: a user's best and worst logged sessions, by what they did.

No reward model and no generator chooses here, so there is nothing to over-optimise; but a user saw
the two sessions at different times, and what was never shown is never compared.

Shapes: R blocks, P pairs, H history items, M items of a session.
"""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from onerec.alignment.pairs import PreferencePairs
from onerec.config import RewardConfig
from onerec.evaluation.generators import SessionGenerator
from onerec.model import Histories, session_logp
from onerec.reward.scoring import scalar_reward
from onerec.session_dataset.reward_blocks import RewardBlocks
from onerec.session_dataset.user_attributes import take_rows


def logged_pairs(
    generator: SessionGenerator,
    blocks: RewardBlocks,
    candidates: Tensor,
    reward: RewardConfig,
    *,
    num_users: int,
    seed: int,
    attributes: pa.Table | None = None,
) -> PreferencePairs:
    """Each user's logged blocks of highest and lowest observed reward.

    The observed reward has the scalar reward's weights on the labels. Of equal blocks the
    earlier one counts. Both sessions get the history of the earlier of the two, so that nothing in
    it happened after either; L_NTP imitates the better one under the same history.

    Args:
        generator: The start of the round: gives the log-probabilities that are kept with the pairs.
        blocks: Of the training days, in time order, as `session_dataset` holds them.
        candidates: (N,) bool, items that may be generated; blocks with others are left out, as are
            short blocks and blocks that repeat an item, which the model could never make.
        reward: Weights of the labels.
        num_users: Users wanted; all with two different rewards where there are fewer.
        seed: Another seed takes other users.
        attributes: What is known of the blocks' users, a row for each of `blocks.user_ids`.

    Returns:
        Pairs in the order of the users.

    Raises:
        ValueError: No block could have been generated.
    """
    rows = _complete(blocks, candidates)
    rewards = scalar_reward(blocks.labels.double(), reward, blocks.signals)
    best = _first_of_each_user(rows, -rewards[rows], blocks)
    worst = _first_of_each_user(rows, rewards[rows], blocks)
    differ = rewards[best] > rewards[worst]
    kept = differ.nonzero()[:, 0]
    kept = kept[np.sort(np.random.default_rng(seed).permutation(len(kept))[:num_users])]
    best, worst = best[kept], worst[kept]
    history = blocks.history[torch.minimum(best, worst)].long()
    sessions = torch.stack([blocks.items[best], blocks.items[worst]], 1).long()
    user = blocks.user[best].numpy()
    known = generator.model.histories(history, take_rows(attributes, user))
    logp = _logp(generator, known, sessions)
    return PreferencePairs(
        user_ids=blocks.user_ids[user],
        history=history,
        chosen=sessions[:, 0],
        rejected=sessions[:, 1],
        targets=sessions[:, 0],
        chosen_reward=rewards[best],
        rejected_reward=rewards[worst],
        chosen_logp=logp[:, 0],
        rejected_logp=logp[:, 1],
        stats={"blocks": len(blocks), "complete_blocks": len(rows)}
        | _stats(differ, rewards[best], rewards[worst]),
    )


def _first_of_each_user(rows: Tensor, key: Tensor, blocks: RewardBlocks) -> Tensor:
    """(U,) of the rows, each user's one of least key; of equal keys the earlier row."""
    user = blocks.user[rows].numpy()
    order = np.lexsort((key.numpy(), user))
    return rows[order[np.unique(user[order], return_index=True)[1]]]


def _complete(blocks: RewardBlocks, candidates: Tensor) -> Tensor:
    """Rows of the blocks that are full, without repeats, and of candidates only.

    Raises:
        ValueError: There is none.
    """
    items = blocks.items.long()
    ordered = items.sort(-1).values
    repeats = (ordered[:, 1:] == ordered[:, :-1]).any(-1)
    legal = ((items >= 0) & candidates[items.clamp(min=0)]).all(-1)
    rows = (legal & ~repeats).nonzero()[:, 0]
    if not len(rows):
        raise ValueError(
            f"0 of {len(blocks)} logged blocks have as many different candidates as a session: "
            "use method='dpo' with pairs='beams', or a smaller session_items"
        )
    return rows


@torch.no_grad()
def _logp(generator: SessionGenerator, history: Histories, sessions: Tensor) -> Tensor:
    """(P, 2) log-probabilities in double precision on the CPU."""
    if not len(history):
        return torch.zeros(0, 2, dtype=torch.float64)
    model, size = generator.model, generator.config.batch_size
    parts = [
        session_logp(model, h.to(model.device), s.to(model.device), generator.codes).cpu().double()
        for h, s in zip(history.split(size), sessions.split(size), strict=True)
    ]
    return torch.cat(parts)


def _stats(differ: Tensor, best: Tensor, worst: Tensor) -> dict[str, float]:
    """Of the users, by whether their blocks differ in reward, and of the pairs."""
    counts: dict[str, float] = {
        "contexts": len(differ),
        "pairs": len(best),
        "skipped_equal_rewards": int((~differ).sum()),
    }
    if not len(best):
        return counts
    return counts | {
        "reward_max": float(best.mean()),
        "reward_min": float(worst.mean()),
        "reward_margin_mean": float((best - worst).mean()),
    }
