{# Spark: where the tables of a run are, and what the system hands over and takes back as files. #}

{# Tables of a schema lie in the lake, where whoever else reads them finds their files. #}
{% macro spark__create_schema(relation) -%}
    {%- call statement("create_schema") -%}
        create schema if not exists {{ relation.without_identifier() }}
        location '{{ env_var("ONEREC_LAKE") }}/{{ relation.schema }}'
    {%- endcall -%}
{%- endmacro %}

{#
    The landed rows as views of the Parquet files in the lake, which resources/lake.py writes. Before
    every build: a view keeps the columns that its files had.
#}
{% macro register_raw() -%}
    {%- set schema = env_var("ONEREC_RAW_SCHEMA", "raw") -%}
    {%- do run_query("create schema if not exists " ~ schema) -%}
    {%- for table in ["raw_events", "raw_items", "raw_prior_history", "deliveries"] -%}
        {%- do run_query(
            "create or replace view " ~ schema ~ "." ~ table ~ " as select * from parquet.`"
            ~ env_var("ONEREC_LAKE") ~ "/raw/" ~ table ~ "`"
        ) -%}
    {%- endfor -%}
{%- endmacro %}

{#
    Write sessions of some days as Parquet files, sorted, split by day: the tasks of the cluster write
    them, not one process. A directory `split_directory=<split>` each; the table is only how Spark names
    them, and dropping it leaves the files.
#}
{% macro write_sessions(first, last, test_day, valid_day, directory) -%}
    {%- set table = target.schema ~ ".session_dataset_files" -%}
    {%- do run_query("drop table if exists " ~ table) -%}
    {%- set query -%}
        create table {{ table }} using parquet partitioned by (split_directory) location '{{ directory }}' as
        with named as (
            select
                *,
                case
                    when session_date = date '{{ test_day }}' then 'test'
                    {% if valid_day -%} when session_date = date '{{ valid_day }}' then 'valid' {%- endif %}
                    else 'train'
                end as split
            from {{ ref("session_examples") }}
            where session_date between date '{{ first }}' and date '{{ last }}'
        ),
        -- the writer sorts by the directory once more, and not stably, unless it comes first in the order
        placed as (select *, split as split_directory from named)
        select * from placed order by split_directory, started_at, session_id
    {%- endset -%}
    {%- do run_query(query) -%}
    {%- do run_query("drop table " ~ table) -%}
{%- endmacro %}
