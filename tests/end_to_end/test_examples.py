"""The examples of the docs in a shortened form: a nightly run, and popularity counted once more."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml

from onerec.artifacts import read_json
from onerec.config import PipelineConfig
from onerec.datasets.own_config import OwnData
from tests.end_to_end import small_night

EXAMPLES = small_night.CHECKOUT / "examples"
SMALL = yaml.safe_load(small_night.SMALL)["stages"]
HISTORY = SMALL["sessions"]["history_length"]


def script(path: str) -> ModuleType:
    """A script of the examples as a module."""
    spec = importlib.util.spec_from_file_location("script", EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_night(
    home: Path, data: Path, day: date, window_days: int, **sessions: object
) -> dict[str, float]:
    """The nightly run of `make demo` with small settings; its metrics."""
    config = data / "small.yaml"
    described = yaml.safe_load((data / "my_data.yaml").read_text())
    every_case = SMALL["evaluation"] | {
        "max_cases": 5000,
        "baselines": "popularity,popularity_recent,itemknn,own_repeats,sasrec_ce",
        "baseline_width": 16,
        "baseline_epochs": 3,
    }
    window = {"window_days": window_days}
    described["stages"] = SMALL | {"evaluation": every_case, "window": window}
    described["stages"]["sessions"] = SMALL["sessions"] | sessions
    described |= {"first_day": day - timedelta(window_days), "last_day": day}
    config.write_text(yaml.safe_dump(described))
    env = small_night.environment(home, config) | {"ONEREC_TEST_DAY": str(day)}
    small_night.run(env, home / "night.log")
    return read_json(home / "report" / "metrics.json")


def most_consumed(log: pd.DataFrame, day: date, window_days: int) -> list[str]:
    """Every item consumed in the window before a day, the most often first.

    Args:
        log: `user`, `item`, `day`, `consumed`.
        day: The test day.
        window_days: Days before it that are counted.
    """
    before = log[log.consumed & (log.day < day) & (log.day >= day - timedelta(window_days))]
    counts = before.groupby("item").size()
    return sorted(counts.index, key=lambda item: (-counts[item], item))


def recently_consumed(log: pd.DataFrame, day: date, window_days: int) -> list[str]:
    """As `most_consumed`, where an event counts half for every day that it is older."""
    before = log[log.consumed & (log.day < day) & (log.day >= day - timedelta(window_days))]
    weight = 0.5 ** np.array([(day - d).days - 1 for d in before.day])
    counts = pd.Series(weight, before.index).groupby(before.item).sum()
    return sorted(counts.index, key=lambda item: (-counts[item], item))


def own_repeats(log: pd.DataFrame, day: date, window_days: int) -> Callable[[str], list[str]]:
    """For a user: the items of the last consumed ones by their number, of equals the latest first,
    then what was consumed recently.

    Args:
        log: In the order of delivery, with `time`; what is consumed is `positive`, if that is not
            a column of its own.
        day: The test day.
        window_days: Days before it that are read.
    """
    recent = recently_consumed(log, day, window_days)
    positive = log.positive if "positive" in log else log.consumed
    before = log[positive & (log.day < day) & (log.day >= day - timedelta(window_days))]
    in_time = before.sort_values("time", kind="stable")
    histories = in_time.groupby("user").item.apply(lambda items: list(items)[-HISTORY:]).to_dict()

    def ranked(user: str) -> list[str]:
        history = histories.get(user, [])
        place = {item: number for number, item in enumerate(history)}
        own = sorted(place, key=lambda item: (-history.count(item), -place[item]))
        return own + [item for item in recent if item not in place]

    return ranked


def measured(log: pd.DataFrame, day: date, ranked: Callable[[str], list[str]]) -> dict[str, float]:
    """Recall and NDCG at 10 of a list for every user of a day, from nothing but the raw rows."""
    recalls, ndcgs = [], []
    for user, items in log[log.consumed & (log.day == day)].groupby("user").item:
        targets, best = set(items), ranked(str(user))[:10]
        gains = np.array([item in targets for item in best]) / np.log2(np.arange(2, 12))
        ideal = (1 / np.log2(np.arange(2, 12)))[: len(targets)].sum()
        recalls.append(len(targets & set(best)) / len(targets))
        ndcgs.append(gains.sum() / ideal)
    return {"recall@10": float(np.mean(recalls)), "ndcg@10": float(np.mean(ndcgs))}


def agree(metrics: dict[str, float], system: str, counted: dict[str, float]) -> None:
    for name, value in counted.items():
        assert value > 0
        assert metrics[f"{system}_{name}"] == pytest.approx(value, abs=5e-5), (system, name)


def test_popularity_and_own_repeats_of_short_video_are_those_of_the_raw_rows(
    tmp_path: Path,
) -> None:
    data, day, window_days = tmp_path / "data", date(2026, 6, 7), 6
    script("own_data/make_sample_data.py").write(data, users=200, days=7)
    metrics = run_night(tmp_path, data, day, window_days)
    days = sorted((data / "watch_log").iterdir())
    log = pd.concat([pd.read_csv(path) for path in days], ignore_index=True)
    log = log.rename(columns={"uid": "user", "video": "item", "ts": "time"})
    videos = pd.read_csv(data / "videos.csv").set_index("video").loc[log.item].reset_index()
    log["day"] = pd.to_datetime(log.time, unit="ms").dt.date
    seconds = log.play_ms / 1000
    watched = (seconds >= 10) | (seconds >= 0.8 * videos.len_s)
    log["positive"] = watched | (log.liked == 1)
    # what is published on the test day is no candidate of it
    published = pd.to_datetime(videos.published_at).dt.date
    log["consumed"] = watched & ~((log.day == day) & (published >= day))
    popular = most_consumed(log, day, window_days)
    agree(metrics, "popularity", measured(log, day, lambda user: popular))
    agree(metrics, "own_repeats", measured(log, day, own_repeats(log, day, window_days)))
    assert metrics["sasrec_ce_recall@10"] > 0


def test_popularity_and_own_repeats_of_the_shop_are_those_of_the_raw_rows(tmp_path: Path) -> None:
    data, day, window_days = tmp_path / "data", date(2026, 6, 8), 6
    script("shop/make_shop_log.py").write(data, customers=200, days=8)
    metrics = run_night(tmp_path, data, day, window_days)
    log = pd.read_csv(data / "events.csv").rename(columns={"visitor": "user", "product": "item"})
    log["time"] = log.timestamp
    log["day"] = pd.to_datetime(log.timestamp, unit="ms").dt.date
    log["consumed"] = log.event.isin(["cart", "purchase"])
    popular = most_consumed(log, day, window_days)
    agree(metrics, "popularity", measured(log, day, lambda user: popular))
    agree(metrics, "own_repeats", measured(log, day, own_repeats(log, day, window_days)))
    assert metrics["sasrec_ce_recall@10"] > 0


def test_popularity_and_own_repeats_of_ratings_are_those_of_the_raw_rows(tmp_path: Path) -> None:
    data, day, window_days = tmp_path / "data", date(1997, 11, 13), 54
    try:
        script("ratings/get_movielens.py").fetch(data)
    except OSError as error:
        pytest.skip(f"MovieLens-100k is not part of the repository: {error}")
    log = pd.read_csv(data / "ml-100k.inter", sep="\t")
    log.columns = ["user", "item", "rating", "time"]
    log["item"] = log.item.astype(str)
    log["day"] = pd.to_datetime(log.time, unit="s").dt.date
    log["consumed"] = log.rating >= 4
    log["user"] = log.user.astype(str)
    # most sessions are full of ties: in the order of delivery, not in a seeded one
    settings = {"session_order": "time", "max_volume_ratio": 10}
    metrics = run_night(tmp_path, data, day, window_days, **settings)
    popular = most_consumed(log, day, window_days)
    agree(metrics, "popularity", measured(log, day, lambda user: popular))
    agree(metrics, "own_repeats", measured(log, day, own_repeats(log, day, window_days)))


@pytest.mark.parametrize("example", ["ratings", "shop"])
def test_the_documented_file_is_the_shipped_one(example: str) -> None:
    shipped = (EXAMPLES / example / "my_data.yaml").read_text()
    text = (small_night.CHECKOUT / "docs" / f"example_{example}.md").read_text()
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == yaml.safe_load(shipped)


@pytest.mark.parametrize("page", ["example_ratings", "example_shop"])
def test_every_documented_layout_is_legal(page: str) -> None:
    text = (small_night.CHECKOUT / "docs" / f"{page}.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    assert len(blocks) > 1
    for block in blocks:
        described = OwnData.model_validate(yaml.safe_load(block))
        PipelineConfig().override(described.stages)


@pytest.mark.parametrize("example", ["ratings", "shop"])
def test_what_the_page_shows_of_make_inspect_is_what_it_prints(
    tmp_path: Path, example: str
) -> None:
    data = tmp_path / "data"
    if example == "shop":
        make = str(EXAMPLES / "shop" / "make_shop_log.py")
        subprocess.run([sys.executable, make, str(data)], check=True)
    else:
        try:
            script("ratings/get_movielens.py").fetch(data)
        except OSError as error:
            pytest.skip(f"MovieLens-100k is not part of the repository: {error}")
    env = small_night.environment(tmp_path / "home", data / "my_data.yaml")
    command = [sys.executable, "-m", "onerec_dagster.inspect"]
    done = subprocess.run(
        command, env=env, cwd=small_night.CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = " ".join(done.stdout.split())
    page = (small_night.CHECKOUT / "docs" / f"example_{example}.md").read_text()
    block = page.split("## What to look at")[1].split("```text\n")[1].split("```")[0]
    shown = re.findall(r"^  (?:WARN|ok)\s+(.*?)(?=^  (?:WARN|ok)|^\w|\Z)", block, re.M | re.S)
    assert len(shown) >= 2
    for finding in shown:
        assert " ".join(finding.split()) in printed


def test_without_a_network_the_ratings_say_so(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "ratings" / "get_movielens.py"), str(tmp_path)]
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip cannot download recbole" in done.stderr
