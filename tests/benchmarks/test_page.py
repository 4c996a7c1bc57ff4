"""The page of the benchmarks: what was not measured again stays as it is."""

import json
from pathlib import Path

from benchmarks.__main__ import write_page
from benchmarks.section import Section, Table


def result(directory: Path, name: str, title: str, value: float) -> None:
    table = Table(caption="Times", columns=["what", "seconds"], rows=[["all", value]])
    section = Section(title=title, text="What it is.", tables=[table], figures={name: value})
    found = {"date": "2026-01-02", "machine": "a machine", "versions": {"python": "3"}}
    stored = found | {"peak_rss_gib": 1.0, "section": section.to_json()}
    (directory / f"{name}.json").write_text(json.dumps(stored))


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    first, second = tmp_path / "first" / "bench", tmp_path / "second" / "bench"
    page = tmp_path / "benchmarks.md"
    for directory in (first, second):
        directory.mkdir(parents=True)
    result(first, "data", "Data layer", 1.25)
    result(first, "training", "Training", 2.5)
    write_page(first, page)
    before = page.read_text()
    write_page(first, page)
    assert page.read_text() == before, "written twice, it is the same page"
    result(second, "training", "Training", 7.5)
    write_page(second, page)
    assert page.read_text() == before.replace("2.5", "7.5")
    assert "| all | 1.25 |" in page.read_text()
    assert json.loads((second.parent / "bench.json").read_text()) == {"training": 7.5}
