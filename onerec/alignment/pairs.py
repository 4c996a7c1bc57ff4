"""Preference pairs: the best and the worst of a user's generated sessions, by reward.

Shapes: P pairs, B users of a batch, N candidates, H history items, M items of a session, T SID
    tokens or towers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from onerec.alignment.candidates import (
    OnBatch,
    ScoreCandidates,
    ScoredCandidates,
    scored_candidates,
)
from onerec.artifacts import read_json, write_json
from onerec.config import AlignmentConfig
from onerec.evaluation.generators import SessionGenerator
from onerec.reward.ensemble import RewardEnsemble
from onerec.schema import PREFERENCE_PAIRS
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.tokenizer.semantic_ids import SemanticIds


@dataclass(frozen=True, kw_only=True)
class PreferencePairs:
    """Best/worst pairs; item indices, -1 padded.

    Attributes:
        user_ids: (P,) the users.
        history: (P, H) contexts the sessions were generated for.
        chosen: (P, M) best session by reward.
        rejected: (P, M) worst session.
        targets: (P, M) the logged good session of the same context, for L_NTP.
        chosen_reward: (P,) scalar reward.
        rejected_reward: (P,).
        chosen_logp: (P,) see `ScoredCandidates`.
        rejected_logp: (P,).
        stats: What `stats.json` holds.
    """

    user_ids: np.ndarray
    history: Tensor
    chosen: Tensor
    rejected: Tensor
    targets: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor
    chosen_logp: Tensor
    rejected_logp: Tensor
    stats: dict[str, Any]

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def sessions(self) -> Tensor:
        """(P, 2, M) chosen, then rejected."""
        return torch.stack([self.chosen, self.rejected], 1)

    @property
    def rewards(self) -> Tensor:
        """(P, 2) of the sessions."""
        return torch.stack([self.chosen_reward, self.rejected_reward], 1)


def make_pairs(
    generator: SessionGenerator,
    reward: RewardEnsemble,
    contexts: SessionTensors,
    alignment: AlignmentConfig,
    *,
    on_batch: OnBatch = lambda done, total: None,
    score: ScoreCandidates = scored_candidates,
) -> PreferencePairs:
    """Generate N sessions per context, score them, keep best and worst (OneRec v1, Algorithm 2).

    Args:
        generator: The sampler, which is also the start and the reference of the round's training;
            N is its config's `candidates`.
        reward: The models that train, never the evaluator; the chosen session is that of the
            highest lower bound.
        contexts: Histories and the logged good session of each.
        alignment: Beams or draws.
        on_batch: Called with contexts done and in all.
        score: Generates and scores; another one spreads contexts over workers.

    Returns:
        Pairs in the order of the contexts. A context with fewer than two legal sessions, or whose
        sessions all have the same reward, gives none and is counted in `stats`.
    """
    num_candidates = generator.config.candidates
    found = [
        {"row": made.row, **best_and_worst(made)}
        for made in score(
            generator,
            reward,
            contexts,
            num_candidates=num_candidates,
            alignment=alignment,
            on_batch=on_batch,
        )
    ]
    if not found:
        raise ValueError("0 contexts to generate for: there is no good session to train on")
    joined = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    keep = joined["chosen_reward"] > joined["rejected_reward"]
    kept = {name: value[keep] for name, value in joined.items()}
    row = kept["row"]
    return PreferencePairs(
        user_ids=contexts.user_ids[contexts.user[row].numpy()],
        history=contexts.history[row].long(),
        chosen=kept["chosen"],
        rejected=kept["rejected"],
        targets=contexts.targets[row].long(),
        chosen_reward=kept["chosen_reward"],
        rejected_reward=kept["rejected_reward"],
        chosen_logp=kept["chosen_logp"],
        rejected_logp=kept["rejected_logp"],
        stats=_stats(joined, kept, num_candidates, [s.name for s in reward.signals]),
    )


def best_and_worst(made: ScoredCandidates) -> dict[str, Tensor]:
    """The sessions of highest lower bound and of lowest reward of each user.

    Of sessions with one reward the more probable one counts as better, so that ties do not depend
    on the machine.

    Args:
        made: Sessions with their scores.

    Returns:
        `chosen`, `rejected` (B, M); `chosen_reward`, `rejected_reward`, `chosen_logp`,
        `rejected_logp`, `chosen_rank`, `rejected_rank` (B,), ranks being places in the beam from 0;
        `chosen_towers`, `rejected_towers` (B, T); `num_sessions`, `mean_reward`, `spread` (B,), the
        last one the standard deviation over a user's sessions. Rewards are nan without a session.
    """
    rewards, logp = made.rewards, made.logp
    legal = logp.isfinite()
    num_sessions = legal.sum(1)
    # argmax may name any of several equal ones; a stable sort names the most probable.
    ranked, by_lower_bound = (
        scores.masked_fill(~legal, -torch.inf).argsort(dim=1, descending=True, stable=True)
        for scores in (rewards, made.lower_bounds)
    )
    chosen = by_lower_bound[:, 0]
    rejected = ranked.gather(1, (num_sessions - 1).clamp(min=0)[:, None])[:, 0]
    valid = rewards.masked_fill(~legal, 0.0)
    mean = valid.sum(1) / num_sessions
    squared = ((valid - mean[:, None]) ** 2 * legal).sum(1) / num_sessions
    known = rewards.masked_fill(~legal, torch.nan)
    user = torch.arange(len(rewards))
    parts = {"mean_reward": mean, "spread": squared.sqrt(), "num_sessions": num_sessions}
    for name, rank in (("chosen", chosen), ("rejected", rejected)):
        parts |= {
            name: made.items[user, rank],
            f"{name}_reward": known[user, rank],
            f"{name}_logp": logp[user, rank],
            f"{name}_towers": made.towers[user, rank],
            f"{name}_rank": rank,
        }
    return parts


def save_pairs(pairs: PreferencePairs, item_ids: np.ndarray, directory: Path) -> None:
    """Write `pairs.parquet` (`schema.PREFERENCE_PAIRS`) and `stats.json`.

    Args:
        pairs: The pairs.
        item_ids: (N,) ids of the item indices.
        directory: Where to.
    """
    columns = [
        pa.array(pairs.user_ids.tolist(), pa.string()),
        *(id_lists(t, item_ids) for t in (pairs.history, pairs.chosen, pairs.rejected)),
        *(
            pa.array(t.double().numpy())
            for t in (
                pairs.chosen_reward,
                pairs.rejected_reward,
                pairs.chosen_logp,
                pairs.rejected_logp,
            )
        ),
        id_lists(pairs.targets, item_ids),
    ]
    pq.write_table(
        pa.Table.from_arrays(columns, schema=PREFERENCE_PAIRS), directory / "pairs.parquet"
    )
    write_json(directory / "stats.json", pairs.stats)


def load_pairs(
    directory: Path, semantic_ids: SemanticIds, *, history_length: int, session_items: int
) -> PreferencePairs:
    """Read what `save_pairs` wrote, against the semantic IDs it was made with.

    Raises:
        ValueError: An item is not in the catalogue.
    """
    table = pq.read_table(directory / "pairs.parquet", schema=PREFERENCE_PAIRS)

    def items(name: str, width: int) -> Tensor:
        return padded_items(table.column(name).combine_chunks(), semantic_ids, width, name)

    def numbers(name: str) -> Tensor:
        return torch.tensor(table.column(name).to_numpy())

    return PreferencePairs(
        user_ids=np.asarray(table.column("user_id").to_pylist(), dtype=object),
        history=items("history_item_ids", history_length),
        chosen=items("chosen_item_ids", session_items),
        rejected=items("rejected_item_ids", session_items),
        targets=items("target_item_ids", session_items),
        chosen_reward=numbers("chosen_reward"),
        rejected_reward=numbers("rejected_reward"),
        chosen_logp=numbers("chosen_logp"),
        rejected_logp=numbers("rejected_logp"),
        stats=read_json(directory / "stats.json"),
    )


def illegal_sessions(sessions: Tensor, allowed: Tensor) -> int:
    """Rows with a session that is short, repeats an item, or holds one that is not allowed.

    Args:
        sessions: (P, G, M) sessions of pairs or groups.
        allowed: (N,) bool, items that may be generated.
    """
    ordered = sessions.sort(-1).values
    repeats = (ordered[..., 1:] == ordered[..., :-1]).any(-1)
    unknown = ((sessions < 0) | ~allowed[sessions.clamp(min=0)]).any(-1)
    return int((repeats | unknown).any(1).sum())


def id_lists(items: Tensor, item_ids: np.ndarray) -> pa.ListArray:
    """(P, W) indices, -1 padded, as lists of ids."""
    present = items.numpy() >= 0
    offsets = np.concatenate([[0], present.sum(1).cumsum()]).astype(np.int32)
    values = np.asarray(item_ids, dtype=object)[items.numpy()[present]]
    return pa.ListArray.from_arrays(offsets, pa.array(values.tolist(), pa.string()))


def padded_items(lists: Any, semantic_ids: SemanticIds, width: int, name: str) -> Tensor:
    """Lists of ids as (P, width) indices, -1 padded."""
    lengths = np.diff(lists.offsets.to_numpy())
    indices = semantic_ids.index_of(lists.flatten())
    if (indices < 0).any():
        raise ValueError(
            f"{name}: {int((indices < 0).sum())} items of the pairs are not in the catalogue of "
            f"tokenizer version {semantic_ids.tokenizer_version}; make the pairs again with "
            f"these semantic IDs"
        )
    out = np.full((len(lengths), width), -1, dtype=np.int64)
    out[np.arange(width) < lengths[:, None]] = indices
    return torch.from_numpy(out)


def _stats(
    joined: dict[str, Tensor],
    kept: dict[str, Tensor],
    num_candidates: int,
    towers: Sequence[str],
) -> dict[str, Any]:
    too_few = int((joined["num_sessions"] < 2).sum())
    contexts, pairs = len(joined["row"]), len(kept["row"])
    summary: dict[str, Any] = {
        "contexts": contexts,
        "pairs": pairs,
        "skipped_fewer_than_two_sessions": too_few,
        "skipped_equal_rewards": contexts - pairs - too_few,
        "candidates": num_candidates,
    }
    if not pairs:
        return summary
    margin = kept["chosen_reward"] - kept["rejected_reward"]
    quantiles = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0], dtype=torch.float64)
    return summary | {
        "mean_sessions": float(kept["num_sessions"].double().mean()),
        "reward_mean": float(kept["mean_reward"].mean()),
        "reward_max": float(kept["chosen_reward"].mean()),
        "reward_min": float(kept["rejected_reward"].mean()),
        "reward_spread": float(kept["spread"].mean()),
        "reward_margin_mean": float(margin.mean()),
        "reward_margin_quantiles": torch.quantile(margin, quantiles).tolist(),
        "chosen_logp_mean": float(kept["chosen_logp"].mean()),
        "rejected_logp_mean": float(kept["rejected_logp"].mean()),
        "chosen_rank_mean": float(kept["chosen_rank"].double().mean()),
        "rejected_rank_mean": float(kept["rejected_rank"].double().mean()),
        **{
            f"{side}_{tower}_mean": float(kept[f"{side}_towers"][:, i].mean())
            for side in ("chosen", "rejected")
            for i, tower in enumerate(towers)
        },
    }
