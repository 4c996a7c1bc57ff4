"""What an incremental decoding reads and keeps: the encoder's memory, and caches of the decoder.

Shapes: B batch, S memory tokens, D width, K beams of a user.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from onerec.model.blocks import KeyValue
from onerec.model.cache import Caches


class Memory(NamedTuple):
    """What the decoder attends to: a user's states (B, S, D) and mask (B, S), true where visible.

    The states of a lazy decoder are its keys and values, `lazy_decoder.context_width` wide. A dense
    head's own encoder has read the history, too: (B, D). Where item neighbours count in lists, they
    know the items that were read: (B, H).
    """

    states: Tensor
    mask: Tensor
    dense: Tensor | None = None
    items: Tensor | None = None


@dataclasses.dataclass
class DecoderState:
    """Caches of an incremental decoding.

    Attributes:
        memory: Cross-attention keys and values per layer, one row per user; or the encoder's states
            themselves where few queries read them.
        mask: (B, 1, 1, S) over the memory.
        caches: Self-attention keys and values of all layers; None where nothing will follow, as in
            teacher forcing.
        beams: K, beams of each user.
    """

    memory: Sequence[KeyValue | Tensor]
    mask: Tensor
    caches: Caches | None
    beams: int = 1

    def reorder(self, parents: Tensor) -> None:
        """Let beam k of user b continue beam `parents[b, k]` (B, K')."""
        if self.caches is not None:
            self.caches.reorder(parents)
        self.beams = parents.shape[1]
