"""Counted costs against hand arithmetic and against a model that really runs."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cost import Cost, training_cost
from benchmarks.presets import steps_of
from onerec.config import PRESETS, ModelConfig, PipelineConfig
from onerec.model import OneRec
from tests.core.model.small import LAZY

SHAPE: dict[str, Any] = {
    "codebook_size": 8,
    "num_sid_tokens": 3,
    "history_length": 6,
    "session_items": 2,
}


def config(**changes: Any) -> ModelConfig:
    return ModelConfig(**({"d_model": 16, "num_heads": 2, "d_ff": 24, "dropout": 0.0} | changes))


def cost_of(preset: PipelineConfig) -> Cost:
    return training_cost(
        preset.model,
        codebook_size=preset.tokenizer.codes_per_level(2000),
        num_sid_tokens=preset.tokenizer.num_levels + 1,
        history_length=preset.sessions.history_length,
        session_items=preset.sessions.session_items,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"num_experts": 1, "active_experts": 1},
        {"num_experts": 5, "active_experts": 2},
        {"history_tokens": "sid_tokens"},
        LAZY | {"context_kv_heads": 1},
    ],
)
def test_counted_operations_are_those_of_a_run(changes: dict[str, Any]) -> None:
    """Wherever the router sends the tokens: each passes as many experts as the count assumes."""
    shape = config(**changes)
    torch.manual_seed(0)
    model = OneRec(shape, **SHAPE)
    history, targets = torch.randint(0, 8, (4, 6, 3)), torch.randint(0, 8, (4, 2, 3))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(history, torch.ones(4, 6, dtype=torch.bool), targets)
        cross_entropy(logits.flatten(0, -2), targets.flatten()).backward()
    cost = training_cost(shape, **SHAPE, batch_size=4)
    assert cost.flops == counter.get_total_flops()
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.supervised_tokens == 4 * 2 * 3
    assert cost.state_bytes == 16 * cost.parameters


def test_sleeping_experts_are_not_active() -> None:
    sparse = training_cost(config(num_experts=5, active_experts=2, decoder_layers=3), **SHAPE)
    expert = 3 * 16 * 24
    assert sparse.parameters - sparse.active_parameters == 3 * (5 - 2) * expert


def test_activations_grow_with_the_batch_and_weights_do_not() -> None:
    one, four = (training_cost(config(), **SHAPE, batch_size=n) for n in (1, 4))
    assert one.state_bytes == four.state_bytes
    assert 3.5 < four.activation_bytes / one.activation_bytes <= 4


def test_large_at_its_full_shape() -> None:
    """1 B parameters of which a fifth works on a token: forward and backward run without memory."""
    cost = cost_of(PRESETS["large"])
    assert 0.9e9 < cost.parameters < 1.05e9
    assert cost.active_parameters < 0.2 * cost.parameters
    # six operations per weight and token; 1281 tokens are read by four blocks of 12.8 M weights
    read = 6 * 1281 * 4 * (4 * 1024**2 + 3 * 1024 * 2816)
    assert read < cost.flops < 1.5 * read


def test_a_lazy_decoder_does_half_the_work_at_equal_parameters() -> None:
    dense = {"num_experts": 1, "active_experts": 1, "history_tokens": "sid_tokens"}
    first = training_cost(config(encoder_layers=2, decoder_layers=2, **dense), **SHAPE)
    lazy = training_cost(config(decoder_layers=4, **dense, **LAZY), **SHAPE)
    assert lazy.parameters == pytest.approx(first.parameters, rel=0.05)
    assert lazy.flops < 0.6 * first.flops


@pytest.mark.slow
def test_base_takes_real_steps() -> None:
    """All 0.13 B parameters, a short history: the loss of a repeated batch falls."""
    result = steps_of(PRESETS["base"], batch_size=2, history=4, steps=2)
    assert result.cost.parameters > 0.1e9
    first, second = result.losses
    assert second < first - 1
