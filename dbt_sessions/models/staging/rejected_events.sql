{{
    config(materialized="incremental", incremental_strategy="replace_days", day_column="delivered_on")
}}

select
    delivered_on,
    broken_rule as reason,
    event_id,
    user_id,
    item_id,
    event_time_text as event_time,
    watch_seconds_text as watch_seconds,
    is_like_text as is_like,
    is_follow_text as is_follow,
    is_comment_text as is_comment,
    is_share_text as is_share,
    is_dislike_text as is_dislike,
    surface
from {{ ref("base_events") }}
where
    broken_rule is not null
    and {{ in_days("delivered_on") }}
