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
    encoder_input,
    item_logp,
    lookup,
    session_logp,
    session_nll,
    token_logp,
)
from onerec.model.user_features import Histories, UserHistories, UserVocabulary, items_of

__all__ = [
    "DecoderState",
    "Histories",
    "Memory",
    "OneRec",
    "TokenizerVersionMismatchError",
    "UserHistories",
    "UserVocabulary",
    "check_items",
    "encode_items",
    "encoder_input",
    "expert_load",
    "init_from_content",
    "item_logp",
    "items_of",
    "load_model",
    "lookup",
    "read_config",
    "save_model",
    "session_logp",
    "session_nll",
    "token_logp",
]
