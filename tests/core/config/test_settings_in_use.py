"""Every setting is set by a preset, a data set, an experiment, an example or a test."""

import dataclasses
import re
from pathlib import Path

import pytest

from onerec.config import PipelineConfig
from onerec.datasets.simulator.config import SimulatorConfig

CHECKOUT = Path(__file__).resolve().parents[3]
SET_IN = ("tests", "experiments", "examples", "benchmarks", "onerec/datasets")
CONFIGS = [*(type(getattr(PipelineConfig(), f.name)) for f in dataclasses.fields(PipelineConfig))]


def places() -> str:
    """Everything that may set something, as one text."""
    files = [CHECKOUT / "onerec/config/presets.py"]
    for folder in SET_IN:
        files += [p for p in (CHECKOUT / folder).rglob("*") if p.suffix in (".py", ".yaml")]
    return "\n".join(path.read_text() for path in sorted(files))


@pytest.mark.parametrize("config", [*CONFIGS, SimulatorConfig])
def test_every_setting_is_set_somewhere(config: type) -> None:
    text = places()
    unset = [f.name for f in dataclasses.fields(config) if not is_set(f.name, text)]
    assert not unset, "set it in a test that shows what it does, or delete it"


def is_set(name: str, text: str) -> bool:
    """As an argument, as a key, or as one of several names of a parametrised test."""
    return bool(re.search(rf"\b{name}=[^=]|[\"']{name}[\"']|\b{name}: ", text))
