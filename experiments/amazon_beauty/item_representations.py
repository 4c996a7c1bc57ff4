"""Representations of the items: text, co-occurrence, semantic IDs; cached in scratch.

Shapes: N items, T SID tokens.
"""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from experiments.amazon_beauty.training import SystemRun
from onerec.config import TokenizerConfig
from onerec.embeddings.collaborative import collaborative_vectors
from onerec.embeddings.reduction import principal_components, ridge
from onerec.embeddings.text import encode_minilm, item_texts
from onerec.tokenizer.codebook import fit_codebook
from onerec.tokenizer.semantic_ids import assign_semantic_ids

TEXT_WIDTH, SHARED_WIDTH, RIDGE = 128, 64, 0.05
TRUST = 5.0
"""Users an item needs before its co-occurrences count as much as what its text predicts."""


def text_vectors(run: SystemRun) -> np.ndarray:
    """(N, 384) MiniLM's vectors of title, brand and categories; kept."""
    file = run.scratch / "text.safetensors"
    if not file.exists():
        table = pa.table(
            {
                "title": pa.array(run.reviews.titles, pa.string()),
                "category": pa.array(
                    [a.replace("|", ", ") for a in run.reviews.attributes], pa.string()
                ),
            }
        )
        save_file({"text": encode_minilm(item_texts(table), run.on_progress)}, file)
    return load_file(file)["text"]


def item_vectors(run: SystemRun) -> np.ndarray:
    """(N, 192) unit vectors of text and of what users chose together, from training items alone.

    What an item's text predicts stands in where few or no users chose it; as in the nightly
    embeddings.
    """
    text = text_vectors(run).astype(np.float64)
    everything = np.ones(len(text), dtype=bool)
    mean, axes = principal_components(text, everything, TEXT_WIDTH)
    content = (text - mean) @ axes.T
    content /= np.sqrt(np.square(content).sum(1).mean())
    items, users = run.reviews.learned()
    shape = (run.reviews.num_users, run.reviews.num_items)
    chosen = sp.csr_array((np.ones(len(items)), (users, items)), shape=shape)
    pairs = sp.csr_array(chosen.T @ chosen)
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    shared = collaborative_vectors(pairs, SHARED_WIDTH)
    observed = np.abs(shared).sum(1) > 0
    watched = np.bincount(items, minlength=len(text))
    trust = np.where(observed, watched / (watched + TRUST), 0.0)[:, None]
    root = np.sqrt(trust[observed])
    weights = ridge(content[observed] * root, shared[observed] * root, RIDGE * observed.sum())
    mixed = trust * shared + (1 - trust) * (content @ weights)
    fused = np.concatenate([content, mixed], 1)
    return (fused / np.linalg.norm(fused, axis=1, keepdims=True)).astype(np.float32)


def semantic_ids_of(run: SystemRun, vectors: np.ndarray, config: TokenizerConfig) -> Tensor:
    """(N, T) unique IDs; kept. Titles of all items are known before the first test user."""
    file = run.scratch / "semantic_ids.safetensors"
    if not file.exists():
        table = torch.from_numpy(vectors)
        book, codes = fit_codebook(table, config, on_progress=run.on_progress)
        count = len(vectors)
        ids = assign_semantic_ids(
            book,
            codes,
            table,
            np.arange(count).astype(str).astype(object),
            np.full(count, np.datetime64("2014-07-01", "D")),
        )
        save_file({"codes": ids.codes.numpy()}, file)
    return torch.from_numpy(load_file(file)["codes"])
