{{ config(materialized="view") }}

select
    user_id,
    item_id,
    position,
    is_positive,
    unreadable,
    file,
    delivered_row,
    case
        when user_id is null then 'missing user_id'
        when item_id is null then 'missing item_id'
        when position is null then 'position is not a whole number'
        when is_positive is null then 'is_positive is not a boolean'
    end as broken_rule
from {{ source("raw", "raw_prior_history") }}
