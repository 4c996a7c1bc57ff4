"""Scoring sessions with a reward model: tower probabilities, and one scalar reward for each.

Shapes: B users, K sessions per user, H history items, M items of a session, N items.
"""

import torch
from torch import Tensor

from onerec.config import RewardConfig
from onerec.reward.model import TOWERS, RewardModel


@torch.no_grad()
def score_sessions(
    model: RewardModel,
    vectors: Tensor,
    history: Tensor,
    sessions: Tensor,
    *,
    batch_size: int = 4096,
) -> Tensor:
    """Probabilities of the four kinds of feedback.

    Args:
        model: A trained reward model; it is scored in evaluation mode and left as it was.
        vectors: (N, Dv) item vectors of the partition it was trained in.
        history: (B, H) item indices, -1 padded.
        sessions: (B, M) one session a user, or (B, K, M) several.
        batch_size: Sessions scored at once.

    Returns:
        (B, 4) or (B, K, 4) in the order of `TOWERS`, on the CPU.
    """
    shape = sessions.shape[:-1]
    owner = torch.arange(shape[0]).repeat_interleave(shape[1] if len(shape) == 2 else 1)
    flat = sessions.reshape(-1, sessions.shape[-1])
    device = next(model.parameters()).device
    vectors = vectors.to(device)
    was_training = model.training
    model.eval()
    parts = [
        torch.sigmoid(model(vectors, history[rows].to(device), flat[part].to(device))).cpu()
        for part, rows in zip(
            torch.arange(len(flat)).split(batch_size), owner.split(batch_size), strict=True
        )
    ]
    model.train(was_training)
    return torch.cat(parts).reshape(*shape, len(TOWERS)) if parts else torch.zeros(*shape, 4)


def scalar_reward(probabilities: Tensor, config: RewardConfig) -> Tensor:
    """The scalar reward of a session, the one number that all of the project calls reward.

        r(u, S) = weight_swt * P(swt) + weight_vtr * P(vtr) + weight_wtr * P(wtr)
                + weight_ltr * P(ltr)

    P are the towers' probabilities, by the reward model or by the evaluator, that as a block of
    exposures S would bring user u: `swt` watch seconds per item that reach the training days'
    median; `vtr` at least half of its items watched effectively; `wtr` a follow; `ltr` a like
    (labels: `load_reward_blocks`). The weights are settings of the reward stage and 1 each by
    default, so the reward is the expected number of these four things, between 0 and 4. The paper
    (OneRec v1, section 3.3.1) does not say how it joins the four. With an ensemble it is the mean
    of the models' rewards. Of real feedback (`pairs='feedback'`, tables) the labels take the
    probabilities' place.

    Args:
        probabilities: (..., 4) in the order of `TOWERS`.

    Returns:
        (...), between 0 and the sum of the weights.
    """
    return probabilities @ probabilities.new_tensor(tower_weights(config))


def tower_weights(config: RewardConfig) -> list[float]:
    """The four weights in the order of `TOWERS`."""
    return [getattr(config, f"weight_{tower}") for tower in TOWERS]
