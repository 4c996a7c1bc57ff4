"""Who is compared in a round, and who it is measured on."""

from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest

from onerec.alignment.round_inputs import RoundInputs
from onerec.config import AlignmentConfig
from onerec.model import OneRec, save_model
from onerec.session_dataset.holdout import held_out_users
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_CODES,
    NUM_SID_TOKENS,
    catalogue,
    write_patterned_dataset,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RoundInputs:
    """400 sessions of training days and 100 of the validation day, all of the same 50 users."""
    directory = tmp_path_factory.mktemp("round")
    write_patterned_dataset(directory / "session_dataset", train=400, valid=100)
    for name in ("semantic_ids", "start"):
        (directory / name).mkdir()
    catalogue().save(directory / "semantic_ids")
    model = OneRec(
        MODEL,
        codebook_size=NUM_CODES,
        num_sid_tokens=NUM_SID_TOKENS,
        history_length=HISTORY,
        session_items=ITEMS,
    )
    save_model(model, directory / "start", tokenizer_version="a-version")
    return RoundInputs(
        session_dataset=directory / "session_dataset",
        semantic_ids=directory / "semantic_ids",
        start=directory / "start",
        reward_model=directory / "reward",
        test_day=date(2026, 6, 4),
    )


def held_out(inputs: RoundInputs, user_ids: np.ndarray) -> set[str]:
    return set(user_ids[held_out_users(inputs.session_dataset, user_ids)])


def users(sessions) -> set[str]:
    return set(sessions.user_ids[sessions.user.numpy()])


def test_sessions_of_held_out_users_and_of_the_others(inputs: RoundInputs) -> None:
    everything = inputs.sessions("train")
    chosen = held_out(inputs, everything.user_ids)
    assert 0 < len(chosen) < 50
    assert users(inputs.sessions("train", held_out=True)) == chosen
    assert users(inputs.sessions("train", held_out=False)) == users(everything) - chosen


def test_recall_is_that_of_held_out_users_and_reward_that_of_users_without_pairs(
    inputs: RoundInputs,
) -> None:
    everyone = inputs.sessions("valid").user_ids
    chosen = held_out(inputs, everyone)
    paired = sorted(set(everyone) - chosen)[:20]
    preferences = SimpleNamespace(user_ids=np.array(paired, dtype=object))
    settings = AlignmentConfig(gate_cases=500, seed=2)
    cases = inputs.gate_cases(preferences, settings)  # pyright: ignore[reportArgumentType]
    assert cases.held_out is not None
    assert set(cases.held_out.users.user_ids) == chosen
    assert users(cases.contexts) == set(everyone) - set(paired)
    assert len(cases.contexts) == 30  # one session of each
    settings = AlignmentConfig(gate_cases=4, gate_recall_cases=5, seed=2)
    few = inputs.gate_cases(preferences, settings)  # pyright: ignore[reportArgumentType]
    assert few.held_out is not None
    assert (len(few.contexts), len(few.held_out.users)) == (4, 5)
    assert set(few.held_out.users.user_ids) < chosen
    settings = AlignmentConfig(gate_cases=0)
    nobody = inputs.gate_cases(preferences, settings)  # pyright: ignore[reportArgumentType]
    assert nobody.held_out is not None
    assert (len(nobody.contexts), len(nobody.held_out.users)) == (0, 0)
