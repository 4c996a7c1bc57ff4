"""Attributes of users reach the generator wherever it reads histories: a stage that forgot them
would train, align, measure or serve another model than the one that learned them."""

import dataclasses
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from onerec.alignment.candidates import sample_contexts, scored_candidates
from onerec.alignment.preferences import save_preferences
from onerec.alignment.round_inputs import RoundInputs
from onerec.alignment.rounds import (
    check_round,
    fit_round,
    load_round_preferences,
    round_preferences,
    set_reward_weight,
)
from onerec.config import AlignmentConfig, Runtime
from onerec.evaluation.generators import load_incumbent
from onerec.evaluation.measure import evaluate, rank_cases
from onerec.evaluation.reward_weight import load_held_out_cases
from onerec.evaluation.systems import NightlyGenerators, System, nightly_systems
from onerec.evaluation.user_examples import collect_user_examples
from onerec.model import OneRec, UserVocabulary, load_model, session_logp
from onerec.ranked_lists import RankedLists
from onerec.serving.batch import Lists, recommend_to_all
from onerec.serving.bundle import load_bundle, prepare_bundle
from onerec.serving.recommender import write_bundle
from onerec.session_dataset.newest_watches import WatchesBefore
from onerec.session_dataset.user_attributes import load_user_attributes
from onerec.training.job import TrainingJob, train
from tests.core.evaluation import night as small
from tests.core.training.small import TRAINING

RUNTIME = Runtime(accelerator="cpu", threads=1)
ALIGNMENT = AlignmentConfig(
    method="dpo", epochs=1, batch_size=8, reward_weights="0, 1", holdout_share=0.2
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    small.write_artifacts(tmp_path)
    small.add_attributes(tmp_path)
    write_bundle(
        tmp_path / "champion",
        checkpoint=tmp_path / "dpo",
        semantic_ids=tmp_path / "semantic_ids",
        reward=tmp_path / "reward",
        config=small.DECODING,
    )
    return tmp_path


@pytest.fixture
def inputs(root: Path) -> RoundInputs:
    return RoundInputs(
        session_dataset=root / "session_dataset",
        semantic_ids=root / "semantic_ids",
        start=root / "pretrained",
        reward_model=root / "reward",
        test_day=small.DAY,
    )


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often a generator read histories with attributes, and how often without."""
    seen: Counter = Counter()
    encode, codes = OneRec.encode, UserVocabulary.codes

    def watched(model, history_codes, mask, item_vectors=None, users=None):
        seen["with" if users is not None else "without"] += model.users is not None
        return encode(model, history_codes, mask, item_vectors, users)

    def known(vocabulary, attributes, num_users):
        seen["with" if attributes is not None else "without"] += 1
        return codes(vocabulary, attributes, num_users)

    monkeypatch.setattr(OneRec, "encode", watched)
    monkeypatch.setattr(UserVocabulary, "codes", known)
    return seen


def only_with(seen: Counter) -> bool:
    found = seen["with"] > 0 and not seen["without"]
    seen.clear()
    return found


def test_training_and_the_choice_of_its_list_weights(root: Path, forgotten: Counter) -> None:
    job = TrainingJob(
        session_dataset=root / "session_dataset",
        semantic_ids=root / "semantic_ids",
        history_length=small.HISTORY,
        session_items=small.SESSION,
        model=dataclasses.replace(small.SHAPE, dense_head=True),
        training=dataclasses.replace(TRAINING, max_epochs=1, fresh_epochs=1),
        runtime=RUNTIME,
    )
    train(job, out_dir=root / "out", scratch=root / "scratch")
    assert only_with(forgotten)


@pytest.mark.parametrize("pairs", ["beams", "sampling", "feedback"])
def test_a_round_of_alignment(
    root: Path, inputs: RoundInputs, forgotten: Counter, pairs: str
) -> None:
    alignment = dataclasses.replace(ALIGNMENT, pairs=pairs)
    made = round_preferences(inputs, small.DECODING, alignment, runtime=RUNTIME)
    assert only_with(forgotten)
    (root / "pairs").mkdir()
    save_preferences(made, inputs.ids.item_ids, root / "pairs")
    preferences, out = load_round_preferences(inputs, root / "pairs"), root / "round"
    out.mkdir()
    report = fit_round(inputs, preferences, alignment, out)
    assert only_with(forgotten)
    check_round(
        inputs,
        preferences,
        root / "evaluator",
        report.model,
        alignment=alignment,
        decoding=small.DECODING,
        evaluation=small.EVALUATION,
        runtime=RUNTIME,
    )
    assert only_with(forgotten)
    set_reward_weight(inputs, out, alignment=alignment, decoding=small.DECODING, runtime=RUNTIME)
    assert only_with(forgotten)


def test_metrics_and_examples(root: Path, forgotten: Counter) -> None:
    data = small.load_artifacts(root)
    generators = NightlyGenerators(
        pretrained=root / "pretrained", aligned=root / "dpo", champion=root / "champion"
    )
    systems = nightly_systems(data, generators, small.DECODING)
    evaluate(data, systems)
    assert only_with(forgotten)
    collect_user_examples(data, systems, explained="dpo")
    assert only_with(forgotten)


def test_batch_lists(root: Path, forgotten: Counter) -> None:
    day = small.DAY + timedelta(days=1)
    prepare_bundle(
        root / "bundle",
        champion=root / "champion",
        semantic_ids=root / "semantic_ids",
        reward_model=root / "reward",
        config=dataclasses.replace(small.DECODING, new_item_share=0.5, new_item_days=1),
        watches=WatchesBefore(root / "session_dataset", day),
    )
    table = recommend_to_all(root / "bundle", root / "session_dataset", Lists(day, "v", 6))
    assert only_with(forgotten)
    alone = load_bundle(root / "bundle").recommend([], 6, user={"group": "g1"})
    assert len(alone) == 6
    assert table.num_rows == 6 * small.NUM_USERS


def test_every_case_gets_the_list_of_its_own_attributes(root: Path) -> None:
    data = small.load_artifacts(root)
    assert data.attributes is not None
    assert data.attributes["group"].to_pylist() == [f"g{int(u[1:]) % 3}" for u in data.user_ids]
    champion = load_incumbent(
        root / "champion",
        data.semantic_ids,
        data.semantic_ids,
        small.DECODING,
        test_day=small.DAY,
    )
    rows = np.array([5, 2, 9])
    together = rank_cases(data, System(champion), rows)
    unknown = champion.rank(data.histories[rows], 10, candidates=data.candidates)
    assert (together.lists.items[:, :10] != unknown.items).any(1).all()
    for place, row in enumerate(rows):
        alone = rank_cases(data, System(champion), np.array([row]))
        assert alone.lists.items.tolist() == together.lists.items[[place]].tolist()
        torch.testing.assert_close(alone.sessions.logp, together.sessions.logp[[place]])


def test_a_ranker_is_told_who_the_cases_are(root: Path) -> None:
    data, told = small.load_artifacts(root), []

    class Listening:
        def rank(
            self, histories, top_k, exclude=None, candidates=None, attributes=None
        ) -> RankedLists:
            told.append(attributes)
            nothing = np.full((len(histories), top_k), -1)
            return RankedLists(nothing, np.full(nothing.shape, -np.inf))

    rank_cases(data, System(Listening()), np.array([4, 0]))
    assert told[0].equals(load_user_attributes(root / "session_dataset", data.user_ids[[4, 0]]))


def test_candidates_are_generated_for_the_users_themselves(inputs: RoundInputs) -> None:
    contexts = sample_contexts(inputs.sessions("train"), 12, seed=0)
    generator = inputs.generator(small.DECODING, RUNTIME)
    reward = inputs.ensemble(inputs.reward_model)
    settings = {"num_candidates": 4, "alignment": ALIGNMENT}
    (made,) = scored_candidates(generator, reward, contexts, **settings)
    model, ids = generator.model, contexts.user_ids[contexts.user.numpy()]
    attributes = pa.table({"group": [f"g{int(user[1:]) % 3}" for user in ids]})
    known = model.histories(contexts.history.long(), attributes)
    exact = session_logp(model, known, made.items, generator.codes).double()
    torch.testing.assert_close(made.logp, exact, rtol=0, atol=1e-4)


def test_a_round_learns_about_the_users_it_saw(root: Path, inputs: RoundInputs) -> None:
    preferences = round_preferences(inputs, small.DECODING, ALIGNMENT, runtime=RUNTIME)
    (root / "round").mkdir()
    fit_round(inputs, preferences, ALIGNMENT, root / "round")
    after, before = (
        load_model(root / name, expected_tokenizer_version=None)[0].users
        for name in ("round", "pretrained")
    )
    assert after is not None
    assert before is not None
    moved = (after.embedding.weight - before.embedding.weight).abs().amax(1)
    # rows: group unknown, g0, g1, g2; rare unknown. Decay alone moves what nobody has
    assert moved[[1, 2, 3, 4]].min() > 10 * moved[0]


def test_held_out_cases_know_their_users(inputs: RoundInputs) -> None:
    cases = load_held_out_cases(inputs.session_dataset, inputs.ids, inputs.model, most=100, seed=0)
    assert cases is not None
    assert cases.users.attributes is not None
    groups = [f"g{int(user[1:]) % 3}" for user in cases.users.user_ids]
    assert cases.users.attributes["group"].to_pylist() == groups
