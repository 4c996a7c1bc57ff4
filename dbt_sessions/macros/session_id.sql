{#
    The name of a session: user | day | number of the session in the user's day. The separator keeps user 1,
    session 12 apart from user 11, session 2.
#}
{% macro session_id(user_id="user_id", day="session_date", number="session_number") -%}
    {{ user_id }} || '|' || {{ text_of(day) }} || '|' || {{ text_of(number) }}
{%- endmacro %}
