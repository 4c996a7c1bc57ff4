"""The warehouse's sessions with their lists, in the order of the session dataset, as a stream.

The rows are those of the view `session_examples`, which a cluster writes from and people query. As
lists it would aggregate every event of the window in memory; here DuckDB sorts flat rows, spilled
to disk where they are many, and `onerec.session_dataset.list_columns` cuts them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa

from onerec.session_dataset.list_columns import EXPOSURE_LISTS, with_exposures, with_histories

_BATCH_ROWS = 200_000

# the prior history has an order but no times, and comes first; sessions of a user do not overlap,
# so that a session's place orders its items. Few columns: DuckDB 2.0 does not spill this sort with
# the columns of sessions in it
_MOMENTS = """
    select user_id, id, is_item
    from (
        select
            user_id, item_id as id, timestamp '1970-01-01 00:00:00' as started_at,
            position as place, delivered_row, true as is_item
        from stg_prior_history
        where is_positive
        union all
        select user_id, item_id, started_at, place, 0, true
        from int_events_sessionized
        where is_positive and session_date <= $last
        union all
        select user_id, session_id, started_at, 0, 0, false
        from sessions
        where session_date between $first and $last
    )
    order by user_id, started_at, is_item, place, delivered_row
"""
# numbers in the order of the session dataset: sorting by them costs less than by times and ids
_NUMBERED = """(
    select *, row_number() over (order by started_at, session_id) as session_row
    from sessions
    where session_date between $first and $last
)"""
_SESSIONS = f"""
    select
        session_row, session_id, user_id, session_date, started_at, is_good, num_exposures,
        history_item_ids
    from {_NUMBERED} join session_histories using (session_id)
    order by session_row
"""
# events of no session would come last, and stop the writer
_EXPOSURES = f"""
    select session_row, is_first_watch, {", ".join(f"events.{c}" for c in EXPOSURE_LISTS.values())}
    from int_events_sessionized as events
    left join {_NUMBERED} using (user_id, session_date, session_number)
    where session_date between $first and $last
    order by session_row nulls last, place
"""


@dataclass(frozen=True)
class ListLengths:
    """How many items lists of a session keep.

    Attributes:
        history: The last positive items before a session.
        targets: The first watched items of it.
    """

    history: int
    targets: int


def stream_sessions(
    connection: duckdb.DuckDBPyConnection, first: date, last: date, lengths: ListLengths
) -> Iterator[pa.RecordBatch]:
    """Sessions of some days: `schema.SESSION_DATASET` without `split`, by (started_at, session_id).

    Args:
        connection: Of the warehouse; read only is enough. Gets a temporary table.
        first: First day.
        last: Last day.
        lengths: Of histories and targets.

    Raises:
        ValueError: The tables do not belong together; see `with_exposures`.
    """
    days = {"first": first, "last": last}
    with connection.cursor() as beside:
        moments = beside.sql(_MOMENTS, params=days).to_arrow_reader(_BATCH_ROWS)
        connection.execute(
            "create or replace temporary table session_histories "
            "(session_id varchar, history_item_ids varchar[])"
        )
        for batch in with_histories(moments, lengths.history):
            connection.register("session_batch", pa.Table.from_batches([batch]))
            connection.execute("insert into session_histories by name from session_batch")
        exposures = beside.sql(_EXPOSURES, params=days).to_arrow_reader(_BATCH_ROWS)
        sessions = connection.sql(_SESSIONS, params=days).to_arrow_reader(_BATCH_ROWS // 8)
        yield from with_exposures(sessions, exposures, lengths.targets)
