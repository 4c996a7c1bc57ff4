"""Every table's columns, once: the data contract and the tables that cross a stage boundary.

Column names live here and nowhere else in Python; a test compares them with the dbt YAML.
`EVENTS`, `ITEMS`, `PRIOR_HISTORY`, `ITEM_VECTORS` and `USERS` are what a reader in
`onerec.datasets` delivers; the others are Parquet tables inside artifacts.
"""

import pyarrow as pa

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")


def _column(name: str, kind: pa.DataType, doc: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


FEEDBACK_FLAGS = ("is_like", "is_follow", "is_comment", "is_share", "is_dislike")
"""The explicit feedback columns of an exposure, in table order."""

EVENTS = pa.schema(
    [
        _column("event_id", pa.string(), "The log's own id of the exposure, if it has one"),
        _column("user_id", pa.string(), "Who was shown the item", nullable=False),
        _column("item_id", pa.string(), "What was shown", nullable=False),
        _column("event_time", UTC_MICROSECONDS, "When it was shown, UTC", nullable=False),
        _column("watch_seconds", pa.float64(), "How long it was watched, >= 0"),
        _column("event_type", pa.string(), "What happened: view, cart, purchase ..."),
        _column("rating", pa.float64(), "The user's rating"),
        _column("quantity", pa.float64(), "How many were bought"),
        _column("is_like", pa.bool_(), "The user liked it"),
        _column("is_follow", pa.bool_(), "The user followed its author"),
        _column("is_comment", pa.bool_(), "The user commented on it"),
        _column("is_share", pa.bool_(), "The user shared it"),
        _column("is_dislike", pa.bool_(), "The user rejected it"),
        _column("surface", pa.string(), "Where in the app it was shown"),
    ]
)
"""One event a row."""

ITEMS = pa.schema(
    [
        _column("item_id", pa.string(), "The item", nullable=False),
        _column("duration_seconds", pa.float64(), "Its full length"),
        _column("title", pa.string(), "Its title or caption"),
        _column("category", pa.string(), "Its category or tags"),
        _column("author_id", pa.string(), "Who published it"),
        _column("published_at", UTC_MICROSECONDS, "When it was published, UTC"),
        _column("features", pa.string(), "name=value of further features, joined by U+001F"),
    ]
)
"""One item a row, as it looks on the day it is delivered."""
FEATURE_SEPARATOR = "\x1f"
"""Stands between the features of an item."""

PRIOR_HISTORY = pa.schema(
    [
        _column("user_id", pa.string(), "The user", nullable=False),
        _column("position", pa.int64(), "Order within the user, oldest first", nullable=False),
        _column("item_id", pa.string(), "What was watched", nullable=False),
        _column("is_positive", pa.bool_(), "Watched effectively, or liked", nullable=False),
    ]
)
"""What users watched before the log begins: an order without times."""

ITEM_VECTORS = pa.schema(
    [
        _column("item_id", pa.string(), "The item", nullable=False),
        _column("vector", pa.list_(pa.float32()), "The user's own embedding", nullable=False),
    ]
)
"""Supplied item embeddings, all of one length."""

USERS = pa.schema(
    [
        _column("user_id", pa.string(), "The user", nullable=False),
        _column("features", pa.string(), "name=value of the attributes, joined by U+001F"),
    ]
)
"""One user a row, as one's own files deliver them; `onerec.datasets` makes a text column of every
attribute."""

SPLITS = ("train", "valid", "test")

SESSION_DATASET = pa.schema(
    [
        _column("session_id", pa.string(), "user | day | number in the day", nullable=False),
        _column("user_id", pa.string(), "The user", nullable=False),
        _column(
            "session_date", pa.date32(), "Day of the session in the log's time zone", nullable=False
        ),
        _column("started_at", UTC_MICROSECONDS, "Its first exposure", nullable=False),
        _column(
            "history_item_ids",
            pa.list_(pa.string()),
            "The last n positive items before the session began, oldest first",
        ),
        _column("item_ids", pa.list_(pa.string()), "Every exposure of the session, in order"),
        _column("watch_seconds", pa.list_(pa.float64()), "Per exposure"),
        _column("is_watched", pa.list_(pa.bool_()), "Per exposure: watched effectively"),
        _column("is_positive", pa.list_(pa.bool_()), "Per exposure: goes into later histories"),
        _column(
            "signals",
            pa.list_(pa.list_(pa.bool_())),
            "Per exposure: whether each declared signal's condition holds",
        ),
        _column("is_like", pa.list_(pa.bool_()), "Per exposure"),
        _column("is_follow", pa.list_(pa.bool_()), "Per exposure"),
        _column("is_comment", pa.list_(pa.bool_()), "Per exposure"),
        _column("is_share", pa.list_(pa.bool_()), "Per exposure"),
        _column("is_dislike", pa.list_(pa.bool_()), "Per exposure"),
        _column("target_item_ids", pa.list_(pa.string()), "The first m watched items, in order"),
        _column("is_good", pa.bool_(), "Passes every good-session criterion", nullable=False),
        _column("split", pa.string(), "train | valid | test", nullable=False),
    ]
)
"""One session a row, good or not: what training, reward and evaluation read."""

ITEM_ATTRIBUTES = pa.schema(
    [
        _column("item_id", pa.string(), "The item", nullable=False),
        _column("duration_seconds", pa.float64(), "Its full length"),
        _column("author_id", pa.string(), "Who published it"),
        _column("category", pa.string(), "Its category or tags"),
    ]
)
"""One item a row, beside the sessions: the reward model's facts are computed from it."""

SEMANTIC_IDS = pa.schema(
    [
        _column("item_index", pa.int64(), "Row of the item in every tensor", nullable=False),
        _column("item_id", pa.string(), "The item", nullable=False),
        _column(
            "codes",
            pa.list_(pa.int32()),
            "L residual codes, then the token that separates colliding items",
            nullable=False,
        ),
        _column(
            "tokenizer_version", pa.string(), "Hash of the codebook that made it", nullable=False
        ),
        _column(
            "first_seen", pa.date32(), "First day on which the item could be shown", nullable=False
        ),
        _column("withdrawn_on", pa.date32(), "First day on which the catalogue lacked it again"),
    ]
)
"""Append-only inside a tokenizer version: a published ID never changes."""

PREFERENCE_PAIRS = pa.schema(
    [
        _column("user_id", pa.string(), "The user", nullable=False),
        _column("history_item_ids", pa.list_(pa.string()), "The context", nullable=False),
        _column("chosen_item_ids", pa.list_(pa.string()), "Best session by reward", nullable=False),
        _column("rejected_item_ids", pa.list_(pa.string()), "Worst session", nullable=False),
        _column("chosen_reward", pa.float64(), "Scalar reward of the best", nullable=False),
        _column("rejected_reward", pa.float64(), "Scalar reward of the worst", nullable=False),
        _column("chosen_logp", pa.float64(), "Log-probability under the sampler", nullable=False),
        _column("rejected_logp", pa.float64(), "Log-probability under the sampler", nullable=False),
        _column("target_item_ids", pa.list_(pa.string()), "The logged session, for L_NTP"),
    ]
)
"""One best/worst pair a row (OneRec v1, section 3.3.2)."""

PREFERENCE_GROUPS = pa.schema(
    [
        _column("user_id", pa.string(), "The user", nullable=False),
        _column("history_item_ids", pa.list_(pa.string()), "The context", nullable=False),
        _column(
            "session_item_ids",
            pa.list_(pa.list_(pa.string())),
            "The sessions compared",
            nullable=False,
        ),
        _column("rewards", pa.list_(pa.float64()), "Scalar reward of each", nullable=False),
        _column("logps", pa.list_(pa.float64()), "Of each under the sampler", nullable=False),
        _column("target_item_ids", pa.list_(pa.string()), "The logged session, for L_NTP"),
    ]
)
"""One group of a user's sessions a row, for S-DPO, GRPO and ECPO."""

OFFLINE_METRICS = pa.schema(
    [
        _column("system", pa.string(), "What was measured", nullable=False),
        _column(
            "reference",
            pa.string(),
            "The system that it is compared with, user by user: the value is the difference. Null "
            "for a value of its own",
        ),
        _column("metric", pa.string(), "E.g. recall@10, evaluator_reward", nullable=False),
        _column("slice", pa.string(), "all; users or targets counted; a signal", nullable=False),
        _column("value", pa.float64(), "Mean over the cases; NaN without a case", nullable=False),
        _column(
            "low",
            pa.float64(),
            "Lower end of the bootstrap interval; null for a number without one",
        ),
        _column("high", pa.float64(), "Upper end"),
        _column("cases", pa.int64(), "Users with a value; null where it is no mean over users"),
    ]
)
"""One number of an evaluation a row; system, reference, metric and slice are the key."""

CASE_METRICS = pa.schema(
    [
        _column("system", pa.string(), "What was measured", nullable=False),
        _column("metric", pa.string(), "E.g. recall@10, evaluator_reward", nullable=False),
        _column("slice", pa.string(), "all, or the users or targets counted", nullable=False),
        _column("user_id", pa.string(), "The case", nullable=False),
        _column("value", pa.float64(), "Its value; null where the slice has none of it"),
    ]
)
"""One value of a case a row, what the means of `OFFLINE_METRICS` are made of.

Every system, metric and slice lists the same users in the same order.
"""

RECOMMENDATIONS = pa.schema(
    [
        _column("user_id", pa.string(), "The user", nullable=False),
        _column(
            "serve_date", pa.date32(), "Day it is meant for, in the log's time zone", nullable=False
        ),
        _column("rank", pa.int32(), "1 is shown first", nullable=False),
        _column("item_id", pa.string(), "The item", nullable=False),
        _column(
            "score",
            pa.float64(),
            "What a simple system sorts by, else log-probability",
            nullable=False,
        ),
        _column("reward", pa.float64(), "Reward model's scalar, null without a reward model"),
        _column(
            "model_version", pa.string(), "Checkpoint, or name of a simple system", nullable=False
        ),
        _column("tokenizer_version", pa.string(), "Tokenizer version", nullable=False),
    ]
)
"""One recommended item a row: a list for every active user."""
