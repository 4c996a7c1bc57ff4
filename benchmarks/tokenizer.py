"""Tokenizers side by side: time, balance, reconstruction, collisions, neighbours.

Vectors are unit norm around 2,000 Zipf-weighted topics (`topical`). Peers: faiss.Kmeans level by
level on residuals, k-means-constrained with one thread, and our other methods.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.section import Section, Table
from onerec.config import TokenizerConfig
from onerec.tokenizer.balanced_kmeans import balanced_kmeans
from onerec.tokenizer.codebook import Codebook, fit_codebook
from onerec.tokenizer.diagnostics import embedding_hit_rate, tokenizer_diagnostics

THREADS = 2
NOISE = 0.3
"""Length of the noise added to a unit topic before normalising."""
METHODS = {
    "ours": "balanced",
    "plain K-means": "kmeans",
    "RQ-VAE": "rqvae",
}
COLUMNS = [
    "method",
    "seconds",
    "largest - smallest",
    "entropy / log K",
    "codes used",
    "Gini",
    "relative MSE",
    "collision rate",
    "hit rate 1 / 2 / 3",
]
EXACT_CAPTION = (
    "Inertia against exact balanced K-means (k-means-constrained, min-cost flow, n_jobs=1), one "
    "level, one start each (n_init=1, k-means++ there, a balanced tree here), means over seeds"
)
EXACT_COLUMNS = ["items", "exact inertia", "ours", "ratio", "exact seconds", "our seconds"]


def run(quick: bool) -> Section:
    """Measure; `quick` uses sizes that take seconds."""
    threads = 1 if quick else THREADS  # with small tensors a thread pool only costs time
    torch.set_num_threads(threads)
    num_items, width, topics = (4000, 32, 100) if quick else (100_000, 256, 2000)
    config = TokenizerConfig(codebook_size=32 if quick else 256, num_levels=3, iterations=20)
    vectors = topical(num_items, width, topics=topics)
    seconds, faiss_codes, faiss_error = _against_faiss(
        vectors, config, repeats=2 if quick else 3, threads=threads
    )
    rows, found = [], {}
    for name, method in METHODS.items():
        chosen = replace(config, method=method, rqvae_epochs=5 if quick else 30)
        began = time.perf_counter()
        codebook, codes = fit_codebook(vectors, chosen)
        spent = seconds["ours"] if method == "balanced" else time.perf_counter() - began
        found[name] = tokenizer_diagnostics(codebook, codes, vectors)
        rows.append(_row(name, found[name], spent))
    rows.append(_faiss_row(faiss_codes, faiss_error, vectors, config, seconds["faiss"]))
    exact_rows, over_exact = _against_exact(quick)
    paper_rows, over_paper = _against_algorithm_1(config, quick)
    figures = {
        "kmeans_seconds_over_faiss": seconds["ours"] / seconds["faiss"],
        "kmeans_mse_over_algorithm1": over_paper,
        "kmeans_inertia_over_exact": over_exact,
        "kmeans_size_spread": max(level["size_spread"] for level in found["ours"]["levels"]),
    }
    return Section(
        title="Tokenizer",
        text=(
            f"{num_items:,} x {width} float32, unit norm, {topics:,} Zipf-weighted topics, "
            f"K={config.codebook_size}, L={config.num_levels}, {threads} thread(s). Ours and faiss "
            "(25 iterations, its default sample) run in turn, best of the rounds; the others once. "
            "Hit rate: the share of an item's 10 nearest neighbours that share its first 1, 2, 3 "
            "codes."
        ),
        tables=[
            Table(caption="Tokenizers", columns=COLUMNS, rows=rows),
            Table(
                caption=(
                    "Against the paper's Algorithm 1 (clusters filled in the fixed order 1 to K, "
                    f"{config.iterations} iterations, its balanced clusters kept), L=3"
                ),
                columns=["items", "width", "K", "method", "relative MSE", "seconds"],
                rows=paper_rows,
            ),
            Table(caption=EXACT_CAPTION, columns=EXACT_COLUMNS, rows=exact_rows),
        ],
        figures=figures,
    )


def topical(
    num_items: int, width: int, *, topics: int, seed: int = 0, out: Tensor | None = None
) -> Tensor:
    """(N, D) unit vectors around Zipf-weighted random topics, made block by block, in `out`."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(topics, width, generator=generator), dim=1)
    shares = 1 / torch.arange(1.0, topics + 1)
    topic = torch.multinomial(shares, num_items, replacement=True, generator=generator)
    vectors = torch.empty(num_items, width) if out is None else out
    for block in torch.arange(num_items).split(50_000):
        noise = normalize(torch.randn(len(block), width, generator=generator), dim=1)
        vectors[block] = normalize(centres[topic[block]] + NOISE * noise, dim=1)
    return vectors


def _against_faiss(
    vectors: Tensor, config: TokenizerConfig, *, repeats: int, threads: int
) -> tuple[dict[str, float], Tensor, float]:
    """Best seconds of ours and faiss, run alternately; faiss's codes and relative error."""
    import faiss  # pyright: ignore[reportMissingImports]

    faiss.omp_set_num_threads(threads)
    rows = vectors.numpy()
    best = {"ours": np.inf, "faiss": np.inf}
    codes, residual = [], rows
    for _ in range(repeats):
        began = time.perf_counter()
        fit_codebook(vectors, config)
        best["ours"] = min(best["ours"], time.perf_counter() - began)
        began = time.perf_counter()
        codes, residual = [], rows
        for level in range(config.num_levels):
            kmeans = faiss.Kmeans(rows.shape[1], config.codebook_size, niter=25, seed=1 + level)
            kmeans.train(residual)
            assert kmeans.centroids is not None, "it was trained"
            nearest = kmeans.index.search(residual, 1)[1][:, 0]
            codes.append(torch.from_numpy(nearest))
            residual = residual - kmeans.centroids[nearest]
        best["faiss"] = min(best["faiss"], time.perf_counter() - began)
    error = float(np.square(residual, dtype=np.float64).sum() / np.square(rows).sum())
    return best, torch.stack(codes, 1), error


def _row(name: str, found: dict[str, Any], seconds: float) -> list[Any]:
    levels = found["levels"]
    return [
        name,
        seconds,
        max(level["size_spread"] for level in levels),
        _mean(levels, "entropy_share"),
        _mean(levels, "utilisation"),
        _mean(levels, "gini"),
        _error(found),
        found["collision_rate"],
        " / ".join(f"{level['hit_rate']:.3f}" for level in levels),
    ]


def _faiss_row(
    codes: Tensor, error: float, vectors: Tensor, config: TokenizerConfig, seconds: float
) -> list[Any]:
    # the diagnostics need a codebook; for faiss only those of the codes alone are shown
    empty = torch.zeros(config.num_levels, config.codebook_size, vectors.shape[1])
    found = tokenizer_diagnostics(Codebook(empty, config), codes, vectors)
    row = _row("faiss.Kmeans", found, seconds)
    row[6] = error
    row[8] = " / ".join(f"{share:.3f}" for share in embedding_hit_rate(codes, vectors))
    return row


def _against_algorithm_1(config: TokenizerConfig, quick: bool) -> tuple[list[list[Any]], float]:
    """Rows of the table, and our relative MSE over the paper's."""
    num_items, width, size = (2000, 16, 32) if quick else (20_000, 128, 128)
    vectors = topical(num_items, width, topics=2000)
    rows, errors = [], {}
    for name, method in {"ours": "balanced", "Algorithm 1": "algorithm_1"}.items():
        began = time.perf_counter()
        codebook, codes = fit_codebook(vectors, replace(config, method=method, codebook_size=size))
        spent = time.perf_counter() - began
        errors[name] = _error(tokenizer_diagnostics(codebook, codes, vectors))
        rows.append([num_items, width, size, name, errors[name], spent])
    return rows, errors["ours"] / errors["Algorithm 1"]


def _against_exact(quick: bool) -> tuple[list[list[Any]], float]:
    """Rows of the table, and total inertia over the exact method's."""
    from k_means_constrained import KMeansConstrained  # pyright: ignore[reportMissingImports]

    rows, total = [], np.zeros(2)
    for num_items in (600, 1000) if quick else (2000, 5000):
        inertia, seconds = np.zeros(2), np.zeros(2)
        seeds = range(2) if quick else range(3)
        for seed in seeds:
            vectors = topical(num_items, 64, topics=200, seed=seed)
            began = time.perf_counter()
            exact = KMeansConstrained(
                n_clusters=32,
                size_min=num_items // 32,
                size_max=-(-num_items // 32),
                n_init=1,
                n_jobs=1,
                random_state=seed,
            ).fit(vectors.double().numpy())
            seconds[0] += time.perf_counter() - began
            began = time.perf_counter()
            generator = torch.Generator().manual_seed(seed)
            ours = balanced_kmeans(vectors, 32, iterations=20, generator=generator)
            seconds[1] += time.perf_counter() - began
            left = (vectors - ours.centroids[ours.labels]).double().square().sum().item()
            assert exact.inertia_ is not None, "it was fitted"
            inertia += np.array([float(exact.inertia_), left])
        total += inertia
        inertia, seconds = inertia / len(seeds), seconds / len(seeds)
        ratio = inertia[1] / inertia[0]
        rows.append([num_items, *inertia.tolist(), float(ratio), *seconds.tolist()])
    return rows, float(total[1] / total[0])


def _error(found: dict[str, Any]) -> float:
    return found["levels"][-1]["relative_mse"]


def _mean(levels: list[dict[str, Any]], name: str) -> float:
    return sum(level[name] for level in levels) / len(levels)
