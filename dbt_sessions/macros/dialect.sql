{# What DuckDB and Spark write differently; everything else in the models is one SQL for both. #}

{# The elements of one list, in this order. #}
{% macro list_of(values) -%}{{ adapter.dispatch("list_of")(values) }}{%- endmacro %}

{% macro default__list_of(values) -%}[{{ values | join(", ") }}]{%- endmacro %}

{% macro spark__list_of(values) -%}array({{ values | join(", ") }}){%- endmacro %}

{# An aggregate: the values of a group as a list in the order of some columns, where a condition holds. #}
{% macro ordered_list(value, order_by, where=none) -%}
    {{ adapter.dispatch("ordered_list")(value, order_by, where) }}
{%- endmacro %}

{% macro default__ordered_list(value, order_by, where) -%}
    list({{ value }} order by {{ order_by | join(", ") }})
    {%- if where %} filter (where {{ where }}){% endif %}
{%- endmacro %}

{% macro spark__ordered_list(value, order_by, where) -%}
    {%- set filter = " filter (where " ~ where ~ ")" if where else "" -%}
    {%- set entries = "collect_list(struct(" ~ order_by | join(", ") ~ ", " ~ value ~ " as listed))" -%}
    transform(array_sort({{ entries ~ filter }}), entry -> entry.listed)
{%- endmacro %}

{# The elements of a list from one place to another, both counted from 1 and included. #}
{% macro list_part(list, first, last) -%}
    {{ adapter.dispatch("list_part")(list, first, last) }}
{%- endmacro %}

{% macro default__list_part(list, first, last) -%}
    list_slice({{ list }}, {{ first }}, {{ last }})
{%- endmacro %}

{% macro spark__list_part(list, first, last) -%}
    slice({{ list }}, cast({{ first }} as int), cast({{ last }} - {{ first }} + 1 as int))
{%- endmacro %}

{# An aggregate: the texts of a group, joined in the order of a column. #}
{% macro joined_text(value, separator, order_by) -%}
    {{ adapter.dispatch("joined_text")(value, separator, order_by) }}
{%- endmacro %}

{% macro default__joined_text(value, separator, order_by) -%}
    string_agg({{ value }}, '{{ separator }}' order by {{ order_by }})
{%- endmacro %}

{% macro spark__joined_text(value, separator, order_by) -%}
    listagg({{ value }}, '{{ separator }}') within group (order by {{ order_by }})
{%- endmacro %}

{# Microseconds since 1970 of a time. #}
{% macro microseconds_of(time) -%}{{ adapter.dispatch("microseconds_of")(time) }}{%- endmacro %}

{% macro default__microseconds_of(time) -%}epoch_us({{ time }}){%- endmacro %}

{% macro spark__microseconds_of(time) -%}unix_micros({{ time }}){%- endmacro %}

{# The day of a UTC time in the log's time zone. #}
{% macro local_day(time) -%}
    {%- if var("time_zone") == "UTC" -%}cast({{ time }} as date)
    {%- else -%}{{ adapter.dispatch("local_day")(time) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__local_day(time) -%}
    cast(timezone('{{ var("time_zone") }}', timezone('UTC', {{ time }})) as date)
{%- endmacro %}

{% macro spark__local_day(time) -%}
    cast(from_utc_timestamp({{ time }}, '{{ var("time_zone") }}') as date)
{%- endmacro %}

{# The text under a key of a JSON text; null where there is none. #}
{% macro json_text(json, key) -%}{{ adapter.dispatch("json_text")(json, key) }}{%- endmacro %}

{% macro default__json_text(json, key) -%}json_extract_string({{ json }}, '$.{{ key }}'){%- endmacro %}

{% macro spark__json_text(json, key) -%}get_json_object({{ json }}, '$.{{ key }}'){%- endmacro %}

{% macro text_of(value) -%}cast({{ value }} as {{ dbt.type_string() }}){%- endmacro %}
