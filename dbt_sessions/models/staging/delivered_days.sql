{{ config(materialized="view") }}

with deliveries as (

    select
        delivered_on,
        fingerprint
    from {{ source("raw", "deliveries") }}
    where table_name = 'raw_events'

),

-- what the catalogue of the day changes says which events are accepted, and watched
catalogues as (

    select
        delivered_on,
        fingerprint
    from {{ source("raw", "deliveries") }}
    where table_name = 'raw_items'

),

-- a day is what was delivered for it, be it nothing, and the later deliveries that hold rows of it
parts as (

    select
        delivered_on as event_date,
        delivered_on
    from deliveries

    union distinct

    select
        event_date,
        delivered_on
    from {{ source("raw", "raw_events") }}
    where
        event_date < delivered_on
        and event_date >= delivered_on - {{ var("lateness_days") | int }}
        and event_date in (select deliveries.delivered_on from deliveries)

)

select
    parts.event_date,
    {{ joined_text("deliveries.fingerprint", "+", "deliveries.delivered_on") }}
    || '/' || coalesce(max(catalogues.fingerprint), '') as fingerprint
from parts
inner join deliveries on parts.delivered_on = deliveries.delivered_on
left join catalogues on parts.event_date = catalogues.delivered_on
group by parts.event_date
