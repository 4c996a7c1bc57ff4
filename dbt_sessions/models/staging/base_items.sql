{{ config(materialized="view") }}

with classified as (

    select
        *,
        case
            when is_withdrawn then null  -- what was delivered of it stands in its earlier rows
            when item_id is null then 'missing item_id'
            when {{ unreadable("duration_seconds") }} is not null
                then 'duration_seconds is not a number'
            when duration_seconds < 0 then 'duration_seconds is negative'
            when {{ unreadable("published_at") }} is not null
                then 'published_at is not a timestamp'
        end as broken_rule
    from {{ source("raw", "raw_items") }}

),

numbered as (

    select
        *,
        row_number() over (
            partition by delivered_on, item_id
            order by
                broken_rule is not null, published_at nulls last, duration_seconds nulls last,
                title nulls last, category nulls last, author_id nulls last, features nulls last,
                delivered_row
        ) as copy_number
    from classified

)

select
    delivered_on,
    item_id,
    title,
    category,
    author_id,
    -- an item of no length is one of unknown length: any share of 0 seconds would count as watched
    nullif(duration_seconds, 0) as duration_seconds,
    published_at,
    features,
    coalesce(is_withdrawn, false) as is_withdrawn,
    unreadable,
    file,
    delivered_row,
    case
        when broken_rule is null and copy_number > 1 then 'duplicate of another row of the day'
        else broken_rule
    end as broken_rule
from numbered
