{{ config(materialized="view") }}

{%- set columns = [
    "event_id", "user_id", "item_id", "event_time", "watch_seconds", "event_type", "rating", "quantity",
    "is_like", "is_follow", "is_comment", "is_share", "is_dislike", "surface",
] %}

with broken as (

    select
        *,
        {{ column_of("broken_rule") }} as field
    from {{ ref("base_events") }}
    where broken_rule is not null

)

select
    delivered_on,
    broken_rule as reason,
    field,
    {{ value_of("field", columns) }} as value,
    file,
    {{ row_in_file() }} as row_in_file,
    {% for column in columns -%}
        {{ column }},
    {% endfor -%}
    unreadable
from broken
