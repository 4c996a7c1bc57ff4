"""Findings as text for a terminal."""

from collections.abc import Sequence

from onerec.datasets.file_problems import shown
from resources.inspection.findings import Finding, Row

MARKS = {"ok": "ok", "warning": "WARN", "error": "STOP"}
LONGEST_TABLE = 14
"""Rows of a table on the terminal, the first and the last ones; the UI shows all."""


def findings_as_text(findings: Sequence[Finding]) -> str:
    """Findings for a terminal, topic by topic."""
    lines: list[str] = []
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines += ["", topic]
        lines.append(f"  {MARKS[finding.level]:<4}  {finding.text}")
        lines += [f"          {line}" for line in _in_lines(finding.rows)]
        lines.append(f"        -> {finding.setting}")
    return "\n".join([*lines, "", summary(findings)])


def summary(findings: Sequence[Finding]) -> str:
    """One sentence: whether a nightly run would go through."""
    counts = {level: sum(f.level == level for f in findings) for level in MARKS}
    if counts["error"]:
        start = f"A nightly run would stop: {counts['error']} findings marked {MARKS['error']}"
    else:
        start = "Nothing found that stops a nightly run"
    return f"{start}; {counts['warning']} warnings"


def _in_lines(rows: Sequence[Row]) -> list[str]:
    lines = [_in_one_line(row) for row in rows]
    left_out, half = len(lines) - LONGEST_TABLE, LONGEST_TABLE // 2
    if left_out <= 0:
        return lines
    hint = f"... {left_out} more, which the asset log_inspection shows ..."
    return [*lines[:half], hint, *lines[-half:]]


def _in_one_line(row: Row) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in row.items())
