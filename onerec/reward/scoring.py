"""Scoring sessions with a reward model: tower probabilities, and one scalar reward for each.

Shapes: B users, K sessions per user, H history items, M items of a session, N items, T towers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from onerec.config import RewardConfig
from onerec.config.feedback import VIDEO_SIGNALS, Signal
from onerec.reward.model import RewardModel


@torch.no_grad()
def score_sessions(
    model: RewardModel,
    vectors: Tensor,
    history: Tensor,
    sessions: Tensor,
    *,
    batch_size: int = 4096,
) -> Tensor:
    """Probabilities of the signals that the model has towers for.

    Args:
        model: A trained reward model; it is scored in evaluation mode and left as it was.
        vectors: (N, Dv) item vectors of the partition it was trained in.
        history: (B, H) item indices, -1 padded.
        sessions: (B, M) one session a user, or (B, K, M) several.
        batch_size: Sessions scored at once.

    Returns:
        (B, T) or (B, K, T) in the order of `model.signals`, on the CPU.
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
    towers = (*shape, len(model.signals))
    return torch.cat(parts).reshape(towers) if parts else torch.zeros(towers)


def scalar_reward(
    probabilities: Tensor, config: RewardConfig, signals: Sequence[Signal] = VIDEO_SIGNALS
) -> Tensor:
    """The scalar reward of a session, the one number that all of the project calls reward.

        r(u, S) = sum over signals x of weight_x * P(x)

    P are the towers' probabilities, by the reward model or by the evaluator, that as a block of
    exposures S would bring user u. Of a video log the signals are those of the paper: `swt` watch
    seconds per item that reach the training days' median; `vtr` at least half of its items watched
    effectively; `wtr` a follow; `ltr` a like (labels: `load_reward_blocks`). The weights are 1 each
    by default, so the reward is the expected number of these four things, between 0 and 4; a signal
    that has no tower adds nothing. The paper (OneRec v1, section 3.3.1) does not say how it joins
    the four. With an ensemble it is the mean of the models' rewards. Of real feedback
    (`pairs='feedback'`, tables) the labels take the probabilities' place.

    Args:
        probabilities: (..., T) in the order of the signals.
        config: Weights of the video signals.
        signals: Of the model, or of the labels.

    Returns:
        (...), between 0 and the sum of the weights.
    """
    return probabilities @ probabilities.new_tensor(tower_weights(config, signals))


def tower_weights(config: RewardConfig, signals: Sequence[Signal] = VIDEO_SIGNALS) -> list[float]:
    """The weights of T signals: as declared, else the setting `weight_<name>`, else 1."""
    return [
        getattr(config, f"weight_{signal.name}", 1.0) if signal.weight is None else signal.weight
        for signal in signals
    ]


def reward_terms(config: RewardConfig, signals: Sequence[Signal]) -> list[str]:
    """The terms of the scalar reward in words, for reports.

    >>> reward_terms(RewardConfig(), VIDEO_SIGNALS[2:])
    ['1 x P(wtr: an event with flag is_follow)', '1 x P(ltr: an event with flag is_like)']
    """
    weights = tower_weights(config, signals)
    return [
        f"{weight:g} x P({signal.name}: {signal.definition()})"
        for signal, weight in zip(signals, weights, strict=True)
    ]
