"""A trained session generator as a system to measure.

How its beams become one ranked list is `onerec.generation.rank_items`, the same for every generator
and never tuned on a test day. No seen-item filter here: evaluation has none for any system.

Shapes: C cases, H history items, K beams, M items of a session, T SID tokens, N items.
"""

import dataclasses
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onerec.config import BeamConfig
from onerec.evaluation.sessions import Sessions
from onerec.generation import Trie, generate_sessions, rank_items
from onerec.model import OneRec, load_model
from onerec.recommender import Recommender
from onerec.tokenizer.semantic_ids import SemanticIds


@dataclasses.dataclass(frozen=True)
class SessionGenerator:
    """A generator over the candidates of a day; a `Ranker` that can make sessions, too.

    Attributes:
        model: In evaluation mode.
        codes: (N, T) semantic IDs of the day's table.
        trie: Of the candidates.
        config: Beam and batch size.
    """

    model: OneRec
    codes: Tensor
    trie: Trie
    config: BeamConfig

    def rank(self, history: np.ndarray, *, top_k: int) -> np.ndarray:
        """See `onerec.evaluation.baselines.Ranker.rank`."""
        beam = min(self.config.beam, self.trie.num_leaves)
        parts = [
            rank_items(self.model, part, self.codes, self.trie, top_k=top_k, beam=beam)[0]
            for part in self._batches(history)
        ]
        return _joined(parts, (0, top_k)).cpu().numpy()

    def sessions(self, history: np.ndarray) -> Sessions:
        """Sessions for every case, best first."""
        items, logp = [], []
        beam, length = self.config.beam, self.model.session_items
        if length == 1:  # a list of single items is no longer than the catalogue
            beam = min(beam, self.trie.num_leaves)
        for part in self._batches(history):
            beams = generate_sessions(
                self.model,
                part,
                self.codes,
                self.trie,
                num_items=length,
                beam=beam,
            )
            items.append(beams.items.cpu())
            logp.append(beams.logp.cpu())
        shape = (0, beam, length)
        return Sessions(_joined(items, shape), _joined(logp, shape[:2]))

    def _batches(self, history: np.ndarray) -> tuple[Tensor, ...]:
        rows = torch.from_numpy(np.ascontiguousarray(history)).long()
        return rows.to(self.model.device).split(self.config.batch_size)


@dataclasses.dataclass(frozen=True)
class ServingSystem:
    """A generator's lists as users get them; a `Ranker`.

    Other systems are measured by first items alone and without a filter of seen ones.

    Attributes:
        recommender: Over the candidates of a day. A reward model of its chooses the lists.
    """

    recommender: Recommender

    def rank(self, history: np.ndarray, *, top_k: int) -> np.ndarray:
        """See `onerec.evaluation.baselines.Ranker.rank`."""
        rows = torch.from_numpy(np.ascontiguousarray(history)).long()
        seen = rows if self.recommender.config.filter_seen else None
        return self.recommender.rank(rows, top_k, exclude=seen).items.numpy()


def load_generator(
    checkpoint: Path,
    semantic_ids: SemanticIds,
    candidates: np.ndarray,
    config: BeamConfig,
    *,
    device: str = "cpu",
) -> SessionGenerator:
    """A checkpoint over a day's candidates.

    Args:
        checkpoint: Directory of the checkpoint.
        semantic_ids: The catalogue; of the checkpoint's tokenizer version, else an error names
            both.
        candidates: (N,) booleans.
        config: Beam and batch size.
        device: Where it runs.
    """
    model, _ = load_model(checkpoint, expected_tokenizer_version=semantic_ids.tokenizer_version)
    model = model.to(device).eval()
    codes = semantic_ids.codes.to(device)
    allowed = torch.from_numpy(candidates).to(device)
    trie = Trie.build(codes, semantic_ids.codebook_size, allowed)
    return SessionGenerator(model, codes, trie, config)


@dataclasses.dataclass(frozen=True)
class Translated:
    """A generator with a semantic-ID table of its own, spoken to in the day's item indices.

    A champion of an earlier tokenizer version knows other rows and other tokens. Histories are
    translated on the way in, items on the way out; an item it does not know is left out.

    Attributes:
        generator: Over its own table.
        to_own: (N,) its index of each item of the day's table, -1 unknown.
        to_day: (N_own,) the day's index of each of its items, -1 unknown.
    """

    generator: SessionGenerator
    to_own: np.ndarray
    to_day: np.ndarray

    def rank(self, history: np.ndarray, *, top_k: int) -> np.ndarray:
        """See `onerec.evaluation.baselines.Ranker.rank`."""
        return _mapped(self.generator.rank(self._own(history), top_k=top_k), self.to_day)

    def sessions(self, history: np.ndarray) -> Sessions:
        """Sessions for every case, best first, in the day's item indices."""
        made = self.generator.sessions(self._own(history))
        return Sessions(torch.from_numpy(_mapped(made.items.numpy(), self.to_day)), made.logp)

    def _own(self, history: np.ndarray) -> np.ndarray:
        own = _mapped(history, self.to_own)
        return last_items(own, self.generator.model.history_length)


def load_incumbent(
    bundle: Path,
    own_ids: SemanticIds,
    day_ids: SemanticIds,
    config: BeamConfig,
    *,
    test_day: date,
    device: str = "cpu",
) -> Translated:
    """A champion of an earlier night, as it would be served on day D.

    Inside its tokenizer version it gets the day's table, with the items that came since; outside
    it keeps the table it was published with.
    """
    same = own_ids.tokenizer_version == day_ids.tokenizer_version
    table = day_ids if same else own_ids
    candidates = table.known_before(test_day)
    generator = load_generator(bundle, table, candidates, config, device=device)
    return Translated(
        generator,
        to_own=np.asarray(table.index_of(day_ids.item_ids)),
        to_day=np.asarray(day_ids.index_of(table.item_ids)),
    )


def last_items(history: np.ndarray, length: int) -> np.ndarray:
    """The last items of right-padded rows, holes closed.

    Args:
        history: (C, H) item indices, oldest first, -1 where there is none, also in between.
        length: Items kept.

    Returns:
        (C, length) item indices, -1 padded on the right.

    Examples:
        >>> last_items(np.array([[4, -1, 6, 7], [8, -1, -1, -1]]), 2).tolist()
        [[6, 7], [8, -1]]
    """
    order = np.argsort(history >= 0, axis=1, kind="stable")  # holes first, items in their order
    kept = np.take_along_axis(history, order, 1)[:, max(0, history.shape[1] - length) :]
    order = np.argsort(kept < 0, axis=1, kind="stable")  # holes last
    kept = np.take_along_axis(kept, order, 1)
    return np.pad(kept, ((0, 0), (0, length - kept.shape[1])), constant_values=-1)


def _mapped(items: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.where(items >= 0, table[np.where(items >= 0, items, 0)], -1)


def _joined(parts: list[Tensor], empty: tuple[int, ...]) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(empty, dtype=torch.long)
