{{ config(materialized="view") }}

{%- set flags = ["is_like", "is_follow", "is_comment", "is_share", "is_dislike"] %}

with delivered as (

    select * from {{ source("raw", "raw_events") }}

),

catalogue as (

    select
        item_id,
        first_delivered_on
    from {{ ref("stg_items") }}
    where version_number = 1

),

typed as (

    select
        delivered_on,
        event_id,
        user_id,
        item_id,
        surface,
        event_time as event_time_text,
        watch_seconds as watch_seconds_text,
        {% for flag in flags -%}
            {{ flag }} as {{ flag }}_text,
            {{ as_flag(flag) }} as {{ flag }},
        {% endfor -%}
        {{ as_utc("event_time") }} as event_time,
        {{ as_number("watch_seconds") }} as watch_seconds
    from delivered

),

classified as (

    select
        typed.*,
        case
            when typed.user_id is null or trim(typed.user_id) = '' then 'missing user_id'
            when typed.item_id is null or trim(typed.item_id) = '' then 'missing item_id'
            when typed.event_time_text is null then 'missing event_time'
            when typed.event_time is null then 'event_time is not a timestamp'
            when typed.event_time < timestamp '1970-01-01 00:00:00'
                then 'event_time is before 1970'
            when typed.event_time >= typed.delivered_on + interval 1 day
                then 'event_time is after the delivered day'
            when typed.event_time < typed.delivered_on
                then 'event_time is before the delivered day'
            when typed.watch_seconds_text is null then 'missing watch_seconds'
            when typed.watch_seconds is null then 'watch_seconds is not a number'
            when typed.watch_seconds < 0 then 'watch_seconds is negative'
            when typed.watch_seconds > {{ var("max_watch_seconds") }}
                then 'watch_seconds is above max_watch_seconds'
            {% for flag in flags -%}
                when typed.{{ flag }} is null and typed.{{ flag }}_text is not null
                    then '{{ flag }} is not a boolean'
            {% endfor -%}
            when catalogue.item_id is null or catalogue.first_delivered_on > typed.delivered_on
                then 'item is not in the catalogue of the day'
        end as broken_rule
    from typed
    left join catalogue on typed.item_id = catalogue.item_id

),

numbered as (

    select
        *,
        -- every column takes part in the order, so that the same row is kept whatever the input order
        row_number() over (
            partition by delivered_on, user_id, item_id, event_time
            order by
                broken_rule is not null, event_id, watch_seconds desc, surface,
                {{ flags | join(", ") }}
        ) as copy_number
    from classified

)

select
    delivered_on,
    event_id,
    user_id,
    item_id,
    surface,
    event_time_text,
    watch_seconds_text,
    {% for flag in flags -%}
        {{ flag }}_text,
        coalesce({{ flag }}, false) as {{ flag }},
    {% endfor -%}
    event_time,
    watch_seconds,
    case
        when broken_rule is null and copy_number > 1
            then 'duplicate of another row: same user, item and event_time'
        else broken_rule
    end as broken_rule
from numbered
