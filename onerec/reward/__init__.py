"""The reward model that trains the generator, and the evaluator that measures it.

Not imported here: `onerec.reward.training`, which trains both and imports Lightning.
"""

from onerec.reward.ensemble import RewardEnsemble, SessionScores, load_ensemble
from onerec.reward.model import RewardModel, load_reward, save_reward
from onerec.reward.scoring import scalar_reward, score_sessions
from onerec.reward.user_split import check_evaluator

__all__ = [
    "RewardEnsemble",
    "RewardModel",
    "SessionScores",
    "check_evaluator",
    "load_ensemble",
    "load_reward",
    "save_reward",
    "scalar_reward",
    "score_sessions",
]
