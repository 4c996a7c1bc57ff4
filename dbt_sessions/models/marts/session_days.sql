{#
    Built after everything else of a day, so that a day stands here only if all of it was built: a nightly run
    builds the days that are missing here, were delivered again since, or were built with other settings.
#}
{{ config(materialized="incremental", day_column="session_date", partition_by="session_date") }}

-- depends_on: {{ ref("good_sessions") }}

with days as (

    select * from {{ ref("delivered_days") }}
    where {{ in_days("event_date") }}

),

sessions as (

    select
        session_id,
        session_date,
        is_good
    from {{ ref("sessions") }}
    where {{ in_days("session_date") }}

)

select
    days.event_date as session_date,
    days.fingerprint || '|{{ var("built_with") }}' as fingerprint,
    count(sessions.session_id) as num_sessions,
    count(sessions.session_id) filter (where sessions.is_good) as num_good_sessions
from days
left join sessions on days.event_date = sessions.session_date
group by days.event_date, days.fingerprint
