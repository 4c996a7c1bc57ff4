"""The reward model's structure: what may change a score and what may not."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from onerec.config import RewardConfig
from onerec.config.feedback import VIDEO_SIGNALS, WATCH_SECONDS, WATCH_SHARE
from onerec.reward.model import (
    RewardModel,
    RewardShape,
    _Mean,
    _similarity,
    _Tower,
    load_reward,
    reward_loss,
    save_reward,
)
from onerec.reward.scoring import scalar_reward, score_sessions

SHAPE = RewardShape(vector_dim=6, num_items=10, history_length=4)
CONFIG = RewardConfig(d_model=16, evaluator_d_model=16, num_heads=2)
HISTORY = torch.tensor([[0, 1, 2, 3], [4, 5, -1, -1], [-1, -1, -1, -1]])
SESSIONS = torch.tensor([[6, 7, 8], [9, 1, -1], [2, -1, -1]])


@pytest.fixture
def vectors() -> torch.Tensor:
    raw = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(raw, dim=-1)


@pytest.fixture
def model() -> RewardModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = RewardModel(CONFIG, SHAPE)
        torch.nn.init.normal_(model.embed.weight)
        torch.nn.init.normal_(model.recency.weight)
        with torch.no_grad():
            model.embed.weight[SHAPE.num_items].zero_()
    return model.eval()


def test_history_order_and_content_change_the_reward(model: RewardModel, vectors: torch.Tensor):
    base = score_sessions(model, vectors, HISTORY, SESSIONS)
    reordered = score_sessions(model, vectors, HISTORY[:, [3, 2, 1, 0]], SESSIONS)
    assert (base[0] - reordered[0]).abs().max() > 1e-4
    other = HISTORY.clone()
    other[0, 0] = 9
    assert (score_sessions(model, vectors, other, SESSIONS)[0] - base[0]).abs().max() > 1e-4


def test_an_item_matters_through_the_history_and_alone(model: RewardModel, vectors: torch.Tensor):
    """Two sessions differ in reward for a user without history too: the user-independent part."""
    empty = torch.full((2, 4), -1)
    scores = score_sessions(model, vectors, empty, SESSIONS[:2])
    assert torch.isfinite(scores).all()
    assert (scores[0] - scores[1]).abs().max() > 1e-4


def test_without_target_attention_the_history_is_its_mean(vectors: torch.Tensor):
    """Each item sees the same of the user: whatever the item, its history in any order of equal
    places counts alike, and the model is as wide as with attention."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = RewardModel(dataclasses.replace(CONFIG, target_attention=False), SHAPE).eval()
        torch.nn.init.zeros_(model.recency.weight)
    base = score_sessions(model, vectors, HISTORY, SESSIONS)
    reordered = score_sessions(model, vectors, HISTORY[:, [3, 2, 1, 0]], SESSIONS)
    torch.testing.assert_close(base[0], reordered[0], atol=1e-6, rtol=0)
    items, memory = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)[:, None, None, :]
    seen = model.over_history(items, memory, mask)
    assert isinstance(model.over_history, _Mean)
    value, out = model.over_history.value, model.over_history.out
    kept = [memory[0, [0, 1, 3]], memory[1, :1]]
    expected = torch.stack([out(value(rows).mean(0)) for rows in kept])
    torch.testing.assert_close(seen, expected[:, None].expand(2, 3, 16))
    changed = HISTORY.clone()
    changed[0, 0] = 9
    assert (score_sessions(model, vectors, changed, SESSIONS)[0] - base[0]).abs().max() > 1e-5


def test_similarity_by_hand_and_only_where_asked_for(vectors: torch.Tensor):
    """Unit vectors of width 2: cosines are scaled by the root of 2."""
    plane = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.6, 0.8]])
    items, history = torch.tensor([[0, 2], [1, -1]]), torch.tensor([[0, 1, -1], [-1, -1, -1]])
    # item 0: cosines 1, 0 with history 0, 1; item 2: .6, .8; without history or item nothing
    expected = torch.tensor([[[0.5, 1.0], [0.7, 0.8]], [[0.0, 0.0], [0.0, 0.0]]]) * 2**0.5
    torch.testing.assert_close(_similarity(plane, items, history), expected)
    wide = RewardModel(CONFIG, SHAPE).eval()
    narrow = RewardModel(dataclasses.replace(CONFIG, history_similarity=False), SHAPE)
    assert wide.mix.in_features == narrow.mix.in_features + 2
    padded = torch.nn.functional.pad(HISTORY, (0, 3), value=-1)
    scores = score_sessions(wide, vectors, HISTORY, SESSIONS)
    again = score_sessions(
        wide, vectors, padded, torch.nn.functional.pad(SESSIONS, (0, 2), value=-1)
    )
    torch.testing.assert_close(scores, again, atol=1e-6, rtol=0)


def test_padding_changes_nothing(model: RewardModel, vectors: torch.Tensor):
    base = score_sessions(model, vectors, HISTORY, SESSIONS)
    padded = score_sessions(
        model,
        vectors,
        torch.nn.functional.pad(HISTORY, (0, 3), value=-1),
        torch.nn.functional.pad(SESSIONS, (0, 2), value=-1),
    )
    torch.testing.assert_close(base, padded, atol=1e-6, rtol=0)


def test_batching_and_several_sessions_a_user(model: RewardModel, vectors: torch.Tensor):
    several = SESSIONS.roll(1, 0)
    both = torch.stack([SESSIONS, several], 1)
    scores = score_sessions(model, vectors, HISTORY, both, batch_size=4)
    assert scores.shape == (3, 2, 4)
    for k, sessions in enumerate((SESSIONS, several)):
        expected = score_sessions(model, vectors, HISTORY, sessions)
        torch.testing.assert_close(scores[:, k], expected, atol=1e-6, rtol=0)


def test_a_session_of_padding_alone_is_finite(model: RewardModel, vectors: torch.Tensor):
    nothing = torch.full((3, 3), -1)
    assert torch.isfinite(score_sessions(model, vectors, HISTORY, nothing)).all()


def test_new_items_have_their_vector_and_no_embedding(model: RewardModel, vectors: torch.Tensor):
    """Item 11 came after training: with item 6's vector it scores as item 6 without its row."""
    vectors[11] = vectors[6]
    new = score_sessions(model, vectors, HISTORY[:1], torch.tensor([[11, 7, 8]]))
    with torch.no_grad():
        model.embed.weight[6].zero_()
    known = score_sessions(model, vectors, HISTORY[:1], torch.tensor([[6, 7, 8]]))
    torch.testing.assert_close(new, known)


def test_loss_by_hand():
    """-ln of what was given to the truth, summed over towers, mean of rows."""
    probabilities = torch.tensor([[0.5, 0.8, 0.1, 0.5], [0.25, 0.5, 0.5, 0.9]])
    labels = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    # row 1: -ln .5 -ln .8 -ln .9 -ln .5 = .693147 + .223144 + .105361 + .693147 = 1.714799
    # row 2: -ln .75 -ln .5 -ln .5 -ln .9 = .287682 + .693147 + .693147 + .105361 = 1.779337
    expected = (1.714799 + 1.779337) / 2
    assert float(reward_loss(torch.logit(probabilities), labels)) == pytest.approx(
        expected, abs=1e-5
    )


def test_scalar_reward_by_hand():
    config = RewardConfig(weight_swt=1.0, weight_vtr=0.5, weight_wtr=2.0, weight_ltr=0.0)
    probabilities = torch.tensor([[0.4, 0.6, 0.05, 0.9]])
    assert float(scalar_reward(probabilities, config)) == pytest.approx(0.4 + 0.3 + 0.1)


def test_starts_from_base_rates(vectors: torch.Tensor):
    model = RewardModel(CONFIG, SHAPE).eval()
    rates = torch.tensor([0.5, 0.7, 0.01, 0.1])
    model.start_from_base_rates(rates)
    for tower in model.towers:
        assert isinstance(tower, _Tower)
        torch.nn.init.zeros_(tower.score.weight)
    scores = score_sessions(model, vectors, HISTORY, SESSIONS)
    torch.testing.assert_close(scores, rates.expand(3, 4))


def test_expectations_count_in_their_own_unit():
    """.5 P(vtr) + .2 of 30 seconds + 4 times a share of .25, by hand."""
    config = RewardConfig(weight_vtr=0.5, weight_watch_seconds=0.2, weight_watch_share=4.0)
    signals = (VIDEO_SIGNALS[1], WATCH_SECONDS, WATCH_SHARE)
    predicted = torch.tensor([0.8, 30.0, 0.25])
    assert float(scalar_reward(predicted, config, signals)) == pytest.approx(0.4 + 6 + 1)


def test_saved_and_loaded(model: RewardModel, vectors: torch.Tensor, tmp_path: Path):
    save_reward(model, tmp_path)
    again = load_reward(tmp_path)
    expected = score_sessions(model, vectors, HISTORY, SESSIONS)
    assert torch.equal(score_sessions(again, vectors, HISTORY, SESSIONS), expected)


def test_wrong_settings_name_the_field():
    with pytest.raises(ValueError, match="evaluator_d_model=50"):
        RewardConfig(evaluator_d_model=50)
    with pytest.raises(ValueError, match="evaluator_user_share=1"):
        RewardConfig(evaluator_user_share=1.0)
    with pytest.raises(ValueError, match="weight_swt"):
        RewardConfig(weight_swt=-1.0)


def test_an_artifact_without_facts_is_read_as_before(
    model: RewardModel, vectors: torch.Tensor, tmp_path: Path
):
    """An earlier version wrote neither facts nor their names."""
    save_reward(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if "facts" not in k}, tmp_path / "model.safetensors"
    )
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("item_facts", "user_facts", "quantiles"):
        del config["shape"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    before = score_sessions(model, vectors, HISTORY, SESSIONS)
    after = score_sessions(load_reward(tmp_path), vectors, HISTORY, SESSIONS)
    assert torch.equal(before, after)
