"""One answer to where tensor programs run."""

import pytest
import torch

from onerec.config import Runtime, SettingError


@pytest.mark.parametrize(
    ("accelerator", "gpu", "device"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("gpu", True, "cuda"),
        ("cuda", True, "cuda"),
    ],
)
def test_the_device(monkeypatch: pytest.MonkeyPatch, accelerator, gpu: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert Runtime(accelerator=accelerator).torch_device() == device


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, accelerator) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=f"accelerator='{accelerator}': torch finds no GPU"):
        Runtime(accelerator=accelerator).torch_device()


def test_small_models_are_trained_on_one_device() -> None:
    several = Runtime(devices=4, num_nodes=2, threads=3)
    assert several.processes == 8
    assert several.on_one_device() == Runtime(threads=3)
