"""What the generator may and may not depend on, and that caches change nothing."""

import dataclasses

import pytest
import torch

from onerec.config import PRESETS, ModelConfig
from onerec.model import OneRec, lookup, session_logp, session_nll
from onerec.model.blocks import CrossAttention
from tests.core.model.small import LAZY, histories, small_model, unique_codes

MODES = [
    {"history_tokens": "items"},
    {"history_tokens": "sid_tokens"},
    {"history_tokens": "sid_tokens", "separator": False},
    LAZY,
    LAZY | {"history_tokens": "sid_tokens", "context_kv_layers": 2, "context_kv_heads": 1},
    LAZY | {"context_values": True, "dense_decoder_layers": 1},
]
CODES = unique_codes(20, 4, 3)
HISTORY = histories([0, 3, 2], [], [1, 1, 4, 5, 0, 2])
SESSIONS = torch.tensor([[5, 6, 7], [1, 2, 3], [9, 8, 7]])


def logits_of(model, history=HISTORY, sessions=SESSIONS):
    with torch.no_grad():
        return model(*lookup(CODES, history), lookup(CODES, sessions)[0])


@pytest.mark.parametrize("mode", MODES)
def test_padding_content_does_not_matter(mode):
    model = small_model(**mode)
    codes, mask = lookup(CODES, HISTORY)
    noise = torch.randint(0, 4, codes.shape)
    noisy = torch.where(mask.unsqueeze(-1), codes, noise)
    session_codes = lookup(CODES, SESSIONS)[0]
    with torch.no_grad():
        clean, dirty = model(codes, mask, session_codes), model(noisy, mask, session_codes)
    torch.testing.assert_close(clean, dirty, rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_padding_length_does_not_matter(mode):
    model = small_model(**mode)
    long = logits_of(model, HISTORY[:1])
    short = logits_of(model, HISTORY[:1, :3])
    torch.testing.assert_close(logits_of(model, HISTORY[:1], SESSIONS[:1]), long[:1])
    torch.testing.assert_close(long[:1], short[:1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_history_order_and_content_matter(mode):
    model = small_model(**mode)
    base = logits_of(model, histories([0, 3, 2]), SESSIONS[:1])
    for other in ([3, 0, 2], [0, 3], [0, 3, 1], []):
        changed = logits_of(model, histories(other), SESSIONS[:1])
        assert (changed - base).abs().max() > 1e-3


@pytest.mark.parametrize("mode", [{}, LAZY])
def test_later_tokens_do_not_change_earlier_logits(mode):
    model = small_model(**mode)
    codes = lookup(CODES, SESSIONS)[0]
    history = lookup(CODES, HISTORY)
    with torch.no_grad():
        base = model(*history, codes)
        for item in range(3):
            for level in range(3):
                changed = codes.clone()
                changed[:, item, level] = (codes[:, item, level] + 1) % 4
                differs = (model(*history, changed) - base).abs().amax(dim=(0, 3)).flatten()
                at = item * 3 + level
                assert (differs[: at + 1] < 1e-12).all(), "a token is not its own context"
                assert (differs[at + 1 :] > 1e-6).all(), "every later token reads it"


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_cached_steps_equal_teacher_forcing(mode, shared):
    model = small_model(**mode)
    codes = lookup(CODES, SESSIONS)[0]
    with torch.no_grad():
        expected = logits_of(model)
        state = model.start_decoding(model.encode(*lookup(CODES, HISTORY)), shared=shared)
        previous = None
        for slot in range(3):
            for level in range(3):
                logits = model.step(state, slot=slot, level=level, previous=previous)
                torch.testing.assert_close(
                    logits[:, 0], expected[:, slot, level], rtol=1e-12, atol=1e-12
                )
                previous = codes[:, slot, level].unsqueeze(1)


@pytest.mark.parametrize("mode", MODES[:3])
def test_few_queries_read_the_memory_unprojected_with_the_same_result(mode, monkeypatch):
    model = small_model(**mode)
    history, codes = lookup(CODES, HISTORY), lookup(CODES, SESSIONS[:, :1])[0]
    cross = next(m for m in model.modules() if isinstance(m, CrossAttention))
    assert cross.few(3)
    assert not cross.few(5)

    def logits_and_gradients():
        model.zero_grad()
        logits = model(*history, codes)
        logits.square().sum().backward()
        return [logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    unprojected = logits_and_gradients()
    monkeypatch.setattr(CrossAttention, "few", lambda self, queries: False)
    for ours, expected in zip(unprojected, logits_and_gradients(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mode", [{}, LAZY | {"context_kv_heads": 1}])
def test_reordered_caches_equal_uncached_decoding(mode, shared):
    """Beams that swap, split and die along the way score as if decoded afresh."""
    model = small_model(**mode)
    memory = model.encode(*lookup(CODES, HISTORY))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        state = model.start_decoding(memory, shared=shared)
        previous, chosen = None, torch.zeros(3, 1, 0, dtype=torch.long)
        for position in range(9):
            slot, level = divmod(position, 3)
            logits = model.step(state, slot=slot, level=level, previous=previous)
            padded = torch.nn.functional.pad(chosen, (0, 9 - position)).unflatten(2, (3, 3))
            fresh = model.decode(memory, padded)[:, :, slot, level]
            torch.testing.assert_close(logits, fresh, rtol=1e-12, atol=1e-12)
            beams = [4, 2, 5][position % 3]
            parents = torch.randint(0, chosen.shape[1], (3, beams), generator=generator)
            previous = torch.randint(0, 4, (3, beams), generator=generator)
            state.reorder(parents)
            chosen = chosen.gather(1, parents.unsqueeze(-1).expand(-1, -1, position))
            chosen = torch.cat([chosen, previous.unsqueeze(-1)], dim=2)


@pytest.mark.parametrize("mode", [{}, LAZY])
def test_several_sessions_of_a_user_share_the_memory_only(mode):
    model = small_model(**mode)
    several = torch.stack([SESSIONS, SESSIONS.flip(1)], dim=1)
    with torch.no_grad():
        together = session_logp(model, HISTORY, several, CODES)
        apart = [session_logp(model, HISTORY, several[:, k], CODES) for k in range(2)]
    torch.testing.assert_close(together, torch.stack(apart, dim=1), rtol=1e-12, atol=1e-12)


def test_padded_items_add_nothing_to_a_session():
    model = small_model()
    padded = SESSIONS.clone()
    padded[:, 2] = -1
    with torch.no_grad():
        torch.testing.assert_close(
            session_logp(model, HISTORY, padded, CODES),
            session_logp(model, HISTORY, SESSIONS[:, :2], CODES),
            rtol=1e-12,
            atol=1e-12,
        )
        nothing = session_logp(model, HISTORY, torch.full((3, 3), -1), CODES)
    assert nothing.tolist() == [0, 0, 0]


def test_nll_by_hand():
    # two items of two tokens over C = 2; the second session has one item only
    logits = torch.tensor([[[[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]]]]).repeat(2, 1, 1, 1)
    codes = torch.tensor([[[0, 0], [1, 0]], [[1, 1], [0, 0]]])
    mask = torch.tensor([[True, True], [True, False]])
    log2, soft1, soft2 = 0.693147, 0.313262, 0.126928  # -log softmax of gaps 0, 1, 2
    expected = (log2 + soft1 + soft2 + log2 + log2 + (1 + soft1)) / 6
    assert session_nll(logits, codes, mask).item() == pytest.approx(expected, abs=1e-5)
    assert session_nll(logits, codes, torch.zeros_like(mask)).item() == 0


def test_nll_is_the_mean_of_session_logp():
    model = small_model()
    codes, mask = lookup(CODES, SESSIONS)
    with torch.no_grad():
        logp = session_logp(model, HISTORY, SESSIONS, CODES)
        nll = session_nll(logits_of(model), codes, mask)
    torch.testing.assert_close(nll, -logp.sum() / 27)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("experts", [1, 3])
def test_every_parameter_gets_a_gradient(mode, experts):
    model = small_model(num_experts=experts, active_experts=min(experts, 2), **mode).train()
    codes, mask = lookup(CODES, SESSIONS)
    session_nll(model(*lookup(CODES, HISTORY), codes), codes, mask).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_seed_decides_the_weights():
    first, same, other = small_model(seed=1), small_model(seed=1), small_model(seed=2)
    for a, b in zip(first.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(first.sid_embedding.weight, other.sid_embedding.weight)


@pytest.mark.parametrize("mode", [{}, LAZY])
def test_dropout_acts_in_training_only_and_the_seed_decides_it(mode):
    model = small_model(dropout=0.4, **mode)
    state = torch.get_rng_state()
    assert torch.equal(logits_of(model), logits_of(model))
    assert torch.equal(torch.get_rng_state(), state)
    model.train()

    def drawn(seed):
        torch.manual_seed(seed)
        return logits_of(model)

    assert torch.equal(drawn(5), drawn(5))
    assert not torch.equal(drawn(5), drawn(6))


@pytest.mark.parametrize("mode", [{}, LAZY])
def test_it_learns_a_rule(mode):
    """The next session repeats the last history item: 60 steps are enough to see it."""
    model = small_model(session_items=1, dropout=0.1, **mode).float().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        history = torch.randint(0, 20, (64, 6), generator=generator)
        codes, mask = lookup(CODES, history[:, -1:])
        loss = session_nll(model(*lookup(CODES, history), codes), codes, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        model.update_expert_bias()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < losses[0] / 3


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [("tiny", 0.3e6, 0.6e6), ("base", 0.10e9, 0.15e9), ("large", 0.9e9, 1.05e9)],
)
def test_presets_have_the_size_they_claim(preset, low, high):
    stages = PRESETS[preset]
    with torch.device("meta"):
        model = OneRec(
            stages.model,
            codebook_size=stages.tokenizer.codes_per_level(2000),
            num_sid_tokens=stages.tokenizer.num_levels + 1,
            history_length=stages.sessions.history_length,
            session_items=stages.sessions.session_items,
        )
    parameters = sum(p.numel() for p in model.parameters())
    assert low < parameters < high, f"{preset} has {parameters:,} parameters"


@pytest.mark.parametrize("preset", ["base", "large"])
def test_big_presets_step_at_a_shortened_shape(preset):
    config = dataclasses.replace(
        PRESETS[preset].model, d_model=64, d_ff=32, encoder_layers=1, decoder_layers=1
    )
    torch.manual_seed(0)
    model = OneRec(config, codebook_size=64, num_sid_tokens=4, history_length=8, session_items=5)
    catalogue = unique_codes(50, 64, 4)
    codes, mask = lookup(catalogue, torch.randint(0, 50, (4, 5)))
    loss = session_nll(model(*lookup(catalogue, torch.randint(0, 50, (4, 8))), codes), codes, mask)
    loss.backward()
    assert loss.isfinite()


def test_errors_name_what_is_wrong():
    model = small_model()
    codes, mask = lookup(CODES, HISTORY)
    session_codes = lookup(CODES, SESSIONS)[0]
    with pytest.raises(ValueError, match="2 tokens per item"):
        model.encode(codes[..., :2], mask)
    with pytest.raises(ValueError, match="history of 12 items"):
        model.encode(codes.repeat(1, 2, 1), mask.repeat(1, 2))
    with pytest.raises(ValueError, match="session of 6 items"):
        model(codes, mask, session_codes.repeat(1, 2, 1))
    with pytest.raises(ValueError, match="sessions has item indices"):
        session_logp(model, HISTORY, SESSIONS + 20, CODES)
    with pytest.raises(ValueError, match="history_tokens='words'"):
        ModelConfig(history_tokens="words")
