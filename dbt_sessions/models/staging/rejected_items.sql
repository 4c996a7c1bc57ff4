{{ config(materialized="table") }}

select
    delivered_on,
    broken_rule as reason,
    item_id,
    duration_seconds_text as duration_seconds,
    title,
    category,
    author_id,
    published_at_text as published_at
from {{ ref("base_items") }}
where broken_rule is not null
