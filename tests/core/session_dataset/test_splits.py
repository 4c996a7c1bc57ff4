"""How days and users are divided."""

import doctest

import numpy as np
import pytest

from onerec.session_dataset import splits
from onerec.session_dataset.splits import split_users

IDS = np.array([f"user-{i}" for i in range(2000)], dtype=object)


def test_share_and_seed():
    chosen = split_users(IDS, 0.3, 1)
    assert 0.26 < chosen.mean() < 0.34
    assert (chosen != split_users(IDS, 0.3, 2)).any()
    assert not split_users(IDS, 0.0, 1).any()
    assert split_users(IDS, 1.0, 1).all()
    assert len(split_users(np.array([], dtype=object), 0.5, 1)) == 0


def test_a_user_keeps_its_side_whoever_else_is_there():
    chosen = dict(zip(IDS, split_users(IDS, 0.5, 1), strict=True))
    some = np.random.default_rng(0).permutation(IDS)[:300]
    again = dict(zip(some, split_users(some, 0.5, 1), strict=True))
    assert all(chosen[user] == side for user, side in again.items())


def test_the_same_on_every_machine_and_version():
    ids = np.array(["a", "b", "c", "d", "e", "f", "gruene-wiese", "\u00fc"], dtype=object)
    assert split_users(ids, 0.5, 1).tolist() == EXPECTED


def test_numpy_string_arrays_split_alike():
    assert (split_users(IDS.astype(str), 0.5, 1) == split_users(IDS, 0.5, 1)).all()


def test_a_wrong_share_is_an_error():
    with pytest.raises(ValueError, match=r"share=1\.5"):
        split_users(IDS, 1.5, 0)


EXPECTED = [True, True, True, True, False, False, False, True]


def test_examples():
    result = doctest.testmod(splits)
    assert result.attempted > 0
    assert result.failed == 0
