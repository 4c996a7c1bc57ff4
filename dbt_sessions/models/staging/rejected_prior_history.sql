{{ config(materialized="table") }}

select
    broken_rule as reason,
    user_id,
    position_text as position,
    item_id,
    is_positive_text as is_positive
from {{ ref("base_prior_history") }}
where broken_rule is not null
