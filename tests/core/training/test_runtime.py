"""What a training runs on: precision, compiled blocks, and nothing left behind."""

import pytest
import torch
from torch.utils import deterministic as debugging

from onerec.model import OneRec
from onerec.training.generator_module import next_token_loss
from onerec.training.runtime import (
    Runtime,
    compile_blocks,
    precision_of,
    process_rank,
    reproducible,
)
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_CODES,
    NUM_SID_TOKENS,
    catalogue,
    patterned_sessions,
)


def test_reproducible_leaves_nothing_behind() -> None:
    threads = torch.get_num_threads()
    fill = debugging.fill_uninitialized_memory  # pyright: ignore
    with reproducible(Runtime(threads=1)):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        assert not torch.empty(1000).isnan().all(), "new tensors are not filled first"
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads
    assert debugging.fill_uninitialized_memory == fill  # pyright: ignore


@pytest.mark.parametrize("several", [{"devices": 2}, {"num_nodes": 2}])
def test_several_processes_need_a_launcher(several: dict[str, int]) -> None:
    assert process_rank(Runtime()) == 0
    (name,) = several
    with pytest.raises(ValueError, match=rf"{name}=2: start a process for each: .*distributed.run"):
        process_rank(Runtime(**several))


@pytest.mark.parametrize(
    ("gpu", "accelerator", "precision", "expected"),
    [
        (True, "auto", "auto", "bf16-mixed"),
        (True, "cpu", "auto", "32-true"),
        (False, "auto", "auto", "32-true"),
        (False, "cpu", "bf16-mixed", "bf16-mixed"),
        (True, "gpu", "32-true", "32-true"),
    ],
)
def test_precision_is_half_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, accelerator: str, precision: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert precision_of(Runtime(accelerator=accelerator, precision=precision)) == expected


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_blocks_are_the_same_model() -> None:
    """Traced but not fused: what the tracer makes of the blocks, for two lengths of history."""
    torch.manual_seed(0)
    model = OneRec(
        MODEL,
        codebook_size=NUM_CODES,
        num_sid_tokens=NUM_SID_TOKENS,
        history_length=HISTORY,
        session_items=ITEMS,
    ).eval()
    names = list(model.state_dict())
    sessions, codes = patterned_sessions(8, seed=1), catalogue().codes
    results = []
    for compiled in (False, True):
        if compiled:
            compile_blocks(model, backend="eager")
        for width in (HISTORY, HISTORY - 2):
            model.zero_grad()
            loss = next_token_loss(model, sessions.history[:, :width], sessions.targets, codes)
            loss.backward()
            results.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert list(model.state_dict()) == names
    for eager, traced in zip(results[:2], results[2:], strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-6)
