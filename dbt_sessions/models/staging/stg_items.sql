{#
    A full rebuild, not a day range: the table holds changes only, so it is small, and rebuilding makes
    it a function of raw_items alone, in whatever order days were delivered or corrected.
#}
{{ config(materialized="table") }}

with accepted as (

    select * from {{ ref("base_items") }}
    where broken_rule is null

),

numbered as (

    select
        *,
        row_number() over (partition by item_id order by delivered_on) as version_number,
        first_value(delivered_on) over (partition by item_id order by delivered_on)
            as first_delivered_on,
        first_value(published_at) over (partition by item_id order by delivered_on)
            as first_published_at
    from accepted

)

select
    item_id,
    delivered_on as valid_from,
    version_number,
    duration_seconds,
    title,
    category,
    author_id,
    published_at,
    features,
    coalesce(is_withdrawn, false) as is_withdrawn,
    first_delivered_on,
    -- a catalogue may announce items before they are published
    greatest(
        first_delivered_on, coalesce({{ local_day("first_published_at") }}, first_delivered_on)
    ) as first_seen
from numbered
-- an item of which no row was accepted was never there
where version_number > 1 or not coalesce(is_withdrawn, false)
