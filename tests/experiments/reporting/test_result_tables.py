"""Result tables: what programs read, what people read, and the page of all of them."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.reporting.result_tables import (
    Provenance,
    ResultTable,
    TrainingCost,
)
from experiments.reporting.results_page import (
    OLDER,
    assemble_page,
    section,
    with_age,
    write_table,
)
from experiments.reporting.seed_intervals import SeededValues, seeded_interval, seeded_rows
from onerec.evaluation.metric_table import Metric, MetricRow, MetricTable, TableColumn

MADE = Provenance(data="toy 1a2b", config="tiny", seeds=(0, 1), budget="none", commit="abc")


RECALL, REWARD = TableColumn("recall@10"), TableColumn("reward")
ROWS = (
    MetricRow("a", None, "recall@10", "all", 0.1, 0.05, 0.15),
    MetricRow("b", None, "recall@10", "all", 0.2),
    MetricRow("b", None, "reward", "all", float("nan"), 0.0, 1.0),
)


def table(name: str = "toy", rows: tuple[MetricRow, ...] = ROWS, **others) -> ResultTable:
    return ResultTable(
        name=name,
        title="Toy",
        text="Why.",
        metrics=MetricTable(rows),
        provenance=MADE,
        costs={"a": TrainingCost(seeds=2, seconds=7.0)},
        columns={RECALL: "recall@10", REWARD: "reward"},
        **others,
    )


def test_a_system_is_a_row_with_its_intervals():
    lines = section(table()).splitlines()[4:]
    assert lines[0] == "| system | recall@10 | reward | seeds | seconds |"
    assert lines[2] == "| a | 0.1000 [0.0500, 0.1500] |  | 2 | 7 |"
    assert lines[3] == "| b | 0.2000 |  | 1 |  |"


def test_the_numbers_are_written_as_the_one_table_of_metrics(tmp_path):
    write_table(tmp_path, table())
    assert MetricTable.load(tmp_path, "toy.parquet").rows[:2] == ROWS[:2]


def test_the_page_keeps_an_order_and_takes_the_pictures_along(tmp_path):
    write_table(tmp_path / "tables", table("second"))
    write_table(tmp_path / "tables", table("first", findings=["It was a draw."]))
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    found = assemble_page(tmp_path / "tables", page, ["first", "not_run", "second"])
    assert found == ["first", "second"]
    text = page.read_text()
    assert text.index("It was a draw.") < text.index("second-recall-10.svg")
    assert "(results/first-recall-10.svg)" in text
    assert (page.parent / "results" / "first-recall-10.svg").read_text().startswith("<svg")


def test_a_table_that_was_made_elsewhere_stays_on_the_page(tmp_path):
    page = tmp_path / "results.md"
    write_table(tmp_path / "there", table("first", findings=["Old."]))
    write_table(tmp_path / "there", table("other", findings=["Kept."]))
    order = ["first", "other"]
    assemble_page(tmp_path / "there", page, order)
    write_table(tmp_path / "here", table("first", findings=["New."], pictured=[REWARD]))
    assert assemble_page(tmp_path / "here", page, order) == order
    text = page.read_text()
    assert text.count("## Toy") == 2
    assert "Old." not in text
    assert text.index("New.") < text.index("Kept.")
    pictures = {file.name for file in (tmp_path / "results").iterdir()}
    assert pictures == {"first-reward.svg", "other-recall-10.svg"}
    assemble_page(tmp_path / "here", page, order)
    assert page.read_text() == text


def test_a_table_of_an_earlier_method_says_so_under_its_heading():
    old = section(table()).replace(str(MADE.day), "2026-11-26")
    assert with_age(old).splitlines()[2] == OLDER
    assert with_age(with_age(old)) == with_age(old)
    assert with_age(section(table())) == section(table())


def test_a_picture_that_is_no_longer_made_goes_away(tmp_path):
    write_table(tmp_path, table(pictured=[RECALL, REWARD]))
    write_table(tmp_path, table(pictured=[REWARD]))
    assert [p.name for p in tmp_path.glob("*.svg")] == ["toy-reward.svg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "My Table"}, "My Table"),
        ({"rows": ROWS[:1] * 2}, "twice"),
    ],
)
def test_a_table_that_would_mislead_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        table(**change)


def test_nightly_runs_by_other_commits_are_named():
    def line(*nights: str) -> str:
        made = replace(MADE, nights=nights)
        return section(replace(table(), provenance=made)).splitlines()[-1]

    assert ", commit `abc`, data" in line()
    assert ", commit `abc`, data" in line("abc")
    assert ", commit `abc`, nightly runs by `abc`, `def`, data" in line("abc", "def")


def test_one_seed_is_the_plain_bootstrap_over_users():
    from onerec.statistics import bootstrap_mean

    values = np.random.default_rng(0).random(80)
    assert seeded_interval(values[None]) == pytest.approx(bootstrap_mean(values))


def test_seeds_that_differ_widen_the_interval():
    users = np.random.default_rng(0).random(200)
    alike = seeded_interval(np.stack([users, users, users]))
    apart = seeded_interval(np.stack([users - 1, users, users + 1]))
    assert apart.mean == pytest.approx(alike.mean)
    assert apart.low < alike.low
    assert apart.high > alike.high


def test_a_difference_is_paired_by_user_and_seed():
    rng = np.random.default_rng(0)
    base, recall = rng.random((2, 60)), Metric("recall@10")
    systems = {
        "ours": SeededValues({recall: base + 0.25}, seconds=4.0),
        "theirs": SeededValues({recall: base}),
        "single": SeededValues({recall: base.mean(0, keepdims=True)}),
    }
    metrics = MetricTable(tuple(seeded_rows(systems, [recall], minus=["theirs"])))
    paired = metrics.find("ours", "recall@10", reference="theirs")
    assert paired == pytest.approx((0.25, 0.25, 0.25))
    assert systems["ours"].cost == TrainingCost(seeds=2, seconds=4.0)
    single = metrics.find("single", "recall@10", reference="theirs")
    assert single.mean == pytest.approx(0.0)
    assert ("theirs", "theirs") not in metrics.pairs()


def test_systems_of_other_users_are_not_compared():
    systems = {
        "a": SeededValues({Metric("m"): np.zeros((1, 3))}),
        "b": SeededValues({Metric("m"): np.zeros((1, 4))}),
    }
    with pytest.raises(ValueError, match="same ones"):
        seeded_rows(systems, [Metric("m")], minus=["b"])
