"""Recommendations from Python: `Recommender.load(path).recommend(history, k)`.

A bundle is a directory with everything that serving needs:

    model.safetensors, config.json      the generator's checkpoint
    semantic_ids.parquet                its catalogue
    recommender.json                    decoding settings: beam width, batch size, precision
    reward/                             optional: reward model, whose reward is added to scores
    vectors.safetensors                 item vectors, for the reward and a dense head
    item_prior.safetensors              optional: added to the items' log-probabilities

Shapes: U users, B users of a batch, H history items, K beams, M items of a session, k list length.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import Tensor

from onerec.config import BeamConfig
from onerec.generation import (
    Beams,
    Trie,
    generate_sessions,
    rank_by_content,
    rank_items,
    score_items,
)
from onerec.model import (
    Histories,
    OneRec,
    TokenizerVersionMismatchError,
    items_of,
    load_model,
    read_config,
)
from onerec.model.checkpoint import write_reward_weight
from onerec.ranked_lists import (
    RankedLists,
    first_occurrences,
    last_items,
    narrowed,
    with_kept_places,
)
from onerec.serving.item_id_recommender import ItemIdRecommender
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids

if TYPE_CHECKING:
    from onerec.reward import RewardModel

SETTINGS = "recommender.json"
REWARD = "reward"
VECTORS = "vectors.safetensors"
PRIOR = "item_prior.safetensors"
POOL = 60
"""Fewest items that a reward model reorders behind the session of a list."""
KEPT_TRIES = 2
"""Of candidates: all of them, and the new ones among them, which have places of their own."""
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
_CHECKPOINT_FILES = ("model.safetensors", "config.json")


class Recommender(ItemIdRecommender):
    """A generator, its catalogue and, optionally, a reward model; an `onerec.ranked_lists.Ranker`.

    By log-probability alone a list holds the items that are most probable as the first item of a
    session (`rank_items`). Where a reward counts (`reward_weight` above 0) it begins with the
    session that has the highest log-probability plus weighted reward, since sessions are what the
    reward model learned to score; behind it come single items, ordered in the same way. Measured in
    docs/log.md, 2026-11-28, "Does a list begin with a session?".

    Computes in `config.serving_precision`, float64 by default: rounding depends on batch size and
    number of threads, and in float32 it sometimes swaps two nearly equal beams. With float64 a user
    gets the same list alone and in a batch of thousands.
    """

    def __init__(
        self,
        model: OneRec,
        semantic_ids: SemanticIds,
        *,
        config: BeamConfig | None = None,
        reward: "RewardModel | None" = None,
        vectors: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> None:
        """Combine a generator with its catalogue.

        Args:
            model: The generator.
            semantic_ids: The catalogue of its tokenizer version.
            config: Beam width, batch size and precision.
            reward: Reward model; its reward is added with weight `model.reward_weight`.
            vectors: (N, Dv) item vectors, for the reward.
            prior: (N,) terms added to the items' log-probabilities, from a `RecencyPrior`.

        Raises:
            ValueError: A reward without vectors, or vectors or a prior of another catalogue.
        """
        if (reward is None) != (vectors is None):
            raise ValueError("reward and vectors: pass both or neither")
        if vectors is not None and len(vectors) != len(semantic_ids.item_ids):
            raise ValueError(
                f"vectors has {len(vectors)} rows for {len(semantic_ids.item_ids)} items: use the "
                "vectors that were published with these semantic IDs"
            )
        self.config = config or BeamConfig()
        dtype = PRECISIONS[self.config.serving_precision]
        self.model = model.to(dtype).eval()
        self.semantic_ids = semantic_ids
        self.codes = semantic_ids.codes.to(model.device)
        withdrawn = semantic_ids.withdrawn_on
        there = None if withdrawn is None else torch.from_numpy(np.isnat(withdrawn))
        allowed = None if there is None else there.to(self.codes.device)
        prior = None if prior is None else prior.to(device=model.device, dtype=dtype)
        self.trie = Trie.build(self.codes, model.codebook_size, allowed, prior)
        self._narrowed: dict[bytes, Trie] = {}
        self.reward = None if reward is None else reward.to(device=model.device, dtype=dtype)
        self.vectors = None if vectors is None else vectors.to(device=model.device, dtype=dtype)

    @property
    def history_length(self) -> int:
        """n, the most recent items of a history that are read."""
        return self.model.history_length

    @property
    def known_attributes(self) -> tuple[str, ...] | None:
        """Attributes of users that the generator learned from."""
        return None if self.model.users is None else self.model.users.vocabulary.names

    @classmethod
    def load(cls, path: Path | str, *, device: str | torch.device = "cpu") -> "Recommender":
        """Load a bundle written by `write_bundle`.

        Raises:
            FileNotFoundError: The directory is no bundle.
            TokenizerVersionMismatchError: Its checkpoint and semantic IDs do not belong together.
        """
        directory = Path(path)
        if not (directory / SETTINGS).exists():
            raise FileNotFoundError(
                f"no recommender in {directory}: {SETTINGS} is missing; use a directory that "
                "write_bundle wrote"
            )
        semantic_ids = load_semantic_ids(directory)
        model, _ = load_model(
            directory, expected_tokenizer_version=semantic_ids.tokenizer_version, device=device
        )
        reward = vectors = None
        if (directory / REWARD).exists():
            from onerec.reward import load_reward

            reward = load_reward(directory / REWARD)
            vectors = load_file(directory / VECTORS)["vectors"]
        if model.dense is not None:
            model.dense.cover(load_file(directory / VECTORS)["vectors"].to(device))
        config = BeamConfig(**json.loads((directory / SETTINGS).read_text()))
        file = directory / PRIOR
        prior = load_file(file)["prior"] if file.exists() else None
        return cls(model, semantic_ids, config=config, reward=reward, vectors=vectors, prior=prior)

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
        *,
        on_batch: Callable[[int, int], None] = lambda done, total: None,
    ) -> RankedLists:
        """See `Ranker.rank`; only the last `history_length` items of a history are read.

        Args:
            candidates: (N,) booleans, items that may be recommended; None allows all that were not
                withdrawn.
            on_batch: Called after every batch with the number of users done and of all users.

        Returns:
            The lists; `config.new_item_share` of their places are kept for new items, ordered with
            a dense head by `rank_by_content`, whose scores they have, and as the lists are without.
            Other scores are the item's log-probability plus what `added_scores` adds: as a first
            item, or conditional on the items before it inside a session that begins the list. The
            reward is that of the session, or of the item alone behind it.
        """
        if top_k < 1:
            raise ValueError(f"top_k={top_k}: use at least 1")
        known = self._known(histories, attributes)
        lists = self._ranked(known, top_k, exclude, candidates, on_batch)
        places, new = int(top_k * self.config.new_item_share), self._new_items(candidates)
        if not places or not new.any():
            return lists
        order = self._ranked if self.model.dense is None else self._ranked_by_content
        kept = order(known, places, exclude, new)
        return with_kept_places(lists, kept, self.config.new_item_share)

    def _new_items(self, candidates: np.ndarray | None) -> np.ndarray:
        """(N,) bool: candidates first seen less than `new_item_days` before the newest one."""
        allowed = narrowed((self.trie.leaf_of_item >= 0).cpu().numpy(), candidates)
        first_seen = self.semantic_ids.first_seen
        if not allowed.any():
            return allowed
        return allowed & (first_seen > first_seen[allowed].max() - self.config.new_item_days)

    def _ranked(
        self,
        histories: Histories,
        top_k: int,
        exclude: np.ndarray | None,
        candidates: np.ndarray | None,
        on_batch: Callable[[int, int], None] = lambda done, total: None,
    ) -> RankedLists:
        """Lists in which no places are kept for new items."""
        weight = self.model.reward_weight
        return self._ranked_by_reward_weight(
            histories, top_k, [weight], exclude, candidates, on_batch=on_batch
        )[weight]

    def _ranked_by_content(
        self, histories: Histories, top_k: int, exclude: np.ndarray | None, allowed: np.ndarray
    ) -> RankedLists:
        """Lists by `rank_by_content`; the rewards are those of single items."""
        parts, there = [], torch.from_numpy(allowed).to(self.codes.device)
        for part, history in self._batches(histories):
            items, scores = rank_by_content(
                self.model,
                history,
                self.codes,
                there,
                top_k=top_k,
                prior=self.trie.prior,
                exclude=None if exclude is None else exclude[part],
            )
            listed = items, scores, self._rewards(items_of(history), items.unsqueeze(-1))
            parts.append([column.double().cpu().numpy() for column in listed])
        return self._lists(parts, min(top_k, len(self.codes)))

    def _known(self, histories: np.ndarray, attributes: pa.Table | None) -> Histories:
        """The last `history_length` items of the histories, with what is known of the users."""
        rows = torch.from_numpy(np.ascontiguousarray(histories)).long()
        return self.model.histories(last_items(rows, self.model.history_length), attributes)

    def _batches(self, histories: Histories) -> Iterator[tuple[slice, Histories]]:
        """Rows of each batch, and their histories."""
        for low in range(0, len(histories), self.config.batch_size):
            part = slice(low, min(low + self.config.batch_size, len(histories)))
            yield part, histories[part]

    def rank_by_reward_weight(
        self,
        histories: np.ndarray,
        top_k: int,
        weights: Sequence[float],
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> dict[float, RankedLists]:
        """The lists of `rank` for several reward weights, from a single beam search."""
        known = self._known(histories, attributes)
        return self._ranked_by_reward_weight(known, top_k, weights, exclude, candidates)

    def _ranked_by_reward_weight(
        self,
        histories: Histories,
        top_k: int,
        weights: Sequence[float],
        exclude: np.ndarray | None,
        candidates: np.ndarray | None,
        on_batch: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[float, RankedLists]:
        trie, parts = self._trie_of(candidates), {weight: [] for weight in weights}
        for part, history in self._batches(histories):
            unwanted = None if exclude is None else torch.from_numpy(exclude[part])
            found = self._found(history, top_k, trie, unwanted, sessions=any(weights))
            for weight, lists in parts.items():
                listed = self._listed(history, found, trie, weight, top_k)
                lists.append([column.double().cpu().numpy() for column in listed])
            on_batch(part.stop, len(histories))
        return {weight: self._lists(lists, top_k) for weight, lists in parts.items()}

    def _lists(self, parts: list[list[np.ndarray]], top_k: int) -> RankedLists:
        """Items, scores and rewards of batches as one table of lists."""
        nothing = [np.zeros((0, top_k))] * 3
        items, scores, rewards = (np.concatenate(c) for c in zip(nothing, *parts, strict=True))
        return RankedLists(items.astype(np.int64), scores, None if self.reward is None else rewards)

    def _trie_of(self, candidates: np.ndarray | None) -> Trie:
        """The trie of the candidates; the last ones are kept for the next users."""
        if candidates is None:
            return self.trie
        key = candidates.tobytes()  # new items are found anew for every call
        trie = self._narrowed.get(key)
        if trie is None:
            allowed = torch.from_numpy(candidates).to(self.codes.device)
            trie = Trie.build(self.codes, self.model.codebook_size, allowed, self.trie.prior)
            self._narrowed = {**dict(list(self._narrowed.items())[1 - KEPT_TRIES :]), key: trie}
        return trie

    @torch.no_grad()
    def _found(
        self, history: Histories, k: int, trie: Trie, exclude: Tensor | None, *, sessions: bool
    ) -> "_Found":
        """Single items of a batch, and sessions where lists begin with one."""
        single_beam = min(self.config.beam, trie.num_leaves)
        items, logp = rank_items(
            self.model,
            history,
            self.codes,
            trie,
            top_k=k if self.reward is None else max(2 * k, POOL),
            beam=single_beam,
            exclude=exclude,
        )
        length = self.model.session_items
        none = items.new_zeros(len(history), 0, length)
        beams = Beams(none, logp.new_zeros(len(history), 0))
        if sessions and self.reward is not None:
            beams = generate_sessions(
                self.model,
                history,
                self.codes,
                trie,
                num_items=length,
                beam=single_beam if length == 1 else self.config.beam,
                exclude=exclude,
            )
        past = items_of(history)
        rewards = self._rewards(past, beams.items), self._rewards(past, items.unsqueeze(-1))
        return _Found(beams.items, beams.logp, rewards[0], items, logp, rewards[1])

    @torch.no_grad()
    def _listed(
        self, history: Histories, found: "_Found", trie: Trie, weight: float, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Items, scores and rewards (B, k) of one batch; the rewards are NaN without a model."""
        value = found.logp + weight * found.rewards.nan_to_num(nan=0.0)
        order = value.argsort(dim=1, descending=True, stable=True)
        items = [v.gather(1, order) for v in (found.items, found.logp, found.rewards)]
        if self.reward is None or not weight:
            return _first_distinct(*items, k=k)
        length = self.model.session_items
        value = found.session_logp + weight * found.session_rewards.nan_to_num(nan=0.0)
        best = value.argmax(dim=1, keepdim=True)  # ties: the first
        session = found.sessions.gather(1, best.unsqueeze(-1).expand(-1, -1, length)).squeeze(1)
        first = [
            session,
            score_items(self.model, history, session, self.codes, trie),
            found.session_rewards.gather(1, best).expand(-1, length),
        ]
        both = (torch.cat(pair, dim=1) for pair in zip(first, items, strict=True))
        return _first_distinct(*both, k=k)

    def _rewards(self, history: Tensor, sessions: Tensor) -> Tensor:
        """Scalar reward (B, K) of sessions (B, K, M); NaN where there is none."""
        missing = torch.full(
            sessions.shape[:2], torch.nan, dtype=self.model.dtype, device=sessions.device
        )
        if self.reward is None or self.vectors is None or not missing.numel():
            return missing
        from onerec.reward import scalar_reward, score_sessions

        probabilities = score_sessions(self.reward, self.vectors, history, sessions)
        scalar = scalar_reward(probabilities, self.reward.config, self.reward.signals).to(missing)
        return torch.where((sessions >= 0).all(-1), scalar, missing)


class _Found(NamedTuple):
    """Beam search results of a batch. Log-probabilities include what `added_scores` adds; rewards
    are NaN without a reward model.

    Attributes:
        sessions: (B, K, M) item indices, -1 where there is none; K is 0 where no list begins with
            a session.
        session_logp: (B, K).
        session_rewards: (B, K).
        items: (B, X) item indices, -1 where there is none.
        logp: (B, X).
        rewards: (B, X) of the items alone.
    """

    sessions: Tensor
    session_logp: Tensor
    session_rewards: Tensor
    items: Tensor
    logp: Tensor
    rewards: Tensor


def _first_distinct(
    items: Tensor, scores: Tensor, rewards: Tensor, *, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The first k distinct items of each row (B, X), with their scores and rewards."""
    keep = first_occurrences(items)
    place = torch.where(keep, keep.cumsum(1) - 1, k).clamp(max=k)  # column k is thrown away

    def placed(values: Tensor, nothing: float) -> Tensor:
        empty = values.new_full((len(values), k + 1), nothing)
        return empty.scatter_(1, place, values)[:, :k]

    return placed(items, -1), placed(scores, -torch.inf), placed(rewards, torch.nan)


def write_bundle(
    directory: Path,
    *,
    checkpoint: Path,
    semantic_ids: Path,
    reward: Path | None = None,
    reward_weight: float | None = None,
    config: BeamConfig | None = None,
) -> None:
    """Copy what serving needs into one directory.

    Args:
        directory: Where the bundle goes; made when absent.
        checkpoint: Directory of the generator's checkpoint.
        semantic_ids: Directory of the semantic IDs; their vectors are copied for a reward model.
        reward: Directory of a reward model.
        reward_weight: How much it counts in the lists; None: as much as the checkpoint says.
        config: Beam width and batch size.

    Raises:
        TokenizerVersionMismatchError: The checkpoint was trained on other semantic IDs.
    """
    expected = load_semantic_ids(semantic_ids).tokenizer_version
    trained = read_config(checkpoint)["tokenizer_version"]
    if trained != expected:
        raise TokenizerVersionMismatchError(checkpoint=trained, expected=expected, where=checkpoint)
    directory.mkdir(parents=True, exist_ok=True)
    for name in _CHECKPOINT_FILES:
        shutil.copyfile(checkpoint / name, directory / name)
    if reward_weight is not None:
        write_reward_weight(directory, reward_weight)
    shutil.copyfile(semantic_ids / "semantic_ids.parquet", directory / "semantic_ids.parquet")
    if reward is not None or read_config(checkpoint)["model"].get("dense_head"):
        shutil.copyfile(semantic_ids / VECTORS, directory / VECTORS)
    if reward is not None:
        from onerec.reward.model import BOOSTING

        (directory / REWARD).mkdir(exist_ok=True)
        (directory / REWARD / BOOSTING).unlink(missing_ok=True)
        trees = [BOOSTING] if (reward / BOOSTING).exists() else []
        for name in (*_CHECKPOINT_FILES, *trees):
            shutil.copyfile(reward / name, directory / REWARD / name)
    settings = dataclasses.asdict(config or BeamConfig())
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
