"""MovieLens-100k as a nightly run of the experiment, from RecBole's files.

Most of its 943 users rate on a single day, so that a day tests two dozen of them. Here each user's
last five liked films are those of the test day and the five before them those of the validation
day, whatever their dates; a film is liked with 4 of 5 stars or more, as in `examples/ratings`.
"""

from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from onerec.schema import ITEMS, SESSION_DATASET
from onerec.session_dataset.writer import write_split

DAY = date(1998, 4, 23)
"""The test day: the day after the log's last one."""
LIKED, OF_A_DAY, OF_A_SESSION = 4, 5, 20
"""Stars of a liked film, liked films of the last two days, ratings of a session before them."""
SESSIONS = """
with ratings as (
  select "user_id:token" as user_id, "item_id:token" as item_id, "timestamp:float" as second,
    "rating:float" >= $liked as is_liked
  from read_csv($file, delim = '\t', header = true,
    types = {'user_id:token': 'VARCHAR', 'item_id:token': 'VARCHAR'})
),
numbered as (
  select *, row_number() over in_order as place,
    sum(is_liked::int) over (in_order rows between current row and unbounded following) as left_over
  from ratings
  window in_order as (partition by user_id order by second, item_id)
),
parts as (
  select *, case when left_over <= $of_a_day then 'test'
    when left_over <= 2 * $of_a_day then 'valid' else 'train' end as split,
    case when left_over > 2 * $of_a_day then place // $of_a_session else -1 end as number
  from numbered
),
sessions as (
  select user_id, split, number, min(place) as first, min(second) as second,
    list(item_id order by place) as item_ids, list(is_liked order by place) as is_watched,
    list(item_id order by place) filter (where is_liked) as liked
  from parts group by all
),
histories as (
  select s.user_id, s.split, s.number, list(p.item_id order by p.place) as items
  from sessions as s join parts as p
    on p.user_id = s.user_id and p.place < s.first and p.is_liked
  group by all
)
select s.*, coalesce(list_slice(h.items, -$history, -1), []) as history
from sessions as s left join histories as h using (user_id, split, number)
order by user_id, first
"""


def write_sessions(directory: Path, out_dir: Path, *, history_length: int, targets: int) -> None:
    """Write the three splits of a `session_dataset`.

    Args:
        directory: Has `ml-100k.inter`.
        out_dir: Gets the splits.
        history_length: H.
        targets: M, liked films of a session that are targets.
    """
    values = {
        "file": str(directory / "ml-100k.inter"),
        "liked": LIKED,
        "of_a_day": OF_A_DAY,
        "of_a_session": OF_A_SESSION,
        "history": history_length,
    }
    with duckdb.connect() as connection:
        read = connection.sql(SESSIONS, params=values).to_arrow_table()
    for split, back in (("train", 2), ("valid", 1), ("test", 0)):
        day = DAY - timedelta(days=back)
        rows = [_session(row, day, targets) for row in read.to_pylist() if row["split"] == split]
        write_split(pa.Table.from_pylist(rows, schema=SESSION_DATASET), split, out_dir)


def _session(row: dict, day: date, targets: int) -> dict:
    liked, size = row["liked"] or [], len(row["item_ids"])
    none = [False] * size
    flags = ("is_like", "is_follow", "is_comment", "is_share", "is_dislike")
    return {
        "session_id": f"{row['user_id']}|{row['split']}|{row['number']}",
        "user_id": row["user_id"],
        "session_date": day,
        "started_at": int(row["second"]) * 1_000_000,
        "history_item_ids": row["history"],
        "item_ids": row["item_ids"],
        "watch_seconds": [0.0] * size,
        "is_watched": row["is_watched"],
        "is_positive": row["is_watched"],
        "signals": [[False]] * size,
        **dict.fromkeys(flags, none),
        "target_item_ids": liked[:targets],
        "is_good": bool(liked),
        "split": row["split"],
    }


def read_items(directory: Path) -> pa.Table:
    """`schema.ITEMS` columns and `first_seen` of `ml-100k.item`; all films are there from the first
    day."""
    query = (
        'select "item_id:token" as item_id, "movie_title:token_seq" as title, '
        "\"class:token_seq\" as category from read_csv($file, delim = '\t', header = true, "
        "quote = '', types = {'item_id:token': 'VARCHAR'}) order by item_id"
    )
    with duckdb.connect() as connection:
        values = {"file": str(directory / "ml-100k.item")}
        read = connection.sql(query, params=values).to_arrow_table()
    others = {f.name: pa.nulls(len(read), f.type) for f in ITEMS if f.name not in read.schema.names}
    first_seen = pa.array([DAY - timedelta(days=200)] * len(read), pa.date32())
    columns = {name: read[name] for name in read.schema.names}
    return pa.table({**columns, **others, "first_seen": first_seen})
