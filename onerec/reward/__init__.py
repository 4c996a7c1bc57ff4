"""The reward model that trains the generator, and the evaluator that judges it.

`onerec.reward.training` trains them; it imports Lightning, so it is not imported here.
"""

from onerec.reward.model import TOWERS, RewardModel, load_reward, save_reward
from onerec.reward.scoring import scalar_reward, score_sessions
from onerec.reward.users import split_users

__all__ = [
    "TOWERS",
    "RewardModel",
    "load_reward",
    "save_reward",
    "scalar_reward",
    "score_sessions",
    "split_users",
]
