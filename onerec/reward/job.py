"""One training of a reward model from artifact directories."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from onerec.config import RewardConfig
from onerec.embeddings.item_embeddings import vectors_before_validation
from onerec.reward.training import RewardPart, fit_reward
from onerec.session_dataset.item_attributes import load_item_attributes
from onerec.session_dataset.reader import read_session_config
from onerec.session_dataset.reward_blocks import RewardBlocks, load_reward_blocks
from onerec.session_dataset.reward_facts import load_exposure_log
from onerec.tokenizer.semantic_ids import load_semantic_ids
from onerec.training.epoch_text import epoch_as_text
from onerec.training.execution import Execution
from onerec.training.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class RewardJob:
    """A training: its data, settings and hardware.

    Attributes:
        session_dataset: Files of a `session_dataset` artifact.
        semantic_ids: Files of a `semantic_ids` artifact, with item vectors; those without the
            validation day's co-watching are learned with, since that day chooses.
        part: Which of the two models: the reward model or the evaluator.
        reward: Settings of the stage.
        runtime: Hardware.
    """

    session_dataset: Path
    semantic_ids: Path
    part: RewardPart = "reward"
    reward: RewardConfig = field(default_factory=RewardConfig)
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out_dir: Path, *, scratch: Path, log: Callable[[str], None]) -> dict[str, float]:
        """Train the part's models; see `fit_reward`."""
        train, valid = self.blocks()
        fit_reward(
            self.reward,
            train,
            valid,
            torch.from_numpy(vectors_before_validation(self.semantic_ids)),
            out_dir,
            part=self.part,
            execution=Execution(runtime=self.runtime, scratch=scratch),
            on_epoch=lambda numbers: log(f"{self.part}_model: {epoch_as_text(numbers)}"),
        )
        return {}

    def blocks(self) -> tuple[RewardBlocks, RewardBlocks]:
        """Blocks of the training days, with their exposure log, and of the validation day."""
        data, ids = self.session_dataset, load_semantic_ids(self.semantic_ids)
        sessions, attributes = read_session_config(data), load_item_attributes(data, ids)
        train, valid = (
            load_reward_blocks(
                data,
                split,
                ids,
                history_length=sessions.history_length,
                block_items=sessions.session_items,
                attributes=attributes,
            )
            for split in ("train", "valid")
        )
        if attributes is not None:
            train = replace(train, log=load_exposure_log(data, ids, attributes))
        return train, valid
