"""MovieLens files as days: each user's last liked films against a count by hand."""

from pathlib import Path

import numpy as np
import pytest

from experiments.cold_items import movielens
from onerec.session_dataset.reader import read_sessions


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("ml"), np.random.default_rng(0)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user, size in enumerate((60, 25, 7, 3)):
        films = rng.permutation(80)[:size]
        seconds = 880_000_000 + rng.permutation(10_000)[:size]
        stars = rng.integers(1, 6, size)
        lines += [
            f"{user}\t{film}\t{star}\t{second}"
            for film, star, second in zip(films, stars, seconds, strict=True)
        ]
    (path / "ml-100k.inter").write_text("\n".join(lines) + "\n")
    items = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    items += [f'{n}\tThe "Film" {n}\t1995\tDrama War' for n in range(80)]
    (path / "ml-100k.item").write_text("\n".join(items) + "\n")
    return path


def test_the_last_liked_films_are_the_test_day(directory: Path, tmp_path: Path):
    movielens.write_sessions(directory, tmp_path, history_length=4, targets=3)
    liked: dict[str, list[str]] = {}
    rows = [
        line.split("\t") for line in (directory / "ml-100k.inter").read_text().split("\n")[1:-1]
    ]
    for user, film, star, _ in sorted(rows, key=lambda row: (row[0], float(row[3]))):
        if float(star) >= 4:
            liked.setdefault(user, []).append(film)
    columns = [
        "user_id",
        "history_item_ids",
        "item_ids",
        "is_watched",
        "target_item_ids",
        "is_good",
    ]
    found = {}
    for split in ("train", "valid", "test"):
        sessions = read_sessions(tmp_path, [split], columns, in_time_order=True).to_pylist()
        for row in sessions:
            flags = zip(row["item_ids"], row["is_watched"], strict=True)
            watched = [film for film, flag in flags if flag]
            assert row["target_item_ids"] == watched[:3]
            assert row["is_good"] == bool(watched)
            user = row["user_id"]
            before = found.get((user, "train"), []) + found.get((user, "valid"), [])
            assert row["history_item_ids"] == before[-4:]
            found.setdefault((user, split), []).extend(watched)
    for user, films in liked.items():
        assert found.get((user, "test"), []) == films[-5:]
        assert found.get((user, "valid"), []) == films[-10:-5]
        assert found.get((user, "train"), []) == films[:-10]


def test_films_keep_their_titles_and_genres(directory: Path):
    items = movielens.read_items(directory)
    assert len(items) == 80
    assert items.slice(0, 1).select(["item_id", "title", "category"]).to_pylist() == [
        {"item_id": "0", "title": 'The "Film" 0', "category": "Drama War"}
    ]
