import dataclasses
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from onerec.config import BeamConfig
from onerec.evaluation.baselines import fit_baselines
from onerec.model import load_model, save_model
from onerec.model.recency_prior import RecencyPrior
from onerec.schema import RECOMMENDATIONS
from onerec.serving.batch import Lists, audit_recommendations, recommend_to_all
from onerec.serving.bundle import load_bundle, prepare_bundle
from onerec.serving.recommender import Recommender, write_bundle
from onerec.serving.simple_recommender import SimpleRecommender, write_simple_bundle
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.newest_watches import WatchesBefore, newest_watches
from onerec.tokenizer.semantic_ids import SemanticIds
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, DECODING, session

TOMORROW = DAY + timedelta(days=1)
LIST = 7
"""Longer than a session."""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    small.write_sessions(root / "session_dataset", small.rows())
    small.write_catalogue(root / "semantic_ids", small.catalogue())
    small.write_generator(root / "dpo", seed=1)
    small.write_reward(root / "reward", seed=3)
    write_bundle(
        root / "champion",
        checkpoint=root / "dpo",
        semantic_ids=root / "semantic_ids",
        reward=root / "reward",
        config=DECODING,
    )
    return root


def prepare(root: Path, bundle: Path, *, catalogue: Path | None = None) -> bool:
    return prepare_bundle(
        bundle,
        champion=root / "champion",
        semantic_ids=catalogue or root / "semantic_ids",
        reward_model=root / "reward",
        config=DECODING,
        watches=WatchesBefore(root / "session_dataset", TOMORROW),
    )


def serve(root: Path, bundle: Path) -> pa.Table:
    return recommend_to_all(
        bundle,
        root / "session_dataset",
        Lists(serve_date=TOMORROW, model_version="v1", list_length=LIST),
    )


def last_history(user: str) -> list[str]:
    """The user's history at the end of day D, as a caller with the log would put it together."""
    mine = [r for r in small.rows() if r["user_id"] == user]
    return (mine[-1]["history_item_ids"] + mine[-1]["item_ids"])[-small.HISTORY :]


def test_the_table_and_the_recommender_give_the_same_answer(
    artifacts: Path, tmp_path: Path
) -> None:
    assert prepare(artifacts, tmp_path)
    table = serve(artifacts, tmp_path)
    assert table.schema == RECOMMENDATIONS
    recommender = Recommender.load(tmp_path)
    for user in ("u00", "u01", "u29"):
        rows = table.filter(pc.equal(table.column("user_id"), user)).to_pylist()
        answer = recommender.recommend(last_history(user), LIST)
        assert [r["item_id"] for r in rows] == [a.item_id for a in answer]
        assert [r["rank"] for r in rows] == [a.rank for a in answer]
        assert [r["score"] for r in rows] == pytest.approx([a.score for a in answer], abs=1e-9)
        assert [r["reward"] for r in rows] == pytest.approx([a.reward for a in answer], abs=1e-6)
        assert not set(last_history(user)) & {r["item_id"] for r in rows}


def test_everyone_is_served_well(artifacts: Path, tmp_path: Path) -> None:
    prepare(artifacts, tmp_path)
    table = serve(artifacts, tmp_path)
    found = audit_recommendations(
        table,
        artifacts / "session_dataset",
        artifacts / "semantic_ids",
        list_length=LIST,
        history_length=small.HISTORY,
        serve_date=TOMORROW,
    )
    assert (found.users, found.unserved_users) == (small.NUM_USERS, 0)
    assert (found.repeats, found.unknown_items) == (0, 0)


def test_the_audit_finds_what_is_wrong(artifacts: Path, tmp_path: Path) -> None:
    prepare(artifacts, tmp_path)
    table = serve(artifacts, tmp_path).slice(1)  # the first user lost an item
    item = table.column("item_id").to_pylist()
    item[LIST], item[2 * LIST] = item[LIST + 1], "nowhere"
    broken = table.set_column(3, RECOMMENDATIONS.field("item_id"), pa.array(item))
    found = audit_recommendations(
        broken,
        artifacts / "session_dataset",
        artifacts / "semantic_ids",
        list_length=LIST,
        history_length=small.HISTORY,
        serve_date=TOMORROW,
    )
    assert (found.unserved_users, found.repeats, found.unknown_items) == (1, 1, 1)


def test_an_older_champion_recommends_items_that_came_since(
    artifacts: Path, tmp_path: Path
) -> None:
    more = small.write_catalogue(tmp_path / "semantic_ids", small.catalogue(60, late=23))
    assert prepare(artifacts, tmp_path / "bundle", catalogue=more)
    recommender = Recommender.load(tmp_path / "bundle")
    assert len(recommender.semantic_ids.item_ids) == 60


def test_a_champion_of_another_generation_keeps_its_catalogue(
    artifacts: Path, tmp_path: Path
) -> None:
    other = small.write_catalogue(
        tmp_path / "ids", small.catalogue(50, tokenizer_version="version-b")
    )
    assert not prepare(artifacts, tmp_path / "bundle", catalogue=other)
    recommender = Recommender.load(tmp_path / "bundle")
    assert recommender.semantic_ids.tokenizer_version == "version-a"
    assert recommender.reward is not None


def test_a_champion_without_a_reward_model_serves_by_probability(
    artifacts: Path, tmp_path: Path
) -> None:
    write_bundle(
        tmp_path / "champion",
        checkpoint=artifacts / "dpo",
        semantic_ids=artifacts / "semantic_ids",
        config=DECODING,
    )
    assert prepare_bundle(
        tmp_path / "bundle",
        champion=tmp_path / "champion",
        semantic_ids=artifacts / "semantic_ids",
        reward_model=artifacts / "reward",
        config=DECODING,
        watches=WatchesBefore(artifacts / "session_dataset", TOMORROW),
    )
    assert Recommender.load(tmp_path / "bundle").reward is None
    assert (
        serve(artifacts, tmp_path / "bundle").column("reward").null_count == LIST * small.NUM_USERS
    )


@pytest.mark.parametrize("generation", ["version-a", "version-b"])
def test_a_recency_prior_serves_with_the_watches_of_the_newest_day(
    artifacts: Path, tmp_path: Path, generation: str
) -> None:
    """With a weight beyond every log-probability the most watched of day D come first."""
    model, _ = load_model(artifacts / "dpo", expected_tokenizer_version=None)
    model.recency_prior = RecencyPrior(weight=1000.0)
    save_model(model, tmp_path / "dpo", tokenizer_version="version-a")
    write_bundle(
        tmp_path / "champion",
        checkpoint=tmp_path / "dpo",
        semantic_ids=artifacts / "semantic_ids",
        config=BeamConfig(beam=8, filter_seen=False),
    )
    prepare_bundle(
        tmp_path / "bundle",
        champion=tmp_path / "champion",
        semantic_ids=small.write_catalogue(
            tmp_path / "ids", small.catalogue(tokenizer_version=generation)
        ),
        reward_model=artifacts / "reward",
        config=BeamConfig(beam=8, filter_seen=False),
        watches=WatchesBefore(artifacts / "session_dataset", TOMORROW),
    )
    ids = small.catalogue()
    watches = newest_watches(artifacts / "session_dataset", ids, before=TOMORROW, days=1)
    assert watches.sum() == 4 * small.NUM_USERS / 2, "the test day alone"
    best = np.sort(watches)[::-1][: small.SESSION]
    lists = Recommender.load(tmp_path / "bundle").recommend_batch([["i00"], []], small.SESSION)
    for items in lists:
        found = watches[ids.index_of(np.array([r.item_id for r in items], object))]
        assert found.tolist() == best.tolist()
        assert [r.score for r in items] == pytest.approx(1000 * np.log1p(found), abs=50), (
            "log-probabilities are added"
        )


@pytest.mark.parametrize("filter_seen", [True, False])
def test_a_simple_system_serves_under_its_own_name(tmp_path: Path, filter_seen: bool) -> None:
    ids = small.catalogue(8, late=0)
    rows = [
        session(f"u{n}", DAY - timedelta(days=1), [f"i0{m}" for m in range(n)]) for n in (1, 2, 3)
    ]
    rows.append(session("u9", DAY, ["i07"]))
    dataset = small.write_sessions(tmp_path / "s", rows)
    window = load_interactions(dataset, ids, test_day=DAY)
    fitted = fit_baselines(window, ids.known_before(DAY), neighbours=2)
    (tmp_path / "baselines").mkdir()
    fitted.save(tmp_path / "baselines")
    write_simple_bundle(
        tmp_path / "bundle",
        system="popularity",
        baselines=tmp_path / "baselines",
        semantic_ids=small.write_catalogue(tmp_path / "ids", ids),
        history_length=4,
        config=BeamConfig(filter_seen=filter_seen),
    )
    table = recommend_to_all(
        tmp_path / "bundle",
        dataset,
        Lists(serve_date=TOMORROW, model_version="popularity", list_length=3),
    )
    assert table.schema == RECOMMENDATIONS
    assert table.column("reward").null_count == table.num_rows
    lists: dict[str, list[str]] = {}
    for row in table.to_pylist():
        assert row["serve_date"] == TOMORROW
        lists.setdefault(row["user_id"], []).append(row["item_id"])
    expected = ["i00", "i01", "i02"]
    assert lists["u9"] == expected
    assert lists["u2"] == (["i02", "i03", "i04"] if filter_seen else expected)
    assert np.diff(table.column("score").to_numpy()[-3:]).max() <= 0
    recommender = load_bundle(tmp_path / "bundle")
    assert [r.item_id for r in recommender.recommend(["i00", "i01"], 3)] == lists["u2"]
    assert [r.item_id for r in recommender.recommend(["i00", "i01"], 3, exclude_seen=False)] == (
        expected
    )


def test_a_learned_baseline_is_no_simple_system(tmp_path: Path) -> None:
    ids = small.catalogue(8, late=0)
    day = DAY - timedelta(days=1)
    dataset = small.write_sessions(tmp_path / "s", [session("u1", day, ["i00"])])
    window = load_interactions(dataset, ids, test_day=DAY)
    fitted = fit_baselines(window, ids.known_before(DAY), neighbours=2)
    with pytest.raises(ValueError, match="system='sasrec_ce': use one of popularity"):
        SimpleRecommender("sasrec_ce", fitted, ids, history_length=4)


def test_same_inputs_same_table(artifacts: Path, tmp_path: Path) -> None:
    prepare(artifacts, tmp_path)
    assert serve(artifacts, tmp_path).equals(serve(artifacts, tmp_path))


def withdraw(ids: SemanticIds, items: list[str], day: date) -> SemanticIds:
    withdrawn_on = np.full(len(ids), "NaT", "datetime64[D]")
    withdrawn_on[ids.index_of(np.array(items, object))] = np.datetime64(day, "D")
    return dataclasses.replace(ids, withdrawn_on=withdrawn_on)


@pytest.mark.parametrize("tokenizer_version", ["version-a", "version-b"])
def test_withdrawn_items_are_not_recommended_also_by_an_older_champion(
    artifacts: Path, tmp_path: Path, tokenizer_version: str
) -> None:
    """90 % of the catalogue goes; the champion of another version had published it before."""
    ids = small.catalogue(tokenizer_version=tokenizer_version)
    gone = ids.item_ids[: len(ids) * 9 // 10].tolist()
    today = small.write_catalogue(tmp_path / "ids", withdraw(ids, gone, DAY))
    same = tokenizer_version == "version-a"
    assert prepare(artifacts, tmp_path / "bundle", catalogue=today) == same
    table = serve(artifacts, tmp_path / "bundle")
    assert table.num_rows
    assert not set(table.column("item_id").to_pylist()) & set(gone)
    found = audit_recommendations(
        table,
        artifacts / "session_dataset",
        today,
        list_length=LIST,
        history_length=small.HISTORY,
        serve_date=TOMORROW,
    )
    assert found.unknown_items == 0
    answer = Recommender.load(tmp_path / "bundle").recommend([gone[0], "i39"], 3)
    assert answer
    assert not {a.item_id for a in answer} & set(gone)


def test_the_audit_finds_withdrawn_items(artifacts: Path, tmp_path: Path) -> None:
    prepare(artifacts, tmp_path)
    table = serve(artifacts, tmp_path)
    items = table.column("item_id").to_pylist()
    item = items[0]
    for day, number in ((TOMORROW, 0), (DAY, items.count(item))):
        ids = withdraw(small.catalogue(), [item], day)
        found = audit_recommendations(
            table,
            artifacts / "session_dataset",
            small.write_catalogue(tmp_path / str(day), ids),
            list_length=LIST,
            history_length=small.HISTORY,
            serve_date=TOMORROW,
        )
        assert found.unknown_items == number


def test_withdrawn_items_are_no_candidates_from_the_day_after_on() -> None:
    for day, is_candidate in ((DAY - timedelta(days=1), False), (DAY, True)):
        ids = withdraw(small.catalogue(), ["i00"], day)
        assert ids.candidates(DAY)[0] == is_candidate
        assert ids.candidates(DAY).sum() == ids.known_before(DAY).sum() - (not is_candidate)
