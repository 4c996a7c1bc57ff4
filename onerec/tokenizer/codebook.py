"""Residual quantization: L codebooks, each fitted to what the ones before leave over.

Shapes: N items, L levels, K codes, Dv width of the vectors.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from onerec.config import TokenizerConfig
from onerec.tokenizer.balanced_kmeans import BalancedPartition, balanced_kmeans
from onerec.tokenizer.distances import nearest

CODEBOOK_FILE = "codebook.safetensors"


class Tokenizer(Protocol):
    """What every quantizer offers; `Codebook` is the residual one."""

    @property
    def codebooks(self) -> Tensor:
        """(L, K, Dv)."""
        ...

    @property
    def generation(self) -> str:
        """Hash of all that decides what an ID means."""
        ...

    def encode(self, vectors: Tensor) -> Tensor:
        """(N, Dv) to (N, L) codes."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """(N, L) codes to (N, Dv)."""
        ...


class Clusterer(Protocol):
    """One level's clustering; `balanced_kmeans` is the default."""

    def __call__(
        self,
        vectors: Tensor,
        num_clusters: int,
        *,
        iterations: int,
        generator: torch.Generator,
        on_step: Callable[[], None],
    ) -> BalancedPartition: ...


@dataclass(frozen=True)
class Codebook:
    """Attributes:
    codebooks: (L, K, Dv) float32.
    config: The settings it was fitted with.
    """

    codebooks: Tensor
    config: TokenizerConfig

    @property
    def num_levels(self) -> int:
        return self.codebooks.shape[0]

    @property
    def size(self) -> int:
        return self.codebooks.shape[1]

    @cached_property
    def generation(self) -> str:
        """Hash of the centroids and the settings: checkpoints of another generation do not fit."""
        digest = hashlib.sha256(self.codebooks.contiguous().numpy().tobytes())
        digest.update(_config_json(self.config).encode())
        return digest.hexdigest()[:16]

    def encode(self, vectors: Tensor) -> Tensor:
        """Nearest code level by level, whatever the sizes become.

        Args:
            vectors: (N, Dv).

        Returns:
            (N, L) int64.
        """
        residual, codes = vectors, []
        for centroids in self.codebooks:
            codes.append(nearest(residual, centroids))
            residual = residual - centroids[codes[-1]]
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """(N, L) codes to the (N, Dv) sums of their centroids."""
        levels = torch.arange(self.num_levels)
        return self.codebooks[levels, codes[:, : self.num_levels]].sum(1)

    def save(self, directory: Path) -> None:
        """Write `codebook.safetensors`."""
        metadata = {"config": _config_json(self.config)}
        tensors = {"codebooks": self.codebooks.contiguous()}
        save_file(tensors, directory / CODEBOOK_FILE, metadata=metadata)


def load_codebook(directory: Path) -> Codebook:
    """Read what `Codebook.save` wrote."""
    with safe_open(directory / CODEBOOK_FILE, framework="pt") as file:
        config = TokenizerConfig(**json.loads(file.metadata()["config"]))
        return Codebook(file.get_tensor("codebooks"), config)


def fit_codebook(
    vectors: Tensor,
    config: TokenizerConfig,
    *,
    clusterer: Clusterer = balanced_kmeans,
    on_progress: Callable[[str], None] = lambda message: None,
) -> tuple[Codebook, Tensor]:
    """Fit residual K-means level by level (OneRec v1, section 3.1).

    The paper assigns codes by argmin after fitting balanced clusters, which loses the balance; here
    the catalogue keeps the balanced clusters themselves, and argmin is for items that come later.

    Args:
        vectors: (N, Dv) float32, finite, none zero.
        config: Levels, codes, steps, seed.
        clusterer: Clustering of one level.
        on_progress: Told about every level and every few steps.

    Returns:
        The codebook, and (N, L) codes of `vectors`.

    Raises:
        ValueError: Fewer items than codes, more items than IDs, or a NaN or zero vector.
    """
    check_vectors(vectors)
    num_items, size = len(vectors), config.codebook_size
    if num_items < size:
        raise ValueError(
            f"tokenizer.codebook_size={size}: the catalogue has only {num_items} items; "
            f"lower tokenizer.codebook_size to at most {num_items}"
        )
    check_capacity(num_items, size, config.num_levels)
    residual, codebooks, codes = vectors, [], []
    for level in range(config.num_levels):
        generator = torch.Generator().manual_seed(config.seed + level)
        partition = clusterer(
            residual,
            size,
            iterations=config.iterations,
            generator=generator,
            on_step=_Counter(f"level {level + 1} of {config.num_levels}", on_progress),
        )
        codebooks.append(partition.centroids)
        codes.append(partition.labels)
        residual = residual - partition.centroids[partition.labels]
    return Codebook(torch.stack(codebooks), config), torch.stack(codes, 1)


def check_vectors(vectors: Tensor) -> None:
    """Raise `ValueError` naming the first row that is NaN, infinite or zero."""
    bad = ~torch.isfinite(vectors).all(1)
    zero = (vectors == 0).all(1)
    for mask, problem in ((bad, "is not finite"), (zero, "is all zeros")):
        if bool(mask.any()):
            row = int(mask.nonzero()[0, 0])
            raise ValueError(
                f"vectors: row {row} {problem} ({int(mask.sum())} such rows of {len(vectors)}); "
                "make item_embeddings again, which gives every item a unit vector"
            )


def check_capacity(num_items: int, size: int, num_levels: int) -> None:
    """Raise `ValueError` when there are more items than IDs, `K ** (L + 1)`."""
    if num_items > size ** (num_levels + 1):
        raise ValueError(
            f"tokenizer.codebook_size={size}: {num_items} items need more than the "
            f"{size ** (num_levels + 1)} IDs of {num_levels} levels and a separating digit; "
            "raise tokenizer.codebook_size or tokenizer.num_levels"
        )


class _Counter:
    """Reports every tenth step."""

    def __init__(self, name: str, on_progress: Callable[[str], None]) -> None:
        self.name, self.on_progress, self.step = name, on_progress, 0

    def __call__(self) -> None:
        self.step += 1
        if self.step % 10 == 0:
            self.on_progress(f"{self.name}: {self.step} steps")


def _config_json(config: TokenizerConfig) -> str:
    return json.dumps(dataclasses.asdict(config), sort_keys=True)
