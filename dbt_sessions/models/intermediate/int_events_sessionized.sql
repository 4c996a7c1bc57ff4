{{ config(materialized="incremental", day_column="session_date", partition_by="session_date") }}

{%- set conditions = [] -%}
{%- for signal in var("signals") -%}
    {%- do conditions.append(holds(signal)) -%}
{%- endfor %}

with events as (

    select * from {{ ref("stg_events") }}
    where
        {{ in_days("event_date") }}
        {%- if var("user_sample") | float < 1 %}
            -- some users with all that they did: the same in every run
            and left(md5(user_id), 4) < '{{ "%04x" | format((var("user_sample") | float * 65536) | int) }}'
        {%- endif %}

),

item_versions as (

    select
        item_id,
        valid_from,
        lead(valid_from) over (partition by item_id order by valid_from) as valid_until,
        duration_seconds
    from {{ ref("stg_items") }}

),

-- the item as it looked on the day it was shown
with_duration as (

    select
        events.*,
        item_versions.duration_seconds
    from events
    left join item_versions
        on
            events.item_id = item_versions.item_id
            and events.event_date >= item_versions.valid_from
            and (
                item_versions.valid_until is null
                or events.event_date < item_versions.valid_until
            )

),

classified as (

    select
        *,
        {{ holds(var("watched")) }} as is_watched
    from with_duration
    where {{ holds(var("exposure")) }}

),

-- the delivered order settles ties in time; a user's day is numbered by itself, so a session never
-- crosses midnight and each day is complete alone
ordered as (

    select
        *,
        {{ holds(var("positive")) }} and not {{ holds(var("negative")) }} as is_positive,
        {{ list_of(conditions) }} as signals,
        lag(event_time) over (
            partition by user_id, event_date order by event_time, delivered_on, delivered_row
        ) as previous_time,
        count(*) over (partition by user_id, event_date, event_time) > 1 as is_tied
    from classified

),

opened as (

    select
        *,
        case
            when previous_time is null then 1
            {% if var("session_mode") == "gap" -%}
                when
                    {{ microseconds_of("event_time") }} - {{ microseconds_of("previous_time") }}
                    >= {{ var("session_gap_minutes") }} * 60000000
                    then 1
            {% endif -%}
            else 0
        end as opens_session
    from ordered

),

numbered as (

    select
        *,
        cast(
            sum(opens_session) over (
                partition by user_id, event_date
                order by event_time, delivered_on, delivered_row
                rows between unbounded preceding and current row
            ) as bigint
        ) as session_number
    from opened

),

in_sessions as (

    select
        -- the separator keeps user 1 | session 12 apart from user 11 | session 2
        user_id || '|' || {{ text_of("event_date") }} || '|' || {{ text_of("session_number") }}
            as session_id,
        row_number() over (
            partition by user_id, event_date, session_number order by event_time, delivered_on, delivered_row
        ) as position,
        min(event_time) over (partition by user_id, event_date, session_number) as started_at,
        {% if var("session_order") == "auto" -%}
            avg(cast(is_tied as integer)) over (partition by user_id, event_date, session_number)
            <= {{ var("max_tied_share") }} as is_ordered,
        {%- else -%}
            {{ var("session_order") == "time" }} as is_ordered,
        {%- endif %}
        *
    from numbered

),

-- where the order of a session is not known, a seeded one: neither the order of delivery nor that of
-- ids must decide which items become targets
shuffled as (

    select
        *,
        case
            when is_ordered then ''
            else md5('{{ var("order_seed") }}|' || session_id || '|' || item_id)
        end as shuffle_key
    from in_sessions

)

select
    session_id,
    position,
    row_number() over (partition by session_id order by shuffle_key, position) as place,
    user_id,
    event_date as session_date,
    started_at,
    item_id,
    event_time,
    is_tied,
    is_ordered,
    watch_seconds,
    duration_seconds,
    is_watched,
    -- a session shows an item once, so a target session repeats none
    is_watched and row_number() over (
        partition by session_id, item_id, is_watched
        order by shuffle_key, position
    ) = 1 as is_first_watch,
    is_positive,
    signals,
    is_like,
    is_follow,
    is_comment,
    is_share,
    is_dislike
from shuffled
