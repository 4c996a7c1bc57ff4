"""A refitted codebook in the vocabulary of the one before it.

Which number a cluster gets is arbitrary: renumbering the codes of a level changes no cluster, no
reconstruction and no collision. Numbered so that as many items as possible keep their codes, the
SID tokens mean to a trained generator what they meant before.

Shapes: M items in both, N items, L levels, K codes.
"""

import dataclasses

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from onerec.tokenizer.codebook import Codebook
from onerec.tokenizer.semantic_ids import SemanticIds


def match_codes(before: Tensor, after: Tensor, size: int) -> Tensor:
    """For each level the renumbering of new codes with which most items keep their old code.

    An optimal assignment by the items that two codes share. Where assignments share as many, the
    one with more unchanged numbers is taken, so that codes of the same fit stay as they are.

    Args:
        before: (M, L) old codes.
        after: (M, L) new codes of the same items.
        size: K. Memory grows with its square, time with its third power.

    Returns:
        (L, K) int64, the number for each new code; each row is a permutation.

    Raises:
        ValueError: The shapes differ.

    >>> before = torch.tensor([[0], [0], [1], [2]])
    >>> after = torch.tensor([[2], [2], [0], [1]])
    >>> match_codes(before, after, 3).tolist()
    [[1, 2, 0]]
    """
    if before.shape != after.shape:
        raise ValueError(
            f"before has shape {tuple(before.shape)}, after {tuple(after.shape)}: pass the codes "
            "of the same items at the same levels"
        )
    unchanged = torch.eye(size, dtype=torch.long)
    rows = []
    for old, new in zip(before.T, after.T, strict=True):
        shared = torch.bincount(new * size + old, minlength=size**2).reshape(size, size)
        # the unchanged numbers are together worth less than one item
        worth = shared * (size + 1) + unchanged
        rows.append(torch.from_numpy(linear_sum_assignment(worth.numpy(), maximize=True)[1]))
    return torch.stack(rows) if rows else torch.empty(0, size, dtype=torch.long)


def renumbered(
    earlier: SemanticIds, codebook: Codebook, codes: Tensor, item_ids: np.ndarray
) -> tuple[Codebook, Tensor]:
    """A fit under the numbers of an earlier tokenizer version, as far as items keep their codes.

    Args:
        earlier: IDs of that version, of as many levels and codes.
        codebook: The fit.
        codes: (N, L) of its items.
        item_ids: (N,).
    """
    at = earlier.index_of(item_ids)
    before = earlier.codes[torch.from_numpy(at[at >= 0]), :-1]
    numbers = match_codes(before, codes[torch.from_numpy(at >= 0)], codebook.size)
    return relabelled(codebook, codes, numbers)


def relabelled(codebook: Codebook, codes: Tensor, numbers: Tensor) -> tuple[Codebook, Tensor]:
    """The same codebook and the same clusters under other numbers.

    Args:
        codebook: Of L levels.
        codes: (N, L), of its items.
        numbers: (L, K), see `match_codes`.

    Returns:
        The codebook, and (N, L) codes that decode to the same vectors.
    """
    at = numbers.argsort(dim=1)  # the inverse of a permutation
    tables = torch.stack([table[rows] for table, rows in zip(codebook.codebooks, at, strict=True)])
    moved = torch.stack([row[code] for row, code in zip(numbers, codes.T, strict=True)], 1)
    return dataclasses.replace(codebook, codebooks=tables), moved
