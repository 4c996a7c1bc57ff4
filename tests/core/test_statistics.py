import numpy as np
import pytest

from onerec import statistics
from onerec.statistics import bootstrap_mean, bootstrap_means, paired_difference


def test_interval_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 4000)
    mean, low, high = bootstrap_mean(values, samples=2000, seed=1)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(values.mean() - error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.15 * error)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        _, low, high = bootstrap_mean(rng.binomial(1, 0.3, 300), samples=300, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_chunks_change_nothing(monkeypatch) -> None:
    values = np.random.default_rng(3).random((50, 3))
    whole = bootstrap_means(values, samples=64, confidence=0.9, seed=4)
    monkeypatch.setattr(statistics, "CHUNK_CELLS", 350)
    cut = bootstrap_means(values, samples=64, confidence=0.9, seed=4)
    assert np.array(cut) == pytest.approx(np.array(whole))


def test_same_seed_same_interval_other_seed_another() -> None:
    values = np.random.default_rng(3).random(80)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_a_column_may_miss_users() -> None:
    values = np.array([[1.0, np.nan], [1.0, 4.0], [1.0, np.nan], [1.0, 4.0]])
    whole, part = bootstrap_means(values, samples=200, confidence=0.95, seed=0)
    assert whole == (1.0, 1.0, 1.0)
    assert part == (4.0, 4.0, 4.0)
    nothing = bootstrap_means(np.full((3, 1), np.nan), samples=10, confidence=0.95, seed=0)[0]
    assert np.isnan(nothing).all()


def test_pairing_narrows_the_difference() -> None:
    rng = np.random.default_rng(7)
    hard = rng.random(500)
    a, b = hard + 0.02 + rng.normal(0, 0.01, 500), hard
    difference = paired_difference(a, b, samples=500, seed=0)
    assert difference.low > 0
    alone = bootstrap_mean(a, samples=500, seed=0)
    assert difference.high - difference.low < (alone.high - alone.low) / 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference(np.ones(3), np.ones(4)), "same users on both"),
        (lambda: bootstrap_mean(np.ones(0)), "no user to resample"),
        (lambda: bootstrap_mean(np.ones(3), confidence=95), "use a share"),
        (lambda: bootstrap_mean(np.ones(3), samples=0), "at least 1"),
    ],
)
def test_wrong_use_is_a_clear_error(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
