{{ config(materialized="view") }}

{%- set add_up = var("same_moment") == "add_up" %}

select
    event_id,
    user_id,
    item_id,
    event_time,
    event_date,
    delivered_on,
    delivered_row,
    watch_seconds,
    event_type,
    rating,
    {% if add_up -%}
        sum(coalesce(quantity, 1)) over same_moment as quantity,
    {%- else -%}
        quantity,
    {%- endif %}
    is_like,
    is_follow,
    is_comment,
    is_share,
    is_dislike,
    surface
from {{ ref("base_events") }}
where broken_rule is null
{% if add_up -%}
    -- the day follows from the time: by its name, a filter on days reaches the table below
    window same_moment as (partition by event_date, user_id, item_id, event_time, event_type)
    qualify
        row_number() over (
            partition by event_date, user_id, item_id, event_time, event_type
            order by delivered_on, delivered_row
        ) = 1
{%- endif %}
