"""Runs operator commands as separate processes on the soak test's home."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from onerec.artifacts import ArtifactStore

CHECKOUT = Path(__file__).resolve().parents[1]
LONGEST_COMMAND_SECONDS = 500
STAGES: dict[str, dict[str, object]] = {
    "window": {"window_days": 5},
    "embeddings": {"text_encoder": "hashed", "text_dim": 32, "collaborative_dim": 16},
    "tokenizer": {"codebook_size": 8, "iterations": 5, "quality_tolerance": 1},
    "sessions": {"history_length": 8},
    "model": {"d_model": 32, "num_heads": 2, "d_ff": 64, "encoder_layers": 1, "decoder_layers": 1},
    "training": {"max_epochs": 2, "batch_size": 32},
    "reward": {"d_model": 16, "num_heads": 2, "max_epochs": 1},
    "decoding": {"beam": 8, "candidates": 4},
    "alignment": {"sample_users": 30, "batch_size": 16, "epochs": 1},
    "evaluation": {"bootstrap_samples": 50, "max_cases": 40},
}
"""Settings for a nightly run of seconds, which accept every tokenizer refit."""
CONFIGS: dict[str, dict[str, dict[str, object]]] = {
    "plain": {},
    "refuses the refit": {"tokenizer": {"quality_tolerance": 0, "iterations": 1}},
    "fails a check": {"sessions": {"min_positive_share": 0.98}},
}
"""Changes of these settings, by their effect on the nightly run."""


class CommandError(AssertionError):
    """A command ended with an unexpected status; the message contains its output."""


@dataclass(frozen=True)
class Commands:
    """Runs the commands of an operator.

    Attributes:
        home: Directory of state, configurations and deliveries.
    """

    home: Path

    @property
    def root(self) -> Path:
        """State of the data set."""
        return self.home / "own"

    @property
    def store(self) -> ArtifactStore:
        """The artifacts."""
        return ArtifactStore(str(self.root / "artifacts"))

    @property
    def deliveries(self) -> Path:
        """Where the files of each day are delivered."""
        return self.home / "deliveries"

    def prepare(self) -> None:
        """Write the configurations."""
        self.home.mkdir(parents=True, exist_ok=True)
        for name, changes in CONFIGS.items():
            stages = {k: {**v, **changes.get(k, {})} for k, v in STAGES.items()}
            data = {
                "events": {"path": str(self.deliveries / "log" / "{date}.parquet")},
                "items": {"path": str(self.deliveries / "items" / "{date}.parquet")},
                "open_ended": True,
                "stages": stages,
            }
            self._config(name).write_text(yaml.safe_dump(data))

    def run(
        self,
        *arguments: str,
        config: str = "plain",
        expect: int = 0,
        more: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command to its end; returns its output.

        Raises:
            CommandError: The exit status is not the expected one.
        """
        process = self.start(*arguments, config=config, more=more)
        return self.ended(process, expect)

    def ended(self, process: subprocess.Popen, expect: int = 0) -> str:
        """Wait for a started command; returns its output, errors as `run`."""
        text, _ = process.communicate(timeout=LONGEST_COMMAND_SECONDS)
        with (self.home / "terminal.log").open("a") as log:
            log.write(f"$ {process.args}\n{text}\n")
        if process.returncode != expect:
            raise CommandError(f"{process.args}: exit status {process.returncode}\n{text[-6000:]}")
        return text

    def start(
        self, *arguments: str, config: str = "plain", more: Mapping[str, str] | None = None
    ) -> subprocess.Popen:
        """Start `python -m onerec_dagster ARGUMENTS`, or `dagster ARGUMENTS` from `asset` on."""
        program = ["-m", "dagster"] if arguments[0] == "asset" else ["-m", "onerec_dagster"]
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=CHECKOUT,
            env=self._environment(config) | dict(more or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _config(self, name: str) -> Path:
        return self.home / f"{name.replace(' ', '_')}.yaml"

    def _environment(self, config: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ONEREC_", "DAGSTER_"))}
        return kept | {
            "ONEREC_HOME": str(self.home),
            "DAGSTER_HOME": str(self.root / "dagster"),
            "ONEREC_CONFIG": str(self._config(config)),
            "ONEREC_DATASET": "own",
            "ONEREC_STEPS_AT_ONCE": "1",
            "ONEREC_ACCELERATOR": "cpu",
            "ONEREC_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }


def wait_until(process: subprocess.Popen, reached: Callable[[], bool]) -> None:
    """Wait until a running command reaches a state.

    Raises:
        CommandError: The command ended before that.
    """
    deadline = time.monotonic() + LONGEST_COMMAND_SECONDS
    while not reached():
        if process.poll() is not None or time.monotonic() > deadline:
            text = process.stdout.read() if process.stdout else ""
            raise CommandError(f"{process.args}: ended too early\n{text[-6000:]}")
        time.sleep(0.01)


def kill(process: subprocess.Popen) -> None:
    """`kill -9` a command and its children."""
    family = [psutil.Process(process.pid)]
    family += family[0].children(recursive=True)
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.communicate(timeout=60)


def size_of(path: Path) -> int:
    """Bytes below a directory."""
    return sum(f.lstat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink())
