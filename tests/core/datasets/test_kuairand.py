"""KuaiRand: the official files as CSV or Parquet, days by the log's own date."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from onerec.datasets.kuairand import LOG_COLUMNS, USER_ATTRIBUTES, open_source
from onerec.schema import EVENTS, ITEM_VECTORS, ITEMS, PRIOR_HISTORY

DAY = date(2022, 4, 25)
NOON = 1_650_859_200_000  # 2022-04-25 12:00 at UTC+8


def log_frame(rows: list[dict]) -> pd.DataFrame:
    default = dict.fromkeys((*LOG_COLUMNS, "duration_ms"), 0)
    default |= {"user_id": 1, "video_id": 10, "date": 20220425, "time_ms": NOON, "tab": 1}
    return pd.DataFrame([default | row for row in rows])


@pytest.fixture
def official(tmp_path: Path) -> Path:
    first = log_frame(
        [
            {"play_time_ms": 2500, "duration_ms": 8000, "is_forward": 1, "is_hate": 1},
            {"user_id": 2, "video_id": 11, "duration_ms": 20_000, "is_like": 1},
            # Written by the server after midnight, shown 10 and 5 minutes before it.
            {"date": 20220426, "time_ms": NOON + 42_600_000, "video_id": 11},
            {"date": 20220426, "time_ms": NOON + 42_900_000, "video_id": 12},
        ]
    )
    second = log_frame(
        [{"date": 20220427, "time_ms": NOON + 2 * 86_400_000, "duration_ms": 30_000}]
    )
    first.to_csv(tmp_path / "log_standard_4_25_to_4_26_pure.csv", index=False)
    second.to_parquet(tmp_path / "log_standard_4_27_to_4_27_pure.parquet", index=False)
    pd.DataFrame(
        {
            "video_id": [10, 11, 12, 13],
            "author_id": [7, 7, 8, 9],
            "upload_dt": ["2022-04-10", None, "2022-04-26", "2022-04-09"],
            "video_duration": [8000.0, None, None, None],
            "tag": ["3", "20,43", None, "1"],
        }
    ).to_csv(tmp_path / "video_features_basic_pure.csv", index=False)
    return tmp_path


def test_csv_and_parquet_parts_make_one_log(official: Path) -> None:
    source = open_source(data_dir=str(official))
    assert (source.first_day, source.last_day) == (DAY, date(2022, 4, 27))
    assert [len(source.events(DAY + timedelta(d))) for d in range(4)] == [2, 2, 1, 0]
    row = source.events(DAY).slice(0, 1).to_pylist()[0]
    assert (row["user_id"], row["item_id"], row["surface"]) == ("1", "10", "1")
    assert row["watch_seconds"] == 2.5
    assert row["is_share"] is True
    assert row["is_dislike"] is True
    assert row["is_like"] is False
    assert row["event_time"].isoformat() == "2022-04-25T12:00:00+00:00"
    assert set(source.events(DAY).column_names) < set(EVENTS.names)
    assert source.events(DAY + timedelta(3)).schema.names == source.events(DAY).schema.names


def test_the_last_minutes_of_the_day_before_move_into_the_day_in_order(official: Path) -> None:
    events = open_source(data_dir=str(official)).events(DAY + timedelta(1)).to_pandas()
    assert (events.event_time.dt.date == DAY + timedelta(1)).all()
    assert events.item_id.tolist() == ["11", "12"]
    assert events.event_time.is_monotonic_increasing
    assert events.event_time.max() < pd.Timestamp("2022-04-26 00:00:00.1", tz="UTC")


def test_items_fall_back_to_the_logged_duration_and_wait_for_their_upload(official: Path) -> None:
    source = open_source(data_dir=str(official))
    items = source.items(DAY).to_pandas().set_index("item_id")
    assert items.index.tolist() == ["10", "11", "13"]  # 12 is uploaded a day later
    assert items.duration_seconds["10"] == 8.0
    assert items.duration_seconds["11"] == 20.0
    assert np.isnan(items.duration_seconds["13"])
    assert items.category["11"] == "20,43"
    assert set(source.items(DAY + timedelta(1))["item_id"].to_pylist()) == {"10", "11", "12", "13"}
    assert source.items(DAY).column_names == ITEMS.names


def test_optional_files_may_be_absent(official: Path) -> None:
    source = open_source(data_dir=str(official))
    assert source.prior_history().schema.equals(PRIOR_HISTORY)
    assert source.prior_history().num_rows == 0
    assert source.item_vectors() is None


def test_of_two_copies_of_a_part_one_is_read(official: Path) -> None:
    csv = official / "log_standard_4_25_to_4_26_pure.csv"
    pd.read_csv(csv).to_parquet(csv.with_suffix(".parquet"))
    assert len(open_source(data_dir=str(official)).events(DAY)) == 2


def test_missing_things_are_named(official: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ValueError, match="set DATA_DIR"):
        open_source(data_dir=None)
    with pytest.raises(ValueError, match=r"no file log_standard_\*_pure.csv or"):
        open_source(data_dir=str(tmp_path_factory.mktemp("empty")))
    videos = official / "video_features_basic_pure.csv"
    pd.read_csv(videos).drop(columns="tag").to_csv(videos, index=False)
    with pytest.raises(ValueError, match=r"video_features_basic_pure.csv: no column 'tag'"):
        open_source(data_dir=str(official))
    videos.unlink()
    with pytest.raises(ValueError, match="no file video_features_basic_pure"):
        open_source(data_dir=str(official))


def test_damaged_files_are_named(official: Path) -> None:
    part = official / "log_standard_4_27_to_4_27_pure.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"4_27_pure.parquet: cannot be read as Parquet"):
        open_source(data_dir=str(official))
    part.unlink()
    np.savez(official / "twotower_item_embeddings.npz", item_ids=np.array([10]))
    with pytest.raises(ValueError, match="item_vectors"):
        open_source(data_dir=str(official)).item_vectors()


def test_a_url_of_any_file_system(official: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in official.iterdir():
        memory.pipe_file(f"/kuairand/{path.name}", path.read_bytes())
    source = open_source(data_dir="memory://kuairand")
    assert source.last_day == date(2022, 4, 27)
    assert source.events(DAY).equals(open_source(data_dir=str(official)).events(DAY))


def test_the_real_log(shared_data: Path) -> None:
    source = open_source(data_dir=str(shared_data / "kuairand_pure"))
    assert (source.first_day, source.last_day) == (DAY, date(2022, 5, 6))
    items = source.items(source.last_day)
    assert len(items) == 7_583
    days = [DAY + timedelta(d) for d in range(12)]
    tables = [source.events(d) for d in days]
    assert sum(len(t) for t in tables) == 193_964
    for day, table in zip(days, tables, strict=True):
        assert pc.unique(pc.cast(table["event_time"], pa.date32())).to_pylist() == [day]
        assert table["watch_seconds"].type == pa.float64()
    history = source.prior_history()
    assert len(history) == 817_187
    assert [f.type for f in history.schema] == [f.type for f in PRIOR_HISTORY]
    vectors = source.item_vectors()
    assert vectors is not None
    assert vectors.schema.equals(ITEM_VECTORS)
    assert len(vectors["vector"][0]) == 64
    users = source.user_attributes()
    assert users is not None
    assert len(users) == 27_285
    assert pc.count_distinct(users["onehot_feat3"]).as_py() == 1_471
    # Watched = at least 18 seconds or the whole video agrees with the log's own long_view.
    log = pd.read_parquet(
        shared_data / "kuairand_pure" / "log_standard_4_25_to_5_06_pure.parquet"
    ).query("date == 20220425")
    duration = items.to_pandas().set_index("item_id").duration_seconds
    events = tables[0].to_pandas()
    whole = duration.reindex(events.item_id).fillna(18.0).to_numpy()
    watched = events.watch_seconds.to_numpy() >= np.minimum(18.0, whole)
    assert (watched == (log.long_view.to_numpy() == 1)).mean() > 0.995


def test_attributes_of_users_do_not_tell_how_active_they_are(official: Path) -> None:
    assert open_source(data_dir=str(official)).user_attributes() is None
    values: dict[str, list] = {name: [7, 8] for name in USER_ATTRIBUTES}
    values |= {"register_days_range": ["730+", "31-60"], "onehot_feat4": [2.0, None]}
    file = official / "user_features_pure.csv"
    pd.DataFrame({"user_id": [1, 2], "follow_user_num": [514, 3], **values}).to_csv(file)
    found = open_source(data_dir=str(official)).user_attributes()
    assert found is not None
    assert found.column_names == ["user_id", *USER_ATTRIBUTES]
    assert not [name for name in found.column_names if "active" in name or "follow" in name]
    assert found["user_id"].to_pylist() == ["1", "2"]  # as in the events
    assert found["register_days_range"].to_pylist() == ["730+", "31-60"]
    assert found["onehot_feat4"].to_pylist() == ["2.0", None]
    pd.read_csv(file).drop(columns="onehot_feat3").to_csv(file)
    with pytest.raises(ValueError, match=r"user_features_pure.csv: no column 'onehot_feat3'"):
        open_source(data_dir=str(official)).user_attributes()
