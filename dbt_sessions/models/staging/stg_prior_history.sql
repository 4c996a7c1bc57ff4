{{ config(materialized="table") }}

select
    user_id,
    position,
    item_id,
    is_positive,
    delivered_row
from {{ ref("base_prior_history") }}
where broken_rule is null
