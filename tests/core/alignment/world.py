"""A small catalogue, a small generator, and a reward model over it."""

import numpy as np
import torch

from onerec.alignment.groups import PreferenceGroups
from onerec.alignment.pairs import PreferencePairs
from onerec.config import BeamConfig, ModelConfig, RewardConfig
from onerec.evaluation.generators import SessionGenerator
from onerec.generation import Trie
from onerec.model import OneRec
from onerec.reward.ensemble import RewardEnsemble
from onerec.reward.model import RewardModel, RewardShape
from onerec.session_dataset.generator_sessions import SessionTensors

NUM_ITEMS, CODES, SID_TOKENS, HISTORY, ITEMS = 24, 6, 3, 5, 3
# first token: topic of six items; second and third: place in it
CATALOGUE = torch.tensor([[i // 6, i % 3, (i % 6) // 3] for i in range(NUM_ITEMS)])
TRIE = Trie.build(CATALOGUE, CODES, None)
DECODING = BeamConfig(candidates=6, batch_size=5)
REWARD = RewardConfig(d_model=8, evaluator_d_model=8, num_heads=2)


def generator(seed: int = 0) -> OneRec:
    """Untrained, in evaluation mode."""
    config = ModelConfig(
        d_model=16, num_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, num_experts=2,
        active_experts=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return OneRec(
            config,
            codebook_size=CODES,
            num_sid_tokens=SID_TOKENS,
            history_length=HISTORY,
            session_items=ITEMS,
        ).eval()


def reward_model(seed: int = 0) -> tuple[RewardModel, torch.Tensor]:
    """Untrained but opinionated, and its item vectors (N, Dv)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = RewardShape(vector_dim=4, num_items=NUM_ITEMS, history_length=HISTORY)
        model = RewardModel(REWARD, shape).eval()
        vectors = torch.nn.functional.normalize(torch.randn(NUM_ITEMS, 4), dim=-1)
    return model, vectors


def session_generator(
    model: OneRec | None = None, *, trie: Trie = TRIE, decoding: BeamConfig = DECODING
) -> SessionGenerator:
    """A generator over the catalogue; the untrained one by default."""
    return SessionGenerator(model or generator(), CATALOGUE, trie, decoding)


def ensemble(*seeds: int, config: RewardConfig = REWARD) -> RewardEnsemble:
    """Reward models of some seeds, that of seed 0 by default, on the item vectors of seed 0."""
    models = [reward_model(seed)[0] for seed in seeds or (0,)]
    return RewardEnsemble(models, reward_model()[1], config)


def good_sessions(num: int, seed: int, num_users: int = 12) -> SessionTensors:
    """Sessions inside one topic; some histories are short, some empty."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, NUM_ITEMS // 6, (num, 1))
    within = rng.permuted(np.tile(np.arange(6), (num, 1)), axis=1)[:, :ITEMS]
    history = topic * 6 + rng.integers(0, 6, (num, HISTORY))
    history[np.arange(HISTORY) >= rng.integers(0, HISTORY + 1, (num, 1))] = -1
    return SessionTensors(
        user=torch.from_numpy(rng.integers(0, num_users, num)),
        user_ids=np.array([f"u{i}" for i in range(num_users)], dtype=object),
        history=torch.from_numpy(history.astype(np.int32)),
        targets=torch.from_numpy((topic * 6 + within).astype(np.int32)),
        is_good=torch.ones(num, dtype=torch.bool),
        date=np.full(num, np.datetime64("2026-06-12")),
    )


def planted_pairs(num: int, seed: int) -> PreferencePairs:
    """The chosen session is of topic 0, the rejected one of topic 3, whoever asks."""
    sessions = good_sessions(num, seed)
    within = sessions.targets.long() % 6
    zeros = torch.zeros(num, dtype=torch.float64)
    return PreferencePairs(
        user_ids=sessions.user_ids[sessions.user.numpy()],
        history=sessions.history.long(),
        chosen=within,
        rejected=18 + within,
        targets=sessions.targets.long(),
        chosen_reward=zeros + 1,
        rejected_reward=zeros,
        chosen_logp=zeros,
        rejected_logp=zeros,
        stats={},
    )


def planted_groups(num: int, seed: int, *, best_first: bool = False) -> PreferenceGroups:
    """A session of each of the four topics, more reward the lower the topic, whoever asks.

    In a mixed order as draws would be, or best first as S-DPO wants them; every tenth group has
    one reward throughout.
    """
    sessions = good_sessions(num, seed)
    within = sessions.targets.long() % 6
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(4), (num, 1)), axis=1)
    topic = torch.arange(4).expand(num, 4) if best_first else torch.from_numpy(order)
    rewards = 1.0 - topic.double() / 3
    if not best_first:
        rewards[::10] = 0.5
    return PreferenceGroups(
        user_ids=sessions.user_ids[sessions.user.numpy()],
        history=sessions.history.long(),
        sessions=topic[..., None] * 6 + within[:, None],
        targets=sessions.targets.long(),
        rewards=rewards,
        logp=torch.zeros(num, 4, dtype=torch.float64),
        stats={"group_size": 4, "best_first": best_first},
    )
