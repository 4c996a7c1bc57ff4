"""Other ways to cluster, to compare with: exact assignment and the paper's Algorithm 1."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def topical(num_items: int, width: int, *, topics: int = 30, seed: int = 0) -> Tensor:
    """(N, D) unit vectors around Zipf-weighted topics: hot topics need many clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(topics, width, generator=generator), dim=1)
    shares = 1 / torch.arange(1.0, topics + 1)
    topic = torch.multinomial(shares, num_items, replacement=True, generator=generator)
    noise = torch.nn.functional.normalize(torch.randn(num_items, width, generator=generator), dim=1)
    return torch.nn.functional.normalize(centres[topic] + 0.7 * noise, dim=1)


def inertia(vectors: Tensor, centroids: Tensor, labels: Tensor) -> float:
    return (vectors - centroids[labels]).double().square().sum().item()


def exact_labels(vectors: Tensor, centroids: Tensor) -> Tensor:
    """The cheapest balanced assignment, by the Hungarian method; N must be a multiple of K."""
    room = len(vectors) // len(centroids)
    costs = torch.cdist(vectors, centroids).square().numpy()
    rows, seats = linear_sum_assignment(np.repeat(costs, room, axis=1))
    assert (rows == np.arange(len(vectors))).all()
    return torch.from_numpy(seats // room)
