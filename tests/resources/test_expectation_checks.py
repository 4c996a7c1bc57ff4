"""Great Expectations on a frame: rows that fail are named."""

# Great Expectations does not declare what it exports:
# pyright: reportPrivateImportUsage=false

import warnings

import dagster as dg
import pandas as pd
import pytest

from resources import expectation_checks
from resources.expectation_checks import check_result

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own imports
    from great_expectations import expectations as gxe
    from great_expectations.expectations.expectation import Expectation

FRAME = pd.DataFrame({"session_id": list("abcd"), "num_targets": [0, 1, 2, 1], "title": "t"})
ONE_TARGET = gxe.ExpectColumnValuesToBeInSet(column="num_targets", value_set=[1])


def test_rows_are_named_by_a_column_that_no_expectation_is_about() -> None:
    result = check_result("targets", FRAME.iloc[1:], [ONE_TARGET], key="session_id")
    assert not result.passed
    samples = (result.metadata or {})["sample rows"]
    assert isinstance(samples, dg.TableMetadataValue)
    assert [(r.data["row"], r.data["value"]) for r in samples.records] == [("c", "2")]


@pytest.mark.parametrize(
    ("expectation", "read"),
    [
        (ONE_TARGET, ["num_targets"]),
        (
            gxe.ExpectColumnPairValuesToBeEqual(column_A="title", column_B="num_targets"),
            ["num_targets", "title"],
        ),
        (gxe.ExpectTableColumnCountToEqual(value=3), list(FRAME)),
    ],
)
def test_a_batch_holds_what_its_expectations_read(
    monkeypatch: pytest.MonkeyPatch, expectation: Expectation, read: list[str]
) -> None:
    seen: list[list[str]] = []
    validate = expectation_checks._validate

    def watched(name: str, frame: pd.DataFrame, expectations: list) -> list:
        seen.append([str(c) for c in frame])
        return validate(name, frame, expectations)

    monkeypatch.setattr(expectation_checks, "_validate", watched)
    check_result("any", FRAME, [expectation], key="session_id")
    assert seen == [read]
