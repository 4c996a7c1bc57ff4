"""Sessions generated for a sample of users and scored: pairs and groups are chosen among them.

Shapes: B users of a batch, N candidates, H history items, M items of a session.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from onerec.config import AlignmentConfig
from onerec.evaluation.generators import SessionGenerator
from onerec.generation import generate_sessions
from onerec.generation.beam import Beams
from onerec.generation.sampling import Sampling, sample_sessions
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.generator_sessions import SessionTensors

OnBatch = Callable[[int, int], None]
"""Called with contexts done and in all."""


class ScoreCandidates(Protocol):
    """Generates and scores sessions: `scored_candidates`, or the same over shards of users."""

    def __call__(
        self,
        generator: SessionGenerator,
        reward: RewardEnsemble,
        contexts: SessionTensors,
        *,
        num_candidates: int,
        alignment: AlignmentConfig,
        on_batch: OnBatch,
    ) -> Iterator["ScoredCandidates"]: ...


class ScoredCandidates(NamedTuple):
    """Scored sessions of a batch of contexts.

    Attributes:
        row: (B,) rows of the contexts.
        items: (B, N, M) item indices, most probable first; of equal draws the first drawn.
        logp: (B, N) scores that order the beams: log-probabilities plus what `added_scores` adds
            (dense head, item neighbours, a prior); of sampled sessions their log-probabilities
            alone. -inf where there is no session.
        rewards: (B, N) mean scalar reward of the models.
        lower_bounds: (B, N) lower confidence bounds of the reward.
        towers: (B, N, T) predictions of each signal, the models' mean.
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
    return sessions.rows(order[first[np.sort(sampled)]])


def scored_candidates(
    generator: SessionGenerator,
    reward: RewardEnsemble,
    contexts: SessionTensors,
    *,
    num_candidates: int,
    alignment: AlignmentConfig,
    on_batch: OnBatch = lambda done, total: None,
    first_row: int = 0,
) -> Iterator[ScoredCandidates]:
    """Generate N sessions per context and score them, batch by batch.

    Args:
        generator: The sampler and the items it may generate; its config has the batch size, and
            `filter_seen` leaves out items of the history.
        reward: The models that train, never the evaluator.
        contexts: Histories.
        num_candidates: N.
        alignment: `pairs` says whether beam search or ancestral sampling; `temperature` and `seed`
            are those of the sampling.
        on_batch: Called with contexts done and in all.
        first_row: Row of the first context among all: draws depend on it, and not on how contexts
            are spread over workers.
    """
    decoding, model = generator.config, generator.model
    reward = reward.to(model.device)
    sampling = Sampling(num_samples=num_candidates, temperature=alignment.temperature)
    total, num_items = len(contexts), contexts.targets.shape[1]
    most = min(num_candidates, generator.trie.num_leaves)  # of sessions of a single item
    for rows in torch.arange(total).split(decoding.batch_size):
        items = contexts.history[rows].long()
        history = model.histories(items, contexts.attributes_of(rows)).to(model.device)
        place = (first_row + int(rows[0])) << 32
        randomness = torch.Generator().manual_seed(alignment.seed + place)
        if alignment.pairs == "sampling":
            made = _most_probable_first(
                sample_sessions(
                    model,
                    history,
                    generator.codes,
                    generator.trie,
                    num_items=num_items,
                    sampling=sampling,
                    generator=randomness,
                    exclude=items if decoding.filter_seen else None,
                )
            )
        else:
            made = generate_sessions(
                model,
                history,
                generator.codes,
                generator.trie,
                num_items=num_items,
                beam=most if num_items == 1 else num_candidates,
                exclude=items if decoding.filter_seen else None,
            )
        found, logp = made.items.cpu(), made.logp.cpu().double()
        yield ScoredCandidates(first_row + rows, found, logp, *reward.score(items, found))
        on_batch(int(rows[-1]) + 1, total)


def _most_probable_first(made: Beams) -> Beams:
    logp, order = made.logp.sort(dim=1, descending=True, stable=True)
    return Beams(made.items.gather(1, order.unsqueeze(-1).expand_as(made.items)), logp)
