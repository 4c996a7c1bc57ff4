{#
    Writing and sorting wide rows is most of the cost here. So sessions are cut, and repeats are looked for, among
    the few columns that say so; whole events are sorted once.
#}
{{ config(materialized="incremental", day_column="session_date", partition_by="session_date") }}

{%- set conditions = [] -%}
{%- for signal in var("signals") -%}
    {%- do conditions.append(holds(signal)) -%}
{%- endfor %}

{%- set in_the_session %}
    exposures.user_id = openings.user_id
    and exposures.event_date = openings.event_date
    and exposures.event_time >= openings.started_at
    and (openings.next_started_at is null or exposures.event_time < openings.next_started_at)
{%- endset %}

with item_versions as (

    select
        item_id,
        valid_from,
        lead(valid_from) over (partition by item_id order by valid_from) as valid_until,
        duration_seconds
    from {{ ref("stg_items") }}

),

-- a user's day is cut by itself, so a session never crosses midnight and each day is complete alone
moments as (

    select
        user_id,
        event_date,
        event_time,
        row_number() over in_day as place_in_day,
        count(*) over (partition by user_id, event_date) as num_in_day,
        lag(event_time) over in_day as previous_time,
        lead(event_time) over in_day as next_time
    from {{ exposures_of_run() }}
    window in_day as (partition by user_id, event_date order by event_time)

),

cuts as (

    select
        user_id,
        event_date,
        event_time as started_at,
        place_in_day,
        row_number() over in_day as session_number,
        lead(event_time) over in_day as next_started_at,
        coalesce(lead(place_in_day) over in_day, num_in_day + 1) - place_in_day as num_exposures
    from moments
    where {{ opens_session() }}
    window in_day as (partition by user_id, event_date order by event_time)

),

{% if var("session_order") == "auto" -%}
tied_sessions as (

    select
        cuts.user_id,
        cuts.event_date,
        cuts.session_number
    from moments
    inner join cuts
        on
            moments.user_id = cuts.user_id
            and moments.event_date = cuts.event_date
            and moments.event_time >= cuts.started_at
            and (cuts.next_started_at is null or moments.event_time < cuts.next_started_at)
    where moments.event_time = moments.previous_time or moments.event_time = moments.next_time
    group by cuts.user_id, cuts.event_date, cuts.session_number, cuts.num_exposures
    having count(*) / cuts.num_exposures > {{ var("max_tied_share") }}

),
{%- endif %}

openings as (

    select
        cuts.*,
        {% if var("session_order") == "auto" -%}
            tied_sessions.user_id is null as is_ordered
        {%- else -%}
            {{ var("session_order") == "time" }} as is_ordered
        {%- endif %}
    from cuts
    {% if var("session_order") == "auto" -%}
        left join tied_sessions
            on
                cuts.user_id = tied_sessions.user_id
                and cuts.event_date = tied_sessions.event_date
                and cuts.session_number = tied_sessions.session_number
    {%- endif %}

),

-- where the order of a session is not known, a seeded one: neither the order of delivery nor that of
-- ids must decide which items become targets
drawn as (

    select
        exposures.delivered_on,
        exposures.delivered_row,
        row_number() over (
            partition by openings.user_id, openings.event_date, openings.session_number
            order by
                md5(
                    '{{ var("order_seed") }}|'
                    || {{ session_id("openings.user_id", "openings.event_date", "openings.session_number") }}
                    || '|' || exposures.item_id
                ),
                exposures.event_time, exposures.delivered_on, exposures.delivered_row
        ) as place
    from {{ exposures_of_run() }}
    inner join openings
        on {{ in_the_session }}
    where not openings.is_ordered

),

-- few users see an item twice in a day, so that only these events are put in an order
seen_twice as (

    select
        user_id,
        event_date,
        item_id
    from {{ ref("stg_events") }}
    where {{ in_days("event_date") }}
    group by user_id, event_date, item_id
    having count(*) > 1

),

watches as (

    select
        exposures.delivered_on,
        exposures.delivered_row,
        lag(exposures.event_time) over (
            partition by exposures.user_id, exposures.event_date, exposures.item_id
            order by exposures.event_time, exposures.delivered_on, exposures.delivered_row
        ) as watched_before_at
    from {{ exposures_of_run() }}
    inner join seen_twice
        on
            exposures.user_id = seen_twice.user_id
            and exposures.event_date = seen_twice.event_date
            and exposures.item_id = seen_twice.item_id
    where exposures.is_watched

),

watched_again as (

    select * from watches
    where watched_before_at is not null

),

-- the delivered order settles ties in time
placed as (

    select
        exposures.*,
        openings.session_number,
        openings.started_at,
        openings.is_ordered,
        row_number() over in_day + 1 - openings.place_in_day as position,
        lag(exposures.event_time) over in_day as previous_time,
        lead(exposures.event_time) over in_day as next_time,
        drawn.place as drawn_place,
        watched_again.watched_before_at
    from {{ exposures_of_run() }}
    inner join openings
        on {{ in_the_session }}
    left join drawn
        on
            exposures.delivered_on = drawn.delivered_on
            and exposures.delivered_row = drawn.delivered_row
    left join watched_again
        on
            exposures.delivered_on = watched_again.delivered_on
            and exposures.delivered_row = watched_again.delivered_row
    window in_day as (
        partition by exposures.user_id, exposures.event_date
        order by exposures.event_time, exposures.delivered_on, exposures.delivered_row
    )

)

select
    session_number,
    position,
    coalesce(drawn_place, position) as place,
    user_id,
    event_date as session_date,
    started_at,
    item_id,
    event_time,
    coalesce(event_time = previous_time, false) or coalesce(event_time = next_time, false) as is_tied,
    is_ordered,
    watch_seconds,
    duration_seconds,
    is_watched,
    -- a session shows an item once, so a target session repeats none; a drawn order keeps that of an
    -- item's events
    is_watched and coalesce(watched_before_at < started_at, true) as is_first_watch,
    {{ holds(var("positive")) }} and not {{ holds(var("negative")) }} as is_positive,
    {{ list_of(conditions) }} as signals,
    is_like,
    is_follow,
    is_comment,
    is_share,
    is_dislike
from placed
