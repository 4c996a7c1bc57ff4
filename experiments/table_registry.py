"""Which result tables there are, and what each is made from.

A new table is an entry here: the data it stands on (an `Environment`), the partitions of grids that
have to be there, and the assets without partitions that write it to `$ONEREC_HOME/tables`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.variants import grids as lists
from onerec.config import BASELINES, PipelineConfig


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Data and settings that tables share; it has a home of its own.

    Attributes:
        name: Of the home.
        dataset: A key of `onerec.datasets.DATASETS`.
        days: The last so many days of the log are test days.
        left_out: Those among them on which something was chosen, so that they test nothing.
        settings: What its YAML file holds: `stages`, and `simulator` for a small one.
        needs_files: The data set reads files, so that DATA_DIR has to be given.
        test_day: The last test day; the log's last one, or its 14th where it goes on.
    """

    name: str
    dataset: str
    days: int = 1
    left_out: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs_files: bool = False
    test_day: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Partitions of a grid.

    Attributes:
        asset: The grid.
        seeds: Of all variants.
        variants: Those wanted; all where empty.
    """

    asset: str
    seeds: tuple[int, ...] = (0, 1, 2)
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """One `make tables` entry.

    Attributes:
        name: What TABLES="..." calls it.
        environment: Whose data it stands on.
        writes: Names of the result tables, in the order of the page.
        assets: Assets that write them, materialised last.
        expected: How long it takes on two cores, and of what.
        grids: Partitions that come first.
        nights: Nights are run for the environment's days first.
        asset_config: Configuration by asset.
        quick: It has a quick form; the others are left out of `--quick`.
    """

    name: str
    environment: Environment
    writes: tuple[str, ...]
    assets: tuple[str, ...]
    expected: str
    grids: tuple[Grid, ...] = ()
    nights: bool = True
    asset_config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quick: bool = True


# On 2022-05-05 `training.history_sessions` was chosen (docs/log.md). The generator gets as many
# epochs as the sequence baselines. TIGER is left to the table of Amazon Beauty, where its published
# figure is, for the time it takes.
KUAIRAND = Environment(
    name="kuairand",
    dataset="kuairand",
    days=3,
    left_out=("2022-05-05",),
    settings={
        "stages": {
            "evaluation": {
                "baselines": ",".join(name for name in BASELINES if name != "tiger"),
                "baseline_epochs": 20,
            },
            "training": {"max_epochs": 20},
        }
    },
    needs_files=True,
)
SIMULATED = Environment(name="simulated", dataset="simulated")

TABLES = (
    Table(
        name="walk_forward",
        environment=KUAIRAND,
        writes=("walk_forward_kuairand", "walk_forward_kuairand_rewards"),
        assets=("walk_forward_table",),
        expected="two nights of some 15 minutes and as much again for the sequence baselines (at "
        "most 20 epochs each)",
    ),
    Table(
        name="alignment_kuairand",
        environment=KUAIRAND,
        writes=("alignment_kuairand",),
        grids=(Grid(asset="alignment_grid", seeds=(0,)),),
        assets=("alignment_table",),
        expected="12 results of 1 to 2 minutes, after the nights of walk_forward",
    ),
    Table(
        name="amazon_beauty",
        environment=Environment(name="amazon_beauty", dataset="simulated"),
        writes=("amazon_beauty",),
        assets=("amazon_beauty_table",),
        quick=False,
        nights=False,
        expected="2 hours on one core, from $ONEREC_AMAZON_BEAUTY or ../shared/data/amazon_beauty; "
        "what a stopped run has finished is used by the next",
    ),
    Table(
        name="ab_test",
        environment=SIMULATED,
        writes=("ab_test",),
        assets=("ab_test_table",),
        quick=False,
        expected="a night of 5 minutes, the training of the larger model, and days of serving",
    ),
    Table(
        name="reward_quality",
        environment=SIMULATED,
        writes=("reward_quality_simulated", "reward_calibration_simulated"),
        assets=("reward_table",),
        quick=False,
        expected="a night of 5 minutes, then some minutes of one core",
    ),
    Table(
        name="alignment",
        environment=SIMULATED,
        writes=("alignment_simulated",),
        grids=(Grid(asset="alignment_grid"),),
        assets=("alignment_table",),
        expected="a night of 5 minutes, 2 pretrainings of 1 to 2, then 36 results of half a minute",
    ),
    Table(
        name="ablation_training",
        environment=SIMULATED,
        writes=("ablation_simulated_training",),
        grids=(
            Grid(
                asset="ablation_grid",
                seeds=(0, 1),
                variants=tuple(lists.training_ablations(PipelineConfig())),
            ),
        ),
        assets=("ablation_table",),
        expected="32 results, all but one of them pretrainings of 1 to 5 minutes: an hour or two",
    ),
    Table(
        name="ablation_alignment",
        environment=SIMULATED,
        writes=("ablation_simulated_alignment",),
        grids=(
            Grid(
                asset="ablation_grid",
                variants=tuple(lists.alignment_ablations(PipelineConfig())),
            ),
        ),
        assets=("ablation_table",),
        expected="39 results of half a minute to two, the pretrained starts shared with alignment",
    ),
)
"""In the order in which they are made."""

ORDER = (
    "walk_forward_kuairand",
    "walk_forward_kuairand_rewards",
    "alignment_kuairand",
    "amazon_beauty",
    "ab_test",
    "alignment_simulated",
    "ablation_simulated_training",
    "ablation_simulated_alignment",
    "reward_quality_simulated",
    "reward_calibration_simulated",
)
"""Of the page. Names without a section are left out."""

QUICK = Environment(
    name="quick",
    dataset="simulated",
    days=2,
    test_day="2026-06-06",
    settings={
        "simulator": {
            "initial_users": 260,
            "new_users_per_day": 4,
            "initial_items": 220,
            "new_items_per_day": 6,
        },
        "stages": {
            "window": {"window_days": 5},
            "embeddings": {"text_encoder": "hashed", "text_dim": 32, "collaborative_dim": 16},
            "tokenizer": {"codebook_size": 8, "iterations": 5},
            "sessions": {"history_length": 8},
            "model": {"d_model": 32, "num_heads": 2, "d_ff": 64, "decoder_layers": 1},
            "training": {"max_epochs": 4, "batch_size": 32},
            "reward": {"d_model": 16, "num_heads": 2, "max_epochs": 2},
            "decoding": {"beam": 16, "candidates": 8},
            "alignment": {"sample_users": 60, "batch_size": 16, "epochs": 1},
            "evaluation": {"bootstrap_samples": 100, "max_cases": 60},
        },
    },
)
"""A very small simulated app, for `--quick`."""
QUICK_VARIANTS = (
    lists.REFERENCE,
    lists.DEFAULT,
    lists.ALIGNED_DEFAULT,
    "grpo",
    "point_wise",
    "elite_second_iteration",
    "share_5_percent",
)
"""Those that `--quick` makes, with seeds 0 and 1."""
