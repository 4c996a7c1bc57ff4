"""A small catalogue in a warehouse, and sessions of each day in a store."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from onerec.artifacts import ArtifactStore
from tests.assets.tokenizer.runs import DAYS, ITEMS_A_DAY, TOPICS, first_seen
from tests.core.embeddings.test_item_embeddings import write_sessions


@pytest.fixture
def home(tmp_path: Path) -> Path:
    rows = [
        (f"i{n:03d}", f"{TOPICS[n % 3]} {n}", f"c{n % 3}", f"a{n % 7}", first_seen(n))
        for n in range(48 + ITEMS_A_DAY * len(DAYS))
    ]
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute(
            "create table stg_items (item_id varchar, duration_seconds double, title varchar, "
            "category varchar, author_id varchar, published_at timestamptz, first_seen date, "
            "valid_from date, is_withdrawn boolean generated always as (false) virtual, "
            "features varchar generated always as (null) virtual)"
        )
        connection.executemany(
            "insert into stg_items values ($1, 30, $2, $3, $4, null, $5, $5)", rows
        )
    return tmp_path


@pytest.fixture
def store(home: Path) -> ArtifactStore:
    store = ArtifactStore(str(home / "artifacts"))
    for turn, day in enumerate(DAYS):
        with store.write(
            "session_dataset", day.isoformat(), config={}, upstream={}, code_version="1"
        ) as draft:
            generator = np.random.default_rng(turn)
            sessions = [
                [f"i{3 * n + s % 3:03d}" for n in generator.permutation(16)[:4]] for s in range(60)
            ]
            write_sessions(draft.path, "train", sessions)
    return store
