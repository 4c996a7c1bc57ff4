"""The generator: encoder over the history, session decoder with sparse MoE."""

from onerec.model.checkpoint import (
    TokenizerVersionMismatchError,
    load_model,
    read_config,
    save_model,
)
from onerec.model.content_init import init_from_content
from onerec.model.decoder_state import DecoderState, Memory
from onerec.model.moe import expert_load
from onerec.model.onerec import OneRec
from onerec.model.scoring import (
    check_items,
    encode_items,
    item_logp,
    lookup,
    session_logp,
    session_nll,
    token_logp,
)

__all__ = [
    "DecoderState",
    "Memory",
    "OneRec",
    "TokenizerVersionMismatchError",
    "check_items",
    "encode_items",
    "expert_load",
    "init_from_content",
    "item_logp",
    "load_model",
    "lookup",
    "read_config",
    "save_model",
    "session_logp",
    "session_nll",
    "token_logp",
]
