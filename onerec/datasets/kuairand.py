"""KuaiRand-Pure (Gao et al., CIKM 2022): a real short-video log, in its official files.

Log parts `log_standard_*_pure.csv` or `.parquet`, any mix; `video_features_basic_pure.csv`;
optionally `history_to_4_24_pure.parquet` (what was watched before, an order without times),
`twotower_item_embeddings.npz` and `user_features_pure.csv`. Videos have no text.

Days are the log's own `date` column: the app's local day, UTC+8. `event_time` is the local wall
clock labelled UTC, so that the partition day equals `date`. `date` is when the server wrote the
line, up to two hours after `time_ms`: for the 0.9 % of exposures just before midnight that are
dated a day later, the time is moved to the first tenth of a second of their date, in order.
A duration of 0 ms means that it is not known.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.config import SettingError, require
from onerec.datasets.data_file import DataFile
from onerec.datasets.file_problems import shown
from onerec.datasets.file_search import find
from onerec.schema import ITEM_VECTORS, ITEMS, PRIOR_HISTORY, UTC_MICROSECONDS

LOG = "log_standard_*_pure"
VIDEOS = "video_features_basic_pure"
HISTORY = "history_to_4_24_pure"
VECTORS = "twotower_item_embeddings.npz"
USERS = "user_features_pure"
UTC_OFFSET = timedelta(hours=8)

FLAGS = {
    "is_like": "is_like",
    "is_follow": "is_follow",
    "is_comment": "is_comment",
    "is_share": "is_forward",
    "is_dislike": "is_hate",
}
LOG_COLUMNS = ("user_id", "video_id", "date", "time_ms", "play_time_ms", *FLAGS.values(), "tab")
VIDEO_COLUMNS = ("video_id", "author_id", "upload_dt", "video_duration", "tag")
USER_ATTRIBUTES = (
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
"""The user features that do not tell how active a user is. The file is one snapshot of unknown
date: activity, followers and authorship may have been counted after the days that are tested."""
REMEDY = "Use the official files of KuaiRand-Pure (https://kuairand.com)."
DAY_US = 86_400_000_000


def open_source(*, data_dir: str | None, config: Path | None = None) -> "KuaiRandSource":
    """KuaiRand-Pure in a directory or under an fsspec URL.

    Raises:
        ValueError: The directory is not given, or a required file or column is missing.
    """
    require(
        data_dir is not None,
        "data_dir",
        data_dir,
        "set DATA_DIR to the directory with KuaiRand's files",
    )
    source = KuaiRandSource(str(data_dir).rstrip("/"))
    for part in source.log_parts:
        part.require_columns((*LOG_COLUMNS, "duration_ms"), REMEDY)
    source.videos.require_columns(VIDEO_COLUMNS, REMEDY)
    return source


@dataclass(frozen=True)
class KuaiRandSource:
    """An `EventSource` over KuaiRand-Pure."""

    data_dir: str

    @cached_property
    def log_parts(self) -> list[DataFile]:
        """The log's parts."""
        return self._find(LOG)

    @cached_property
    def videos(self) -> DataFile:
        """The video features."""
        return self._find(VIDEOS)[0]

    @cached_property
    def _range(self) -> tuple[date, date]:
        bounds: list[int] = []
        for part in self.log_parts:
            with _named(part):
                found = pc.min_max(_whole(part.table(["date"])["date"]))
            bounds += [d.as_py() for d in found.values() if d.is_valid]
        require(bool(bounds), "data_dir", self.data_dir, "the log has no rows")
        first, last = (
            datetime.strptime(str(d), "%Y%m%d").date() for d in (min(bounds), max(bounds))
        )
        return first, last

    @property
    def first_day(self) -> date:
        """First `date` of the log."""
        return self._range[0]

    @property
    def last_day(self) -> date:
        """Last `date` of the log."""
        return self._range[1]

    @property
    def delivers_full_catalogue(self) -> bool:
        """Every day names all items."""
        return True

    def has_arrived(self, day: date) -> bool:
        """The log is complete."""
        return day <= self.last_day

    def events(self, day: date) -> pa.Table:
        """Exposures whose `date` is the day."""
        parts = []
        for part in self.log_parts:
            with _named(part):
                table = part.table(LOG_COLUMNS)
                today = pc.equal(_whole(table["date"]), int(f"{day:%Y%m%d}"))
                parts.append(_events(table.filter(today), day))
        return pa.concat_tables(parts)

    def items(self, day: date) -> pa.Table:
        """Videos uploaded by the end of a day, and those without a known upload day.

        Durations that the features lack are the median of the log's, up to the day.
        """
        table = self.videos.table(VIDEO_COLUMNS)
        with _named(self.videos):
            naive = pc.cast(table["upload_dt"], pa.timestamp("us"))
            times = pc.cast(naive, UTC_MICROSECONDS)
            end = _microseconds(day) + DAY_US
            known = pc.fill_null(pc.less(pc.cast(times, pa.int64()), end), True)
            table, times = table.filter(known), times.filter(known)
            item_id = _id(table["video_id"])
            duration = _seconds(table["video_duration"])
            logged = self._logged_durations(day)
            at = pc.index_in(item_id, value_set=logged["video_id"].combine_chunks())
            duration = pc.coalesce(duration, logged["seconds"].combine_chunks().take(at))
            columns = {
                "item_id": item_id,
                "duration_seconds": duration,
                "title": pa.nulls(len(table), pa.string()),
                "category": pc.cast(table["tag"], pa.string()),
                "author_id": _id(table["author_id"]),
                "published_at": times,
                "features": pa.nulls(len(table), pa.string()),
            }
        return pa.table(columns).select(ITEMS.names)

    def prior_history(self) -> pa.Table:
        """Exposures before the log begins; empty where the file is absent."""
        found = self._find(HISTORY, required=False)
        if not found:
            return PRIOR_HISTORY.empty_table()
        needed = ("user_id", "pos", "video_id", "long_view_label", "like_label")
        found[0].require_columns(needed, REMEDY)
        table = found[0].table(needed)
        with _named(found[0]):
            columns = {
                "user_id": _id(table["user_id"]),
                "position": _whole(table["pos"]),
                "item_id": _id(table["video_id"]),
                "is_positive": pc.or_kleene(
                    _flag(table["long_view_label"]), _flag(table["like_label"])
                ),
            }
        return pa.table(columns)

    def item_vectors(self) -> pa.Table | None:
        """The two-tower vectors, where the file is present."""
        return read_npz_vectors(f"{self.data_dir}/{VECTORS}")

    def user_attributes(self) -> pa.Table | None:
        """The categories of the user features, where the file is present; a snapshot without a
        date."""
        found = self._find(USERS, required=False)
        if not found:
            return None
        found[0].require_columns(("user_id", *USER_ATTRIBUTES), REMEDY)
        table = found[0].table(("user_id", *USER_ATTRIBUTES))
        with _named(found[0]):
            user_id = _id(table["user_id"])
        texts = {name: pc.cast(table[name], pa.string()) for name in USER_ATTRIBUTES}
        return pa.table({"user_id": user_id, **texts})

    def _logged_durations(self, day: date) -> pa.Table:
        parts = []
        for part in self.log_parts:
            table = part.table(("video_id", "date", "duration_ms"))
            with _named(part):
                known = pc.less_equal(_whole(table["date"]), int(f"{day:%Y%m%d}"))
                columns = {
                    "video_id": _id(table["video_id"]),
                    "seconds": _seconds(table["duration_ms"]),
                }
                parts.append(pa.table(columns).filter(known))
        rows = pa.concat_tables(parts)
        median = rows.group_by("video_id", use_threads=False).aggregate(
            [("seconds", "approximate_median")]
        )
        return median.rename_columns(["video_id", "seconds"])

    def _find(self, stem: str, *, required: bool = True) -> list[DataFile]:
        found: dict[str, DataFile] = {}
        for ending in ("csv", "csv.gz", "parquet"):  # of two copies of a part, Parquet is read
            for part in find(f"{self.data_dir}/{stem}.{ending}").files:
                found[PurePosixPath(part.path).name.split(".")[0]] = part
        if required and not found:
            remedy = f"no file {stem}.csv or {stem}.parquet in it. {REMEDY}"
            raise SettingError("data_dir", self.data_dir, remedy)
        return [found[name] for name in sorted(found)]


def read_npz_vectors(url: str) -> pa.Table | None:
    """A `.npz` file with `item_ids` (N,) and `item_vectors` (N, D) as `schema.ITEM_VECTORS`.

    Returns:
        The table, or None where there is no such file.

    Raises:
        ValueError: The file is damaged or lacks an array; pickled contents are refused.
    """
    filesystem, path = fsspec.core.url_to_fs(url)
    if not filesystem.exists(path):
        return None
    try:
        with np.load(io.BytesIO(filesystem.cat_file(path)), allow_pickle=False) as arrays:
            item_ids, vectors = arrays["item_ids"], np.asarray(arrays["item_vectors"], np.float32)
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise ValueError(
            f"{url}: cannot be read ({error}); write it with "
            "numpy.savez(path, item_ids=..., item_vectors=...) from plain arrays"
        ) from error
    if vectors.ndim != 2 or len(vectors) != len(item_ids):
        raise ValueError(
            f"{url}: item_vectors has shape {vectors.shape} for {len(item_ids)} item_ids; "
            "one row per item is needed"
        )
    offsets = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * np.int32(vectors.shape[1]))
    lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))
    return pa.table([pa.array(item_ids.astype(str)), lists], schema=ITEM_VECTORS)


@contextmanager
def _named(file: DataFile) -> Iterator[None]:
    """Values that are no numbers are not KuaiRand's: the message names the file."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file.path}: {shown(error)}. {REMEDY}") from error


def _events(table: pa.Table, day: date) -> pa.Table:
    columns = {
        "user_id": _id(table["user_id"]),
        "item_id": _id(table["video_id"]),
        "event_time": _local_times(table["time_ms"], day),
        "watch_seconds": pc.multiply(pc.cast(table["play_time_ms"], pa.float64()), 0.001),
        **{ours: _flag(table[theirs]) for ours, theirs in FLAGS.items()},
        "surface": _id(table["tab"]),
    }
    return pa.table(columns)


def _local_times(time_ms: pa.ChunkedArray, day: date) -> pa.ChunkedArray:
    """Local wall clock labelled UTC; the last minutes of the day before move into the day."""
    times = pc.multiply(_whole(time_ms), 1_000)
    local = pc.add(times, UTC_OFFSET // timedelta(microseconds=1))
    midnight = _microseconds(day)
    lag = pc.subtract(midnight, local)
    late = pc.and_(pc.greater(lag, 0), pc.less(lag, DAY_US))
    squeezed = pc.subtract(midnight + 86_400, pc.divide(lag, 1_000_000))
    return pc.cast(pc.if_else(late, squeezed, local), UTC_MICROSECONDS)


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.int64())


def _id(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(_whole(column), pa.string())


def _flag(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(_whole(column), 1)


def _seconds(milliseconds: pa.ChunkedArray) -> pa.ChunkedArray:
    """Durations; 0 means that it is not known."""
    seconds = pc.multiply(pc.cast(milliseconds, pa.float64()), 0.001)
    return pc.if_else(pc.greater(seconds, 0.0), seconds, None)


def _microseconds(day: date) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return (midnight - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
