"""The simulated A/B test end to end on a very small app, and its arithmetic by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.ab_test.config import (
    ARMS,
    CASCADE,
    IPA,
    NIGHTLY,
    START,
    TRUE_PAIRS,
    VARIANTS,
    ABTestConfig,
)
from experiments.ab_test.measures import COUNTS, ratios
from experiments.ab_test.nights import ABTest, Night
from experiments.ab_test.policies import ArmPolicy, ServedCatalogue
from experiments.ab_test.simulation import ABTestResult, run_ab_test
from experiments.ab_test.table import FIRST_MINUS_LAST, table_of_ab_test
from experiments.ab_test.table import WATCH as WATCH_UPLIFT
from experiments.ab_test.traffic import Visitors
from experiments.reporting.result_tables import Provenance, cells
from onerec.artifacts import ArtifactStore, write_json
from onerec.datasets.simulated import SimulatedSource
from onerec.evaluation.baselines import Popularity
from onerec.evaluation.metric_table import TableColumn
from onerec.ranked_lists import RankedLists
from tests.core.evaluation import night as small
from tests.experiments import simulated_night as simulated

CONFIG = ABTestConfig(
    days=2,
    traffic_seeds=1,
    beam=4,
    bootstrap_samples=50,
)
MADE = Provenance(data="toy", config="tiny", seeds=(0, 1), budget="none", commit="abc")
WATCH = COUNTS.index("watch_seconds")


def a_test(store: ArtifactStore, **changes) -> ABTest:
    day = simulated.DAY.isoformat()
    test = ABTest(
        source=SimulatedSource(simulated.APP),
        nights=[
            Night(
                day=simulated.DAY,
                artifacts={name: store.latest(name, day) for name in NIGHTLY},
                variants={name: Path(store.root) / name for name in VARIANTS},
            )
        ],
        trained_seconds={"larger": 100.0},
        sessions=simulated.STAGES.sessions,
        decoding=simulated.STAGES.decoding,
        config=CONFIG,
    )
    return dataclasses.replace(test, **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    store = ArtifactStore(str(tmp_path_factory.mktemp("ab")))
    simulated.publish(store)
    for seed, name in enumerate(VARIANTS, start=5):
        directory = Path(store.root) / name
        directory.mkdir()
        small.write_generator(
            directory, seed=seed, history_length=small.HISTORY, session_items=small.SESSION
        )
    write_json(Path(store.root) / "larger" / "history.json", {"summary": {"best_valid_loss": 2.5}})
    return store


@pytest.fixture(scope="module")
def measured(store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory) -> ABTestResult:
    return run_ab_test(a_test(store), tmp_path_factory.mktemp("scratch"))


def test_every_arm_serves_the_same_users_on_the_same_visits(measured: ABTestResult) -> None:
    assert list(measured.sums) == list(CONFIG.names)
    theirs = measured.sums[CASCADE]
    for arm, mine in measured.sums.items():
        assert mine.shape[:2] == (1, 2)
        for name in ("users", "visits"):
            column = COUNTS.index(name)
            np.testing.assert_array_equal(mine[..., column], theirs[..., column])
        assert mine[..., WATCH].sum() > 0
        if arm != CASCADE:
            assert not np.array_equal(mine[..., WATCH], theirs[..., WATCH])
    assert measured.losses == {"larger": 2.5}
    assert all(measured.seconds[f"larger{way}"] > 100 for way in ("", "_by_probability"))
    assert measured.seconds["larger_aligned"] < 100


def test_a_second_run_measures_the_same(
    store: ArtifactStore, measured: ABTestResult, tmp_path: Path
) -> None:
    few = dataclasses.replace(CONFIG, arms="cascade,larger_aligned", return_sensitivity=0.0)
    test = a_test(store, config=few)
    again = run_ab_test(test, tmp_path)
    for arm in (CASCADE, "larger_aligned"):
        np.testing.assert_array_equal(again.sums[arm], measured.sums[arm])
    files = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    run_ab_test(test, tmp_path)  # and a run that goes on serves nothing twice
    assert files == {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}


def test_the_table_shows_every_arm(measured: ABTestResult) -> None:
    table = table_of_ab_test(measured, CONFIG, MADE, repeat_days=2)
    assert len(cells(table)) == 1 + len(CONFIG.names)
    rows = {(row.system, row.column): row for row in table.metrics.rows}
    for name in (n for n in CONFIG.names if n != CASCADE):
        row = rows[ARMS[name], WATCH_UPLIFT]
        mine, theirs = (measured.sums[arm][..., WATCH].sum() for arm in (name, CASCADE))
        assert row.value == pytest.approx(100 * (mine / theirs - 1))
        assert row.low <= row.value <= row.high
        assert (ARMS[name], WATCH_UPLIFT._replace(metric="return_uplift")) in rows
    assert (ARMS[CASCADE], WATCH_UPLIFT) not in rows
    assert (ARMS["larger"], WATCH_UPLIFT._replace(reference=ARMS["small"])) in rows
    assert len(table.pictures()) == 2
    assert (ARMS[IPA], WATCH_UPLIFT._replace(reference=ARMS["larger_ntp_only"])) in rows
    assert (ARMS[f"{IPA}_by_probability"], TableColumn("alignment_share")) in rows
    assert (ARMS[IPA], TableColumn("alignment_share")) not in rows
    assert (ARMS[START], TableColumn("choice_share")) in rows
    weighed = {system for system, column in rows if column == TableColumn("reward_weight")}
    assert weighed == {ARMS[name] for name in ("small", *VARIANTS)}, "as served, and no other way"
    assert "oracles" in table.text


def toy(factor: float) -> np.ndarray:
    """(S, D, U, COUNTS): 2 seeds, 3 days, 5 users; watch times a multiple of the user's number."""
    sums = np.ones((2, 3, 5, len(COUNTS)))
    sums[..., WATCH] = factor * np.arange(1, 6)
    sums[1] *= 2
    return sums


def test_uplifts_by_hand() -> None:
    """A tenth more for everybody is 10 % whoever is resampled; nothing more is exactly nothing."""
    arms = {CASCADE: toy(1.0), "small": toy(1.1), "larger": toy(1.1)}
    measured = ABTestResult(
        sums=arms, returning={}, filled=dict.fromkeys(arms, 0.0), seconds={}, losses={}, usual=0.5
    )
    table = table_of_ab_test(measured, CONFIG, MADE, repeat_days=7)
    rows = {(row.system, row.column): row for row in table.metrics.rows}
    small, larger = (rows[f"OneRec {arm}", WATCH_UPLIFT] for arm in ("small", "larger"))
    assert [small.value, small.low, small.high] == pytest.approx([10.0] * 3)
    assert larger == small._replace(system="OneRec larger")
    over = rows["OneRec larger", WATCH_UPLIFT._replace(reference="OneRec small")]
    assert [over.value, over.low, over.high] == [0.0, 0.0, 0.0]
    novelty = rows["OneRec small", WATCH_UPLIFT._replace(slice=FIRST_MINUS_LAST)]
    assert [novelty.value, novelty.low, novelty.high] == pytest.approx([0.0] * 3)
    level = rows["cascade", TableColumn("watch_seconds")]
    assert level.value == pytest.approx((1 + 2 + 3 + 4 + 5) / 5)
    assert level.low < level.value < level.high
    assert any("no significant difference" in f for f in table.findings)


def test_shares_of_the_ceilings_by_hand() -> None:
    """IPA adds 6 of the 8 points that true pairs add; the reward's lists 5 of the truth's 20."""
    factors = {
        CASCADE: 1.0,
        "larger": 1.05,
        "larger_by_probability": 1.0,
        "larger_by_truth": 1.2,
        f"{IPA}_by_probability": 1.06,
        f"{TRUE_PAIRS}_by_probability": 1.08,
    }
    arms = {name: toy(factor) for name, factor in factors.items()}
    measured = ABTestResult(
        sums=arms, returning={}, filled=dict.fromkeys(arms, 0.0), seconds={}, losses={}, usual=0.5
    )
    table = table_of_ab_test(measured, CONFIG, MADE, repeat_days=7)
    rows = {(row.system, row.column): row for row in table.metrics.rows}
    ipa = f"{IPA}_by_probability"
    for arm, metric, share in ((ipa, "alignment_share", 75.0), (START, "choice_share", 25.0)):
        row = rows[ARMS[arm], TableColumn(metric)]
        assert [row.value, row.low, row.high] == pytest.approx([share] * 3)
    assert sum(" of what " in finding for finding in table.findings) == 2


def test_lists_by_truth_are_longer_watched(measured: ABTestResult) -> None:
    for checkpoint in (START, IPA):
        served, ceiling = (
            measured.sums[f"{checkpoint}{way}"][..., WATCH].sum()
            for way in ("_by_probability", "_by_truth")
        )
        assert ceiling > served


def test_a_ratio_is_of_sums_over_users_days_and_seeds() -> None:
    sums = np.random.default_rng(0).random((2, 4, 30, len(COUNTS))) + 0.5
    ratio = ratios({"a": sums}, samples=200, seed=0)
    found = ratio("a", "watch_seconds", "views", slice(1, 3))
    part = sums[:, 1:3].sum((0, 1, 2))
    assert found.point == pytest.approx(part[WATCH] / part[COUNTS.index("views")])
    assert found.draws.std() > 0
    low, high = found.interval(0.95).low, found.interval(0.95).high
    assert low < found.point < high


def test_an_arm_translates_and_popularity_fills() -> None:
    """Numbers 0..4 of the app are rows 4..0 of the table; number 5 has no row."""
    catalogue = ServedCatalogue(
        index=np.array([4, 3, 2, 1, 0, -1]),
        number=np.array([4, 3, 2, 1, 0]),
        candidates=np.ones(5, dtype=bool),
    )
    calls = []

    class OneItem:
        def rank(
            self, histories, top_k, exclude=None, candidates=None, attributes=None
        ) -> RankedLists:
            assert exclude is not None
            calls.append((histories.tolist(), exclude.tolist(), top_k))
            return RankedLists.padded(np.array([[4]]), np.array([[0.0]]), top_k)

    popular = Popularity(np.array([8.0, 7.0, 9.0, 6.0, 5.0]), catalogue.candidates)
    policy = ArmPolicy(OneItem(), popular, catalogue)
    shown = policy(np.array([[5, 0, 1]]), np.array([[1, -1]]), 3, Visitors(np.array([0]), 4))
    assert calls == [([[4, 3, -1]], [[3, -1]], 3)]
    assert shown.tolist() == [[0, 2, 4]]  # row 4, then the popular rows 2 and 0
    assert policy.requested == 3
    assert policy.filled == 2


def test_wrong_settings_are_named(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"arms='small'.*cascade"):
        ABTestConfig(arms="small")
    with pytest.raises(ValueError, match="days=0"):
        ABTestConfig(days=0)
    night = dataclasses.replace(a_test(store).nights[0], variants={})
    with pytest.raises(ValueError, match="larger is no baseline that the nightly run of"):
        run_ab_test(a_test(store, nights=[night]), tmp_path)
    other = dataclasses.replace(simulated.APP, initial_items=20)
    with pytest.raises(ValueError, match="'v000025' is no item of this simulated app"):
        run_ab_test(a_test(store, source=SimulatedSource(other)), tmp_path)
