import base64
import math
import xml.etree.ElementTree as ET

import pytest

from onerec.report import pictures

PICTURES = {
    "line": lambda: pictures.line_chart(
        {"train": [3.1, 2.5, math.nan, 2.2], "valid": [3.2, 2.8]}, "Loss", "epoch", "loss (nats)"
    ),
    "long line": lambda: pictures.line_chart(
        {"a": [math.sin(i / 500) for i in range(50_000)]}, "Long", "step", "value"
    ),
    "bars": lambda: pictures.bar_chart(
        {"popularity": (0.05, 0.04, 0.06), "one $ two $": 0.1, "none": math.nan},
        "Recall@10",
        "share of targets found",
    ),
    "histogram": lambda: pictures.histogram(
        {"a": [float(i % 17) for i in range(5000)], "b": [1.0, math.inf]}, "Lengths", "items"
    ),
    "funnel": lambda: pictures.funnel({"raw": 1000, "sessions": 300, "good": 120}, "Sessions"),
    "scatter": lambda: pictures.scatter(
        {"swt": ([0.1] * 3000, [0.2] * 3000), "vtr": ([0.5], [0.4])},
        "Calibration",
        "predicted",
        "observed",
        diagonal=True,
    ),
}


@pytest.mark.parametrize("name", list(PICTURES))
def test_picture_is_small_wellformed_and_the_same_every_time(name: str) -> None:
    svg = PICTURES[name]()
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    assert len(svg) < 60_000
    assert svg == PICTURES[name]()


@pytest.mark.parametrize("name", list(PICTURES))
def test_picture_says_what_it_shows(name: str) -> None:
    texts = {e.text for e in ET.fromstring(PICTURES[name]()).iter() if e.tag.endswith("text")}
    expected = {
        "line": {"Loss", "epoch", "loss (nats)", "train", "valid"},
        "long line": {"Long", "step", "value"},
        "bars": {"Recall@10", "share of targets found", "popularity", "one $ two $", "n/a"},
        "histogram": {"Lengths", "items", "count", "a", "b"},
        "funnel": {"Sessions", "raw", "300  (30%)"},
        "scatter": {"Calibration", "predicted", "observed", "swt", "vtr"},
    }
    assert expected[name] <= texts


@pytest.mark.parametrize(
    "svg",
    [
        pictures.line_chart({}, "t", "x", "y"),
        pictures.bar_chart({}, "t"),
        pictures.histogram([], "t", "x"),
        pictures.funnel({}, "t"),
        pictures.scatter({}, "t", "x", "y"),
    ],
)
def test_nothing_to_show_is_said_not_raised(svg: str) -> None:
    assert "no data" in svg


def test_markdown_holds_the_picture() -> None:
    svg = PICTURES["funnel"]()
    markdown = pictures.svg_markdown(svg)
    head, _, encoded = markdown.partition("base64,")
    assert head == "![Sessions](data:image/svg+xml;"
    assert base64.b64decode(encoded.removesuffix(")")).decode() == svg


def test_a_picture_says_its_title_to_those_who_do_not_see_it() -> None:
    svg = pictures.bar_chart({"a": 1.0}, 'Loss of <b> & "c" [d]')
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'Loss of <b> & "c" [d]'
    markdown = pictures.svg_markdown(svg)
    assert markdown.startswith('![Loss of \\<b\\> \\& "c" \\[d\\]](data:image/svg+xml;base64,')
