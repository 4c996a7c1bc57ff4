"""The lazy decoder: shared keys, groups of heads, and the settings that describe them."""

import pytest
import torch

from onerec.config import ModelConfig
from onerec.model import lookup
from onerec.model.lazy_decoder import LazyCrossAttention, context_width
from tests.core.model.small import LAZY, histories, small_model, unique_codes

CODES = unique_codes(20, 4, 3)
HISTORY = histories([0, 3, 2], [], [1, 1, 4, 5, 0, 2])


def config(**changes: object) -> ModelConfig:
    shape = {"d_model": 24, "num_heads": 6, "decoder_layers": 4, **LAZY, **changes}
    return ModelConfig(**shape)  # pyright: ignore


@pytest.mark.parametrize(
    ("changes", "width"),
    [
        ({}, 24),
        ({"context_kv_heads": 2}, 2 * 4),
        ({"context_kv_heads": 1, "context_kv_layers": 4}, 4 * 4),
        ({"context_kv_heads": 3, "context_kv_layers": 2, "context_values": True}, 2 * 2 * 3 * 4),
    ],
)
def test_context_is_as_wide_as_the_paper_says(changes: dict[str, object], width: int) -> None:
    """d_ctx = S_kv L_kv G_kv d_head (OneRec-V2)."""
    assert context_width(config(**changes)) == width


def test_blocks_of_a_group_read_the_same_keys() -> None:
    """floor(l L_kv / layers): of two sets of keys, blocks 0 and 1 share one, 2 and 3 the other."""
    model = small_model(
        **LAZY, decoder_layers=4, context_kv_layers=2, context_kv_heads=1, context_values=True
    )
    state = model.start_decoding(model.encode(*lookup(CODES, HISTORY)))
    keys, values = zip(*state.memory, strict=True)
    assert keys[0].shape == (3, 1, 7, 8)
    for kind in (keys, values):
        torch.testing.assert_close(kind[0], kind[1], rtol=0, atol=0)
        torch.testing.assert_close(kind[2], kind[3], rtol=0, atol=0)
        assert (kind[0] - kind[2]).abs().max() > 0.1
    assert (keys[0] - values[0]).abs().max() > 0.1


def test_keys_are_the_values_unless_asked_otherwise() -> None:
    model = small_model(**LAZY)
    for keys, values in model.start_decoding(model.encode(*lookup(CODES, HISTORY))).memory:
        assert torch.equal(keys, values)
        # normed: every token's key has mean square 1 over all heads, before the gain, which is 1
        square = keys.square().mean((1, 3))
        torch.testing.assert_close(square, torch.ones_like(square), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_grouped_heads_equal_attention_head_by_head(kv_heads: int) -> None:
    torch.manual_seed(0)
    attention = LazyCrossAttention(config(context_kv_heads=kv_heads), 0).double()
    x, states = torch.randn(2, 5, 24).double(), torch.randn(2, 7, 4 * kv_heads).double()
    mask = torch.rand(2, 7) > 0.3
    memory = attention.memory(states)
    found = attention(x, memory, mask[:, None, None, :])
    queries = attention.query(x).unflatten(-1, (6, 4))
    heads = []
    for head in range(6):
        keys = states[..., 4 * (head * kv_heads // 6) :][..., :4]
        scores = queries[:, :, head] @ keys.transpose(1, 2) / 4**0.5
        weights = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
        heads.append(weights @ keys)
    torch.testing.assert_close(found, attention.out(torch.cat(heads, dim=-1)))


def test_only_later_blocks_are_sparse() -> None:
    model = small_model(**LAZY, decoder_layers=3, dense_decoder_layers=2)
    assert [hasattr(block.feed, "centroids") for block in model.decoder] == [False, False, True]
    dense = small_model(decoder_layers=2, dense_decoder_layers=1)
    assert [hasattr(block.feed, "centroids") for block in dense.decoder] == [False, True]


def test_a_lazy_step_is_mostly_decoder() -> None:
    """No parameter reads the history but its two projections and their norm."""
    model = small_model(**LAZY)
    readers = [name for name, _ in model.named_parameters() if name.startswith(("enc", "context"))]
    assert readers == ["context.up.weight", "context.project.weight", "context.norms.0.weight"]
    assert not any("cross.project" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("architecture", "decoder"),
        ("context_kv_heads", 4),
        ("context_kv_heads", -1),
        ("context_kv_layers", 5),
        ("context_kv_layers", 0),
        ("dense_decoder_layers", -1),
    ],
)
def test_wrong_settings_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        config(**{name: value})
