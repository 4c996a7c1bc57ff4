{#
    Conditions on an event, declared by onerec.config.feedback: a list of which any may hold, each a
    mapping of which all keys hold. Numbers and checked event types are all that a user adds; pydantic
    lets no quote through.
#}
{% macro holds(conditions) -%}
    (
        {%- for condition in conditions -%}
            {{ " or " if not loop.first }}{{ all_of(condition) }}
        {%- else -%}
            false
        {%- endfor -%}
    )
{%- endmacro %}

{% macro all_of(condition) -%}
    coalesce(
        {%- for key, value in condition.items() -%}
            {{ " and " if not loop.first }}{{ one_of_its_keys(key, value) }}
        {%- endfor -%}
    , false)
{%- endmacro %}

{% macro one_of_its_keys(key, value) -%}
    {%- if key == "every_event" -%}
        true
    {%- elif key == "event_type" -%}
        lower(trim(event_type)) in (
            {%- for name in value -%}
                {{ ", " if not loop.first }}{{ dbt.string_literal(dbt.escape_single_quotes(name | lower)) }}
            {%- endfor -%}
        )
    {%- elif key == "rating_at_least" -%}
        rating >= {{ value }}
    {%- elif key == "rating_below" -%}
        rating < {{ value }}
    {%- elif key == "quantity_at_least" -%}
        quantity >= {{ value }}
    {%- elif key == "watch_seconds_at_least" -%}
        watch_seconds >= {{ value }}
    {%- elif key == "watch_share_at_least" -%}
        watch_seconds >= {{ value }} * duration_seconds
    {%- elif key == "long_watch" -%}
        watch_seconds >= least(
            {{ var("watched_min_seconds") }},
            coalesce(
                {{ var("watched_min_share") }} * duration_seconds, {{ var("watched_min_seconds") }}
            )
        )
    {%- elif key == "flag" -%}
        ({{ value | join(" or ") }})
    {%- elif key == "watched" -%}
        is_watched
    {%- else -%}
        {{ exceptions.raise_compiler_error("no condition is called " ~ key) }}
    {%- endif -%}
{%- endmacro %}
