"""Whole nightly runs on logs that know no watch time: purchases only, and ratings."""

import csv
import json
import random
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from onerec.artifacts import ArtifactStore, read_json
from tests.end_to_end import small_night

pytestmark = pytest.mark.slow

FIRST, DAYS, USERS, ITEMS = date(2026, 6, 1), 6, 70, 60
PIPELINE = """
stages:
  window: {window_days: 5}
  embeddings: {text_encoder: hashed, text_dim: 16, collaborative_dim: 8}
  tokenizer: {codebook_size: 4, iterations: 3}
  sessions: {history_length: 8, session_items: 3}
  model: {d_model: 32, num_heads: 2, d_ff: 64, encoder_layers: 1, decoder_layers: 1}
  training: {max_epochs: 8, batch_size: 16}
  reward: {d_model: 16, num_heads: 2, max_epochs: 1}
  decoding: {beam: 8, candidates: 8}
  alignment: {sample_users: 40, batch_size: 16, epochs: 1}
  evaluation: {bootstrap_samples: 50, max_cases: 40}
"""


def baskets(kind: str) -> list[dict[str, Any]]:
    """A basket of one to eight items of the user's taste on most days, all of one moment."""
    draw = random.Random(5)
    rows = []
    for number in range(DAYS):
        for user in range(USERS):
            if draw.random() < 0.15:
                continue
            day = FIRST + timedelta(days=number)
            time = datetime(day.year, day.month, day.day, draw.randrange(8, 20), 30)
            own = {n * 5 + user % 5 for n in draw.sample(range(ITEMS // 5), draw.randrange(1, 7))}
            for item in sorted(own | set(draw.sample(range(ITEMS), draw.randrange(3)))):
                liked = item in own
                row = {"customer": user, "product": item, "at": time.isoformat()}
                if kind == "ratings":
                    row["stars"] = draw.choice([4, 5] if liked else [1, 2, 3])
                    time += timedelta(seconds=20)
                rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("kind", "columns", "signals", "missing"),
    [
        ("actions", "", {"continued"}, {"several", "liked"}),
        ("ratings", ", rating: stars", {"liked", "loved"}, set()),
    ],
)
def test_a_log_without_watch_times_passes(
    tmp_path: Path, kind: str, columns: str, signals: set[str], missing: set[str]
) -> None:
    rows = baskets(kind)
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    mapping = f"user_id: customer, item_id: product, event_time: at{columns}"
    config = tmp_path / "my.yaml"
    files = f"events: {{path: log.csv, columns: {{{mapping}}}}}\ntime_zone: Asia/Tokyo\n"
    config.write_text(files + PIPELINE)  # its mornings are evenings of the day before in UTC
    home, log = tmp_path / "home", tmp_path / "night.log"
    small_night.run(small_night.environment(home, config), log)
    said = log.read_text()
    assert f"read as a log of kind {kind}" in said
    store, day = ArtifactStore(str(home / "own" / "artifacts")), small_night.DAY
    measured = read_json(store.latest("reward_model", day).path / "metrics.json")
    assert set(measured["towers"]) == set(measured["weights"]) == signals
    assert set(measured["missing_signals"]) == missing
    assert all(f"{name} no such signal" in said for name in missing)
    assert all(f"P({name}: " in said for name in signals)
    decision = read_json(store.latest("champion", day).path / "champion.json")
    alone = any("rewards depend on one signal" in text for text in decision["warnings"])
    assert alone == (len(signals) == 1)
    assert store.latest("recommendations", day).manifest["row_counts"]["rows"] > 0
    stats = read_json(store.latest("session_dataset", day).path / "stats.json")
    assert stats["repeats"] == (stats["repeat_share"] >= 0.25)
    assert stats["repeats"], "most of what is bought was bought before"
    numbers = json.loads((home / "report" / "metrics.json").read_text())
    assert numbers["popularity_recall@10"] > 0
    assert numbers["users"] > 10
    assert not any(name in key for key in numbers for name in ("swt", "ltr"))
