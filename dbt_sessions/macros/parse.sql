{# A delivered text as a UTC timestamp, null if it is none. A text without an offset is UTC. #}
{% macro as_utc(column) -%}
    timezone('UTC', try_cast({{ column }} as timestamptz))
{%- endmacro %}

{# A delivered text as a finite number, null if it is none. #}
{% macro as_number(column) -%}
    case when isfinite(try_cast({{ column }} as double)) then try_cast({{ column }} as double) end
{%- endmacro %}

{# A delivered text as a boolean, null if it is none: true, t, 1, 1.0 and so on. #}
{% macro as_flag(column) -%}
    coalesce(
        try_cast({{ column }} as boolean),
        case try_cast({{ column }} as double) when 1 then true when 0 then false end
    )
{%- endmacro %}
