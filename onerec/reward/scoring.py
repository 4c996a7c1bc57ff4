"""Scoring sessions with a reward model: predictions of its towers, and the scalar reward.

LightGBM's trees are mixed in here and nowhere else.

Shapes: B users, K sessions per user, H history items, M items of a session, N items, T towers,
    F facts.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from onerec.config import RewardConfig
from onerec.config.feedback import VIDEO_SIGNALS, Signal
from onerec.reward.model import RewardModel
from onerec.session_dataset.reward_blocks import RewardBlocks


@torch.no_grad()
def score_sessions(
    model: RewardModel,
    vectors: Tensor,
    history: Tensor,
    sessions: Tensor,
    *,
    batch_size: int = 4096,
) -> Tensor:
    """Predictions for generated sessions, with item facts of the model's day.

    Facts of users are omitted, since only sessions of the same user are compared.

    Args:
        model: A trained reward model; evaluated in evaluation mode, its mode is restored.
        vectors: (N, Dv) item vectors of the partition it was trained in.
        history: (B, H) item indices, -1 padded.
        sessions: (B, M) one session a user, or (B, K, M) several.
        batch_size: Sessions per batch, as far as it holds whole users.

    Returns:
        (B, T) or (B, K, T) in the order of `model.signals`, on the CPU: probabilities, then
        expected values where the model has them.
    """
    shape = sessions.shape[:-1]
    users = max(batch_size // max(shape[1:].numel(), 1), 1)
    parts = [
        (of_users, some.flatten(0, -2))
        for of_users, some in zip(history.split(users), sessions.split(users), strict=True)
    ]
    return _predictions(model, vectors, parts).reshape(*shape, len(model.signals))


@torch.no_grad()
def score_blocks(
    model: RewardModel, vectors: Tensor, blocks: RewardBlocks, *, batch_size: int = 4096
) -> Tensor:
    """Predictions for logged blocks, with point-in-time facts of each block.

    Args:
        model: A trained reward model.
        vectors: (N, Dv) item vectors of the partition it was trained in.
        blocks: R blocks with the facts that the model was trained with.
        batch_size: Blocks per batch.

    Returns:
        (R, T) as `score_sessions`.
    """
    parts = _batches(model, blocks, batch_size)
    return _predictions(model, vectors, parts)


@torch.no_grad()
def network_and_facts(
    model: RewardModel,
    vectors: Tensor,
    blocks: RewardBlocks,
    *,
    users_known: bool = True,
    batch_size: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Predictions of the network alone (R, T) and the facts it read (R, F), of logged blocks.

    Args:
        model: A reward model with facts.
        vectors: (N, Dv) item vectors of the partition it was trained in.
        blocks: R blocks, at least one.
        users_known: Whether it reads the facts of their users.
        batch_size: Blocks per batch.
    """
    parts = _batches(model, blocks, batch_size)
    given = parts if users_known else [part[:3] for part in parts]
    network, facts = zip(*_network_outputs(model, vectors, given), strict=True)
    return torch.cat(network), torch.cat(facts)


def _batches(
    model: RewardModel, blocks: RewardBlocks, batch_size: int
) -> Sequence[tuple[Tensor, ...]]:
    """Histories, items, facts of items and facts of users of each batch."""
    facts = (blocks.item_facts, blocks.user_facts) if model.shape.item_facts else ()
    columns = (blocks.history, blocks.items, *facts)
    return list(zip(*(c.split(batch_size) for c in columns), strict=True)) if len(blocks) else []


def _predictions(
    model: RewardModel, vectors: Tensor, parts: Sequence[tuple[Tensor, ...]]
) -> Tensor:
    """(R, T) of batches of histories, items and facts."""
    outputs = _network_outputs(model, vectors, parts)
    trees = model.boosting
    found = [
        network if trees is None else trees.mixed(network, facts) for network, facts in outputs
    ]
    return torch.cat(found) if found else torch.zeros(0, len(model.signals))


def _network_outputs(
    model: RewardModel, vectors: Tensor, parts: Sequence[tuple[Tensor, ...]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The network's predictions and facts of each batch, in evaluation mode, on the CPU."""
    device = next(model.parameters()).device
    vectors = vectors.to(device)
    was_training = model.training
    model.eval()
    for part in parts:
        inputs = [t.to(device) for t in part]
        output = model(vectors, *inputs)
        network = model.predictions(output, inputs[1]).cpu()
        yield network, network[:, :0] if output.facts is None else output.facts.cpu()
    model.train(was_training)


def scalar_reward(
    probabilities: Tensor, config: RewardConfig, signals: Sequence[Signal] = VIDEO_SIGNALS
) -> Tensor:
    """The scalar reward of a session, called "reward" throughout the project.

        r(u, S) = sum over signals x of weight_x * P(x)
                  + weight_watch_seconds * E(seconds) + weight_watch_share * E(share)

    P(x) is the predicted probability that exposing session S to user u yields signal x, by the
    reward model or by the evaluator. In a video log the signals are those of the paper: `swt` watch
    seconds per item that reach the training days' median; `vtr` at least half of its items watched
    effectively; `wtr` a follow; `ltr` a like (labels: `load_reward_blocks`). E are expected values
    per item of the session: watch seconds, and the share of an item's duration that is watched.

    The weights determine the unit of the reward. With a weight on seconds only it is expected watch
    seconds per item, which favours long items; with a weight on the share only it is the expected
    watched share, which favours short ones; the weight of a signal is its worth in that unit.
    Signals without a tower are omitted. The paper (OneRec v1, section 3.3.1) does not say how it
    combines its four towers. An ensemble uses the mean of the models' rewards. For logged feedback
    (`pairs='feedback'`, result tables) the labels replace the predictions.

    Args:
        probabilities: (..., T) in the order of the signals.
        config: Weights of the video signals.
        signals: Those of the model, or of the labels.
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
        f"{weight:g} x {'E' if signal.is_expectation else 'P'}({signal.name}: "
        f"{signal.definition()})"
        for signal, weight in zip(signals, weights, strict=True)
    ]
