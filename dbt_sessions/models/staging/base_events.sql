{{ config(materialized="incremental", day_column="delivered_on", partition_by="delivered_on") }}

{%- set flags = ["is_like", "is_follow", "is_comment", "is_share", "is_dislike"] %}
{%- set keep_first = var("over_max_events") == "keep_first" %}

-- and the deliveries before, of which a late row may repeat a row
with delivered as (

    select * from {{ source("raw", "raw_events") }}
    where {{ in_days("delivered_on", days_before=var("lateness_days") | int) }}

),

catalogue as (

    select
        item_id,
        first_delivered_on
    from {{ ref("stg_items") }}
    where version_number = 1

),

{% if var("max_events_per_user_day") | int > 0 -%}
-- one script or test account can be most of a day
busy_users as (

    select
        delivered_on,
        user_id
    from delivered
    where user_id is not null
    group by delivered_on, user_id
    having count(*) > {{ var("max_events_per_user_day") }}

),

busy_events as (

    select
        delivered.delivered_on,
        delivered.delivered_row,
        row_number() over (
            partition by delivered.delivered_on, delivered.user_id
            order by delivered.event_time nulls last, delivered.delivered_row
        ) as event_number
    from delivered
    inner join busy_users
        on
            delivered.delivered_on = busy_users.delivered_on
            and delivered.user_id = busy_users.user_id

),
{%- endif %}

classified as (

    select
        delivered.*,
        case
            when delivered.user_id is null then 'missing user_id'
            when delivered.item_id is null then 'missing item_id'
            when delivered.event_time is null and {{ unreadable("event_time") }} is null
                then 'missing event_time'
            when delivered.event_time is null then 'event_time is not a timestamp'
            when delivered.event_time < timestamp '1971-01-01 00:00:00'
                then 'event_time is before 1971: unknown, or in another unit'
            when delivered.event_date > delivered.delivered_on
                then 'event_time is after the delivered day'
            when delivered.event_date < delivered.delivered_on - {{ var("lateness_days") | int }}
                then 'event_time is more than lateness_days before the delivered day'
            when delivered.watch_seconds is null and {{ unreadable("watch_seconds") }} is not null
                then 'watch_seconds is not a number'
            {% if var("needs_watch_seconds") -%}
                when delivered.watch_seconds is null then 'missing watch_seconds'
            {% endif -%}
            when delivered.watch_seconds < 0 then 'watch_seconds is negative'
            when delivered.watch_seconds > {{ var("max_watch_seconds") }}
                then 'watch_seconds is above max_watch_seconds'
            when {{ unreadable("rating") }} is not null then 'rating is not a number'
            when {{ unreadable("quantity") }} is not null then 'quantity is not a number'
            {% for flag in flags -%}
                when {{ unreadable(flag) }} is not null then '{{ flag }} is not a boolean'
            {% endfor -%}
            {% if var("max_events_per_user_day") | int > 0 -%}
                when
                    busy_events.event_number
                    > {{ var("max_events_per_user_day") if keep_first else 0 }}
                    then 'user_id has more than max_events_per_user_day events on the day'
            {% endif -%}
            when
                catalogue.item_id is null
                or catalogue.first_delivered_on > delivered.event_date
                then 'item_id is not in the catalogue of the day'
        end as broken_rule
    from delivered
    left join catalogue on delivered.item_id = catalogue.item_id
    {% if var("max_events_per_user_day") | int > 0 -%}
        left join busy_events
            on
                delivered.delivered_on = busy_events.delivered_on
                and delivered.delivered_row = busy_events.delivered_row
    {%- endif %}

),

-- rows that share their key with another one: few, so that only they are put in an order
shared_keys as (

    select
        user_id,
        item_id,
        event_time,
        event_type
    from classified
    where broken_rule is null
    group by user_id, item_id, event_time, event_type
    having count(*) > 1

),

copies as (

    select
        classified.delivered_on,
        classified.delivered_row,
        row_number() over (
            partition by
                classified.user_id, classified.item_id, classified.event_time, classified.event_type
            order by
                classified.delivered_on, classified.event_id nulls last,
                classified.watch_seconds desc nulls last, classified.surface nulls last,
                {% for flag in flags -%}
                    coalesce(classified.{{ flag }}, false),
                {% endfor -%}
                classified.delivered_row
        ) as copy_number,
        classified.delivered_on > min(classified.delivered_on) over (
            partition by
                classified.user_id, classified.item_id, classified.event_time, classified.event_type
        ) as is_delivered_again
    from classified
    inner join shared_keys
        on
            classified.user_id = shared_keys.user_id
            and classified.item_id = shared_keys.item_id
            and classified.event_time = shared_keys.event_time
            and classified.event_type is not distinct from shared_keys.event_type
    where classified.broken_rule is null

)

select
    classified.delivered_on,
    classified.event_id,
    classified.user_id,
    classified.item_id,
    classified.event_time,
    classified.event_date,
    classified.watch_seconds,
    classified.event_type,
    classified.rating,
    classified.quantity,
    {% for flag in flags -%}
        coalesce(classified.{{ flag }}, false) as {{ flag }},
    {% endfor -%}
    classified.surface,
    classified.unreadable,
    classified.file,
    classified.delivered_row,
    case
        when
            copies.copy_number > 1
            and (copies.is_delivered_again or {{ var("same_moment") != "add_up" }})
            then 'duplicate of another row: same user, item and event_time'
        else classified.broken_rule
    end as broken_rule
from classified
left join copies
    on
        classified.delivered_on = copies.delivered_on
        and classified.delivered_row = copies.delivered_row
where {{ in_days("classified.delivered_on") }}
