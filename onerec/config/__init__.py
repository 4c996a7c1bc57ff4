"""One frozen dataclass per stage, and the presets that size them together.

Each field carries its documentation, which Dagster's launchpad shows, and its legal range. A wrong
value raises `SettingError`, which names the field, the value and the remedy.
"""

from onerec.config.alignment import (
    GROUP_METHODS,
    PAIR_METHODS,
    PAIR_SOURCES,
    AlignmentConfig,
    BeamConfig,
)
from onerec.config.evaluation import (
    ALIGNED,
    BASELINES,
    BY_PROBABILITY,
    CHALLENGER_SERVES,
    CHAMPION,
    MOST_TRIALS,
    OWN_REPEATS,
    PRETRAINED,
    SERVED,
    SIMPLE_SYSTEMS,
    SYSTEMS,
    WITH_REWARD,
    WITHOUT_RECENCY,
    EvaluationConfig,
    without_recency,
)
from onerec.config.fields import SettingError, ValidatedConfig, option, require
from onerec.config.model import ModelConfig, TrainingConfig
from onerec.config.presets import PRESETS, PipelineConfig
from onerec.config.reward import RewardConfig
from onerec.config.runtime import Runtime
from onerec.config.serving import ServingConfig
from onerec.config.sessions import SessionConfig, WindowConfig
from onerec.config.tokenizer import EmbeddingConfig, TokenizerConfig
from onerec.config.yaml_file import read_yaml

__all__ = [
    "ALIGNED",
    "BASELINES",
    "BY_PROBABILITY",
    "CHALLENGER_SERVES",
    "CHAMPION",
    "GROUP_METHODS",
    "MOST_TRIALS",
    "OWN_REPEATS",
    "PAIR_METHODS",
    "PAIR_SOURCES",
    "PRESETS",
    "PRETRAINED",
    "SERVED",
    "SIMPLE_SYSTEMS",
    "SYSTEMS",
    "WITHOUT_RECENCY",
    "WITH_REWARD",
    "AlignmentConfig",
    "BeamConfig",
    "EmbeddingConfig",
    "EvaluationConfig",
    "ModelConfig",
    "PipelineConfig",
    "RewardConfig",
    "Runtime",
    "ServingConfig",
    "SessionConfig",
    "SettingError",
    "TokenizerConfig",
    "TrainingConfig",
    "ValidatedConfig",
    "WindowConfig",
    "option",
    "read_yaml",
    "require",
    "without_recency",
]
