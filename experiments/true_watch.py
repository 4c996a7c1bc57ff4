"""What simulated users would watch, by the simulator's ground truth: for oracle rows of tables.

Oracle rows are ceilings. No model that a nightly run publishes or serves learns from them, or is
chosen by them.

Shapes: B users of a batch, K sessions of a user, M items of a session, N items of the table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import torch

from onerec.alignment.candidates import ScoreCandidates, ScoredCandidates, scored_candidates
from onerec.config import require
from onerec.datasets import EventSource
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator.behaviour import affinity, expected_watch_seconds
from onerec.datasets.simulator.world import (
    Array,
    SimulatedItems,
    SimulatedUsers,
    World,
    numbers,
)
from onerec.evaluation.generators import SessionGenerator
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.tokenizer.semantic_ids import SemanticIds


@dataclass(frozen=True)
class TrueWatch:
    """Expected watch seconds of sessions.

    Attributes:
        world: The app.
        users, items: Everybody and everything by the end of the last day of interest.
        number: (N,) number in the app of each item of a semantic-ID table.
        first_day: First day of the app's log, which day numbers count from.
    """

    world: World
    users: SimulatedUsers
    items: SimulatedItems
    number: Array
    first_day: date

    @classmethod
    def of(cls, source: EventSource, ids: SemanticIds, last_day: date) -> "TrueWatch":
        """The truth about the items of a semantic-ID table.

        Args:
            source: The simulated app.
            ids: The table.
            last_day: The last day on which anybody is shown anything.

        Raises:
            ValueError: The log is a real one, whose users' behaviour is unknown.
        """
        if not isinstance(source, SimulatedSource):
            raise ValueError(
                f"dataset: {type(source).__name__} has no ground truth for oracle rows; set "
                "ONEREC_DATASET=simulated, or leave them out"
            )
        last = (last_day - source.first_day).days
        users, items = source.world.users(last), source.world.items(last)
        return cls(source.world, users, items, numbers(ids.item_ids), source.first_day)

    def seconds(self, users: Array, days: Array, sessions: Array) -> Array:
        """Expected seconds of whole sessions (B, K), nobody leaving early; -1 adds nothing.

        Args:
            users: (B,) numbers of users in the app.
            days: (B,) day number on which each of them comes.
            sessions: (B, K, M) item indices, -1 padded, in order of places.
        """
        require(sessions.ndim == 3, "sessions", sessions.shape, "use (users, sessions, items)")
        found = np.zeros(sessions.shape[:2])
        for day in np.unique(days):  # interests are those of one day
            rows = np.flatnonzero(days == day)
            found[rows] = self._on_a_day(users[rows], float(day), sessions[rows])
        return found

    def _on_a_day(self, users: Array, day: float, sessions: Array) -> Array:
        row = np.broadcast_to(np.arange(len(users))[:, None, None], sessions.shape)
        place = np.broadcast_to(np.arange(sessions.shape[2]), sessions.shape)
        item = self.number[sessions.clip(min=0)]
        liked = affinity(
            self.world, self.users, users, self.items, day, (row.ravel(), item.ravel())
        ).reshape(sessions.shape)
        watched = expected_watch_seconds(liked, self.items.duration[item], place)
        return np.where(sessions >= 0, watched, 0.0).sum(-1)


def scored_by_truth(truth: TrueWatch) -> ScoreCandidates:
    """`scored_candidates` with the true expected seconds in place of the learned reward."""

    def score(
        generator: SessionGenerator,
        reward: RewardEnsemble,
        contexts: SessionTensors,
        **options: Any,
    ) -> Iterator[ScoredCandidates]:
        for made in scored_candidates(generator, reward, contexts, **options):
            users = numbers(contexts.user_ids[contexts.user[made.row].numpy()])
            days = (contexts.date[made.row.numpy()] - np.datetime64(truth.first_day)).astype(int)
            seconds = torch.from_numpy(truth.seconds(users, days, made.items.numpy()))
            yield made._replace(rewards=seconds, lower_bounds=seconds)

    return score
