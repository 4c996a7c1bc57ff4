"""The training of one alignment round from artifact directories."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from onerec.alignment.round_inputs import RoundInputs
from onerec.alignment.rounds import fit_round, load_round_preferences
from onerec.config import AlignmentConfig
from onerec.training.epoch_text import epoch_as_text
from onerec.training.execution import Execution
from onerec.training.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class AlignmentJob:
    """What to train on what.

    Attributes:
        inputs: What the round reads.
        preferences: Files of a `preference_pairs` artifact.
        alignment: Losses and optimiser.
        runtime: Hardware.
    """

    inputs: RoundInputs
    preferences: Path
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out_dir: Path, *, scratch: Path, log: Callable[[str], None]) -> dict[str, float]:
        """Train a round on its preferences; see `fit_alignment`."""
        fit_round(
            self.inputs,
            load_round_preferences(self.inputs, self.preferences),
            self.alignment,
            out_dir,
            execution=Execution(runtime=self.runtime, scratch=scratch),
            on_epoch=lambda numbers: log(f"alignment: {epoch_as_text(numbers)}"),
        )
        return {}
