"""The dense head of a generator alone, over the whole catalogue: quick enough for every epoch.

Shapes: B users, N items, T SID tokens.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from onerec.generation.beam import read_histories
from onerec.model import OneRec
from onerec.ranked_lists import RankedLists, exclude_scores

USERS_AT_ONCE = 512


@dataclass(frozen=True)
class DenseHeadRanker:
    """A `Ranker`; the list of a generator whose `dense_share` is 1, without a search.

    Attributes:
        model: With a dense head.
        codes: (N, T) semantic IDs.
    """

    model: OneRec
    codes: Tensor

    @torch.no_grad()
    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; the score is the head's logit."""
        device, lists = self.model.device, []
        allowed = None if candidates is None else torch.from_numpy(candidates).to(device)
        for start in range(0, len(histories), USERS_AT_ONCE):
            part = slice(start, start + USERS_AT_ONCE)
            rows = torch.from_numpy(np.ascontiguousarray(histories[part])).long().to(device)
            logits = self.model.dense_logits(read_histories(self.model, rows, self.codes))
            if allowed is not None:
                logits = logits.masked_fill(~allowed, -torch.inf)
            exclude_scores(logits, None if exclude is None else exclude[part])
            lists.append(logits.topk(min(top_k, logits.shape[1])))
        scores, items = (torch.cat(column).cpu().numpy() for column in zip(*lists, strict=True))
        return RankedLists.padded(items, scores, top_k)
