{{ config(materialized="view") }}

with delivered as (

    select * from {{ source("raw", "raw_items") }}

),

typed as (

    select
        delivered_on,
        item_id,
        title,
        category,
        author_id,
        duration_seconds as duration_seconds_text,
        published_at as published_at_text,
        {{ as_number("duration_seconds") }} as duration_seconds,
        {{ as_utc("published_at") }} as published_at
    from delivered

),

classified as (

    select
        *,
        case
            when item_id is null or trim(item_id) = '' then 'missing item_id'
            when duration_seconds is null and duration_seconds_text is not null
                then 'duration_seconds is not a number'
            when duration_seconds < 0 then 'duration_seconds is negative'
            when published_at is null and published_at_text is not null
                then 'published_at is not a timestamp'
        end as broken_rule
    from typed

),

numbered as (

    select
        *,
        row_number() over (
            partition by delivered_on, item_id
            order by
                broken_rule is not null, published_at, duration_seconds, title, category, author_id
        ) as copy_number
    from classified

)

select
    delivered_on,
    item_id,
    title,
    category,
    author_id,
    duration_seconds_text,
    published_at_text,
    -- an item of no length is one of unknown length: any share of 0 seconds would count as watched
    nullif(duration_seconds, 0) as duration_seconds,
    published_at,
    case
        when broken_rule is null and copy_number > 1 then 'duplicate of another row of the day'
        else broken_rule
    end as broken_rule
from numbered
