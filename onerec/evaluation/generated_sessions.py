"""What generated sessions are like: legal, free of repeats, and how they score.

Legality is computed from the tokens, not assumed from how they were made: a session's items become
tokens, and the tokens are looked up in the semantic-ID table.

Shapes: C cases, K beams (sessions per case), M items of a session, T SID tokens, N items.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onerec.config import RewardConfig
from onerec.evaluation.metric_table import Metric
from onerec.ranked_lists import RankedLists
from onerec.reward.model import RewardModel
from onerec.reward.scoring import scalar_reward, score_sessions


@dataclass(frozen=True)
class GeneratedSessions:
    """Generated sessions of every case, best first.

    Attributes:
        items: (C, K, M) int64 item indices; a whole session of -1 fills up missing beams.
        logp: (C, K) their log-probabilities; -inf where there is no session.
    """

    items: Tensor
    logp: Tensor

    @property
    def exist(self) -> Tensor:
        """(C, K) booleans: false where fewer than K legal sessions exist."""
        return torch.isfinite(self.logp)


@dataclass(frozen=True)
class SessionAudit:
    """Shares of the generated sessions, over all cases and beams.

    Attributes:
        legal_share: Every item's tokens are in the table of candidates, once.
        repeat_free_share: No two items of the session have the same tokens.
        num_sessions: Sessions looked at; a case without any session counts as one that is not
            legal.
    """

    legal_share: float
    repeat_free_share: float
    num_sessions: int


def audit(sessions: GeneratedSessions, codes: Tensor, candidates: np.ndarray) -> SessionAudit:
    """Look up the tokens of every generated session.

    Args:
        sessions: What a generator made.
        codes: (N, T) semantic IDs.
        candidates: (N,) booleans: items that may be recommended.

    Returns:
        The shares.

    Examples:
        >>> codes = torch.tensor([[0, 1], [0, 2], [0, 2]])  # the last two collide
        >>> made = GeneratedSessions(torch.tensor([[[0, 1]], [[0, 0]]]), torch.zeros(2, 1))
        >>> audit(made, codes, np.array([True, True, True]))
        SessionAudit(legal_share=0.5, repeat_free_share=0.5, num_sessions=2)
    """
    _, number = np.unique(codes.numpy(), axis=0, return_inverse=True)
    number = number.reshape(-1)  # of the tokens: equal tokens have equal numbers
    owners = np.bincount(number)[number]
    legal_items = candidates & (owners == 1)
    exist = sessions.exist.numpy()
    empty_cases = int((~exist.any(1)).sum())
    items = sessions.items.numpy()[exist]  # (S, M)
    inside = (items >= 0) & (items < len(codes))
    legal = (inside & legal_items[np.where(inside, items, 0)]).all(1)
    # Every place that is outside the table gets a number of its own: it repeats nothing.
    other = len(number) + np.arange(items.shape[1])
    sid_tokens = np.sort(np.where(inside, number[np.where(inside, items, 0)], other), axis=1)
    repeat_free = (sid_tokens[:, 1:] != sid_tokens[:, :-1]).all(1)
    total = len(items) + empty_cases
    return SessionAudit(
        legal_share=float(legal.sum() / max(total, 1)),
        repeat_free_share=float((repeat_free.sum() + empty_cases) / max(total, 1)),
        num_sessions=total,
    )


def session_rewards(
    model: RewardModel,
    vectors: Tensor,
    history: Tensor,
    sessions: GeneratedSessions,
    config: RewardConfig,
    *,
    name: str,
) -> dict[Metric, np.ndarray]:
    """Score the sessions of every case.

    Args:
        model: The evaluator, or the reward model the generator was trained with.
        vectors: (N, Dv) item vectors.
        history: (C, H) item indices, -1 padded.
        sessions: What a generator made.
        config: Weights of the scalar reward.
        name: Of the model in the metrics' names, `evaluator` or `training`.

    Returns:
        (C,) each: `<name>_reward` is the scalar of the case's best session by log-probability;
        `<name>_mean` and `<name>_max`, whose slice is the tower, are over its beams, the shape of
        the paper's Table 1 (OneRec v1, section 5.2). NaN for a case without a session.
    """
    probabilities = score_sessions(model, vectors, history, sessions.items.clamp(min=-1))
    probabilities = probabilities.masked_fill(~sessions.exist[..., None], torch.nan).double()
    scalar = scalar_reward(probabilities[:, 0], config, model.signals)
    values = {Metric(f"{name}_reward"): scalar.numpy()}
    exist = sessions.exist[..., None]
    none = ~sessions.exist.any(1)
    mean = probabilities.nanmean(1).numpy()
    top = probabilities.masked_fill(~exist, -torch.inf).amax(1)
    top = top.masked_fill(none[:, None], torch.nan).numpy()
    for column, signal in enumerate(model.signals):
        values[Metric(f"{name}_mean", signal.name)] = mean[:, column]
        values[Metric(f"{name}_max", signal.name)] = top[:, column]
    return values


def lists_as_sessions(lists: RankedLists, *, session_items: int) -> GeneratedSessions:
    """A baseline's first M items as its one session, so that it can be scored beside generators."""
    items = torch.from_numpy(np.ascontiguousarray(lists.items[:, None, :session_items]))
    complete = (items >= 0).all(-1)
    return GeneratedSessions(items, torch.where(complete, 0.0, -torch.inf))
