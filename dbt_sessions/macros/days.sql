{#
    The days of this run, everything unless a run names them. They come from the environment when SQL is
    executed, not as variables: with another variable dbt would parse the whole project again every night.
#}
{% macro first_day() -%}
    {{- env_var("ONEREC_FIRST_DAY", "1970-01-01") if execute else "1970-01-01" -}}
{%- endmacro %}

{% macro last_day() -%}
    {{- env_var("ONEREC_LAST_DAY", "9999-12-31") if execute else "9999-12-31" -}}
{%- endmacro %}

{#
    Tests look at the days of the run. dbt renders `where` of a test when it parses, so the days take the
    places of __first_day__ and __last_day__ here. Overrides dbt's own macro.
#}
{% macro get_where_subquery(relation) -%}
    {%- set where = config.get("where", "") -%}
    {%- if not where -%}{{ return(relation) }}{%- endif -%}
    {%- set where = where | replace("__first_day__", "'" ~ first_day() ~ "'") -%}
    {%- set where = where | replace("__last_day__", "'" ~ last_day() ~ "'") -%}
    {{ return("(select * from " ~ relation ~ " where " ~ where ~ ") dbt_subquery") }}
{%- endmacro %}

{# The days of this run, and so many days before them: a filter on a DATE column. #}
{% macro in_days(column, days_before=0) -%}
    {{ column }} between cast('{{ first_day() }}' as date) - {{ days_before }}
    and cast('{{ last_day() }}' as date)
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

{#
    Spark: dbt-spark's own strategy overwrites the days that the new rows have. So where some of the
    run's days are there already, the new rows are computed once into a table beside, and a day of which
    they have none is dropped. Overrides the macro of dbt-spark, whose strategies cannot be added to.
#}
{% macro get_insert_overwrite_sql(source_relation, target_relation, existing_relation) -%}
    {%- set day = config.require("day_column") -%}
    {%- set columns = adapter.get_columns_in_relation(target_relation) -%}
    {%- set columns = columns | map(attribute="quoted") | join(", ") -%}
    {%- set there = days_of(target_relation) -%}
    {%- if not there -%}
        insert overwrite table {{ target_relation }} partition ({{ day }})
        select {{ columns }} from {{ source_relation }}
    {%- else -%}
        {%- set beside = target_relation.incorporate(
            path={"identifier": target_relation.identifier ~ "__these_days"}
        ) -%}
        {%- do run_query("drop table if exists " ~ beside) -%}
        {%- do run_query(
            "create table " ~ beside ~ " using parquet partitioned by (" ~ day ~ ") as select * from "
            ~ source_relation
        ) -%}
        {%- set made = days_of(beside) -%}
        {%- do run_query(
            "insert overwrite table " ~ target_relation ~ " partition (" ~ day ~ ") select " ~ columns
            ~ " from " ~ beside
        ) -%}
        {%- for gone in there if gone not in made -%}
            {%- do run_query(
                "alter table " ~ target_relation ~ " drop if exists partition (" ~ day ~ " = date '"
                ~ gone ~ "')"
            ) -%}
        {%- endfor -%}
        drop table {{ beside }}
    {%- endif -%}
{%- endmacro %}

{# Spark: those of the run's days that are partitions of a table. #}
{% macro days_of(relation) -%}
    {%- set found = [] -%}
    {%- for row in run_query("show partitions " ~ relation) -%}
        {%- set day = row[0].split("=")[1] -%}
        {%- if first_day() <= day <= last_day() -%}{%- do found.append(day) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}
