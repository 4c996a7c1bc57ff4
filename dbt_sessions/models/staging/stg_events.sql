{{ config(materialized="view") }}

select
    event_id,
    user_id,
    item_id,
    event_time,
    event_date,
    delivered_on,
    delivered_row,
    watch_seconds,
    event_type,
    rating,
    quantity,
    is_like,
    is_follow,
    is_comment,
    is_share,
    is_dislike,
    surface
from {{ ref("base_events") }}
where broken_rule is null
