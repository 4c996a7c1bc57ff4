"""Which baselines a nightly run fits, and how they are kept."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from onerec.config import EvaluationConfig
from onerec.evaluation.baselines import BaselineInputs, fit_baselines, fit_learned, load_baselines
from onerec.evaluation.ndcg_by_weight import NdcgByWeight, best_of
from onerec.evaluation.recency import PRIOR_WEIGHTS, ChosenPrior
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.newest_watches import newest_watches
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY
from tests.core.evaluation.small_sequences import PHASE


def test_a_night_fits_what_its_settings_name(tmp_path: Path) -> None:
    ids = small.catalogue()
    directory = small.write_sessions(tmp_path / "s", small.rows())
    candidates = ids.known_before(DAY)
    config = EvaluationConfig(
        baselines="sasrec_ce, popularity", baseline_epochs=1, baseline_width=8
    )
    inputs = BaselineInputs(
        session_dataset=directory,
        semantic_ids=ids,
        candidates=candidates,
        test_day=DAY,
        history_length=6,
        last_phase=PHASE,
        recency_days=1,
    )
    cases = inputs.sequences.recency
    assert cases is not None
    assert (
        cases.watches.tolist()
        == newest_watches(directory, ids, before=DAY - timedelta(days=1), days=1).tolist()
    ), "of the days before the validation day"
    learned = fit_learned(inputs, config)
    assert list(learned) == ["sasrec_ce"]
    chosen = learned["sasrec_ce"].recency_prior
    assert chosen.measured.users == len(cases.users)
    assert chosen.weight == best_of(chosen.measured.ndcg)
    crowd = NdcgByWeight(10**6, {w: float(w == 1.5) for w in PRIOR_WEIGHTS})
    after_others = dataclasses.replace(inputs, earlier={"sasrec_ce": (crowd,), "tiger": ()})
    outvoted = fit_learned(after_others, config)["sasrec_ce"].recency_prior
    assert outvoted == dataclasses.replace(chosen, weight=1.5)
    counted = fit_baselines(
        load_interactions(directory, ids, test_day=DAY), candidates, neighbours=10
    )
    names = ["popularity", "popularity_recent", "own_repeats", "itemknn"]
    assert list(counted.rankers) == names
    prior = ChosenPrior(weight=500.0)
    learned = {n: dataclasses.replace(r, recency_prior=prior) for n, r in learned.items()}
    fitted = dataclasses.replace(counted, learned=learned, newest_watches=inputs.newest_watches)
    (tmp_path / "b").mkdir()
    fitted.save(tmp_path / "b")
    loaded = load_baselines(tmp_path / "b")
    assert list(loaded.rankers) == [*names, "sasrec_ce", "sasrec_ce_without_recency"]
    watches = newest_watches(directory, ids, before=DAY, days=1)
    newest = loaded.rankers["sasrec_ce"].rank(np.array([[3, 9, -1]]), 5).items[0]
    assert sorted(watches[newest]) == sorted(np.sort(watches * candidates)[-5:])
    history = np.array([[3, 9, -1], [-1, -1, -1]])
    for name, ranker in loaded.rankers.items():
        again = fitted.rankers[name].rank(history, 9)
        assert (ranker.rank(history, 9).items == again.items).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baselines": "popularity,lion"}, "baselines='popularity,lion': use names out of"),
        ({"baselines": "itemknn"}, "popularity among them"),
        ({"baseline_width": 7}, "baseline_width=7"),
        ({"baseline_epochs": 0}, "baseline_epochs=0"),
        ({"baseline_trials": 5}, "baseline_trials=5: use a whole number from 1 to 4"),
    ],
)
def test_clear_errors(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**settings)
