{{ config(materialized="view") }}

with delivered as (

    select * from {{ source("raw", "raw_prior_history") }}

),

typed as (

    select
        user_id,
        item_id,
        position as position_text,
        is_positive as is_positive_text,
        try_cast(position as bigint) as position,
        {{ as_flag("is_positive") }} as is_positive
    from delivered

)

select
    *,
    case
        when user_id is null or trim(user_id) = '' then 'missing user_id'
        when item_id is null or trim(item_id) = '' then 'missing item_id'
        when position is null then 'position is not a whole number'
        when is_positive is null then 'is_positive is not a boolean'
    end as broken_rule
from typed
