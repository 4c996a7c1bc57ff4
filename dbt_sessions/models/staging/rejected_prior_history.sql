{{ config(materialized="table") }}

{%- set columns = ["user_id", "position", "item_id", "is_positive"] %}

with broken as (

    select
        *,
        {{ column_of("broken_rule") }} as field
    from {{ ref("base_prior_history") }}
    where broken_rule is not null

)

select
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
