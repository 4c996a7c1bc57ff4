"""Where a training of a small model runs: hardware, and the directory of its unfinished work."""

from dataclasses import dataclass, field
from pathlib import Path

from onerec.config import Runtime
from onerec.training.scratch import Scratch


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where a training of a small model runs.

    Attributes:
        runtime: Hardware; on several devices every process does the same training.
        scratch: Directory of unfinished work, which the processes share; without one a training
            that was killed starts over.
    """

    runtime: Runtime = field(default_factory=Runtime)
    scratch: Path | None = None

    def scratch_of(self, name: str) -> Scratch | None:
        """Where one of several trainings resumes from."""
        return self.scratch and Scratch(directory=self.scratch / name)


ONE_PROCESS = Execution()
