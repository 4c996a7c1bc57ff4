"""Facts are what a slow loop over strictly earlier exposures counts, whatever comes later."""

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from onerec.catalogue import Catalogue
from onerec.schema import SESSION_DATASET, SPLITS
from onerec.session_dataset.item_attributes import load_item_attributes, write_item_attributes
from onerec.session_dataset.reward_blocks import RewardBlocks, load_reward_blocks
from onerec.session_dataset.reward_facts import (
    RECENT,
    RECENT_SMOOTHING,
    SMOOTHING,
    ExposureLog,
    load_exposure_log,
)
from tests.core.training.small import write_session_dataset

M, NUM_ITEMS = 2, 7
CATALOGUE = Catalogue(
    np.array([f"i{n}" for n in range(NUM_ITEMS)], object),
    np.full(NUM_ITEMS, "2026-05-30", "datetime64[D]"),
)
DURATIONS = [10.0, 20.0, 30.0, None, 5.0, 40.0, 8.0]
AUTHORS = ["a", "a", "b", None, "b", "c", "c"]
START = datetime(2026, 6, 1, tzinfo=UTC)


def sessions(seed: int) -> list[dict]:
    """Some sessions of four users on four days; i9 is no item of the catalogue."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(40):
        day, length = n // 10, int(rng.integers(1, 6))
        started = START + timedelta(days=day, minutes=13 * (n % 10))
        watched = rng.random(length) < 0.5
        rows.append(
            {name: [False] * length for name in SESSION_DATASET.names if name.startswith("is_")}
            | {
                "session_id": f"s{n:03d}",
                "user_id": f"u{rng.integers(4)}",
                "session_date": started.date(),
                "started_at": started,
                "history_item_ids": [],
                "item_ids": [f"i{i}" for i in rng.choice([0, 1, 2, 3, 4, 5, 6, 9], length)],
                "watch_seconds": rng.integers(0, 30, length).astype(float).tolist(),
                "is_watched": watched.tolist(),
                "is_like": (watched & (rng.random(length) < 0.4)).tolist(),
                "target_item_ids": [],
                "is_good": True,
                "split": ("train", "train", "valid", "test")[day],
            }
        )
    return rows


def loaded(directory: Path, rows: list[dict]) -> tuple[ExposureLog, RewardBlocks]:
    """The log, and the blocks of the validation day."""
    write_session_dataset(directory, rows)
    items = {"item_id": CATALOGUE.item_ids, "duration_seconds": DURATIONS, "author_id": AUTHORS}
    write_item_attributes(pa.table({**items, "category": ["c"] * NUM_ITEMS}), directory)
    attributes = load_item_attributes(directory, CATALOGUE)
    assert attributes is not None
    blocks = load_reward_blocks(
        directory, "valid", CATALOGUE, history_length=3, block_items=M, attributes=attributes
    )
    return load_exposure_log(directory, CATALOGUE, attributes, SPLITS), blocks


def exposures(rows: list[dict]) -> list[dict]:
    """One dictionary an exposure of a known item, in the order of time."""
    found = []
    for row in sorted(rows, key=lambda r: r["started_at"]):
        for n, item in enumerate(row["item_ids"]):
            if item == "i9":
                continue
            number, seconds = int(item[1:]), row["watch_seconds"][n]
            duration = DURATIONS[number]
            found.append(
                {
                    "user": row["user_id"],
                    "started": row["started_at"],
                    "item": number,
                    "vtr": float(row["is_watched"][n]),
                    "ltr": float(row["is_like"][n]),
                    "log_seconds": math.log1p(seconds),
                    "watch_share": min(seconds / duration, 2.0) if duration else 0.0,
                }
            )
    return found


def mean(found: list[dict], name: str, prior: float, weight: float) -> float:
    return (sum(e[name] for e in found) + weight * prior) / (len(found) + weight)


@pytest.mark.parametrize("seed", [0, 1])
def test_facts_match_plain_python(seed: int, tmp_path: Path):
    rows = sessions(seed)
    log, blocks = loaded(tmp_path, rows)
    assert log.names == ("vtr", "ltr", "log_seconds", "watch_share")  # nobody follows anybody
    counted = np.array([user in ("u0", "u2") for user in log.user_ids])
    of_items, of_users = (t.numpy() for t in log.facts_of(blocks, counted))
    every = exposures(rows)
    for row in range(len(blocks)):
        day = blocks.date[row].astype(object)
        earlier = [e for e in every if e["started"].date() < day and e["user"] in ("u0", "u2")]
        overall = {name: mean(earlier, name, 0, 0) for name in log.names}
        for place, item in enumerate(blocks.items[row].tolist()):
            facts = dict(zip(log.item_fact_names, of_items[row, place], strict=True))
            if item < 0:
                assert set(facts.values()) == {0.0}
                continue
            author = AUTHORS[item]
            by_author = [e for e in earlier if author and AUTHORS[e["item"]] == author]
            own = [e for e in earlier if e["item"] == item]
            assert facts["log_shown"] == pytest.approx(math.log1p(len(own)))
            assert facts["author_log_shown"] == pytest.approx(math.log1p(len(by_author)))
            assert np.isnan(facts["log_duration"]) == (DURATIONS[item] is None)
            assert facts["log_age"] == pytest.approx(math.log1p(4))
            for name in log.names:
                prior = mean(by_author, name, overall[name], SMOOTHING)
                assert facts[f"author_{name}"] == pytest.approx(prior, abs=1e-6)
                assert facts[name] == pytest.approx(mean(own, name, prior, SMOOTHING), abs=1e-6)
        user = blocks.user_ids[blocks.user[row]]
        hours = int(blocks.hour[row] * 60 + 0.5)
        started = datetime.combine(day, datetime.min.time(), UTC) + timedelta(minutes=hours)
        own = [e for e in every if e["user"] == user and e["started"] < started]
        now = [e for e in every if e["user"] == user and e["started"] == started]
        own += now[: int(blocks.place[row]) * M]
        facts = dict(zip(log.user_fact_names, of_users[row], strict=True))
        assert facts["log_exposures"] == pytest.approx(math.log1p(len(own)))
        assert facts["place"] == blocks.place[row]
        for name in log.names:
            rate = mean(own, name, overall[name], SMOOTHING)
            newest = mean(own[-RECENT:], name, rate, RECENT_SMOOTHING)
            assert facts[name] == pytest.approx(rate, abs=1e-6)
            assert facts[f"recent_{name}"] == pytest.approx(newest, abs=1e-6)


def test_nothing_of_the_block_or_later_is_known(tmp_path: Path):
    """Other outcomes of the last session of the validation day, and of the day after, change no
    fact of the blocks up to it."""
    rows = sessions(3)
    log, blocks = loaded(tmp_path / "a", rows)
    last = max(r["started_at"] for r in rows if r["split"] == "valid")
    turned = [
        {**row, "watch_seconds": [99.0] * len(row["item_ids"])}
        if row["started_at"] >= last
        else row
        for row in rows
    ]
    other, again = loaded(tmp_path / "b", turned)
    counted = np.ones(len(log.user_ids), bool)
    first_blocks = blocks.place == 0  # a later block of the last session knows the first one
    for mine, theirs in zip(
        log.facts_of(blocks.rows(first_blocks), counted),
        other.facts_of(again.rows(first_blocks), counted),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_the_test_day_decides_no_fact(tmp_path: Path):
    """A signal that is first met on the test day would be a fact by what that day holds."""
    rows = [
        {**row, "is_like": [row["split"] == "test"] * len(row["item_ids"])} for row in sessions(5)
    ]
    log, _ = loaded(tmp_path, rows)
    attributes = load_item_attributes(tmp_path, CATALOGUE)
    assert attributes is not None
    learned = load_exposure_log(tmp_path, CATALOGUE, attributes)
    assert set(log.names) - set(learned.names) == {"ltr"}
    assert learned.day.max() < log.day.max()


def test_a_user_without_exposures_is_unknown(tmp_path: Path):
    log, blocks = loaded(tmp_path, sessions(4))
    stranger = dataclasses.replace(blocks, user_ids=np.array([f"z{n}" for n in range(9)], object))
    facts = log.user_facts(stranger, np.ones(len(log.user_ids), bool))
    by_name = dict(zip(log.user_fact_names, facts.T, strict=True))
    assert set(by_name["log_exposures"]) == {0.0}
    assert np.isnan(by_name["log_hours_since"]).all()
    assert len(set(by_name["vtr"].tolist())) == 1  # the overall rate of the days before


def test_expectations_are_means_over_the_items_of_a_block(tmp_path: Path):
    log, blocks = loaded(tmp_path, sessions(5))
    assert [s.name for s in blocks.signals[-2:]] == ["watch_seconds", "watch_share"]
    shown = (blocks.items >= 0).sum(1)
    seconds = blocks.watch_seconds.sum(1) / shown
    np.testing.assert_allclose(blocks.labels[:, -2], seconds, rtol=1e-6)
    duration = log.attributes.duration_seconds[blocks.items.clamp(min=0)]
    share = np.nan_to_num(np.minimum(blocks.watch_seconds.numpy() / duration, 2.0)).sum(1)
    np.testing.assert_allclose(blocks.labels[:, -1], share / shown.numpy(), rtol=1e-5)
