"""Systems of the cold-item table, and how they are trained and served.

Shapes: C cases, H history items, N items, Dv width of the vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from experiments.cold_items.held_out import HeldOutCatalogue
from onerec.config import BeamConfig
from onerec.evaluation.baselines.simple import TIE_SHARE
from onerec.evaluation.generators import SessionGenerator, load_generator
from onerec.model import OneRec
from onerec.ranked_lists import (
    RankedLists,
    Ranker,
    exclude_scores,
    narrowed,
    with_kept_places,
)
from onerec.session_dataset.newest_watches import WatchesBefore

TENTH, FIFTH = ", a tenth for new", ", a fifth for new"
SETTINGS = (
    f"generator{TENTH}",
    f"generator{FIFTH}",
    f"generator{TENTH} by content",
    f"generator{FIFTH} by content",
    "dense head",
    f"dense head{TENTH}",
    f"dense head{FIFTH}",
    f"dense head{TENTH} by head alone",
    f"dense head{FIFTH} by head alone",
    f"dense head{TENTH} by head alone as trained",
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
        items = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        return RankedLists.best(items, scores, top_k)


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
    content: Ranker,
    *,
    decoding: BeamConfig,
    watches: WatchesBefore,
    device: str,
) -> dict[str, Ranker]:
    """The rows of generators, each with one thing more than a row before it.

    Args:
        checkpoints: `plain` and `dense`, without and with a dense head.
        catalogue: Of the experiment.
        seen: (N,) booleans: items with an exposure on the training days.
        content: Orders new items by content.
        decoding: Beam and batch size.
        watches: What recency priors count.
        device: Where the generators run.
    """

    def opened(name: str) -> SessionGenerator:
        ids = catalogue.learned
        return load_generator(checkpoints[name], ids, decoding, watches=watches, device=device)

    plain, dense, alone, as_trained = map(opened, ("plain", "dense", "dense", "dense"))
    forget_unseen(alone.model, seen)
    alone.model.dense_share = as_trained.model.dense_share = 1.0
    new = catalogue.is_held_out | ~seen

    def kept(lists: Ranker, filler: Ranker, share: float) -> WithNewItems:
        return WithNewItems(lists, filler, new, share)

    systems: dict[str, Ranker] = {"generator": plain, "dense head": dense}
    for name, share in ((TENTH, 0.1), (FIFTH, 0.2)):
        systems |= {
            f"generator{name}": kept(plain, plain, share),
            f"generator{name} by content": kept(plain, content, share),
            f"dense head{name}": kept(dense, dense, share),
            f"dense head{name} by head alone": kept(dense, alone, share),
        }
    systems[f"dense head{TENTH} by head alone as trained"] = kept(dense, as_trained, 0.1)
    return {name: systems[name] for name in ("generator", *SETTINGS)}
