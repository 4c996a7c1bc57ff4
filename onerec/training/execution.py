"""Hardware of a training, and the directory from which it resumes."""

from dataclasses import dataclass, field
from pathlib import Path

from onerec.config import Runtime
from onerec.training.scratch import Scratch


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Hardware of a training, and the directory from which it resumes.

    Attributes:
        runtime: Hardware; on several devices every process runs the same training.
        scratch: Directory of unfinished work, shared by all processes; None: a training that was
            killed starts over.
    """

    runtime: Runtime = field(default_factory=Runtime)
    scratch: Path | None = None

    def scratch_of(self, name: str) -> Scratch | None:
        """The directory from which one of several trainings resumes."""
        return self.scratch and Scratch(directory=self.scratch / name)


ONE_PROCESS = Execution()
