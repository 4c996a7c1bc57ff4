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
        row_number() over moments as place_in_day,
        lag(event_time) over moments as previous_time,
        lead(event_time) over moments as next_time
    from classified
    window moments as (
        partition by user_id, event_date order by event_time, delivered_on, delivered_row
    )

),

opened as (

    select
        *,
        coalesce(event_time = previous_time, false)
        or coalesce(event_time = next_time, false) as is_tied,
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

-- all that needs no more than what came before in the user's day: sorting is most of the cost here
numbered as (

    select
        *,
        cast(sum(opens_session) over so_far as bigint) as session_number,
        place_in_day + 1
        - max(case when opens_session = 1 then place_in_day end) over so_far as position,
        max(case when opens_session = 1 then event_time end) over so_far as started_at
    from opened
    window so_far as (
        partition by user_id, event_date order by place_in_day
        rows between unbounded preceding and current row
    )

),

{% if var("session_order") == "auto" -%}
tied_sessions as (

    select
        user_id,
        event_date,
        session_number
    from numbered
    group by user_id, event_date, session_number
    having avg(cast(is_tied as integer)) > {{ var("max_tied_share") }}

),
{%- endif %}

in_sessions as (

    select
        numbered.*,
        -- the separator keeps user 1 | session 12 apart from user 11 | session 2
        numbered.user_id || '|' || {{ text_of("numbered.event_date") }}
        || '|' || {{ text_of("numbered.session_number") }} as session_id,
        {% if var("session_order") == "auto" -%}
            tied_sessions.user_id is null as is_ordered
        {%- else -%}
            {{ var("session_order") == "time" }} as is_ordered
        {%- endif %}
    from numbered
    {% if var("session_order") == "auto" -%}
        left join tied_sessions
            on
                numbered.user_id = tied_sessions.user_id
                and numbered.event_date = tied_sessions.event_date
                and numbered.session_number = tied_sessions.session_number
    {%- endif %}

),

-- where the order of a session is not known, a seeded one: neither the order of delivery nor that of
-- ids must decide which items become targets
placed as (

    select
        *,
        position as place
    from in_sessions
    where is_ordered
    union all
    select
        *,
        row_number() over (
            partition by session_id
            order by md5('{{ var("order_seed") }}|' || session_id || '|' || item_id), position
        ) as place
    from in_sessions
    where not is_ordered

)

select
    session_id,
    position,
    place,
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
        partition by user_id, event_date, session_number, item_id, is_watched order by place
    ) = 1 as is_first_watch,
    {{ holds(var("positive")) }} and not {{ holds(var("negative")) }} as is_positive,
    {{ list_of(conditions) }} as signals,
    is_like,
    is_follow,
    is_comment,
    is_share,
    is_dislike
from placed
