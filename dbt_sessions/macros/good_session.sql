{# When a session is good: every criterion is met. The settings are `sessions.good_min_*`. #}

{% macro good_session_criteria() %}
        num_watched_items >= {{ var("good_min_watched_items") }} as has_enough_watched_items,
        watch_seconds >= {{ var("good_min_watch_seconds") }} as has_enough_watch_seconds,
        num_likes + num_follows + num_comments + num_shares
        >= {{ var("good_min_positive_interactions") }} as has_enough_interactions,
        num_positives >= {{ var("good_min_positives") }} as has_enough_positives
{% endmacro %}

{% macro is_good_session() %}
    has_enough_watched_items
    and has_enough_watch_seconds
    and has_enough_interactions
    and has_enough_positives
{% endmacro %}
