import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onerec.artifacts import ArtifactStore, write_json
from onerec.evaluation.metric_table import MetricRow, MetricTable
from onerec.evaluation.protocol import EvaluationProtocol
from onerec.report.nightly import NightlyReport, text_table, write_report
from onerec.report.nightly_pictures import artifact_pictures


def row(system: str, metric: str, value: float, reference: str | None = None) -> MetricRow:
    name, _, part = metric.partition("/")
    ends = (value - 0.01, value + 0.01)
    return MetricRow(system, reference, name, part or "all", value, *ends, cases=1423)


METRICS = MetricTable(
    (
        *(
            row(system, metric, value)
            for system, value in (("dpo", 0.11), ("popularity", 0.05), ("my_model", 0.2))
            for metric in ("recall@10", "ndcg@10", "evaluator_reward", "recall@10/cold")
        ),
        row("dpo", "recall@10", 0.06, reference="popularity"),
        MetricRow("dpo", None, "legal_share", "all", 1.0),
        MetricRow("dpo", None, "repeat_free_share", "all", 1.0),
        MetricRow("reward", None, "auc", "swt", 0.71, 0.69, 0.73),
        MetricRow("reward", None, "auc", "ltr", 0.6, math.nan, math.nan),
        MetricRow("reward", None, "auc", "wtr", math.nan, math.nan, math.nan),
    )
)
REPORT = NightlyReport(
    metrics=METRICS,
    protocol=EvaluationProtocol(
        test_day="2026-06-14",
        tokenizer_version="a",
        users=1423,
        mean_targets=4.0,
        candidate_items=1950,
        bootstrap_confidence=0.95,
        cases="b",
        candidates="c",
        reward_models={},
        scalar_reward=["1 x P(swt: long)"],
        missing_signals=["follow"],
    ),
    dataset="simulated",
    promoted=True,
    seconds={"codebook": 1.25},
)


EPOCH = {"epoch": 1, "train_loss": 3.0, "valid_loss": None, "valid_token_losses": [3.0, 2.0]}


class Tags(HTMLParser):
    """Collects tags, and every reference to something outside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [
            v for k, v in attrs if k in ("src", "href", "xlink:href") and v and v[0] != "#"
        ]


def test_table_for_the_terminal() -> None:
    table = text_table(REPORT)
    lines = table.splitlines()
    assert "test day 2026-06-14, 1,423 users, 1,950 candidate items" in lines[0]
    body = [line for line in lines if re.match(r"(popularity|dpo|my_model)", line)]
    assert [line.split("  ")[0] for line in body] == [
        "popularity",
        "dpo",
        "my_model",
        "dpo - popularity",
    ]
    assert "0.1100 [0.1000, 0.1200]" in body[1]
    assert "+0.0600 [+0.0500, +0.0700]" in body[3]
    assert "100.00% legal" in table
    assert "swt 0.710 [0.690, 0.730], ltr 0.600, wtr n/a, follow no such signal" in table
    assert "  1 x P(swt: long)" in table
    assert "challenger: promoted" in table
    assert max(map(len, lines)) < 110


def test_report_is_one_file_and_says_the_data_are_simulated(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", REPORT).read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.outside == []
    assert tags.tags.count("svg") == 5
    assert "prefers-color-scheme: dark" in page
    assert "The data are simulated" in page
    assert "<td>seconds of codebook</td><td>1.25</td>" in page  # no dictionary of Python's
    assert "{" not in page[page.index("<details>") :]
    assert "0.0500 [0.0400, 0.0600]" in page


def test_metrics_file_is_strict_json(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    written = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert written["reward_auc_wtr"] is None
    assert written["dpo_recall@10"] == 0.11
    assert written["dpo_recall@10_cold_low"] == pytest.approx(0.10)
    assert written["dpo_minus_popularity_recall@10_high"] == pytest.approx(0.07)
    assert "dpo_legal_share_low" not in written
    facts = {"legal_share": 1.0, "users": 1423, "promoted": True}
    assert facts.items() <= written.items()
    assert written["seconds"]["codebook"] == 1.25


def test_names_of_systems_are_text_not_markup(tmp_path: Path) -> None:
    odd = MetricTable((row("<b>best</b>", "recall@10", 0.2), *METRICS.rows))
    page = write_report(tmp_path, replace(REPORT, metrics=odd, dataset="<i>")).read_text()
    tags = Tags()
    tags.feed(page)
    assert not {"b", "i"} & set(tags.tags)
    assert "&lt;b&gt;best&lt;/b&gt;" in page


def test_pictures_of_the_making_come_from_the_store(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    reliability = {"predicted": [0.1, 0.4], "observed": [0.1, 0.5], "share": [0.5, 0.5]}
    files = {
        "session_dataset": ("stats.json", {"funnel": {"exposures": 90, "sessions": 20}}),
        "semantic_ids": ("diagnostics.json", {"levels": [{"usage": [3, 5, 4]}]}),
        "pretrained_checkpoint": ("history.json", {"epochs": [EPOCH]}),
        "reward_model": ("metrics.json", {"towers": {"swt": {"reliability": reliability}}}),
    }
    for asset, (name, value) in files.items():
        with store.write(asset, "2026-06-14", config={}, upstream={}, code_version="1") as draft:
            write_json(draft.path / name, value)
    drawn = artifact_pictures(store, "2026-06-14")
    assert list(drawn) == [
        "sessions",
        "codes",
        "pretrained_checkpoint: losses",
        "reward_model: calibration",
    ]
    page = write_report(tmp_path, REPORT, store=store).read_text()
    assert "reward_model: calibration" in page


def test_an_empty_night_has_a_report_too(tmp_path: Path) -> None:
    empty = replace(REPORT, metrics=MetricTable(()), promoted=None, seconds={})
    assert write_report(tmp_path, empty).exists()
    assert "system" in text_table(empty)


def test_a_refused_round_is_said_instead_of_a_row_that_repeats_another(tmp_path: Path) -> None:
    refused = replace(REPORT, refused_round="Recall@10 fell", promoted=False)
    table = text_table(refused)
    assert "alignment round refused: Recall@10 fell. dpo is the generator of pretrained" in table
    assert not re.search(r"^dpo ", table, re.MULTILINE)
    assert re.search(r"^dpo ", text_table(REPORT), re.MULTILINE)
    page = write_report(tmp_path, refused).read_text()
    assert "<td>dpo</td>" not in page
    assert "<td>popularity</td>" in page
    assert json.loads((tmp_path / "metrics.json").read_text())["dpo_recall@10"] == 0.11


def test_a_day_on_which_nobody_consumed_says_why_there_are_no_metrics() -> None:
    protocol = replace(REPORT.protocol, users=0)
    table = text_table(replace(REPORT, metrics=MetricTable(()), protocol=protocol))
    assert f"no metrics: no user consumed on {protocol.test_day}" in table
    assert "bootstrap interval" not in table
    assert "no metrics" not in text_table(REPORT)
