{#
    Exposures of the run's days with the duration of the item as it looked on the day it was shown, as SQL after
    `from`; `item_versions` has to be defined. Not a common table expression: DuckDB would keep every column of
    one that is read more than once.
#}
{% macro exposures_of_run() -%}
(
    select
        *,
        {{ holds(var("watched")) }} as is_watched
    from (
        select
            events.*,
            item_versions.duration_seconds
        from {{ ref("stg_events") }} as events
        left join item_versions
            on
                events.item_id = item_versions.item_id
                and events.event_date >= item_versions.valid_from
                and (
                    item_versions.valid_until is null
                    or events.event_date < item_versions.valid_until
                )
        where
            {{ in_days("events.event_date") }}
            {%- if var("user_sample") | float < 1 %}
            -- some users with all that they did: the same in every run
            and left(md5(events.user_id), 4)
            < '{{ "%04x" | format((var("user_sample") | float * 65536) | int) }}'
            {%- endif %}
    ) as with_duration
    where {{ holds(var("exposure")) }}
) as exposures
{%- endmacro %}

{# Whether a moment of a user's day opens a session. #}
{% macro opens_session() -%}
    (
        previous_time is null
        {%- if var("session_mode") == "gap" %}
            or {{ microseconds_of("event_time") }} - {{ microseconds_of("previous_time") }}
            >= {{ var("session_gap_minutes") }} * 60000000
        {%- endif %}
    )
{%- endmacro %}
