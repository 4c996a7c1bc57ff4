"""Residual quantization: L codebooks, each fitted to the residuals of the previous levels.

`fit_codebook` and `Codebook` implement four methods: balanced K-means, the paper's Algorithm 1,
plain K-means, and RQ-VAE, whose codebooks lie in the latent space of its encoder.

Shapes: N items, L levels, K codes, Dv width of the vectors, Z width of the codebooks (Dv without an
encoder).
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from onerec.config import TokenizerConfig
from onerec.tokenizer.balanced_kmeans import Partition, balanced_kmeans
from onerec.tokenizer.clusterers import algorithm_1, plain_kmeans
from onerec.tokenizer.distances import Residuals, nearest
from onerec.tokenizer.rqvae import fit_rqvae, perceptron

CODEBOOK_FILE = "codebook.safetensors"
BALANCED_METHODS = ("balanced", "algorithm_1")
"""Methods whose cluster sizes differ by at most one; the others guarantee nothing."""

ROWS_AT_ONCE = 4096
"""Rows of temporary copies: a large catalogue's vectors may lie on disk."""

_TOLERANCE = TokenizerConfig().quality_tolerance

CLUSTERERS: Mapping[str, Callable[..., Partition]] = {
    "balanced": balanced_kmeans,
    "algorithm_1": algorithm_1,
    "kmeans": plain_kmeans,
}
"""Methods that cluster level by level; RQ-VAE learns all levels together."""


@dataclass(frozen=True)
class Codebook:
    """Attributes:
    codebooks: (L, K, Z) float32.
    config: The settings it was fitted with.
    networks: Weights of RQ-VAE's encoder and decoder; empty for the other methods.
    """

    codebooks: Tensor
    config: TokenizerConfig
    networks: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_levels(self) -> int:
        return self.codebooks.shape[0]

    @property
    def size(self) -> int:
        return self.codebooks.shape[1]

    @property
    def guarantees_balance(self) -> bool:
        return self.config.method in BALANCED_METHODS

    @cached_property
    def tokenizer_version(self) -> str:
        """Hash of centroids and settings; checkpoints belong to one tokenizer version."""
        digest = hashlib.sha256(self.codebooks.contiguous().numpy().tobytes())
        for name in sorted(self.networks):
            digest.update(name.encode() + self.networks[name].contiguous().numpy().tobytes())
        fitted = dataclasses.replace(self.config, quality_tolerance=_TOLERANCE)  # changes no ID
        digest.update(_config_json(fitted).encode())
        return digest.hexdigest()[:16]

    def project(self, vectors: Tensor) -> Tensor:
        """Item vectors (N, Dv) to the space of the codebooks (N, Z)."""
        return perceptron(self.networks, "encoder", vectors) if self.networks else vectors

    def encode(self, vectors: Tensor) -> Tensor:
        """Nearest code level by level, without a limit on cluster sizes.

        Args:
            vectors: (N, Dv).

        Returns:
            (N, L) int64.
        """
        residual, codes = self.project(vectors), []
        for centroids in self.codebooks:
            codes.append(nearest(residual, centroids))
            residual = residual - centroids[codes[-1]]
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstruct (N, Dv) vectors from (N, L) codes.

        With fewer columns only these first levels are used; a disambiguation token is ignored.
        """
        codes = codes[:, : self.num_levels]
        sums = self.codebooks[torch.arange(codes.shape[1]), codes].sum(1)
        return perceptron(self.networks, "decoder", sums) if self.networks else sums

    def save(self, directory: Path) -> None:
        """Write `codebook.safetensors`."""
        metadata = {"config": _config_json(self.config)}
        tensors = {"codebooks": self.codebooks, **self.networks}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, directory / CODEBOOK_FILE, metadata=metadata)


def load_codebook(directory: Path) -> Codebook:
    """Read what `Codebook.save` wrote."""
    with safe_open(directory / CODEBOOK_FILE, framework="pt") as file:
        config = TokenizerConfig(**json.loads(file.metadata()["config"]))
        networks = {n: file.get_tensor(n) for n in sorted(file.keys()) if n != "codebooks"}
        return Codebook(file.get_tensor("codebooks"), config, networks)


def fit_codebook(
    vectors: Tensor,
    config: TokenizerConfig,
    *,
    on_progress: Callable[[str], None] = lambda message: None,
) -> tuple[Codebook, Tensor]:
    """Fit the codebooks of `config.method`, level by level but for RQ-VAE (OneRec v1, section 3.1).

    The paper assigns codes by argmin after fitting balanced clusters, which loses the balance; here
    the catalogue keeps the balanced assignment, and argmin is used for items added later.

    Args:
        vectors: (N, Dv) float32, finite, none zero.
        config: Levels, codes, steps, seed; `codebook_size` 0 derives K from the number of items.
        on_progress: Called with messages about every level and every few steps.

    Returns:
        The codebook, and (N, L) codes of `vectors`.

    Raises:
        ValueError: Fewer items than codes, more items than IDs, or a NaN or zero vector.
    """
    check_vectors(vectors)
    size = config.codes_per_level(len(vectors))
    config = dataclasses.replace(config, codebook_size=size)
    _check_size(len(vectors), config)
    most, room = int(copies_of(vectors).max()), -(-len(vectors) // size)
    if most > room:
        on_progress(
            f"{most} items share one vector, more than the {room} a balanced cluster holds: they "
            "are split among codes, with unique IDs all the same"
        )
    if config.method == "rqvae":
        tables, networks = fit_rqvae(vectors, config, on_progress=on_progress)
        book = Codebook(tables, config, networks)
        return book, book.encode(vectors)
    codebooks: list[Tensor] = []
    codes: list[Tensor] = []
    for level in range(config.num_levels):
        generator = torch.Generator().manual_seed(config.seed + level)
        residual = Residuals(vectors, codebooks[:], codes[:])
        partition = CLUSTERERS[config.method](
            residual if config.method == "balanced" else residual[:],
            size,
            iterations=config.iterations,
            generator=generator,
            on_step=_every_tenth(f"level {level + 1} of {config.num_levels}", on_progress),
        )
        codebooks.append(partition.centroids)
        codes.append(partition.labels)
    return Codebook(torch.stack(codebooks), config), torch.stack(codes, 1)


def _check_size(num_items: int, config: TokenizerConfig) -> None:
    """Raise `ValueError` when a catalogue is too small for its codebook, or too large."""
    if num_items < 2:
        raise ValueError(
            f"{num_items} items were first seen before the day: two are the fewest that a "
            "codebook can be fitted on; ingest more days, or check the items that were delivered"
        )
    if num_items < config.codebook_size:
        raise ValueError(
            f"tokenizer.codebook_size={config.codebook_size}: the catalogue has only {num_items} "
            f"items; lower tokenizer.codebook_size to at most {num_items}, or to 0, which follows "
            "the catalogue's size"
        )
    check_capacity(num_items, config.codebook_size, config.num_levels)


def check_vectors(vectors: Tensor) -> None:
    """Raise `ValueError` naming the first row that is NaN, infinite or zero."""
    parts = vectors.split(ROWS_AT_ONCE)
    bad = torch.cat([~torch.isfinite(part).all(1) for part in parts])
    zero = torch.cat([(part == 0).all(1) for part in parts])
    for mask, problem in ((bad, "is not finite"), (zero, "is all zeros")):
        if bool(mask.any()):
            row = int(mask.nonzero()[0, 0])
            raise ValueError(
                f"vectors: row {row} {problem} ({int(mask.sum())} such rows of {len(vectors)}); "
                "make item_embeddings again, which gives every item a unit vector"
            )


def copies_of(vectors: Tensor) -> Tensor:
    """(M,): how many items have each of the M distinct vectors, identified by a hash."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(1, 1 << 62, (vectors.shape[1],), generator=generator)
    hashes = [
        (part.view(torch.int32) * factors).sum(1)
        for part in vectors.contiguous().split(ROWS_AT_ONCE)
    ]
    return torch.unique(torch.cat(hashes), return_counts=True)[1]


def check_capacity(num_items: int, size: int, num_levels: int) -> None:
    """Raise `ValueError` when there are more items than IDs, `K ** (L + 1)`."""
    if num_items > size ** (num_levels + 1):
        raise ValueError(
            f"tokenizer.codebook_size={size}: {num_items} items need more than the "
            f"{size ** (num_levels + 1)} IDs of {num_levels} levels and a disambiguation token; "
            "raise tokenizer.codebook_size or tokenizer.num_levels"
        )


def _every_tenth(name: str, on_progress: Callable[[str], None]) -> Callable[[], None]:
    """A callback that reports every tenth of its calls."""
    steps = count(1)

    def on_step() -> None:
        if (step := next(steps)) % 10 == 0:
            on_progress(f"{name}: {step} steps")

    return on_step


def _config_json(config: TokenizerConfig) -> str:
    """Settings that the centroids depend on; newer settings only where they are not the default.

    So codebooks made before a setting existed keep their tokenizer version.
    """
    settings = dataclasses.asdict(config)
    defaults = dataclasses.asdict(TokenizerConfig())
    always = ("num_levels", "codebook_size", "iterations", "seed")
    kept = {n: v for n, v in settings.items() if n in always or v != defaults[n]}
    return json.dumps(kept, sort_keys=True)
