"""The code location: loads fast and light, holds the promised jobs and checks."""

import inspect
import subprocess
import sys

import dagster as dg
import pytest

from assets import support
from onerec_dagster.definitions import defs

ASSETS = {
    "raw_events",
    "raw_items",
    "raw_prior_history",
    "log_inspection",
    "stg_events",
    "stg_items",
    "rejected_events",
    "int_events_sessionized",
    "sessions",
    "good_sessions",
    "session_days",
    "session_dataset",
    "item_embeddings",
    "codebook",
    "semantic_ids",
    "pretrained_checkpoint",
    "reward_model",
    "evaluator_model",
    "preference_pairs",
    "dpo_checkpoint",
    "baselines",
    "offline_metrics",
    "champion",
    "recommendations",
    "nightly_report",
}


def _specs() -> dict[str, dg.AssetSpec]:
    return {
        s.key.to_user_string(): s
        for s in defs.resolve_all_asset_specs()
        if not s.key.to_user_string().startswith("source")
    }


def test_definitions_are_loadable():
    dg.Definitions.validate_loadable(defs)


def test_every_stage_is_an_asset_with_description_group_and_kinds():
    specs = _specs()
    assert set(specs) >= ASSETS
    for name in ASSETS:
        assert specs[name].description, name
        assert specs[name].group_name != "default", name
        assert specs[name].kinds, name


TABLES = {"raw_events", "session_dataset", "semantic_ids", "preference_pairs", "offline_metrics"}
TABLES |= {"recommendations", "stg_events", "sessions", "good_sessions", "rejected_events"}


def test_every_asset_has_an_owner_and_every_table_its_columns():
    specs = _specs()
    for name in ASSETS:
        assert specs[name].owners == ["team:recommendations"], name
    for name in TABLES:
        columns = specs[name].metadata["dagster/column_schema"].columns
        assert columns, name
        assert all(column.description for column in columns), name


def test_jobs_have_the_promised_names():
    assert {j.name for j in defs.resolve_all_job_defs()} >= {
        "ingest",
        "nightly",
        "weekly_retokenize",
    }
    assert "codebook" not in {
        k.to_user_string()
        for k in defs.resolve_job_def("nightly").asset_layer.executable_asset_keys
    }


@pytest.mark.parametrize("job", ["nightly", "weekly_retokenize"])
def test_a_night_makes_no_table(job):
    keys = defs.resolve_job_def(job).asset_layer.executable_asset_keys
    assert {"champion", "recommendations"} <= {k.to_user_string() for k in keys}
    assert "reward_table" not in {k.to_user_string() for k in keys}


@pytest.mark.parametrize("job", ["ingest", "nightly", "weekly_retokenize"])
def test_a_look_at_the_log_is_no_part_of_a_night(job):
    keys = defs.resolve_job_def(job).asset_layer.executable_asset_keys
    assert "log_inspection" not in {k.to_user_string() for k in keys}


TRAINED = {
    "codebook",
    "pretrained_checkpoint",
    "reward_model",
    "evaluator_model",
    "preference_pairs",
    "dpo_checkpoint",
    "baselines",
}


READ_FROM = {
    "sessions_per_day": "session_days",
    "catalogue": "stg_items",
    "titles": "stg_items",
    "num_delivered": "raw_events",
}
"""Tables that methods of the warehouse read."""


def test_what_an_asset_reads_of_the_warehouse_is_upstream_of_it():
    """Else a run of the asset and all upstream of it would read what an earlier run left there."""
    readers = {
        definition.key: [
            table
            for method, table in READ_FROM.items()
            if f"warehouse.{method}(" in inspect.getsource(definition.op.compute_fn.decorated_fn)
        ]
        for definition in defs.assets or ()
        if isinstance(definition, dg.AssetsDefinition) and len(definition.keys) == 1
    }
    graph = defs.resolve_asset_graph()
    for asset, tables in readers.items():
        above = dg.AssetSelection.assets(asset).upstream().resolve(graph)
        assert {dg.AssetKey(table) for table in tables} <= above, asset
    assert readers[dg.AssetKey("session_dataset")] == ["session_days", "stg_items", "raw_events"]


def test_what_trains_waits_for_the_trainer():
    """Two trainings at once would each take twice as long, and twice the memory."""
    nodes = defs.resolve_job_def("weekly_retokenize").all_node_defs
    pools = {node.name: node.pool for node in nodes if isinstance(node, dg.OpDefinition)}
    assert {name for name, pool in pools.items() if pool == support.POOL_TRAINER} == TRAINED


def test_loading_imports_no_heavy_library():
    code = (
        "import sys, onerec_dagster.definitions; "
        "heavy = {'torch', 'lightning', 'great_expectations', 'sentence_transformers'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
