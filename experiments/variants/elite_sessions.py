"""Elite sessions of a generator, for a further step of the cross-entropy method.

Pretraining on good sessions is its first step; the next one generates sessions for training users
and keeps those with the highest training reward.
"""

from dataclasses import replace

import torch

from onerec.alignment.candidates import sample_contexts, scored_candidates
from onerec.alignment.round_inputs import RoundInputs
from onerec.config import PipelineConfig, Runtime
from onerec.session_dataset.generator_sessions import SessionTensors


def elite_sessions(
    inputs: RoundInputs, settings: PipelineConfig, share: float, *, runtime: Runtime
) -> SessionTensors:
    """The share of highest training reward among the sessions generated for each training user.

    Args:
        inputs: The generator, the reward model and the users' sessions.
        settings: How many sessions are generated per user; the alignment's seed samples contexts.
        share: Share of each user's sessions to keep, at least one session.
        runtime: Hardware and threads.
    """
    sessions, decoding = inputs.sessions("train"), settings.decoding
    contexts = sample_contexts(sessions, len(sessions), settings.alignment.seed + 1)
    kept = max(1, round(share * decoding.candidates))
    parts = []
    for made in scored_candidates(
        inputs.generator(decoding, runtime),
        inputs.ensemble(inputs.reward_model),
        contexts,
        num_candidates=decoding.candidates,
        alignment=settings.alignment,
    ):
        rewards = made.rewards.masked_fill(~made.logp.isfinite(), -torch.inf)
        best = rewards.argsort(dim=1, descending=True, stable=True)[:, :kept]
        exist = rewards.gather(1, best).isfinite()
        items = made.items.gather(1, best[..., None].expand(-1, -1, made.items.shape[2]))
        parts.append((made.row.repeat_interleave(exist.sum(1)), items[exist]))
    row, items = (torch.cat(part) for part in zip(*parts, strict=True))
    return replace(
        contexts,
        user=contexts.user[row],
        history=contexts.history[row],
        targets=items.int(),
        is_good=contexts.is_good[row],
        date=contexts.date[row.numpy()],
    )
