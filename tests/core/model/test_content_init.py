"""Digit embeddings that start from content know which codes are alike."""

import pytest
import torch

from onerec.config import ModelConfig
from onerec.model import OneRec, init_from_content

K, T = 4, 3


def _model() -> OneRec:
    torch.manual_seed(0)
    return OneRec(
        ModelConfig(d_model=64, num_heads=2),
        codebook_size=K,
        num_sid_tokens=T,
        history_length=2,
        session_items=2,
    )


def test_codes_of_alike_items_start_alike():
    model = _model()
    codes = torch.tensor([[c, 0, 0] for c in range(K) for _ in range(3)])
    # codes 0 and 1 hold nearly the same content, 2 and 3 hold others
    axes = torch.tensor([[1.0, 0, 0, 0], [0.95, 0.1, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    init_from_content(model, codes, axes.repeat_interleave(3, 0))
    first = model.sid_embedding.weight[:K].detach()
    assert torch.cdist(first, first)[0].argsort()[1] == 1
    assert first.norm(dim=1).mean() == pytest.approx(1.0, abs=1e-5)


def test_the_disambiguation_token_and_unused_codes_keep_their_random_start():
    model, codes = _model(), torch.tensor([[0, 1, 0], [2, 1, 1]])
    before = model.sid_embedding.weight.detach().clone()
    init_from_content(model, codes, torch.eye(2))
    after = model.sid_embedding.weight.detach()
    assert torch.equal(after[2 * K :], before[2 * K :])
    assert torch.equal(after[[1, 3]], before[[1, 3]])
    assert not torch.equal(after[[0, 2]], before[[0, 2]])


def test_vectors_of_another_catalogue_are_refused():
    with pytest.raises(ValueError, match="3 item vectors for 2 semantic IDs"):
        init_from_content(_model(), torch.zeros(2, T, dtype=torch.long), torch.eye(3))
