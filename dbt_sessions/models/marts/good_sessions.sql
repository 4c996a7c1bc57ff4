{{ config(materialized="incremental", day_column="session_date", partition_by="session_date") }}

select
    session_id,
    user_id,
    session_date,
    started_at,
    ended_at,
    num_exposures,
    num_watched_items,
    watch_seconds
from {{ ref("sessions") }}
where
    is_good
    and {{ in_days("session_date") }}
