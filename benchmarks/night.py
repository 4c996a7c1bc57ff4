"""A whole nightly run on a large simulated app: time and peak memory of every asset.

Runs `make demo` on 14 days of an app with 50,000 items: the earlier days are ingested, then the
nightly run for the last day tokenises, trains, aligns, evaluates and serves all users.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import yaml

from benchmarks.section import Section, Table

LARGE = {
    "initial_users": 16_000,
    "new_users_per_day": 7_200,
    "initial_items": 46_800,
    "new_items_per_day": 250,
    "authors_per_topic": 100,
    "activity": 0.03,
}
"""About 1.5 million exposures of 100,000 users in two weeks; 50,000 items on the last day."""
QUICK = {"initial_users": 300, "new_users_per_day": 10, "initial_items": 300}
CUT = {
    "tokenizer": {"codebook_size": 256},
    "sessions": {"history_length": 20},
    "model": {
        "d_model": 128,
        "num_heads": 4,
        "d_ff": 256,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "num_experts": 4,
    },
    "training": {"batch_size": 256, "max_epochs": 3, "learning_rate": 2e-3},
    "reward": {"max_epochs": 3},
    "decoding": {"beam": 8, "candidates": 16},
    "alignment": {"rounds": 1, "sample_users": 2000},
    "evaluation": {"max_cases": 2000},
}
"""The `small` preset, reduced to take an hour on two cores."""

SIZES = """
select
    (select count(*) from raw.raw_events),
    (select count(distinct user_id) from raw.raw_events),
    (select count(*) from semantic_ids),
    (select count(distinct user_id) from recommendations)
"""


def run(quick: bool) -> Section:
    """Run `make demo` in a separate home and read its report."""
    with tempfile.TemporaryDirectory(prefix="onerec-night-") as directory:
        home = Path(directory)
        config = home / "night.yaml"
        size, stages = (QUICK, _quick_stages()) if quick else (LARGE, CUT)
        config.write_text(yaml.safe_dump({"simulator": size, "stages": stages}))
        environment = {
            **os.environ,
            "ONEREC_HOME": str(home),
            "ONEREC_DATASET": "simulated",
            "ONEREC_PRESET": "tiny" if quick else "small",
            "ONEREC_CONFIG": str(config),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
        }
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "onerec_dagster.demo"], env=environment, check=True)
        minutes = (time.monotonic() - began) / 60
        metrics = json.loads((home / "report" / "metrics.json").read_text())
        return _section(metrics, _sizes(home / "simulated" / "warehouse.duckdb"), minutes)


def _sizes(warehouse: Path) -> dict[str, int]:
    """Row counts of the nightly run's data, from its warehouse."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        row = connection.execute(SIZES).fetchone()
    assert row is not None, "a count is one row"
    return dict(zip(("events", "users", "items", "served"), map(int, row), strict=True))


def _quick_stages() -> dict[str, Any]:
    return {
        "embeddings": {"text_encoder": "hashed"},
        "tokenizer": {"codebook_size": 16},
        "training": {"max_epochs": 1},
        "reward": {"max_epochs": 1},
        "alignment": {"sample_users": 50, "epochs": 1},
        "evaluation": {"max_cases": 50},
    }


def _section(metrics: dict[str, Any], sizes: dict[str, int], minutes: float) -> Section:
    seconds = metrics["seconds"]
    slowest = sorted(seconds, key=lambda step: -seconds[step])
    return Section(
        title="A whole nightly run",
        text=(
            f"`make demo` on {sizes['events']:,} simulated exposures of {sizes['users']:,} users "
            f"and {sizes['items']:,} items in two weeks, the `small` preset cut to fit "
            f"(`benchmarks/night.py`): {minutes:.0f} minutes, the simulation and ingest of all "
            f"days included, {sizes['served']:,} users served. Memory is that of the whole process "
            "tree while a step ran; two steps may run at once."
        ),
        tables=[
            Table(
                caption="Steps, slowest first",
                columns=("step", "seconds", "peak GiB of all processes"),
                rows=[
                    (step, round(seconds[step], 1), metrics["peak_gib"][step])
                    for step in slowest
                    if seconds[step] >= 1
                ],
            )
        ],
        figures={
            "night_minutes": minutes,
            "night_peak_gib": metrics["peak_rss_gib"],
            **{f"night_{name}": size for name, size in sizes.items()},
        },
    )
