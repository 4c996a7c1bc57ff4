"""One pass over a sequence says of every prefix what encoding that prefix says."""

import pytest
import torch

from onerec.config import ModelConfig
from onerec.generation import Trie, rank_items, score_catalogue
from onerec.model.next_item import decode_positions, latest_states
from tests.core.model.small import small_model, unique_codes

SEQUENCES = torch.tensor([[3, 1, 4, 2, 0], [5, 2, 6, -1, -1]])


@pytest.mark.parametrize("tokens", ["items", "sid_tokens"])
def test_every_place_is_the_first_item_after_its_prefix(tokens: str) -> None:
    model = small_model(causal_encoder=True, history_tokens=tokens)
    codes = unique_codes(7, 4, 3)
    vectors = torch.randn(7, 16, generator=torch.Generator().manual_seed(1)).double()
    there = SEQUENCES >= 0
    told = codes[SEQUENCES.clamp(min=0)]
    extra = vectors[SEQUENCES.clamp(min=0)]
    states = model.causal_states(told[:, :-1], there[:, :-1], extra[:, :-1])
    logits = decode_positions(model, states, told)
    for row, place in there.nonzero().tolist():
        memory = model.encode(
            told[row : row + 1, :place], there[row : row + 1, :place], extra[row : row + 1, :place]
        )
        expected = model.decode(memory, told[row : row + 1, place : place + 1])
        torch.testing.assert_close(logits[row, place], expected[0, 0])
        latest = latest_states(model, states)[row, place]
        torch.testing.assert_close(model.marked(latest), memory.states[0, 0])
    later = decode_positions(model, states, told[:, 2:], first=2)
    torch.testing.assert_close(later, logits[:, 2:])


def test_no_state_knows_what_comes_later() -> None:
    model = small_model(causal_encoder=True)
    codes = unique_codes(7, 4, 3)
    there = torch.ones(1, 4, dtype=torch.bool)
    one = model.causal_states(codes[torch.tensor([[3, 1, 4, 2]])], there)
    other = model.causal_states(codes[torch.tensor([[3, 1, 0, 6]])], there)
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3], other[:, 3])


def test_beams_of_a_causal_model_are_its_exact_scores() -> None:
    """What is generated goes through the same memory, padded to the model's length."""
    model, codes = small_model(causal_encoder=True), unique_codes(20, 4, 3)
    history = torch.tensor([[3, 1, 4], [5, -1, -1], [-1, -1, -1]])
    exact = score_catalogue(model, history, codes)
    items, logp = rank_items(model, history, codes, Trie.build(codes, 4), top_k=20, beam=20)
    torch.testing.assert_close(logp, exact.sort(1, descending=True).values)
    torch.testing.assert_close(exact.gather(1, items), logp)


def test_a_lazy_decoder_has_no_encoder_to_be_causal() -> None:
    with pytest.raises(ValueError, match="causal_encoder=True"):
        ModelConfig(architecture="lazy_decoder", causal_encoder=True)
