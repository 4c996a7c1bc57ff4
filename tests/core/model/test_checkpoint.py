"""Checkpoints come back as they were, or not at all."""

import json

import pytest
import torch

from onerec.model import TokenizerVersionMismatchError, load_model, save_model, session_logp
from tests.core.model.small import histories, small_model, unique_codes

CODES = unique_codes(20, 4, 3)


def test_round_trip_gives_the_same_numbers_and_bytes(tmp_path):
    model = small_model().float()
    model.train()
    save_model(model, tmp_path / "a", tokenizer_version="abc")
    state = torch.get_rng_state()
    loaded, tokenizer_version = load_model(tmp_path / "a", expected_tokenizer_version="abc")
    assert torch.equal(torch.get_rng_state(), state), "loading leaves the random state alone"
    assert tokenizer_version == "abc"
    assert not loaded.training
    save_model(loaded, tmp_path / "b", tokenizer_version="abc")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    history, sessions = histories([1, 2]), torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(
            session_logp(loaded, history, sessions, CODES),
            session_logp(model.eval(), history, sessions, CODES),
            rtol=0,
            atol=0,
        )


def test_another_generation_is_refused_by_name(tmp_path):
    save_model(small_model(), tmp_path, tokenizer_version="old1")
    with pytest.raises(TokenizerVersionMismatchError, match=r"'old1'.*'new2'.*Train from scratch"):
        load_model(tmp_path, expected_tokenizer_version="new2")
    assert load_model(tmp_path, expected_tokenizer_version=None)[1] == "old1"


def test_damage_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_model(tmp_path / "nowhere", expected_tokenizer_version=None)

    save_model(small_model(), tmp_path, tokenizer_version="g")
    config = json.loads((tmp_path / "config.json").read_text())

    (tmp_path / "config.json").write_text(json.dumps(config | {"session_items": 4}))
    with pytest.raises(ValueError, match="does not fit"):
        load_model(tmp_path, expected_tokenizer_version="g")

    unknown = config | {"model": config["model"] | {"wings": 2}}
    (tmp_path / "config.json").write_text(json.dumps(unknown))
    with pytest.raises(ValueError, match="does not know"):
        load_model(tmp_path, expected_tokenizer_version="g")

    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="does not fit"):
        load_model(tmp_path, expected_tokenizer_version="g")
