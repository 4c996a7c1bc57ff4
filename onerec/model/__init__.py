"""The generator: encoder over the history, session decoder with sparse MoE."""

from onerec.model.checkpoint import (
    GenerationMismatchError,
    load_model,
    read_config,
    save_model,
)
from onerec.model.content import start_from_content
from onerec.model.onerec import DecoderState, Memory, OneRec, expert_load
from onerec.model.scoring import (
    check_items,
    digit_logp,
    encode_items,
    lookup,
    session_logp,
    session_nll,
)

__all__ = [
    "DecoderState",
    "GenerationMismatchError",
    "Memory",
    "OneRec",
    "check_items",
    "digit_logp",
    "encode_items",
    "expert_load",
    "load_model",
    "lookup",
    "read_config",
    "save_model",
    "session_logp",
    "session_nll",
    "start_from_content",
]
