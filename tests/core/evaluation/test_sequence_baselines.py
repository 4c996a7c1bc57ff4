"""SASRec and BERT4Rec: their data, their losses, and that they learn."""

import dataclasses
import doctest
import itertools
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from onerec.config import EvaluationConfig, TrainingConfig
from onerec.evaluation.baselines import (
    BaselineInputs,
    fit_baselines,
    fit_learned,
    load_baselines,
    sequences,
)
from onerec.evaluation.baselines.sequence_losses import (
    LOSSES,
    MaskedItems,
    NextItem,
    NextItemOneNegative,
    negatives,
)
from onerec.evaluation.baselines.sequence_training import (
    TRIALS,
    Recipe,
    Trial,
    WindowModule,
    best_trial,
    fit_sequence_model,
    fit_windows,
    validation,
)
from onerec.evaluation.baselines.sequences import (
    NewestWindows,
    WindowData,
    cut_windows,
    load_newest_windows,
    load_windows,
)
from onerec.evaluation.baselines.transformer import (
    SequenceModel,
    SequenceRanker,
    SequenceShape,
    load_sequence_ranker,
)
from onerec.evaluation.ndcg_by_weight import NdcgByWeight, best_of
from onerec.evaluation.recency import PRIOR_WEIGHTS, ChosenPrior, RecencyCases
from onerec.session_dataset.eval_users import EvalUsers, load_eval_users
from onerec.session_dataset.holdout import held_out_users
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.newest_watches import newest_watches
from onerec.training import FitSettings, Scratch
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, session

NUM, LENGTH = 12, 5


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(*, causal: bool = True, seed: int = 0) -> SequenceModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = SequenceShape(num_items=NUM, length=LENGTH, width=8, dropout=0.0, causal=causal)
        return SequenceModel(shape)


@pytest.mark.parametrize("module", [sequences])
def test_examples(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_windows_cover_every_step_once() -> None:
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, 9, 60))
    items = np.arange(60)  # all different, so that a step says where it came from
    windows = cut_windows(items, owner, 4)
    steps = [(int(a), int(b)) for row in windows for a, b in itertools.pairwise(row) if b >= 0]
    expected = [(i, i + 1) for i in range(59) if owner[i] == owner[i + 1]]
    assert sorted(steps) == expected
    assert (windows[:, :2] >= 0).all()


def test_sequences_begin_with_the_history_and_end_before_the_validation_day(
    tmp_path: Path,
) -> None:
    def day(back: int):
        return DAY - timedelta(days=back)

    rows = [
        session("a", day(3), ["i03", "i04"], history=["i01", "i02"], watched=[True, False]),
        session("a", day(2), ["i05", "i99"], history=["i01", "i02", "i03"]),
        session("a", day(1), ["i06"], history=["i01", "i02", "i03", "i05"]),
        session("b", day(2), ["i07"]),
        session("b", DAY, ["i08"]),
    ]
    ids = small.catalogue()
    directory = small.write_sessions(tmp_path / "s", rows)
    windows = load_windows(directory, ids, history_length=4)
    assert windows.tolist() == [[1, 2, 3, 5, -1]]  # b has one positive; i04 was not watched
    asked = load_eval_users(directory, "valid", ids, history_length=3)
    assert asked.history.tolist() == [[2, 3, 5]]
    assert asked.targets.tolist() == [[6]]
    with pytest.raises(ValueError, match="no user has two positive items"):
        load_windows(small.write_sessions(tmp_path / "t", rows[3:]), ids, history_length=4)


def test_padding_and_what_comes_later_change_no_state() -> None:
    one = model().eval()
    short = torch.tensor([[1, 2, -1, -1]])
    longer = torch.tensor([[1, 2, 7, 9]])
    torch.testing.assert_close(one(short)[:, :3], one(longer)[:, :3])
    both = model(causal=False).eval()
    torch.testing.assert_close(both(short)[:, :3], both(torch.tensor([[1, 2]])))
    assert not torch.allclose(both(short)[:, :3], both(longer)[:, :3])


def test_cross_entropy_is_over_the_whole_catalogue() -> None:
    """Place by place: -log of the softmax at the next item, from everything before it."""
    one, windows = model(), torch.tensor([[3, 1, 4, -1, -1, -1], [5, 9, 2, 6, 8, 7]])
    expected = []
    for row in windows:
        known = row[row >= 0]
        for place, item in enumerate(known):
            state = one.next_hidden(known[None, :place] if place else torch.full((1, 1), -1))
            expected.append(-one.scores(state)[0].log_softmax(-1)[item].detach())
    found = NextItem()(one, windows, windows >= 0, draws()).detach()
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-5)


def test_binary_loss_is_against_one_item_that_is_not_in_the_window() -> None:
    one, windows = model(), torch.tensor([[3, 1, 4, -1, -1, -1], [5, 9, 2, 6, 8, 7]])
    row = (windows >= 0).nonzero()[:, 0]
    other = negatives(windows, row, NUM, draws(3))
    hidden = one(windows[:, :-1])[windows >= 0]
    scores = one.scores(hidden)
    place = torch.arange(len(row))
    right = scores[place, windows[windows >= 0]].sigmoid().log()
    wrong = (1 - scores[place, other].sigmoid()).log()
    found = NextItemOneNegative()(one, windows, windows >= 0, draws(3)).detach()
    assert float(found) == pytest.approx(float(-(right + wrong).mean().detach()), abs=1e-5)


def test_negatives_are_uniform_over_the_other_items() -> None:
    windows = torch.tensor([[3, 0, 3, -1], [11, 10, 1, 2]])
    row = torch.tensor([0, 1]).repeat_interleave(9000)
    drawn = negatives(windows, row, NUM, draws())
    for user, taken in enumerate(({0, 3}, {1, 2, 10, 11})):
        counts = torch.bincount(drawn[row == user], minlength=NUM)
        free = [i for i in range(NUM) if i not in taken]
        assert counts[list(taken)].sum() == 0
        share = counts[free] / 9000
        assert torch.allclose(share, torch.full_like(share, 1 / len(free)), atol=0.015)


def test_masks_hide_some_items_and_never_padding() -> None:
    items = torch.tensor([[3, 1, 4, -1, -1]] * 400)
    hidden = MaskedItems(share=0.3, last_share=0.0).mask(items, items >= 0, draws())
    assert not hidden[:, 3:].any()
    assert bool(hidden.any(1).all())
    # .3 each, and where none of three was (.343) the one of the lowest chance: (.9 + .343) / 3
    assert float(hidden[:, :3].float().mean()) == pytest.approx(1.243 / 3, abs=0.04)
    last = MaskedItems(last_share=1.0).mask(items, items >= 0, draws())
    assert last[0].tolist() == [False, False, True, False, False]


def test_masked_loss_tells_hidden_items_from_both_sides() -> None:
    both, loss = model(causal=False), MaskedItems(last_share=1.0)
    windows = torch.tensor([[3, 1, 4, -1, -1, -1], [5, 9, 2, 6, 8, 7]])
    first = both.scores(both(torch.tensor([[3, 1, NUM]]))[:, 3]).log_softmax(-1)[0, 4]
    second = both.scores(both(torch.tensor([[9, 2, 6, 8, NUM]]))[:, 5]).log_softmax(-1)[0, 7]
    with torch.no_grad():
        found = float(loss(both, windows, windows >= 0, draws()))
    assert found == pytest.approx(float(-(first + second).detach() / 2))
    # ranking asks the same question: a mask after the last items
    state = both.next_hidden(torch.tensor([[3, 1, -1, -1, -1, -1]]))
    torch.testing.assert_close(state, both(torch.tensor([[3, 1, NUM]]))[:, 3])
    state = both.next_hidden(torch.tensor([[0, 5, 9, 2, 6, 8]]))
    torch.testing.assert_close(state, both(torch.tensor([[9, 2, 6, 8, NUM]]))[:, 5])


MANY = 40
CYCLE = np.stack([(start + np.arange(LENGTH + 1)) % MANY for start in range(MANY)] * 8)
"""What follows item i is item i + 1."""
CONFIG = EvaluationConfig(baseline_epochs=30, baseline_width=32)


HISTORY = np.full((MANY, LENGTH + 2), -1)
HISTORY[:, :4] = (np.arange(MANY)[:, None] + np.arange(4)) % MANY
TARGETS = ((np.arange(MANY) + 4) % MANY)[:, None]
DATA = WindowData(
    windows=CYCLE,
    valid=EvalUsers(np.arange(MANY), HISTORY, TARGETS),
    candidates=np.ones(MANY, dtype=bool),
)
NOBODY = EvalUsers(np.zeros(0, dtype=int), np.zeros((0, 3), dtype=int), np.zeros((0, 1), dtype=int))


@pytest.mark.parametrize("name", LOSSES)
def test_learns_what_follows_and_moves_everything(name: str) -> None:
    seen: list[dict] = []
    recipe = Recipe(learning_rate=1e-2, batch_size=64, patience=30)
    ranker = fit_sequence_model(LOSSES[name], DATA, CONFIG, recipe=recipe, on_epoch=seen.append)
    assert (ranker.rank(HISTORY, 1).items == TARGETS).mean() > 0.4  # by chance 1 / 40
    assert seen[-1]["train_loss"] < seen[0]["train_loss"]
    start = SequenceModel(ranker.model.shape).state_dict()
    for key, value in ranker.model.state_dict().items():
        assert not torch.equal(value, start[key]), key


def test_the_same_seed_the_same_model() -> None:
    quick = dataclasses.replace(CONFIG, baseline_epochs=2)
    unmeasured = dataclasses.replace(DATA, valid=NOBODY)

    def fitted(config: EvaluationConfig) -> dict[str, torch.Tensor]:
        return fit_sequence_model(NextItemOneNegative(), unmeasured, config).model.state_dict()

    first, again = fitted(quick), fitted(quick)
    assert all(torch.equal(first[k], again[k]) for k in first)
    other = fitted(dataclasses.replace(quick, seed=9))
    assert not torch.equal(first["items.weight"], other["items.weight"])


def test_the_best_trial_by_the_validation_day_counts() -> None:
    seen = []

    def fitted(trials: int) -> SequenceRanker:
        config = dataclasses.replace(CONFIG, baseline_epochs=8, baseline_trials=trials)
        return fit_sequence_model(NextItem(), DATA, config, on_epoch=seen.append)

    usual = fitted(1)
    assert {numbers["trial"] for numbers in seen} == {1}
    seen.clear()
    best = fitted(3)
    by_trial = {n: max(e["ndcg@10"] for e in seen if e["trial"] == n) for n in (1, 2, 3)}
    assert validation(best, DATA.valid)["ndcg@10"] == max(by_trial.values())
    assert validation(usual, DATA.valid)["ndcg@10"] == by_trial[1]
    assert by_trial[3] > by_trial[1], "three times the rate learns more in eight epochs"


def test_without_a_validation_day_only_the_usual_settings_are_tried() -> None:
    tried = []

    def build(trial: Trial):
        tried.append(trial)
        shape = SequenceShape(num_items=MANY, length=LENGTH, width=8)
        one = SequenceModel(shape)
        return SequenceRanker(one, DATA.candidates), one, lambda *batch: NextItem()(one, *batch)

    config = EvaluationConfig(baseline_trials=4, baseline_epochs=1)
    for data in (dataclasses.replace(DATA, valid=NOBODY), DATA):
        best_trial(build, data, config, Recipe(), lambda entry: None)
    assert tried == [Trial(), *TRIALS]


PHASE = TrainingConfig(fresh_days=2, fresh_epochs=8, fresh_learning_rate=1e-2)


@pytest.mark.parametrize("name", LOSSES)
def test_the_newest_days_are_learned_when_the_epoch_is_chosen(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the newest days what follows item i is item i + 2; older items are only read."""
    seen: list[dict] = []
    with_dropout: list[bool] = []
    step = WindowModule.training_step

    def recorded(module: WindowModule, batch: Sequence[torch.Tensor], batch_idx: int):
        with_dropout.append(all(part.training for part in module.model.modules()))
        return step(module, batch, batch_idx)

    monkeypatch.setattr(WindowModule, "training_step", recorded)
    last = HISTORY[:, 3:4]
    items = np.concatenate([HISTORY[:, :4], (last + 2) % MANY, np.full((MANY, 1), -1)], 1)
    learned = np.tile(np.arange(LENGTH + 1) == 4, (MANY, 1))
    newest = NewestWindows(items=np.tile(items, (8, 1)), learned=np.tile(learned, (8, 1)))
    data = dataclasses.replace(DATA, newest=newest)
    recipe = Recipe(learning_rate=1e-2, batch_size=64)

    def fitted(phase: TrainingConfig | None) -> SequenceRanker:
        return fit_sequence_model(
            LOSSES[name], data, CONFIG, recipe=recipe, newest=phase, on_epoch=seen.append
        )

    without = fitted(None)
    chosen = len(seen)
    ranker = fitted(PHASE)
    assert seen[:chosen] == seen[chosen:], "the epoch is chosen before"
    before, after = (
        (system.rank(HISTORY, 1).items == (last + 2) % MANY).mean() for system in (without, ranker)
    )
    assert after > before + 0.15
    assert all(with_dropout), "in the last phase, too"
    again = fitted(PHASE).model.state_dict()
    assert all(torch.equal(again[key], value) for key, value in ranker.model.state_dict().items())


def test_the_prior_is_chosen_by_a_model_that_has_learned_the_newest_days_before() -> None:
    """There, too, item i + 2 followed; the last phase begins where the chosen epoch ended."""
    last = HISTORY[:, 3:4]
    following = (last + 2) % MANY
    items = np.concatenate([HISTORY[:, :4], following, np.full((MANY, 1), -1)], 1)
    learned = np.tile(np.arange(LENGTH + 1) == 4, (MANY, 1))
    before = NewestWindows(items=np.tile(items, (8, 1)), learned=np.tile(learned, (8, 1)))
    cases = RecencyCases(
        users=EvalUsers(np.array([f"u{n}" for n in range(MANY)], object), HISTORY, following),
        watches=np.zeros(MANY),
        candidates=np.ones(MANY, dtype=bool),
    )
    recipe = Recipe(learning_rate=1e-2, batch_size=64)
    found = {}
    for name, days in (("not", None), ("learned", before)):
        data = dataclasses.replace(DATA, newest=before, newest_before=days, recency=cases)
        found[name] = fit_sequence_model(
            LOSSES["sasrec_ce"], data, CONFIG, recipe=recipe, newest=PHASE
        )
    ndcg = {name: ranker.recency_prior.measured.ndcg[0.0] for name, ranker in found.items()}
    assert ndcg["learned"] > ndcg["not"] + 0.1
    weights = [ranker.model.state_dict() for ranker in found.values()]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())


def test_older_items_of_a_window_are_read_and_not_learned() -> None:
    windows = torch.tensor([[3, 1, 4, 2, -1, -1], [5, 9, 2, 6, 8, 7]])
    learned = torch.tensor([[False] * 3 + [True] + [False] * 2, [False] * 4 + [True] * 2])
    one = model()
    expected = [
        -one.scores(one.next_hidden(windows[row][None, :place]))[0].log_softmax(-1)[item].detach()
        for row, place, item in ((0, 3, 2), (1, 4, 8), (1, 5, 7))
    ]
    found = NextItem()(one, windows, learned, draws()).detach()
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-5)
    for last_share in (0.0, 1.0):
        masked = MaskedItems(last_share=last_share).mask(windows, learned, draws())
        assert bool(masked.any(1).all())
        assert not (masked & ~learned).any()


def test_newest_windows_end_with_the_newest_days(tmp_path: Path) -> None:
    def day(back: int):
        return DAY - timedelta(days=back)

    ids = small.catalogue()
    users = np.array([f"u{n}" for n in range(40)], dtype=object)
    out = held_out_users(tmp_path, users)
    known, held = str(users[~out][0]), str(users[out][0])
    rows = [
        session(known, day(4), ["i01", "i02"], history=["i00"]),
        session(known, day(2), ["i03", "i04", "i05"], watched=[True, False, True]),
        session(known, day(1), ["i06", "i07"]),
        session(held, day(3), ["i10", "i11"]),
        session(held, day(2), ["i12"]),
        session(held, day(1), ["i13"]),
        session(known, DAY, ["i08"]),
    ]
    directory = small.write_sessions(tmp_path / "s", rows)
    found = load_newest_windows(directory, ids, history_length=3, days=2)
    read_and_learned = {
        known: [([0, 1, 2, 3], [3]), ([3, 5, 6, 7], [5, 6, 7])],
        held: [([10, 11, 12, -1], [12])],  # the validation day of a held-out user is left out
    }
    assert [
        (row.tolist(), row[learned].tolist())
        for row, learned in zip(found.items, found.learned, strict=True)
    ] == [window for user in sorted(read_and_learned) for window in read_and_learned[user]]
    earlier = load_newest_windows(directory, ids, history_length=3, days=1, splits=("train",))
    windows = {known: ([1, 2, 3, 5], [3, 5]), held: ([10, 11, 12, -1], [12])}
    assert earlier.items.tolist() == [windows[user][0] for user in sorted(windows)]
    assert earlier.items[earlier.learned].tolist() == [
        item for user in sorted(windows) for item in windows[user][1]
    ]


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Orders and masks come from one stream of randomness, whose state is kept."""
    settings = FitSettings(max_epochs=4, learning_rate=1e-2, warmup_steps=3, schedule="cosine")

    class Killed(Exception):
        pass

    def weights(directory: Path, kill_at: int = 0) -> dict[str, torch.Tensor]:
        def on_epoch(entry: dict) -> None:
            epochs.append(entry["epoch"])
            if entry["epoch"] == kill_at:
                raise Killed

        torch.manual_seed(0)
        shape = SequenceShape(num_items=MANY, length=LENGTH, width=8, causal=False)
        one = SequenceModel(shape)
        fit_windows(
            WindowModule(one, lambda *batch: MaskedItems()(one, *batch), seed=3),
            torch.from_numpy(CYCLE),
            Recipe(batch_items=200),
            settings,
            on_epoch=on_epoch,
            scratch=Scratch(directory=directory),
        )
        return one.state_dict()

    epochs: list[int] = []
    whole = weights(tmp_path / "whole")
    with pytest.raises(Killed):
        weights(tmp_path / "cut", kill_at=3)
    epochs.clear()
    again = weights(tmp_path / "cut")
    assert epochs == [3, 4], "the state is that of epoch 2"
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_lists_hold_candidates_only_and_end_where_they_do(tmp_path: Path) -> None:
    candidates = np.arange(NUM) % 3 == 0
    ranker = SequenceRanker(model().eval(), candidates)
    history = np.array([[1, 2, 3, 4, 5, 6, 7], [-1] * 7])
    ranked = ranker.rank(history, 6).items
    assert (np.sort(ranked[:, :4], 1) == [0, 3, 6, 9]).all()
    assert (ranked[:, 4:] == -1).all()
    ranker.save(tmp_path)
    again = load_sequence_ranker(tmp_path, candidates, "cpu")
    assert (again.rank(history, 6).items == ranked).all()


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
