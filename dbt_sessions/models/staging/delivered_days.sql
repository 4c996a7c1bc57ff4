{{ config(materialized="view") }}

select
    delivered_on as event_date,
    num_rows as num_delivered,
    fingerprint
from {{ source("raw", "deliveries") }}
where table_name = 'raw_events'
