{# The rows in which a column is null: one query for all columns of a table that have to be known. #}
{% test no_nulls(model, columns) %}
    select {{ columns | join(", ") }}
    from {{ model }}
    where {{ columns | join(" is null or ") }} is null
{% endtest %}
