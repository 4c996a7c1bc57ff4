"""A few tables of a warehouse, as the findings of an inspection read them."""

from datetime import date

import duckdb

from onerec.config import PipelineConfig, SessionConfig, WindowConfig
from onerec.config.feedback import Feedback
from resources.inspection.findings import Finding, Inspected

PIPELINE = PipelineConfig(
    sessions=SessionConfig(good_min_watched_items=3), window=WindowConfig(window_days=3)
)


def inspected(feedback: Feedback, tables: str) -> Inspected:
    """A warehouse of a few tables, as SQL."""
    connection = duckdb.connect(":memory:")
    connection.execute(tables)
    days = (date(2026, 6, 1), date(2026, 6, 4))
    return Inspected(connection=connection, days=days, stages=PIPELINE, feedback=feedback)


def the(findings: list[Finding], words: str) -> Finding:
    """The only finding that says so."""
    (found,) = [f for f in findings if words in f.text]
    return found
