{# The days of this run, and so many days before them: a filter on a DATE column. #}
{% macro in_days(column, days_before=0) -%}
    {{ column }} between cast('{{ var("start_date") }}' as date) - {{ days_before }}
    and cast('{{ var("end_date") }}' as date)
{%- endmacro %}

{#
    Incremental strategy `replace_days`: delete the run's days, then insert them, in the materialization's
    one transaction. dbt's own delete+insert deletes only keys that the new rows carry, so a day whose
    correction leaves it empty would keep its old rows. Not microbatch either: dagster-dbt finds no
    compiled file of a microbatch model, and so no column lineage.
#}
{% macro get_incremental_replace_days_sql(arg_dict) -%}
    {%- set columns = get_quoted_csv(arg_dict["dest_columns"] | map(attribute="name")) -%}
    delete from {{ arg_dict["target_relation"] }} where {{ in_days(config.require("day_column")) }};

    insert into {{ arg_dict["target_relation"] }} ({{ columns }})
    select {{ columns }} from {{ arg_dict["temp_relation"] }}
{%- endmacro %}
