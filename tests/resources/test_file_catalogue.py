"""One's own files beside the events: catalogue, features, item vectors, prior history."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.embeddings.text import attributes_of
from onerec.schema import FEATURE_SEPARATOR
from tests.resources.own_files import (
    DAY,
    DAY_MS,
    NEXT,
    NOON,
    NOON_MS,
    events_frame,
    kept_text,
    opened,
    section,
)


@pytest.mark.parametrize("kind", ["csv", "parquet", "nan"])
def test_ids_that_a_gap_made_floats_are_the_catalogue_s(tmp_path: Path, kind: str) -> None:
    frame = events_frame([NOON_MS] * 3, vid=[17.0, None, 18.0])
    if kind == "csv":
        frame.to_csv(tmp_path / "log.csv", index=False)
    elif kind == "parquet":
        frame.to_parquet(tmp_path / "log.parquet")
    else:
        table = pa.Table.from_pandas(frame)
        at = table.schema.get_field_index("vid")
        table = table.set_column(at, "vid", pa.array(frame.vid.to_numpy()))
        pq.write_table(table, tmp_path / "log.parquet")
    pd.DataFrame({"item_id": [17, 18]}).to_csv(tmp_path / "items.csv", index=False)
    pd.DataFrame({"item_id": [17.0, 18.0], "vector": [[1.0], [2.0]]}).to_parquet(
        tmp_path / "vectors.parquet"
    )
    source = opened(
        tmp_path,
        events=section("log.*"),
        items={"path": "items.csv"},
        item_vectors={"path": "vectors.parquet"},
    )
    assert source.events(DAY)["item_id"].to_pylist() == ["17", None, "18"]
    assert source.items(DAY)["item_id"].to_pylist() == ["17", "18"]
    vectors = source.item_vectors()
    assert vectors is not None
    assert vectors["item_id"].to_pylist() == ["17", "18"]


def test_catalogue_history_and_vectors(tmp_path: Path) -> None:
    events_frame([NOON_MS, NOON_MS + DAY_MS]).to_parquet(tmp_path / "log.parquet")
    pd.DataFrame(
        {
            "item_id": [1, 2, 3, 4],
            "caption": ["a", None, "c", "d"],
            "len_ms": [1000, 2000, None, 4000],
            "published_at": ["2026-03-01", "2026-03-03T01:00:00", None, "never"],
        }
    ).to_csv(tmp_path / "items.csv", index=False)
    pd.DataFrame({"user_id": ["0", "0"], "item_id": ["1", "2"], "good": [1, 0]}).to_csv(
        tmp_path / "history.csv", index=False
    )
    pd.DataFrame({"item_id": [1, 2], "vector": [[1.0, 2.0], [3.0, 4.0]]}).to_parquet(
        tmp_path / "vectors.parquet"
    )
    source = opened(
        tmp_path,
        events=section("log.parquet"),
        items={
            "path": "items.csv",
            "columns": {
                "title": "caption",
                "duration_seconds": {"column": "len_ms", "scale": 0.001},
            },
        },
        prior_history={"path": "history.csv", "columns": {"is_positive": "good"}},
        item_vectors={"path": "vectors.parquet"},
        stages={"sessions": {"session_mode": "user_day"}},
    )
    items = source.items(DAY)
    assert items["item_id"].to_pylist() == ["1", "3", "4"]
    assert items["duration_seconds"].to_pylist() == [1.0, None, 4.0]
    assert kept_text(items) == [{}, {}, {"published_at": "never"}]
    assert len(source.items(NEXT)) == 4
    history = source.prior_history().select(["user_id", "position", "item_id", "is_positive"])
    assert history.to_pylist() == [
        {"user_id": "0", "position": 0, "item_id": "1", "is_positive": True},
        {"user_id": "0", "position": 1, "item_id": "2", "is_positive": False},
    ]
    vectors = source.item_vectors()
    assert vectors is not None
    assert vectors.to_pylist()[1] == {"item_id": "2", "vector": [3.0, 4.0]}


def test_vectors_of_numpy_and_vectors_that_are_none(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_parquet(tmp_path / "log.parquet")
    np.savez(tmp_path / "v.npz", item_ids=np.array([5.0]), item_vectors=np.ones((1, 3)))
    source = opened(tmp_path, events=section("log.parquet"), item_vectors={"path": "v.npz"})
    supplied = source.item_vectors()
    assert supplied is not None
    assert supplied.to_pylist() == [{"item_id": "5", "vector": [1.0, 1.0, 1.0]}]
    assert source.items(DAY)["item_id"].to_pylist() == ["100"]
    pd.DataFrame({"item_id": [1], "vector": ["a lot"]}).to_parquet(tmp_path / "v.parquet")
    source = opened(tmp_path, events=section("log.parquet"), item_vectors={"path": "v.parquet"})
    with pytest.raises(ValueError, match=r"v\.parquet: column 'vector' holds no lists of numbers"):
        source.item_vectors()


def test_a_catalogue_per_day_is_the_newest_by_then(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_parquet(tmp_path / "log.parquet")
    for day, ids in (("2026-03-02", ["1"]), ("2026-03-04", ["1", "2"])):
        pd.DataFrame({"item_id": ids}).to_csv(tmp_path / f"items_{day}.csv", index=False)
    source = opened(tmp_path, events=section("log.parquet"), items={"path": "items_{date}.csv"})
    counts = [len(source.items(date(2026, 3, d))) for d in (1, 2, 3, 4)]
    assert counts == [0, 1, 1, 2]


def test_items_of_the_log_are_known_from_their_first_day(tmp_path: Path) -> None:
    times = [NOON, NOON + timedelta(days=1), NOON + timedelta(days=1)]
    events_frame(times, vid=[1.0, 2.0, None]).to_parquet(tmp_path / "log.parquet")
    source = opened(tmp_path, events=section("log.parquet"))
    assert source.items(DAY)["item_id"].to_pylist() == ["1"]
    assert source.items(NEXT)["item_id"].to_pylist() == ["1", "2"]


def test_titles_in_any_bytes_and_any_length(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_parquet(tmp_path / "log.parquet")
    rows = b'item_id,title\n1,caf\xe9\n2,"two\nlines"\n3,' + b"x" * 2_000_000 + b"\n"
    (tmp_path / "items.csv").write_bytes(rows)
    items = opened(tmp_path, events=section("log.parquet"), items={"path": "items.csv"})
    titles = items.items(DAY)["title"].to_pylist()
    assert titles[:2] == ["caf\ufffd", "two\nlines"]
    assert len(titles[2]) == 2_000_000
    latin = {"path": "items.csv", "encoding": "latin-1"}
    named = opened(tmp_path, events=section("log.parquet"), items=latin).items(DAY)
    assert named["title"][0].as_py() == "caf\u00e9"


def test_items_that_the_catalogue_does_not_list_are_rejected_or_known(tmp_path: Path) -> None:
    """A catalogue lists 100 and, from the next day on, 101; the log shows 100, 101 and 102."""
    events_frame([NOON_MS] * 3).to_csv(tmp_path / "log.csv", index=False)
    pd.DataFrame({"item_id": [100, 101], "title": ["a", "b"], "published_at": [DAY, NEXT]}).to_csv(
        tmp_path / "items.csv", index=False
    )
    files = {"events": section("log.csv")}
    strict = opened(tmp_path, **files, items={"path": "items.csv"})
    assert strict.items(DAY)["item_id"].to_pylist() == ["100"]
    added = opened(tmp_path, **files, items={"path": "items.csv", "unknown_items": "add"})
    found = added.items(DAY)
    assert found["item_id"].to_pylist() == ["100", "102"]
    assert found["title"].to_pylist() == ["a", None]
    assert len(set(found["delivered_row"].to_pylist())) == 2
    assert sorted(added.items(NEXT)["item_id"].to_pylist()) == ["100", "101", "102"]


def test_features_of_any_type_become_categories(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_csv(tmp_path / "log.csv", index=False)
    frame = pd.DataFrame(
        {
            "item_id": [1, 2, 3],
            "Brand": ["Acme", None, " "],
            "Price EUR": [9.99, 10.5, None],
            "level 2": [7, 7, 8],
        }
    )
    features = {
        "brand": "Brand",
        "price": {"column": "Price EUR", "numeric": True},
        "department": "level 2",
    }
    for path in (tmp_path / "items.csv", tmp_path / "items.parquet"):
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        items = {"path": path.name, "features": features}
        found = opened(tmp_path, events=section("log.csv"), items=items).items(DAY)
        # two buckets for every doubling: 8 to 11.3 is the sixth
        assert [text.split(FEATURE_SEPARATOR) for text in found["features"].to_pylist()] == [
            ["brand=Acme", "department=7", "price=6"],
            ["department=7", "price=6"],
            ["department=8"],
        ]
    tokens, has_any = attributes_of(found)
    assert tokens.to_pylist()[1] == ["department=7", "price=6"]
    assert has_any.all()
    wrong = {"path": "items.csv", "features": {"brand": "Marke"}}
    with pytest.raises(ValueError, match=r"no column 'Marke'.*Set items\.features\.brand"):
        opened(tmp_path, events=section("log.csv"), items=wrong)
    bad = {"path": "items.csv", "features": {"it's": "Brand"}}
    with pytest.raises(ValueError, match=r"items\.features.*pattern"):
        opened(tmp_path, events=section("log.csv"), items=bad)


def test_a_feature_that_is_no_finite_number_is_unknown(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_csv(tmp_path / "log.csv", index=False)
    frame = pd.DataFrame({"item_id": [1, 2, 3], "price": [float("inf"), float("nan"), 9.0]})
    pq.write_table(pa.table({n: frame[n].to_numpy() for n in frame}), tmp_path / "items.parquet")
    features = {"price": {"column": "price", "numeric": True}, "shelf": "price"}
    items = {"path": "items.parquet", "features": features}
    found = opened(tmp_path, events=section("log.csv"), items=items).items(DAY)["features"]
    assert [None if t is None else t.split(FEATURE_SEPARATOR) for t in found.to_pylist()] == [
        ["shelf=inf"],
        None,
        ["price=6", "shelf=9.0"],
    ]


def test_items_of_a_log_whose_file_of_one_day_is_damaged(tmp_path: Path) -> None:
    for number, day in enumerate((DAY, NEXT)):
        events_frame([NOON_MS + number * DAY_MS] * 20).to_csv(tmp_path / f"{day}.csv.gz")
    whole = (tmp_path / f"{DAY}.csv.gz").read_bytes()
    (tmp_path / f"{DAY}.csv.gz").write_bytes(whole[:-30])
    source = opened(tmp_path, events=section("{date}.csv.gz"))
    assert source.items(NEXT)["item_id"].to_pylist() == [str(n) for n in range(100, 120)]
    with pytest.raises(ValueError, match=f"{DAY}.csv.gz: cannot be read as CSV"):
        source.events(DAY)


def test_a_damaged_catalogue_of_an_earlier_day_is_passed_over(tmp_path: Path) -> None:
    last = NEXT + timedelta(days=1)
    times = [NOON_MS + n * DAY_MS for n in range(3)]
    events_frame(times).to_parquet(tmp_path / "log.parquet")
    for day, number in ((DAY, 4), (NEXT, 5)):
        frame = pd.DataFrame({"item_id": [f"i{k}" for k in range(number)]})
        frame.to_parquet(tmp_path / f"items-{day}.parquet")
    items = {"path": "items-{date}.parquet"}
    assert len(opened(tmp_path, events=section("log.parquet"), items=items).items(last)) == 5
    damaged = tmp_path / f"items-{NEXT}.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    source = opened(tmp_path, events=section("log.parquet"), items=items)
    assert len(source.items(last)) == len(source.items(DAY)) == 4
    with pytest.raises(ValueError, match=f"items-{NEXT}.parquet: cannot be read as Parquet"):
        source.items(NEXT)
