{{ config(materialized="incremental", day_column="session_date", partition_by="session_date") }}

with events as (

    select * from {{ ref("int_events_sessionized") }}
    where {{ in_days("session_date") }}

),

counted as (

    select
        {{ session_id() }} as session_id,
        user_id,
        session_date,
        session_number,
        min(event_time) as started_at,
        max(event_time) as ended_at,
        count(*) as num_exposures,
        count(*) filter (where is_tied) as num_tied,
        bool_and(is_ordered) as is_ordered,
        count(*) filter (where is_first_watch) as num_watched_items,
        count(*) filter (where is_positive) as num_positives,
        -- decimals add up to the same sum in any order, doubles do not: a session at the threshold must
        -- not be good in one run and bad in the next
        coalesce(cast(sum(cast(watch_seconds as decimal(18, 6))) as double), 0) as watch_seconds,
        count(*) filter (where is_like) as num_likes,
        count(*) filter (where is_follow) as num_follows,
        count(*) filter (where is_comment) as num_comments,
        count(*) filter (where is_share) as num_shares,
        count(*) filter (where is_dislike) as num_dislikes
    from events
    group by user_id, session_date, session_number

),

classified as (

    select
        *,
        {{ good_session_criteria() }}
    from counted

)

select
    *,
    {{ is_good_session() }} as is_good
from classified
