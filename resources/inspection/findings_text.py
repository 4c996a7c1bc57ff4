"""Findings as text for the terminal and as Markdown for the UI."""

from collections.abc import Sequence

from onerec.datasets.files import shown
from resources.inspection.findings import Finding, Row

MARKS = {"ok": "ok", "warning": "WARN", "error": "STOP"}
LONGEST_TABLE = 14
"""Rows of a table on the terminal; the UI shows all."""


def as_text(findings: Sequence[Finding]) -> str:
    """Findings for a terminal, topic by topic."""
    lines: list[str] = []
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines += ["", topic]
        lines.append(f"  {MARKS[finding.level]:<4}  {finding.text}")
        rows = finding.rows if len(finding.rows) <= LONGEST_TABLE else ()
        lines += [f"          {_in_one_line(row)}" for row in rows]
        lines.append(f"        -> {finding.setting}")
    return "\n".join([*lines, "", summary(findings)])


def as_markdown(findings: Sequence[Finding]) -> str:
    """Findings for the UI: a table a topic, with what stands behind it."""
    parts = [f"**{summary(findings)}**"]
    for topic in dict.fromkeys(f.topic for f in findings):
        chosen = [f for f in findings if f.topic == topic]
        parts.append(f"## {topic}")
        parts.append(
            _table(
                [
                    {"": MARKS[f.level], "found": f.text, "line of the YAML file": f.setting}
                    for f in chosen
                ]
            )
        )
        parts += [_table(f.rows) for f in chosen if f.rows]
    return "\n\n".join(parts)


def summary(findings: Sequence[Finding]) -> str:
    """One sentence: whether a nightly run would go through."""
    counts = {level: sum(f.level == level for f in findings) for level in MARKS}
    if counts["error"]:
        start = f"A nightly run would stop: {counts['error']} findings marked {MARKS['error']}"
    else:
        start = "Nothing found that stops a nightly run"
    return f"{start}; {counts['warning']} warnings"


def _in_one_line(row: Row) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in row.items())


def _table(rows: Sequence[Row]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row[n]) for n in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return shown(value).replace("|", "\\|")
