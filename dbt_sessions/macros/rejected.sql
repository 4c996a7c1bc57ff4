{# The text of a delivered value that does not fit its type; null where it does, or nothing is known. #}
{% macro unreadable(column) -%}
    {{ json_text("unreadable", column) }}
{%- endmacro %}

{# The column that a broken rule is about: rules name it. Duplicates are about none. #}
{% macro column_of(rule) -%}
    nullif(regexp_extract({{ rule }}, '^(missing )?([a-z]+_[a-z]+|position|rating|quantity)', 2), '')
{%- endmacro %}

{# The value of a column named by another: as delivered where it does not fit, else as it landed. #}
{% macro value_of(field, columns) -%}
    case {{ field }}
    {% for column in columns -%}
    when '{{ column }}' then coalesce({{ unreadable(column) }}, {{ text_of(column) }})
        {% endfor -%}
    end
{%- endmacro %}

{# Where a row stands in its file, from 1; the upper bits of delivered_row are the file's place. #}
{% macro row_in_file() -%}
    delivered_row % 1099511627776 + 1
{%- endmacro %}
