"""Models of equal shape for the beam search benchmark: ours, and Hugging Face's T5."""

from typing import Any, Literal

import torch
from torch import Tensor

from onerec.config import ModelConfig
from onerec.model import OneRec

SID_TOKENS, CODES, HISTORY, SESSION = 4, 256, 20, 5
BEAM = 20


def unique_codes(num_items: int) -> Tensor:
    """(N, T) unique random semantic IDs."""
    ids = torch.randperm(CODES**3)[:num_items]  # three tokens make them unique; random order
    powers = CODES ** torch.arange(3)
    spread = ids.unsqueeze(1) // powers % CODES
    return torch.cat([spread, torch.randint(0, CODES, (num_items, 1))], 1)


def peer_shaped(history_tokens: Literal["items", "sid_tokens"] = "sid_tokens") -> OneRec:
    """Our generator with the shape of published models."""
    config = ModelConfig(
        d_model=128, num_heads=4, d_ff=512, encoder_layers=4, decoder_layers=4, num_experts=1,
        active_experts=1, dropout=0.0, history_tokens=history_tokens, separator=False,
    )  # fmt: skip
    return OneRec(
        config, codebook_size=CODES, num_sid_tokens=SID_TOKENS, history_length=HISTORY,
        session_items=SESSION,
    ).eval()  # fmt: skip


class HuggingFace:
    """T5 with `prefix_allowed_tokens_fn` over a nested dict, as LC-Rec and LETTER decode."""

    def __init__(self, codes: Tensor) -> None:
        from transformers import T5Config, T5ForConditionalGeneration

        config = T5Config(
            vocab_size=2 + SID_TOKENS * CODES, d_model=128, d_kv=32, num_heads=4, d_ff=512,
            num_layers=4, num_decoder_layers=4, dropout_rate=0.0, decoder_start_token_id=0,  # pyright: ignore[reportCallIssue]
            pad_token_id=0, eos_token_id=1,
        )  # fmt: skip
        self.model: Any = T5ForConditionalGeneration(config).eval()
        self.tokens = codes + torch.arange(SID_TOKENS) * CODES + 2
        self.root: dict[int, Any] = {}
        for row in self.tokens.tolist():
            node = self.root
            for token in row:
                node = node.setdefault(token, {})

    def allowed(self, _: int, tokens: Tensor) -> list[int]:
        node = self.root
        for token in tokens.tolist()[1:]:
            node = node.get(token, {})
        return list(node) or [1]

    @torch.no_grad()
    def generate(self, history: Tensor, *, constrained: bool = True) -> Tensor:
        """Tokens (B * K, T) of the beams."""
        found = self.model.generate(
            self.tokens[history].flatten(1), num_beams=BEAM, num_return_sequences=BEAM,
            max_new_tokens=SID_TOKENS, do_sample=False,
            prefix_allowed_tokens_fn=self.allowed if constrained else None,
        )  # fmt: skip
        return found[:, 1 : 1 + SID_TOKENS]

    def legal_share(self, found: Tensor) -> float:
        legal = {tuple(row) for row in self.tokens.tolist()}
        return sum(tuple(row) in legal for row in found.tolist()) / len(found)
