"""A trained session generator as a system to evaluate.

How its beams become one ranked list is `onerec.generation.rank_items`, the same for every generator
and never tuned on a test day.

Shapes: C cases, H history items, K beams, M items of a session, T SID tokens, N items.
"""

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from onerec.config import BeamConfig, require
from onerec.evaluation.generated_sessions import GeneratedSessions
from onerec.generation import Trie, generate_sessions, rank_first_items
from onerec.model import Histories, OneRec, load_model
from onerec.ranked_lists import RankedLists, Ranker, last_items
from onerec.session_dataset.newest_watches import WatchesBefore
from onerec.tokenizer.semantic_ids import SemanticIds


class Generator(Ranker, Protocol):
    """A `Ranker` that makes whole sessions, too."""

    def sessions(
        self,
        histories: np.ndarray,
        candidates: np.ndarray | None = None,
        *,
        attributes: pa.Table | None = None,
    ) -> GeneratedSessions:
        """Sessions of every case, best first; see `Ranker.rank` for the arguments."""
        ...


@dataclass(frozen=True)
class SessionGenerator:
    """A `Generator` by beam search.

    Attributes:
        model: In evaluation mode.
        codes: (N, T) semantic IDs of the day's table.
        trie: The items it may list or generate.
        config: Beam and batch size.
    """

    model: OneRec
    codes: Tensor
    trie: Trie
    config: BeamConfig

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; the score is the log-probability of being a session's first item,
        plus the trie's prior."""
        trie = self._trie(candidates)
        return rank_first_items(
            self.model,
            self._known(histories, attributes),
            self.codes,
            trie,
            top_k=top_k,
            beam=min(self.config.beam, trie.num_leaves),
            batch_size=self.config.batch_size,
            exclude=exclude,
        )

    def sessions(
        self,
        histories: np.ndarray,
        candidates: np.ndarray | None = None,
        exclude: np.ndarray | None = None,
        *,
        attributes: pa.Table | None = None,
    ) -> GeneratedSessions:
        """See `Generator.sessions`; `exclude` is that of `Ranker.rank`."""
        trie, known = self._trie(candidates), self._known(histories, attributes)
        beam, length = self.config.beam, self.model.session_items
        if length == 1:  # a list of single items is no longer than the catalogue
            beam = min(beam, trie.num_leaves)
        items = torch.empty(len(histories), beam, length, dtype=torch.long)
        logp = torch.empty(len(histories), beam, dtype=self.model.dtype)
        for start in range(0, len(histories), self.config.batch_size):
            part = slice(start, start + self.config.batch_size)
            beams = generate_sessions(
                self.model,
                known[part].to(self.model.device),
                self.codes,
                trie,
                num_items=length,
                beam=beam,
                exclude=None if exclude is None else torch.from_numpy(exclude[part]),
            )
            items[part], logp[part] = beams.items.cpu(), beams.logp.cpu()
        return GeneratedSessions(items, logp)

    def _known(self, histories: np.ndarray, attributes: pa.Table | None) -> Histories:
        items = torch.from_numpy(np.ascontiguousarray(histories)).long()
        return self.model.histories(items, attributes)

    def _trie(self, candidates: np.ndarray | None) -> Trie:
        if candidates is None:
            return self.trie
        allowed = torch.from_numpy(candidates).to(self.codes.device)
        allowed = allowed & (self.trie.leaf_of_item >= 0)
        return Trie.build(self.codes, self.model.codebook_size, allowed, self.trie.prior)

    def without_prior(self) -> "SessionGenerator":
        """The same without what the trie adds, a recency prior."""
        allowed = self.trie.leaf_of_item >= 0
        return replace(self, trie=Trie.build(self.codes, self.model.codebook_size, allowed))


def load_generator(
    checkpoint: Path,
    semantic_ids: SemanticIds,
    config: BeamConfig,
    *,
    watches: WatchesBefore | None = None,
    vectors: Tensor | None = None,
    device: str = "cpu",
) -> SessionGenerator:
    """A checkpoint over the whole catalogue.

    Args:
        checkpoint: Directory of the checkpoint.
        semantic_ids: The catalogue; of the checkpoint's tokenizer version, else an error names
            both.
        config: Beam and batch size.
        watches: What its recency prior counts; without it there is none.
        vectors: (N, Dv) of the catalogue, where a dense head was trained on an earlier day of it.
        device: Where it runs.

    Raises:
        ValueError: The dense head knows another number of items than the catalogue.
    """
    model, _ = load_model(checkpoint, expected_tokenizer_version=semantic_ids.tokenizer_version)
    if model.dense is not None:
        if vectors is not None:
            model.dense.cover(vectors)
        require(
            model.dense.num_items == len(semantic_ids),
            "vectors",
            None if vectors is None else tuple(vectors.shape),
            f"{checkpoint}: the dense head knows {model.dense.num_items} items, the catalogue has "
            f"{len(semantic_ids)}; pass the catalogue's vectors, or train on these semantic IDs",
        )
    model = model.to(device).eval()
    codes = semantic_ids.codes.to(device)
    trie = Trie.build(
        codes, semantic_ids.codebook_size, prior=recency_of(model, semantic_ids, watches)
    )
    return SessionGenerator(model, codes, trie, config)


def recency_of(
    model: OneRec, semantic_ids: SemanticIds, watches: WatchesBefore | None
) -> Tensor | None:
    """(N,) what a model's recency prior adds for every item; None where it adds nothing."""
    prior = model.recency_prior
    if watches is None or not prior.weight:
        return None
    return prior.of(watches.count(semantic_ids, prior.days))


@dataclass(frozen=True)
class RemappedGenerator:
    """A `Generator` with a semantic-ID table of its own, called with the day's item indices.

    A champion of an earlier tokenizer version knows other rows and other tokens. Item indices are
    mapped on the way in and on the way out; a history item that it does not know is left out, and
    an item that the day does not know is not generated.

    Attributes:
        generator: Over its own table.
        to_own: (N,) its index of each item of the day's table, -1 unknown.
        to_day: (N_own,) the day's index of each of its items, -1 unknown.
        candidates: (N_own,) booleans: what it may list, as of its own table.
    """

    generator: SessionGenerator
    to_own: np.ndarray
    to_day: np.ndarray
    candidates: np.ndarray

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`."""
        lists = self.generator.rank(
            self._own_histories(histories),
            top_k,
            None if exclude is None else _mapped(exclude, self.to_own),
            self._own_candidates(candidates),
            attributes,
        )
        return RankedLists(_mapped(lists.items, self.to_day), lists.scores)

    def sessions(
        self,
        histories: np.ndarray,
        candidates: np.ndarray | None = None,
        *,
        attributes: pa.Table | None = None,
    ) -> GeneratedSessions:
        """See `Generator.sessions`."""
        made = self.generator.sessions(
            self._own_histories(histories), self._own_candidates(candidates), attributes=attributes
        )
        return GeneratedSessions(
            torch.from_numpy(_mapped(made.items.numpy(), self.to_day)), made.logp
        )

    def _own_histories(self, histories: np.ndarray) -> np.ndarray:
        own = torch.from_numpy(_mapped(histories, self.to_own))
        return last_items(own, self.generator.model.history_length).numpy()

    def _own_candidates(self, candidates: np.ndarray | None) -> np.ndarray:
        own = self.candidates & (self.to_day >= 0)
        return own if candidates is None else own & candidates[np.maximum(self.to_day, 0)]


def load_incumbent(
    bundle: Path,
    own_ids: SemanticIds,
    day_ids: SemanticIds,
    config: BeamConfig,
    *,
    test_day: date,
    watches: WatchesBefore | None = None,
    vectors: Tensor | None = None,
    device: str = "cpu",
) -> RemappedGenerator:
    """The champion of an earlier day, as it would be served on day D.

    Inside its tokenizer version it gets the day's table, with the items that came since; outside
    it keeps the table it was published with.
    """
    same = own_ids.tokenizer_version == day_ids.tokenizer_version
    table = day_ids if same else own_ids
    return RemappedGenerator(
        load_generator(
            bundle,
            table,
            config,
            watches=watches,
            vectors=vectors if same else None,
            device=device,
        ),
        to_own=np.asarray(table.index_of(day_ids.item_ids)),
        to_day=np.asarray(day_ids.index_of(table.item_ids)),
        candidates=table.candidates(test_day),
    )


def _mapped(items: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.where(items >= 0, table[np.maximum(items, 0)], -1)
