"""Every stage together, and the presets that size them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from onerec.config.alignment import AlignmentConfig, BeamConfig
from onerec.config.evaluation import EvaluationConfig
from onerec.config.fields import require, shortened_key
from onerec.config.model import ModelConfig, TrainingConfig
from onerec.config.reward import RewardConfig
from onerec.config.serving import ServingConfig
from onerec.config.sessions import SessionConfig, WindowConfig
from onerec.config.tokenizer import EmbeddingConfig, TokenizerConfig

FORMER_STAGES = {"generation": "decoding"}
"""Names that YAML files from before a stage was renamed still use."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Every stage's settings together: what a preset is."""

    sessions: SessionConfig = SessionConfig()
    window: WindowConfig = WindowConfig()
    embeddings: EmbeddingConfig = EmbeddingConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    reward: RewardConfig = RewardConfig()
    decoding: BeamConfig = BeamConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()

    def override(self, changes: Mapping[str, object] | None) -> "PipelineConfig":
        """These settings with some fields changed, e.g. `{"tokenizer": {"codebook_size": 64}}`.

        Raises:
            SettingError: A stage or a field is unknown, or a value is not legal.
        """
        stages = [f.name for f in dataclasses.fields(self)]
        replaced = {}
        for given, values in (changes or {}).items():
            stage = FORMER_STAGES.get(given, given)
            require(stage not in replaced, given, values, f"{stage} is given too; keep one of both")
            remedy = f"no such stage; use one of {', '.join(stages)}"
            require(stage in stages, shortened_key(stage), values, remedy)
            replaced[stage] = getattr(self, stage).changed(values, stage)
        return dataclasses.replace(self, **replaced)


# On KuaiRand the generator is above SASRec with both only (docs/log.md, 2026-11-28 and 29); both
# score the whole catalogue for every user, which the larger presets are not for.
WITH_CATALOGUE_SCORES = PipelineConfig().override(
    {
        "model": {"dense_head": True, "dense_encoder_layers": 2},
        "training": {"item_neighbours": 50},
    }
)

PRESETS: dict[str, PipelineConfig] = {
    "tiny": WITH_CATALOGUE_SCORES,
    "small": WITH_CATALOGUE_SCORES.override(
        {
            "sessions": {"history_length": 64},
            "tokenizer": {"codebook_size": 256},
            "model": {
                "d_model": 192,
                "num_heads": 6,
                "d_ff": 512,
                "encoder_layers": 4,
                "decoder_layers": 4,
                "num_experts": 8,
            },
            "training": {"learning_rate": 1e-3},
            "decoding": {"beam": 64, "candidates": 128, "serving_precision": "float32"},
            "alignment": {"rounds": 2, "sample_users": 5000},
        }
    ),
    # Shapes of the technical report's 0.1B and 1B models (algorithm reference, 1.10): the v1 paper
    # does not disclose its own.
    "base": PipelineConfig().override(
        {
            "sessions": {"history_length": 256},
            "tokenizer": {"codebook_size": 8192},
            "model": {
                "d_model": 1024,
                "num_heads": 8,
                "d_ff": 2048,
                "encoder_layers": 4,
                "decoder_layers": 4,
                "num_experts": 1,
                "active_experts": 1,
                "history_tokens": "sid_tokens",
            },
            "training": {"learning_rate": 2e-4},
            "decoding": {"beam": 128, "candidates": 128, "serving_precision": "float32"},
        }
    ),
    "large": PipelineConfig().override(
        {
            "sessions": {"history_length": 256},
            "tokenizer": {"codebook_size": 8192},
            "model": {
                "d_model": 1024,
                "num_heads": 8,
                "d_ff": 2816,
                "encoder_layers": 4,
                "decoder_layers": 4,
                "num_experts": 24,
                "active_experts": 2,
                "history_tokens": "sid_tokens",
            },
            "training": {"learning_rate": 2e-4},
            "decoding": {"beam": 128, "candidates": 128, "serving_precision": "float32"},
        }
    ),
}
"""`tiny` is the demo (CPU minutes), `small` CPU hours or one GPU, `base` 0.1 B, `large` 1 B."""
