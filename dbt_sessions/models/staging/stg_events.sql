{{ config(materialized="incremental", incremental_strategy="replace_days", day_column="event_date") }}

select
    event_id,
    user_id,
    item_id,
    event_time,
    delivered_on as event_date,
    watch_seconds,
    is_like,
    is_follow,
    is_comment,
    is_share,
    is_dislike,
    surface
from {{ ref("base_events") }}
where
    broken_rule is null
    and {{ in_days("delivered_on") }}
