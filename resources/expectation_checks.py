"""Great Expectations on a frame, as the result of an asset check.

Great Expectations checks what a partition's frame looks like; keys and relations are dbt's. Its SQL
route does not work on DuckDB, the frame route does.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

SAMPLE_ROWS = 10


def check_result(
    name: str,
    frame: "pd.DataFrame",
    expectations: Sequence["Expectation"],
    *,
    key: str | None = None,
    remedy: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """Validate a frame and say what failed, with sample rows.

    Args:
        name: Name of the check.
        frame: The rows.
        expectations: What they must satisfy.
        key: Column that names a row in the sample.
        remedy: What to do about a failure.
        metadata: More metadata for the result.
    """
    results = _validate(name, _read_columns(frame, expectations), expectations)
    failed = [r for r in results if not r["success"]]
    rows = [sample for r in failed for sample in _samples(r, frame[key] if key else None)]
    table = dg.TableSchema([dg.TableColumn(c, "string") for c in (*_EXPECTATION_COLUMNS,)])
    found: dict[str, Any] = {
        "rows checked": len(frame),
        "expectations": dg.MetadataValue.table([_record(r) for r in results], schema=table),
        **(metadata or {}),
    }
    if rows:
        columns = [dg.TableColumn(c, "string") for c in ("expectation", "row", "value")]
        found["sample rows"] = dg.MetadataValue.table(rows, schema=dg.TableSchema(columns))
    broken = "; ".join(f"{_title(r)} ({_finding(r)})" for r in failed)
    return dg.AssetCheckResult(
        check_name=name,
        passed=not failed,
        description=f"failed: {broken}. {remedy}".strip() if failed else None,
        metadata=found,
    )


_EXPECTATION_COLUMNS = ("expectation", "passed", "finding")


def _validate(
    name: str, frame: "pd.DataFrame", expectations: Sequence["Expectation"]
) -> list[dict[str, Any]]:
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of pandas and marshmallow
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
        source = context.data_sources.add_pandas(name)
        definition = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
        suite = gx.ExpectationSuite(name=name, expectations=list(expectations))
        result = definition.get_batch({"dataframe": frame}).validate(
            suite, result_format={"result_format": "SUMMARY"}
        )
    return result.to_json_dict()["results"]  # type: ignore[return-value]


def _read_columns(frame: "pd.DataFrame", expectations: Sequence["Expectation"]) -> "pd.DataFrame":
    """What the expectations are about: a batch hashes all that it is given, and texts slowly."""
    named = [
        {getattr(e, part) for part in ("column", "column_A", "column_B") if hasattr(e, part)}
        for e in expectations
    ]
    if not all(named):  # one is about the table
        return frame
    wanted = set().union(*named)
    return frame.loc[:, [name in wanted for name in frame.columns]]


def _title(result: Mapping[str, Any]) -> str:
    config = result["expectation_config"]
    kwargs = {k: v for k, v in config["kwargs"].items() if k != "batch_id" and v is not None}
    return f"{config['type']}({', '.join(f'{k}={v}' for k, v in kwargs.items())})"


def _finding(result: Mapping[str, Any]) -> str:
    found = result["result"]
    if result.get("exception_info", {}).get("raised_exception"):
        return f"could not be evaluated: {result['exception_info'].get('exception_message')}"
    if "unexpected_count" in found:
        return f"{found['unexpected_count']} of {found['element_count']} rows differ"
    return f"observed {found.get('observed_value')}"


def _record(result: Mapping[str, Any]) -> dg.TableRecord:
    values = (_title(result), str(result["success"]).lower(), _finding(result))
    return dg.TableRecord(dict(zip(_EXPECTATION_COLUMNS, values, strict=True)))


def _samples(result: Mapping[str, Any], keys: "pd.Series | None") -> list[dg.TableRecord]:
    found = result["result"]
    labels = found.get("partial_unexpected_index_list") or []
    values = found.get("partial_unexpected_list") or []
    rows = labels if keys is None else [keys[label] for label in labels]
    names = [str(row) for row in rows] or [""] * len(values)
    return [
        dg.TableRecord({"expectation": _title(result), "row": row, "value": str(value)})
        for row, value in list(zip(names, values, strict=False))[:SAMPLE_ROWS]
    ]
