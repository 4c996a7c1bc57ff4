"""Systems of the cold-item table, and how they are trained and served.

Shapes: C cases, H history items, N items, Dv width of the vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from experiments.cold_items.held_out import HeldOutCatalogue
from experiments.cold_items.table import GENERATOR, HEAD, SHARES
from onerec.config import BeamConfig
from onerec.evaluation.baselines.simple import TIE_SHARE
from onerec.evaluation.generators import load_generator
from onerec.ranked_lists import (
    RankedLists,
    Ranker,
    exclude_scores,
    narrowed,
    with_kept_places,
)
from onerec.serving.recommender import Recommender
from onerec.session_dataset.newest_watches import WatchesBefore


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
        attributes: pa.Table | None = None,
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
class WithContentItems:
    """Lists of another ranker, a share of whose places content fills with new items.

    Attributes:
        ranker: Makes the other places.
        content: Orders the new items.
        new: (N,) booleans: the new items.
        share: Of the places.
    """

    ranker: Ranker
    content: ContentKNN
    new: np.ndarray
    share: float

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`."""
        lists = self.ranker.rank(histories, top_k, exclude, candidates, attributes)
        new = narrowed(self.new, candidates)
        kept = self.content.rank(histories, int(top_k * self.share), exclude, new)
        return with_kept_places(lists, kept, self.share)


def generator_systems(
    checkpoints: Mapping[str, Path],
    catalogue: HeldOutCatalogue,
    new: np.ndarray,
    *,
    decoding: BeamConfig,
    watches: WatchesBefore,
    device: str,
) -> dict[str, Ranker]:
    """The rows of generators, as they serve.

    Args:
        checkpoints: `plain` and `dense`, without and with a dense head.
        catalogue: Of the experiment.
        new: (N,) booleans: what places are kept for.
        decoding: Beam and batch size.
        watches: What recency priors count.
        device: Where the generators run.
    """
    day = np.datetime64(watches.day, "D")
    ids = replace(catalogue.learned, first_seen=np.where(new, day - 1, day - 2))

    def served(name: str, share: float) -> Recommender:
        made = load_generator(checkpoints[name], ids, decoding, watches=watches, device=device)
        config = replace(
            decoding, new_item_share=share, new_item_days=1, serving_precision="float32"
        )
        return Recommender(made.model, ids, config=config, prior=made.trie.prior)

    return {
        f"{system}{suffix}": served(name, share)
        for system, name in ((GENERATOR, "plain"), (HEAD, "dense"))
        for suffix, share in {"": 0.0, **SHARES}.items()
    }
