"""Systems of the cold-item table, and how they are trained and served.

Shapes: C cases, H history items, N items, Dv width of the vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from experiments.cold_items.held_out import HeldOutCatalogue
from onerec.config import BeamConfig
from onerec.evaluation.baselines.simple import TIE_SHARE
from onerec.evaluation.generators import SessionGenerator, load_generator
from onerec.generation import Trie
from onerec.model import OneRec
from onerec.ranked_lists import (
    RankedLists,
    Ranker,
    exclude_scores,
    narrowed,
    with_kept_places,
)
from onerec.session_dataset.newest_watches import WatchesBefore

SETTINGS = (
    "generator, smoothed prior",
    "generator, a tenth for new",
    "generator, a fifth for new",
    "dense head",
    "dense head, unseen by content",
    "dense head, unseen by content, smoothed prior",
    "dense head, a tenth for new",
    "dense head, a fifth for new",
    "dense head, a tenth for new by head alone",
    "dense head, a fifth for new by head alone",
    "generator, a tenth for new by head alone",
)
"""What the validation day chooses from, beside the generator as it is."""


@dataclass(frozen=True)
class ContentKNN:
    """Items by the cosine of their vector with the mean vector of the history's items.

    Attributes:
        vectors: (N, Dv), unit rows.
        popularity: (N,) watch counts; break ties.
        candidates: (N,) booleans: items that may be listed.
    """

    vectors: np.ndarray
    popularity: np.ndarray
    candidates: np.ndarray

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; without a history the popular come first."""
        known = (histories >= 0)[..., None]
        profile = (self.vectors[histories.clip(min=0)] * known).mean(1)
        scores = profile @ self.vectors.T + TIE_SHARE * self.popularity
        scores[:, ~narrowed(self.candidates, candidates)] = -np.inf
        exclude_scores(scores, exclude)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return RankedLists.padded(order, np.take_along_axis(scores, order, 1), top_k)


@dataclass(frozen=True)
class WithNewItems:
    """Lists in which places are kept for new items, as `Recommender` keeps them.

    Attributes:
        ranker: Makes the lists.
        filler: Orders the new items.
        new: (N,) booleans: the new items.
        share: Of the places.
    """

    ranker: Ranker
    filler: Ranker
    new: np.ndarray
    share: float

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`."""
        lists = self.ranker.rank(histories, top_k, exclude, candidates)
        new = narrowed(self.new, candidates)
        kept = self.filler.rank(histories, int(top_k * self.share), exclude, new)
        return with_kept_places(lists, kept, self.share)


@dataclass(frozen=True, kw_only=True)
class ServedGenerator:
    """How a trained generator of the table serves.

    Attributes:
        dense_share: Share of the dense head in the lists; None: as chosen in training.
        zero_unseen: Whether items without an exposure lose their learned embedding, so that the
            dense head scores them by content alone.
        smoothed_prior: Whether the recency prior counts the mean of the shown items for items
            without an exposure, instead of 0.
    """

    dense_share: float | None = None
    zero_unseen: bool = False
    smoothed_prior: bool = False


def open_generator(
    checkpoint: Path,
    catalogue: HeldOutCatalogue,
    seen: np.ndarray,
    served: ServedGenerator,
    *,
    decoding: BeamConfig,
    watches: WatchesBefore,
    device: str,
) -> SessionGenerator:
    """A checkpoint in one of the ways to serve it.

    Args:
        checkpoint: Its directory.
        catalogue: Of the experiment.
        seen: (N,) booleans: items with an exposure on the training days.
        served: The way.
        decoding: Beam and batch size.
        watches: What its recency prior counts.
        device: Where it runs.
    """
    ids = catalogue.learned
    made = load_generator(checkpoint, ids, decoding, watches=watches, device=device)
    model = made.model
    if served.dense_share is not None:
        model.dense_share = served.dense_share
    if served.zero_unseen:
        forget_unseen(model, seen)
    if served.smoothed_prior and model.recency_prior.weight:
        counted = watches.count(ids, model.recency_prior.days)
        counted = np.where(seen, counted, counted[seen].mean())
        prior = model.recency_prior.of(counted)
        assert prior is not None, "its weight is not 0"
        prior = prior.to(made.codes.device)
        made = replace(made, trie=Trie.build(made.codes, ids.codebook_size, prior=prior))
    return made


@torch.no_grad()
def forget_unseen(model: OneRec, seen: np.ndarray) -> None:
    """Set the dense head's learned embeddings of items without an exposure to zero.

    As negatives of every step they have learned only that nobody watches them.
    """
    assert model.dense is not None, "the generator has a dense head"
    model.dense.items.weight[~torch.from_numpy(seen).to(model.device)] = 0.0


def generator_systems(
    checkpoints: Mapping[str, Path],
    catalogue: HeldOutCatalogue,
    seen: np.ndarray,
    *,
    decoding: BeamConfig,
    watches: WatchesBefore,
    device: str,
) -> dict[str, Ranker]:
    """The rows of generators, each with one thing more than a row before it.

    Args:
        checkpoints: `plain` and `dense`, without and with a dense head.
        catalogue, seen, decoding, watches, device: As in `open_generator`.
    """

    def made(name: str, **how: object) -> SessionGenerator:
        served = ServedGenerator(**how)  # pyright: ignore[reportArgumentType]
        return open_generator(
            checkpoints[name],
            catalogue,
            seen,
            served,
            decoding=decoding,
            watches=watches,
            device=device,
        )

    new = catalogue.is_held_out | ~seen
    plain = made("plain")
    dense, content = made("dense"), made("dense", zero_unseen=True)
    content_alone = made("dense", zero_unseen=True, dense_share=1.0)
    return {
        "generator": plain,
        "generator, smoothed prior": made("plain", smoothed_prior=True),
        "generator, a tenth for new": WithNewItems(plain, plain, new, 0.1),
        "generator, a fifth for new": WithNewItems(plain, plain, new, 0.2),
        "dense head": dense,
        "dense head, unseen by content": content,
        "dense head, unseen by content, smoothed prior": made(
            "dense", zero_unseen=True, smoothed_prior=True
        ),
        "dense head, a tenth for new": WithNewItems(content, content, new, 0.1),
        "dense head, a fifth for new": WithNewItems(content, content, new, 0.2),
        "dense head, a tenth for new by head alone": WithNewItems(content, content_alone, new, 0.1),
        "dense head, a fifth for new by head alone": WithNewItems(content, content_alone, new, 0.2),
        "generator, a tenth for new by head alone": WithNewItems(plain, content_alone, new, 0.1),
    }
