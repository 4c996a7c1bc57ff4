"""What trainings run on, as a resource."""

from dataclasses import fields

import dagster as dg
import pytest
import torch

from onerec.config import Runtime, SettingError
from resources import resources_for
from resources.settings import load_settings
from resources.stores import Compute


def test_the_resource_has_the_fields_of_the_core() -> None:
    assert set(Compute.model_fields) == {f.name for f in fields(Runtime)}
    assert Compute().runtime() == Runtime()
    assert Compute(devices=2, accelerator="cpu").runtime() == Runtime(devices=2, accelerator="cpu")


def test_threads_hold_for_all_that_a_step_runs() -> None:
    before = torch.get_num_threads()

    @dg.asset
    def threads(compute: Compute) -> int:
        return torch.get_num_threads()

    try:
        result = dg.materialize([threads], resources={"compute": Compute(threads=before + 1)})
        assert result.output_for_node("threads") == before + 1
    finally:
        torch.set_num_threads(before)


def test_variables_of_the_environment(tmp_path) -> None:
    given = {"DEVICES": "2", "COMPILE": "1", "PRECISION": "32-true", "CHECKPOINT_EVERY_STEPS": "5"}
    environ = {"ONEREC_HOME": str(tmp_path), **{f"ONEREC_{k}": v for k, v in given.items()}}
    settings = load_settings(environ)
    expected = Runtime(devices=2, compile=True, precision="32-true", checkpoint_every_steps=5)
    assert settings.runtime == expected
    assert resources_for(settings)["compute"].runtime() == expected


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("ONEREC_ACCELERATOR", "tpu", "use 'auto', 'cpu', 'gpu' or 'cuda'"),
        ("ONEREC_DEVICES", "two", "use a whole number from 1"),
        ("ONEREC_DEVICES", "0", "use a whole number from 1"),
        ("ONEREC_COMPILE", "maybe", "use true or false"),
        ("ONEREC_PRECISION", "bf16", "use 'auto', '32-true'"),
        ("ONEREC_THREADS", "-1", "use a whole number from 0"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path, variable: str, value: str, remedy: str) -> None:
    with pytest.raises(SettingError) as raised:
        load_settings({"ONEREC_HOME": str(tmp_path), variable: value})
    assert raised.value.field == variable
    assert remedy in raised.value.remedy
