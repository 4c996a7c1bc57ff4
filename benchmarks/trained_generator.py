"""A small generator trained in a minute on items with meaningful semantic IDs.

Beam search misses items of the exact list where probability is spread over many prefixes. A model
with random weights spreads it unrealistically, so the recall of beam search is measured on a
trained model: an item's vector is the sum of one direction per SID token, each level finer than the
one before, and users watch items near their preference vector.
"""

import torch
from torch import Tensor

from onerec.config import ModelConfig
from onerec.model import OneRec, lookup, session_nll

SID_TOKENS, CODES, HISTORY, WIDTH = 4, 256, 20, 32
FINER = 0.6
"""Length of a level's directions relative to those of the previous level."""
SHARPNESS = 15.0
"""Scale of a user's log-odds. The next item of 20,000 then has 7.2 nats, 1.8 per token: what a
generator of the demo reaches (`docs/log.md`, pretraining in minutes). At 6 it has 9.0."""


def structured_model(
    num_items: int, *, steps: int, users: int, batch: int = 256
) -> tuple[OneRec, Tensor, Tensor, float]:
    """Train a small generator; returned with histories of unseen users.

    Args:
        num_items: N.
        steps: Training steps.
        users: Histories to return.
        batch: Users per step.

    Returns:
        The model, its codes (N, T), histories (users, H) and the last steps' mean loss in nats per
        token.
    """
    generator = torch.Generator().manual_seed(2)
    codes = _codes(num_items, generator)
    directions = torch.randn(SID_TOKENS, CODES, WIDTH, generator=generator)
    levels = torch.arange(SID_TOKENS)
    scales = (FINER**levels).view(-1, 1)
    vectors = (directions[levels, codes] * scales).sum(1)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    popularity = torch.randn(num_items, generator=generator)

    def watched(count: int) -> Tensor:
        """Watched items of users, each item once: (count, H + 1)."""
        tastes = vectors[torch.randint(0, num_items, (count, 2), generator=generator)].mean(1)
        odds = (SHARPNESS * tastes @ vectors.T + popularity).exp()
        return torch.multinomial(odds, HISTORY + 1, generator=generator)

    torch.manual_seed(3)
    config = ModelConfig(d_model=64, d_ff=192, encoder_layers=1, decoder_layers=2, num_experts=1,
                         active_experts=1, dropout=0.0)  # fmt: skip
    model = OneRec(
        config,
        codebook_size=CODES,
        num_sid_tokens=SID_TOKENS,
        history_length=HISTORY,
        session_items=5,
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=max(steps, 2))
    losses = []
    for _ in range(steps):
        items = watched(batch)
        targets, mask = lookup(codes, items[:, HISTORY:])
        logits = model(*lookup(codes, items[:, :HISTORY]), targets)
        loss = session_nll(logits, targets, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(steps // 10, 1) :]
    return model.eval(), codes, watched(users)[:, :HISTORY], sum(last) / len(last)


def _codes(num_items: int, generator: torch.Generator) -> Tensor:
    """Unique IDs with crowded and empty prefixes, as from a tokenizer: (N, T)."""
    weights = torch.rand(SID_TOKENS - 1, CODES, generator=generator).pow(3) + 0.02
    draws = [
        torch.multinomial(w, 2 * num_items, replacement=True, generator=generator) for w in weights
    ]
    last = torch.randint(0, CODES, (2 * num_items,), generator=generator)
    rows = torch.stack([*draws, last], 1).unique(dim=0)
    chosen = torch.randperm(len(rows), generator=generator)[:num_items]
    assert len(chosen) == num_items, "twice as many draws leave enough"
    return rows[chosen]
