"""Every item of a sequence as a target, from one pass of a causal encoder.

With `causal_encoder` the states of a prefix are the same in whatever follows it, so one pass over a
sequence gives the memories of all its prefixes, and one pass of the decoder reads item after item
from its own memory. Learning from each prefix by itself costs as many passes of the encoder as
there are items. `OneRec.encode` of a prefix gives the same memory, so generation is unchanged.

Shapes: B sequences, P places (items of a sequence, all of them targets), T SID tokens, C codes,
S states, D width.
"""

import torch
from torch import Tensor

from onerec.model.decoder_state import DecoderState
from onerec.model.onerec import OneRec


def latest_states(model: OneRec, states: Tensor, *, first: int = 0) -> Tensor:
    """(B, P, D): the encoder's state before each item from position `first` on.

    Before the first item that is the start token's state.
    """
    per_item = model.tokens_per_history_item
    return states[:, first * per_item :: per_item]


def decode_positions(model: OneRec, states: Tensor, codes: Tensor, *, first: int = 0) -> Tensor:
    """Teacher-forced logits of every item as the first of the session after those before it.

    Args:
        model: With a causal encoder.
        states: (B, S, D) `OneRec.causal_states` of the sequences without their last item.
        codes: (B, P, T) tokens of the items from position `first` on; anything at padding, which
            must be on the right.
        first: Items at the beginning that are read and never predicted.

    Returns:
        (B, P, T, C) logits; undefined at padding.
    """
    assert model.config.causal_encoder, "the states of a prefix must not depend on what follows"
    _, places, num_sid_tokens = codes.shape
    device = codes.device
    ends = torch.arange(first, first + places, device=device) * model.tokens_per_history_item
    memory = torch.cat([model.marked(latest_states(model, states, first=first)), states], 1)
    own = torch.eye(places, dtype=torch.bool, device=device)
    before = torch.arange(states.shape[1], device=device) <= ends.unsqueeze(1)
    seen = torch.cat([own, before], 1).repeat_interleave(num_sid_tokens, 0)  # (P T, P + S)
    state = DecoderState(
        memory=[block.cross.memory(memory) for block in model.decoder_blocks()],
        mask=seen[None, None],
        caches=None,
        beams=places,
    )
    hidden = model.extend(state, model.first_item_tokens(codes))
    return model.logits(hidden)
