"""SQL macros that read delivered texts and numbers: blanks, ids, flags, spans of time, moments.

One macro per conversion, in DuckDB's SQL, so that there is one parser of times: reading a log's
days and landing its rows both use it. Every text that is no time, number or flag is distinguished
from an empty one (`is_blank`).
"""

import re

import duckdb

NULL_WORDS = (
    *("nan", "-nan", "none", "null", "nil", "na", "n/a", "#n/a", "#na", "<na>", "nat", "undefined"),
    *("(null)", "(none)", "\\n", "-", "--", "?", "0000-00-00", "0000-00-00 00:00:00"),
)
"""What data frames, databases and scripts write where nothing is known, in any case."""
TRUE_WORDS = ("1", "true", "t", "yes", "y", "on", "1.0")
FALSE_WORDS = ("0", "false", "f", "no", "n", "off", "0.0")

_NOTHING = "|".join(re.escape(word) for word in NULL_WORDS)
_BLANKS = "' ' || chr(9) || chr(10) || chr(13) || chr(160) || chr(39)"
_NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
_COMPACT = r"(19|20)[0-9]{6}([0-9]{4}([0-9]{2})?)?"
_REGIONS = ("UTC", "GMT", "UCT", "WET", "CET", "MET", "EET", "EST", "MST", "HST", "PST", "JST")
"""Abbreviations of time zones that mean one zone; those of the next list are one offset."""
_OFFSETS = {
    **{"WEST": "+01", "CEST": "+02", "EEST": "+03", "MSK": "+03", "PKT": "+05", "ICT": "+07"},
    **{"WIB": "+07", "SGT": "+08", "HKT": "+08", "AWST": "+08", "KST": "+09", "ACST": "+09:30"},
    **{"AEST": "+10", "AEDT": "+11", "NZST": "+12", "NZDT": "+13", "BRT": "-03", "EDT": "-04"},
    **{"CDT": "-05", "MDT": "-06", "PDT": "-07", "AKDT": "-08", "AKST": "-09", "SAST": "+02"},
}
_REGION_LIST = ", ".join(f"'{name}'" for name in _REGIONS)
_OFFSET_MAP = ", ".join(f"'{name}': '{offset}'" for name, offset in _OFFSETS.items())
_CLOCK = r"([0-9]{1,2}):?([0-9]{2})(?::?([0-9]{2})(?:[.,:]([0-9]+))?)?(?:\s*([AaPp])\.?[Mm]\.?)?"
_ZONE = r"([Zz]|[-+][0-9]{2}(?::?[0-9]{2})?|[A-Za-z][A-Za-z_/+0-9-]*)?(?:\[.*\])?"
_CLOCK_SPAN = r"^\s*(?:([0-9]+) days?,? +)?(?:([0-9]+):)?([0-9]+):([0-9]{2}(?:\.[0-9]+)?)\s*$"
_UNIT_SPAN = (
    r"(?i)^\s*(?:P?([0-9]+)\s*D(?:AYS?)?,?)?\s*(?:P?T)?(?:([0-9]+)\s*H(?:(?:OU)?RS?)?)?\s*"
    r"(?:([0-9]+)\s*M(?:IN(?:UTE)?S?)?)?\s*(?:([0-9]+(?:\.[0-9]+)?)\s*S(?:EC(?:OND)?S?)?)?\s*$"
)
_RATING = (
    r"(?i)^\s*([0-9]+(?:[.,][0-9]+)?)\s*"
    r"(?:(?:(?:/|out of|of)\s*[0-9]+(?:[.,]0+)?)\s*(?:stars?)?|stars?|%)\s*$"
)
_TIME = rf"([0-9]{{4}})[-/.]([0-9]{{1,2}})[-/.]([0-9]{{1,2}})(?:[T _,]*{_CLOCK})?\s*{_ZONE}"
_PARTS = "['year', 'month', 'day', 'hour', 'minute', 'second', 'fraction', 'half', 'zone']"
# microseconds that timestamps can hold: the years 1 to 9999
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


def _spellings(words: tuple[str, ...]) -> str:
    """An SQL list of words in the usual cases: a comparison with it costs next to nothing."""
    spelled = {w: None for word in words for w in (word, word.upper(), word.title())}
    return ", ".join(f"'{w}'" for w in spelled)


MACROS = (
    rf"""
    is_blank(x) as
        x is null or regexp_full_match(x, '(?i)[\s\x{{00A0}}]*({_NOTHING})?[\s\x{{00A0}}]*')
    """,
    # a data frame with a gap makes 17.0 out of 17, also in the text that it writes
    r"""
    text_id(x) as case
        when is_blank(x) then null
        when suffix(x, '.0') and regexp_full_match(x, '[-+]?[0-9]+\.0') then left(x, -2)
        else x
    end
    """,
    """
    real_id(x) as case
        when not isfinite(x) then null
        when x = trunc(x) and abs(x) < 9007199254740992
            then cast(cast(x as bigint) as varchar)
        else cast(x as varchar)
    end
    """,
    "finite(x) as case when isfinite(x) then x end",
    # 1:20, 00:01:20, 0 days 00:01:20 (pandas), PT1M20S, P0D, 80s, 1 min 20 sec
    rf"""
    text_span(x) as list_transform(
        [
            case
                when contains(x, ':') then regexp_extract(x, '{_CLOCK_SPAN}', ['d', 'h', 'm', 's'])
                else regexp_extract(x, '{_UNIT_SPAN}', ['d', 'h', 'm', 's'])
            end
        ],
        lambda p: case
            when p.d || p.h || p.m || p.s <> ''
                then coalesce(try_cast(p.d as double), 0) * 86400
                + coalesce(try_cast(p.h as double), 0) * 3600
                + coalesce(try_cast(p.m as double), 0) * 60
                + coalesce(try_cast(p.s as double), 0)
        end
    )[1]
    """,
    # 4.5/5, 4 out of 5 stars, 80%, and stars themselves, of which empty ones do not count
    rf"""
    text_rating(x) as list_transform(
        [x],
        lambda t: coalesce(
            try_cast(replace(regexp_extract(t, '{_RATING}', 1), ',', '.') as double),
            case
                when regexp_full_match(t, '\s*[\x{{2605}}\x{{2B50}}]+[\x{{2606}}]*\s*')
                    then len(regexp_replace(t, '[^\x{{2605}}\x{{2B50}}]', '', 'g'))
            end
        )
    )[1]
    """,
    f"""
    text_flag(x) as case
        when x in ({_spellings(TRUE_WORDS)}) then true
        when x in ({_spellings(FALSE_WORDS)}) then false
        else try_cast(trim(x, {_BLANKS}) as boolean)
    end
    """,
    f"""
    moment_of_us(us) as
        case
            when us between {_FIRST_US} and {_LAST_US} then make_timestamp(try_cast(us as bigint))
        end
    """,
    # the unit of a number shows in its size: the ranges of the years 1973 to 5138 do not touch
    """
    unit_of(x, unit) as coalesce(
        unit,
        case
            when abs(x) < 1e11 then 's'
            when abs(x) < 1e14 then 'ms'
            when abs(x) < 1e17 then 'us'
            else 'ns'
        end
    )
    """,
    """
    whole_moment(x, unit) as case
        when abs(x) < 1e20 then moment_of_us(
            case unit_of(x, unit)
                when 's' then x * 1000000
                when 'ms' then x * 1000
                when 'us' then x
                else x // 1000
            end
        )
    end
    """,
    """
    real_moment(x, unit) as case
        when isfinite(x) and abs(x) < 1e20 then moment_of_us(
            try_cast(
                round(
                    case unit_of(x, unit)
                        when 's' then x * 1e6
                        when 'ms' then x * 1e3
                        when 'us' then x
                        else x / 1e3
                    end
                ) as hugeint
            )
        )
    end
    """,
    # a text without an offset is read in the connection's time zone
    "iso_moment(x) as make_timestamp(epoch_us(try_cast(x as timestamptz)))",
    # what the cast refuses, written as it likes it: 12-hour clocks, +0200, no separators, 10:00UTC
    f"""
    rewritten(p) as iso_moment(
        p.year || '-' || p.month || '-' || p.day
        || case
            when p.hour = '' then ''
            else
                ' ' || lpad(
                    cast(
                        case lower(p.half)
                            when 'p' then try_cast(p.hour as integer) % 12 + 12
                            when 'a' then try_cast(p.hour as integer) % 12
                            else try_cast(p.hour as integer)
                        end as varchar
                    ), 2, '0'
                ) || ':' || p.minute || ':'
                || case p.second when '' then '00' when '60' then '59' else p.second end
                || if(p.fraction = '', '', '.' || p.fraction)
        end
        || case
            when p.zone = '' then ''
            -- after a date alone, 2026-06-01-10, it is rather the hour
            when p.zone[1] in ('+', '-') and len(p.zone) = 3
                then if(p.hour = '', null, p.zone || ':00')
            when p.zone[1] in ('+', '-')
                then p.zone[1:3] || ':' || right(p.zone, 2)
            when p.zone in ('Z', 'z') then ' UTC'
            when contains(p.zone, '/') then ' ' || p.zone
            when upper(p.zone) in ({_REGION_LIST}) then ' ' || upper(p.zone)
            else map {{{_OFFSET_MAP}}}[upper(p.zone)]
        end
    )
    """,
    f"""
    unusual_moment(x) as list_transform(
        [
            regexp_extract(
                regexp_replace(
                    regexp_replace(
                        replace(translate(x, '\u5e74\u6708', '--'), '\u65e5', ''),
                        '^([0-9]{{4}})([0-9]{{2}})([0-9]{{2}})', '\\1-\\2-\\3 '
                    ),
                    'T([0-9]{{2}})(Z.*|[-+][0-9]{{2}}:?[0-9]{{2}}.*)?$', 'T\\1:00\\2'
                ),
                '^{_TIME}$',
                {_PARTS}
            )
        ],
        lambda p: rewritten(p)
    )[1]
    """,
    f"""
    number_moment(x, unit) as coalesce(
        case when unit is null and regexp_full_match(x, '{_COMPACT}') then unusual_moment(x) end,
        case
            when regexp_full_match(x, '[-+]?[0-9]+') then whole_moment(try_cast(x as hugeint), unit)
            else real_moment(try_cast(x as double), unit)
        end
    )
    """,
    # DuckDB takes abbreviations for the zones that ICU once gave them: BST is Bangladesh there
    """
    ends_in_a_name(x) as
        right(rtrim(x), 1) > '9' and not suffix(x, 'Z') and not suffix(x, 'UTC')
    """,
    # the usual first: ISO 8601, then plain whole numbers. An expression that stands twice would be
    # computed for every row, wanted or not; the lambda keeps the rest for the rows that are left
    f"""
    text_moment(x, unit) as coalesce(
        case when not ends_in_a_name(x) then iso_moment(x) end,
        case
            when regexp_full_match(x, '[0-9]{{9,11}}|[0-9]{{13}}|[0-9]{{15,19}}')
                then whole_moment(try_cast(x as hugeint), unit)
        end,
        list_transform(
            [trim(x, {_BLANKS})],
            lambda t: case
                when regexp_full_match(t, '{_NUMBER}') then number_moment(t, unit)
                else unusual_moment(t)
            end
        )[1]
    )
    """,
    """
    formatted_moment(x, format) as
        make_timestamp(epoch_us(cast(try_strptime(trim(x), format) as timestamptz)))
    """,
)


def create_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the macros known to a connection, and to it alone."""
    for macro in MACROS:
        connection.execute(f"create or replace temp macro {macro}")
