import doctest
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onerec import report
from onerec.artifacts import ArtifactStore, write_json

METRICS = {
    "test_day": "2026-06-14",
    "users": 1423,
    "candidate_items": 1950,
    "bootstrap_confidence": 0.95,
    "legal_share": 1.0,
    "repeat_free_share": 1.0,
    "promoted": True,
    "reward_auc_swt": 0.71,
    "reward_auc_swt_low": 0.69,
    "reward_auc_swt_high": 0.73,
    "reward_auc_ltr": 0.6,
    "reward_auc_wtr": math.nan,
    "dataset": "simulated",
    "seconds_codebook": 1.25,
    **{
        f"{system}_{metric}{end}": value + shift
        for system, value in (("dpo", 0.11), ("popularity", 0.05), ("my_model", 0.2))
        for metric in ("recall@10", "ndcg@10", "evaluator_reward", "recall@10_cold")
        for end, shift in (("", 0.0), ("_low", -0.01), ("_high", 0.01))
    },
    "dpo_minus_popularity_recall@10": 0.06,
    "dpo_minus_popularity_recall@10_low": 0.05,
    "dpo_minus_popularity_recall@10_high": 0.07,
}


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


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(report).failed == 0


def test_table_for_the_terminal() -> None:
    table = report.metric_table(METRICS)
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
    assert "swt 0.710 [0.690, 0.730], vtr n/a, wtr n/a, ltr 0.600" in table
    assert "challenger: promoted" in table
    assert max(map(len, lines)) < 110


def test_report_is_one_file_and_says_the_data_are_simulated(tmp_path: Path) -> None:
    page = report.write_report(tmp_path / "report", METRICS).read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.outside == []
    assert tags.tags.count("svg") == 5
    assert "prefers-color-scheme: dark" in page
    assert "The data are simulated" in page
    assert "0.0500 [0.0400, 0.0600]" in page


def test_metrics_file_is_strict_json(tmp_path: Path) -> None:
    report.write_report(tmp_path, METRICS)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    written = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert written["reward_auc_wtr"] is None
    assert written["dpo_recall@10"] == METRICS["dpo_recall@10"]


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
    drawn = report.artifact_pictures(store, "2026-06-14")
    assert list(drawn) == [
        "sessions",
        "codes",
        "pretrained_checkpoint: losses",
        "reward_model: calibration",
    ]
    page = report.write_report(tmp_path, METRICS, store=store, day="2026-06-14").read_text()
    assert "reward_model: calibration" in page


@pytest.mark.parametrize("metrics", [{}, {"test_day": "2026-06-14"}])
def test_an_empty_night_has_a_report_too(tmp_path: Path, metrics: dict) -> None:
    assert report.write_report(tmp_path, metrics).exists()
    assert report.metric_table(metrics)
