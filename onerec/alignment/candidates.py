"""Sessions that the model makes for a sample of users, scored: what pairs and groups are cut from.

Shapes: B users of a batch, N candidates, H history items, M items of a session.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onerec.config import AlignmentConfig, BeamConfig, RewardConfig
from onerec.generation import Trie, generate_sessions
from onerec.generation.beam import Beams
from onerec.generation.sampling import sample_sessions
from onerec.model import OneRec
from onerec.reward.ensemble import score_with_all
from onerec.reward.model import RewardModel
from onerec.session_dataset.generator_sessions import SessionTensors


class Candidates(NamedTuple):
    """Scored sessions of a batch of contexts.

    Attributes:
        row: (B,) rows of the contexts.
        items: (B, N, M) item indices, most probable first; of equal draws the first drawn.
        logp: (B, N) under the sampler, -inf where there is no session.
        rewards: (B, N) mean scalar reward of the models.
        lower_bounds: (B, N) lower confidence bounds of the reward.
        towers: (B, N, 4) probabilities.
    """

    row: Tensor
    items: Tensor
    logp: Tensor
    rewards: Tensor
    lower_bounds: Tensor
    towers: Tensor


def sample_contexts(sessions: SessionTensors, num_users: int, seed: int) -> SessionTensors:
    """One random session of each of a random sample of users.

    The paper draws pairs for a share r_DPO of all training samples, again every epoch; here they
    are drawn once per round for a number of users, which the graph shows as an artifact.

    Args:
        sessions: Good sessions of the training days.
        num_users: Users wanted; all of them where there are fewer.
        seed: Another seed samples others.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sessions))
    users, first = np.unique(sessions.user.numpy()[order], return_index=True)
    sampled = rng.permutation(len(users))[:num_users]
    rows = torch.from_numpy(order[first[np.sort(sampled)]])
    return dataclasses.replace(
        sessions,
        user=sessions.user[rows],
        history=sessions.history[rows],
        targets=sessions.targets[rows],
        is_good=sessions.is_good[rows],
        date=sessions.date[rows.numpy()],
    )


def scored_candidates(
    model: OneRec,
    reward_models: Sequence[RewardModel],
    vectors: Tensor,
    contexts: SessionTensors,
    codes: Tensor,
    trie: Trie,
    *,
    num_candidates: int,
    decoding: BeamConfig,
    reward: RewardConfig,
    alignment: AlignmentConfig,
    device: str,
    on_batch: Callable[[int, int], None],
) -> Iterator[Candidates]:
    """Make N sessions per context and score them, batch by batch.

    Args:
        model: The sampler.
        reward_models: Those that train, never the evaluator.
        vectors: (N, Dv) item vectors for them.
        contexts: Histories.
        codes: (N, T) semantic IDs.
        trie: Items that may be generated.
        num_candidates: N.
        decoding: Batch size; `filter_seen` leaves out items of the history.
        reward: Weights of the towers, and the caution.
        alignment: `pairs` says whether beams or draws, `temperature` and `seed` how to draw.
        device: Where it runs.
        on_batch: Called with contexts done and in all.
    """
    model.to(device).eval()
    models = [m.to(device) for m in reward_models]
    codes, trie = codes.to(device), trie.to(device)
    draws = torch.Generator().manual_seed(alignment.seed)
    total = len(contexts)
    for rows in torch.arange(total).split(decoding.batch_size):
        history = contexts.history[rows].long().to(device)
        exclude = history if decoding.filter_seen else None
        num_items = contexts.targets.shape[1]
        if alignment.pairs == "sampling":
            made = _most_probable_first(
                sample_sessions(
                    model,
                    history,
                    codes,
                    trie,
                    num_items=num_items,
                    num_samples=num_candidates,
                    generator=draws,
                    temperature=alignment.temperature,
                    exclude=exclude,
                )
            )
        else:
            made = generate_sessions(
                model,
                history,
                codes,
                trie,
                num_items=num_items,
                beam=min(num_candidates, trie.num_leaves) if num_items == 1 else num_candidates,
                exclude=exclude,
            )
        items, logp = made.items.cpu(), made.logp.cpu().double()
        scored = score_with_all(models, vectors, history.cpu(), items, reward)
        yield Candidates(rows, items, logp, scored.reward, scored.lower_bound, scored.towers)
        on_batch(int(rows[-1]) + 1, total)


def _most_probable_first(made: Beams) -> Beams:
    logp, order = made.logp.sort(dim=1, descending=True, stable=True)
    return Beams(made.items.gather(1, order.unsqueeze(-1).expand_as(made.items)), logp)
