import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from onerec.evaluation.baselines import fit_baselines
from onerec.recommender import Recommender, write_bundle
from onerec.schema import RECOMMENDATIONS
from onerec.serving import (
    POPULARITY,
    audit_recommendations,
    prepare_bundle,
    recommend_popular,
    recommend_to_all,
)
from onerec.session_dataset.interactions import load_interactions
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, DECODING, session

TOMORROW = DAY + timedelta(days=1)


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
    )


def serve(root: Path, bundle: Path) -> pa.Table:
    return recommend_to_all(
        bundle,
        root / "session_dataset",
        serve_date=TOMORROW,
        model_version="v1",
        filter_seen=True,
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
        answer = recommender.recommend(last_history(user), small.SESSION)
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
        session_items=small.SESSION,
    )
    assert (found.users, found.unserved_users) == (small.NUM_USERS, 0)
    assert (found.repeats, found.unknown_items) == (0, 0)


def test_the_audit_finds_what_is_wrong(artifacts: Path, tmp_path: Path) -> None:
    prepare(artifacts, tmp_path)
    table = serve(artifacts, tmp_path).slice(1)  # the first user lost an item
    item = table.column("item_id").to_pylist()
    item[3], item[6] = item[4], "nowhere"
    broken = table.set_column(3, RECOMMENDATIONS.field("item_id"), pa.array(item))
    found = audit_recommendations(
        broken,
        artifacts / "session_dataset",
        artifacts / "semantic_ids",
        session_items=small.SESSION,
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
    )
    assert Recommender.load(tmp_path / "bundle").reward is None
    assert all(math.isnan(r["reward"]) for r in serve(artifacts, tmp_path / "bundle").to_pylist())


@pytest.mark.parametrize("filter_seen", [True, False])
def test_without_a_champion_popular_items_are_served_and_named_so(
    tmp_path: Path, filter_seen: bool
) -> None:
    ids = small.catalogue(8, late=0)
    rows = [
        session(f"u{n}", DAY - timedelta(days=1), [f"i0{m}" for m in range(n)]) for n in (1, 2, 3)
    ]
    rows.append(session("u9", DAY, ["i07"]))
    dataset = small.write_sessions(tmp_path / "s", rows)
    window = load_interactions(dataset, ids, test_day=DAY)
    table = recommend_popular(
        fit_baselines(window, ids.known_before(DAY), neighbours=2),
        ids,
        dataset,
        history_length=4,
        session_items=3,
        serve_date=TOMORROW,
        filter_seen=filter_seen,
    )
    assert table.schema == RECOMMENDATIONS
    lists: dict[str, list[str]] = {}
    for row in table.to_pylist():
        assert row["model_version"] == POPULARITY
        assert math.isnan(row["reward"])
        assert row["serve_date"] == TOMORROW
        lists.setdefault(row["user_id"], []).append(row["item_id"])
    expected = ["i00", "i01", "i02"]
    assert lists["u9"] == expected
    assert lists["u2"] == (["i02", "i03", "i04"] if filter_seen else expected)
    assert np.diff(table.column("score").to_numpy()[-3:]).max() <= 0


def test_same_inputs_same_table(artifacts: Path, tmp_path: Path) -> None:
    prepare(artifacts, tmp_path)
    assert serve(artifacts, tmp_path).equals(serve(artifacts, tmp_path))
