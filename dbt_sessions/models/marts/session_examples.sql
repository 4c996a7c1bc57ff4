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
        {{ session_id() }} as session_id,
        session_date,
        {{ ordered_list("item_id", ["place"]) }} as item_ids,
        {{ ordered_list("watch_seconds", ["place"]) }} as watch_seconds,
        {{ ordered_list("is_watched", ["place"]) }} as is_watched,
        {{ ordered_list("is_positive", ["place"]) }} as is_positive,
        {{ ordered_list("signals", ["place"]) }} as signals,
        {{ ordered_list("is_like", ["place"]) }} as is_like,
        {{ ordered_list("is_follow", ["place"]) }} as is_follow,
        {{ ordered_list("is_comment", ["place"]) }} as is_comment,
        {{ ordered_list("is_share", ["place"]) }} as is_share,
        {{ ordered_list("is_dislike", ["place"]) }} as is_dislike,
        {{ ordered_list("item_id", ["place"], "is_first_watch") }} as watched_item_ids
    from events
    group by user_id, session_date, session_number

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

user_positives as (

    select
        user_id,
        {{ ordered_list("item_id", ["started_at", "place", "delivered_row"]) }} as item_ids
    from positives
    group by user_id

),

-- how many positives each session's user had strictly before it began: a running count over both,
-- less those of the same moment
moments as (

    select
        user_id,
        started_at,
        1 as num_items,
        {{ text_of("null") }} as session_id,
        cast(null as date) as session_date,
        false as is_good
    from positives

    union all

    select
        user_id,
        started_at,
        0 as num_items,
        session_id,
        session_date,
        is_good
    from sessions

),

counted as (

    select
        *,
        cast(
            sum(num_items) over (partition by user_id order by started_at)
            - sum(num_items) over (partition by user_id, started_at) as bigint
        ) as num_positives
    from moments

),

dated as (

    select * from counted
    where session_id is not null

)

select
    dated.session_id,
    dated.user_id,
    dated.session_date,
    dated.started_at,
    case
        when dated.num_positives = 0 then {{ list_of([]) }}
        else
            {{
                list_part(
                    "user_positives.item_ids",
                    "greatest(dated.num_positives - " ~ var("history_length") ~ " + 1, 1)",
                    "dated.num_positives",
                )
            }}
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
    coalesce({{ list_part("exposures.watched_item_ids", 1, var("session_items")) }}, {{ list_of([]) }})
        as target_item_ids,
    dated.is_good
from dated
inner join exposures
    on
        dated.session_id = exposures.session_id
        and dated.session_date = exposures.session_date
left join user_positives on dated.user_id = user_positives.user_id
