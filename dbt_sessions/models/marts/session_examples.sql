{{ config(materialized="view") }}

with events as (

    select * from {{ ref("int_events_sessionized") }}

),

sessions as (

    select
        session_id,
        user_id,
        session_date,
        started_at,
        is_good
    from {{ ref("sessions") }}

),

exposures as (

    select
        session_id,
        session_date,
        list(item_id order by place) as item_ids,
        list(watch_seconds order by place) as watch_seconds,
        list(is_watched order by place) as is_watched,
        list(is_positive order by place) as is_positive,
        list(signals order by place) as signals,
        list(is_like order by place) as is_like,
        list(is_follow order by place) as is_follow,
        list(is_comment order by place) as is_comment,
        list(is_share order by place) as is_share,
        list(is_dislike order by place) as is_dislike,
        list(item_id order by place) filter (where is_first_watch) as watched_item_ids
    from events
    group by session_id, session_date

),

-- a user's positive items in order: the prior history has an order but no times, and comes first;
-- sessions of a user do not overlap, so that a session's place orders its items
positives as (

    select
        user_id,
        item_id,
        timestamp '1970-01-01 00:00:00' as started_at,
        position as place,
        delivered_row
    from {{ ref("stg_prior_history") }}
    where is_positive

    union all

    select
        user_id,
        item_id,
        started_at,
        place,
        0 as delivered_row
    from events
    where is_positive

),

numbered as (

    select
        user_id,
        started_at,
        row_number() over (partition by user_id order by started_at, place, delivered_row)
            as num_positives
    from positives

),

known_at as (

    select
        user_id,
        started_at,
        max(num_positives) as num_positives
    from numbered
    group by user_id, started_at

),

user_positives as (

    select
        user_id,
        list(item_id order by started_at, place, delivered_row) as item_ids
    from positives
    group by user_id

),

-- how many positives each session's user had strictly before it began
dated as (

    select
        sessions.*,
        coalesce(known_at.num_positives, 0) as num_positives
    from sessions
    asof left join known_at
        on
            sessions.user_id = known_at.user_id
            and sessions.started_at > known_at.started_at

)

select
    dated.session_id,
    dated.user_id,
    dated.session_date,
    dated.started_at,
    case
        when dated.num_positives = 0 then []
        else
            list_slice(
                user_positives.item_ids,
                greatest(dated.num_positives - {{ var("history_length") }} + 1, 1),
                dated.num_positives
            )
    end as history_item_ids,
    exposures.item_ids,
    exposures.watch_seconds,
    exposures.is_watched,
    exposures.is_positive,
    exposures.signals,
    exposures.is_like,
    exposures.is_follow,
    exposures.is_comment,
    exposures.is_share,
    exposures.is_dislike,
    coalesce(list_slice(exposures.watched_item_ids, 1, {{ var("session_items") }}), [])
        as target_item_ids,
    dated.is_good
from dated
inner join exposures
    on
        dated.session_id = exposures.session_id
        and dated.session_date = exposures.session_date
left join user_positives on dated.user_id = user_positives.user_id
