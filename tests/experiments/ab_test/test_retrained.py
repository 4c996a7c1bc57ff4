"""Arms whose models are retrained every day, on a very small app and by hand."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from experiments.ab_test.config import (
    ARMS,
    CASCADE,
    NIGHTLY,
    NIGHTLY_ALIGNED,
    RETRAINED,
    RETRAINED_DAILY,
    WEEK_ARMS,
    ABTestConfig,
)
from experiments.ab_test.measures import COUNTS
from experiments.ab_test.nights import ABTest, Night, NightModels
from experiments.ab_test.simulation import ABTestResult, run_ab_test
from experiments.ab_test.table import (
    FROZEN_WATCH,
    LEAD_GAIN,
    WATCH,
    day_slice,
    table_of_ab_test,
)
from experiments.ab_test.traffic import UserState, serve_days
from experiments.reporting.result_tables import Provenance
from onerec.artifacts import ArtifactStore
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator.world import Array
from onerec.evaluation.baselines import load_baselines
from onerec.evaluation.recency import ChosenPrior
from onerec.model import load_model, save_model
from onerec.model.recency_prior import RecencyPrior
from onerec.session_dataset.newest_watches import newest_watches
from onerec.tokenizer.semantic_ids import load_semantic_ids
from tests.core.evaluation import night as small
from tests.experiments import simulated_night as simulated

CONFIG = dataclasses.replace(RETRAINED_DAILY, days=2, beam=4, bootstrap_samples=50)
MADE = Provenance(data="toy", config="tiny", seeds=(0,), budget="none", commit="abc")
WATCH_SECONDS = COUNTS.index("watch_seconds")
NEXT_DAY = simulated.DAY + timedelta(days=1)
NEW_ITEM = small.NUM_ITEMS - 1
"""Published in the course of day D."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    store, day = ArtifactStore(str(tmp_path_factory.mktemp("ab"))), simulated.DAY
    simulated.publish(store)
    artifacts = {n: store.latest(n, day.isoformat()) for n in (*NIGHTLY, NIGHTLY_ALIGNED)}
    return Night(day=day, artifacts=artifacts)


def next_night(night: Night) -> Night:
    """The nightly run of D + 1: another generator, and D's new item can be listed."""
    retrained = {"pretrained_checkpoint": night.artifacts[NIGHTLY_ALIGNED]}
    return dataclasses.replace(night, day=NEXT_DAY, artifacts={**night.artifacts, **retrained})


def a_test(*nights: Night, **changes) -> ABTest:
    return ABTest(
        source=SimulatedSource(simulated.APP),
        nights=nights,
        sessions=simulated.STAGES.sessions,
        decoding=simulated.STAGES.decoding,
        config=dataclasses.replace(CONFIG, **changes),
    )


def test_with_the_same_nightly_run_every_day_nothing_changes(night: Night, tmp_path: Path) -> None:
    measured = run_ab_test(a_test(night, night), tmp_path)
    assert list(measured.sums) == [*WEEK_ARMS, *(f"{name}{RETRAINED}" for name in WEEK_ARMS)]
    for name in WEEK_ARMS:
        again = f"{name}{RETRAINED}"
        np.testing.assert_array_equal(measured.sums[again], measured.sums[name])
        assert measured.filled[again] == measured.filled[name]
    different = [measured.sums[name][..., WATCH_SECONDS].sum() for name in WEEK_ARMS]
    assert len(set(different)) == len(WEEK_ARMS)
    table = table_of_ab_test(measured, CONFIG, MADE, repeat_days=2)
    for name in WEEK_ARMS:
        gain = table.metrics.cell(ARMS[f"{name}{RETRAINED}"], FROZEN_WATCH)
        assert tuple(gain) == (0.0, 0.0, 0.0)


def start(source: SimulatedSource) -> UserState:
    """The morning of D for users without a history to whom nothing was shown."""
    nothing = np.zeros(0, np.int64)
    number = (NEXT_DAY - source.first_day).days
    users = len(source.world.users(number))
    return UserState.at_start(np.full((users, small.HISTORY), -1), *(nothing,) * 3)


def served_alone(test: ABTest, night: Night, known: UserState) -> tuple[Array, UserState]:
    """A single day by one nightly run's generator: the items shown, and the next morning."""
    source, policy = test.source, NightModels(test, night).policy("small_by_probability")
    (shown,) = serve_days(
        source.world,
        lambda _: policy,
        known,
        first_day=night.day,
        days=1,
        traffic_seed=0,
        sessions=test.sessions,
    )
    return shown.item, known.after(shown, source.world.config.repeat_days, None)


def test_each_day_is_served_by_its_own_nightly_run(night: Night) -> None:
    """Two days at once are the days one by one, the second from where the first left the users."""
    test = a_test(night, next_night(night))
    models = [NightModels(test, n) for n in test.nights]
    policies = {n.night.day: n.policy("small_by_probability_retrained") for n in models}
    known = start(test.source)
    both = serve_days(
        test.source.world,
        lambda day: policies[test.source.first_day + timedelta(days=day)],
        known,
        first_day=test.day,
        days=2,
        traffic_seed=0,
        sessions=test.sessions,
    )
    first, morning = served_alone(test, test.nights[0], known)
    second, _ = served_alone(test, test.nights[1], morning)
    stale, _ = served_alone(test, dataclasses.replace(night, day=NEXT_DAY), morning)
    shown = [day.item for day in both]
    np.testing.assert_array_equal(shown[0], first)
    np.testing.assert_array_equal(shown[1], second)
    assert not np.array_equal(second, stale), "another generator shows other items"
    assert NEW_ITEM not in shown[0]
    assert NEW_ITEM in shown[1], "D's new item has a semantic ID in the nightly run of D + 1"


def test_the_frozen_arm_never_lists_what_came_after_its_nightly_run(
    night: Night, tmp_path: Path
) -> None:
    """A day's new item counts as fresh; the frozen arm has none on the second day."""
    arms = "cascade,cascade_retrained,small_by_probability,small_by_probability_retrained"
    test = a_test(night, next_night(night), arms=arms, fresh_days=1.0)
    measured = run_ab_test(test, tmp_path)
    fresh = {n: s[0, 1, :, COUNTS.index("fresh_views")].sum() for n, s in measured.sums.items()}
    assert fresh["small_by_probability"] == 0
    assert fresh["small_by_probability_retrained"] > 0
    day_one = [s[:, 0] for n, s in measured.sums.items() if n.startswith("small")]
    np.testing.assert_array_equal(day_one[0], day_one[1])


def test_one_weight_of_the_reward_for_every_arm(night: Night, tmp_path: Path) -> None:
    arms = "cascade,small,small_by_probability,small_aligned"
    for weight in (0.7, 0.0):
        directory = tmp_path / str(weight)
        directory.mkdir()
        measured = run_ab_test(a_test(night, arms=arms, reward_weight=weight), directory)
        assert measured.reward_weights == {"small": weight, "small_aligned": weight}
        served, by_probability = measured.sums["small"], measured.sums["small_by_probability"]
        assert np.array_equal(served, by_probability) == (weight == 0.0)


def with_recency(night: Night, directory: Path) -> Night:
    """The same nightly run, whose generator and item-KNN count the watches of the newest day."""
    fitted = load_baselines(night.path("baselines"))
    ids = load_semantic_ids(night.path("semantic_ids"))
    newest = newest_watches(night.path("session_dataset"), ids, before=night.day, days=1)
    fitted = dataclasses.replace(
        fitted, item_knn_prior=ChosenPrior(weight=5.0), newest_watches=newest
    )
    checkpoint = night.path("pretrained_checkpoint")
    model, version = load_model(checkpoint, expected_tokenizer_version=ids.tokenizer_version)
    model.recency_prior = RecencyPrior(weight=5.0)
    for name in ("baselines", "pretrained_checkpoint"):
        (directory / name).mkdir()
    fitted.save(directory / "baselines")
    save_model(model, directory / "pretrained_checkpoint", tokenizer_version=version)
    changed = {
        name: dataclasses.replace(night.artifacts[name], fetch=lambda name=name: directory / name)
        for name in ("baselines", "pretrained_checkpoint")
    }
    return dataclasses.replace(night, artifacts={**night.artifacts, **changed})


def test_recency_priors_can_be_left_out_of_every_arm(night: Night, tmp_path: Path) -> None:
    """Then arms with a prior of any weight do what they do without one."""
    weighted, arms = with_recency(night, tmp_path), "cascade,itemknn,small_by_probability"
    measured = {}
    for label, run in {"none": night, "counted": weighted, "left out": weighted}.items():
        directory = tmp_path / label
        directory.mkdir()
        test = a_test(run, arms=arms, recency_prior=label != "left out")
        measured[label] = run_ab_test(test, directory).sums
    for arm in ("itemknn", "small_by_probability"):
        plain, counted, left_out = (measured[label][arm] for label in measured)
        np.testing.assert_array_equal(left_out, plain)
        assert not np.array_equal(counted, plain)


def toy(factor: float, last_day: float = 1.0) -> Array:
    """(S, D, U, COUNTS): 1 seed, 3 days, 5 users; watch times a multiple of the user's number."""
    sums = np.ones((1, 3, 5, len(COUNTS)))
    sums[..., WATCH_SECONDS] = factor * np.arange(1, 6)
    sums[:, -1, :, WATCH_SECONDS] *= last_day
    return sums


def test_what_retraining_is_worth_by_hand() -> None:
    """The cascade gains 60 % on the last of three days, 20 % in all; small leads by 10 and 20 %."""
    arms = {
        CASCADE: toy(1.0),
        "small": toy(1.1),
        f"{CASCADE}{RETRAINED}": toy(1.0, 1.6),
        f"small{RETRAINED}": toy(1.2, 1.6),
    }
    config = dataclasses.replace(CONFIG, arms=",".join(arms), days=3)
    measured = ABTestResult(
        sums=arms, returning={}, filled=dict.fromkeys(arms, 0.0), seconds={}, losses={}, usual=0.5
    )
    table = table_of_ab_test(measured, config, MADE, repeat_days=7)
    expected = {
        ("cascade, retrained daily", FROZEN_WATCH): 20.0,
        ("cascade, retrained daily", FROZEN_WATCH._replace(slice=day_slice(1))): 0.0,
        ("cascade, retrained daily", FROZEN_WATCH._replace(slice=day_slice(3))): 60.0,
        ("OneRec small", WATCH): 10.0,
        ("OneRec small, retrained daily", WATCH): 20.0,
        ("OneRec small, retrained daily", LEAD_GAIN): 10.0,
        ("OneRec small, retrained daily", FROZEN_WATCH): 100 * (1.2 * 3.6 / (1.1 * 3) - 1),
        ("OneRec small, retrained daily", WATCH._replace(slice=day_slice(3))): 20.0,
    }
    for (system, column), value in expected.items():
        assert tuple(table.metrics.cell(system, column)) == pytest.approx([value] * 3), column
    assert any("its lead changes by +10.00 points" in finding for finding in table.findings)
    assert "weight 1 in every arm" in table.text


def test_wrong_settings_are_named(night: Night) -> None:
    with pytest.raises(ValueError, match=r"small_retrained'.*add cascade_retrained"):
        ABTestConfig(arms="cascade,small_retrained")
    with pytest.raises(ValueError, match=r"reward_weight=-1.0: use a number.*, or none"):
        ABTestConfig(reward_weight=-1.0)
    with pytest.raises(ValueError, match="nights=1: give 2"):
        a_test(night)
    lacking = {n: a for n, a in night.artifacts.items() if n != NIGHTLY_ALIGNED}
    test = a_test(night, dataclasses.replace(night, day=NEXT_DAY, artifacts=lacking))
    with pytest.raises(ValueError, match=r"small_aligned\w* is no baseline that the nightly run"):
        run_ab_test(test, Path("unused"))
