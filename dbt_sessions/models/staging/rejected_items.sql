{{ config(materialized="table") }}

{%- set columns = [
    "item_id", "duration_seconds", "title", "category", "author_id", "published_at",
    "features",
] %}

with broken as (

    select
        *,
        {{ column_of("broken_rule") }} as field
    from {{ ref("base_items") }}
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
