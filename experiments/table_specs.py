"""All result tables, and the runs that each is made from.

A new table is an entry here: its data (an `Environment`), the required partitions, and the
unpartitioned asset that writes it to `$ONEREC_HOME/tables`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.ab_test.config import VARIANTS as AB_TEST_VARIANTS
from experiments.amazon_beauty import PARTITIONS as AMAZON_BEAUTY_SYSTEMS
from experiments.variants.grids import COMPARISONS, PRETRAINED
from experiments.variants.stored_results import VariantPartition
from experiments.variants.variant import DEFAULT
from onerec.config import BASELINES, PipelineConfig


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Data and settings shared by tables; each environment has a separate home.

    Attributes:
        name: Name of the home.
        dataset: A key of `onerec.datasets.DATASETS`.
        test_days: Days whose nightly runs are made, in order; tables use the last one.
        settings: Contents of its YAML file: `stages`, and `simulator` for a small one.
        needs_files: Whether the data set reads files, so that DATA_DIR is required.
    """

    name: str
    dataset: str
    test_days: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs_files: bool = False


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One `make tables` entry.

    Attributes:
        name: Name in TABLES="...".
        environment: Data and settings.
        files: Names of the result tables, in the order of the page.
        asset: The asset that writes them, materialised last.
        expected: Expected duration on two cores, in words.
        variants: Asset and name of the variants to make first, each with every seed.
        seeds: Seeds of the variants, or of the nightly runs.
        nights_by_seed: Whether the nightly runs are made once per seed, and pooled.
        partitions: Other partitions to make first, by asset.
        quick: Whether `--quick` includes it.
    """

    name: str
    environment: Environment
    files: tuple[str, ...]
    asset: str
    expected: str
    variants: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    nights_by_seed: bool = False
    partitions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    quick: bool = True

    def variant_partitions(self) -> list[VariantPartition]:
        """Every variant with every seed, after those that they start from."""
        return [
            VariantPartition(asset, name, seed)
            for seed in self.seeds
            for asset, name in self.variants
        ]


SEEDED = ("tokenizer", "training", "reward", "alignment", "evaluation")
"""Stages that draw at random; the seed of evaluation is that of the learned baselines, too."""


def environment_of_seed(environment: Environment, seed: int) -> Environment:
    """The same nightly runs with every stage's seed moved by a number; 0 is the environment."""
    if seed == 0:
        return environment
    stages = copy.deepcopy(dict(environment.settings.get("stages", {})))
    for stage in SEEDED:
        stages[stage] = {
            **stages.get(stage, {}),
            "seed": getattr(PipelineConfig(), stage).seed + seed,
        }
    return replace(
        environment,
        name=f"{environment.name}_seed_{seed}",
        settings={**environment.settings, "stages": stages},
    )


def _compared(name: str) -> tuple[tuple[str, str], ...]:
    """Variants of a comparison, the default that aligned ones start from first."""
    return tuple(dict.fromkeys([(PRETRAINED, DEFAULT), *COMPARISONS[name].systems.values()]))


# On 2022-05-05 `training.history_sessions` was chosen (docs/log.md), so it tests nothing. The
# generator gets as many epochs as the sequence baselines. TIGER is left to the table of Amazon
# Beauty, where its published figure is, for the time it takes.
KUAIRAND = Environment(
    name="kuairand",
    dataset="kuairand",
    test_days=("2022-05-04", "2022-05-06"),
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
KUAIRAND_NIGHTS = Environment(
    name="kuairand_nights",
    dataset="kuairand",
    test_days=tuple(f"2022-05-{day:02}" for day in range(1, 7)),
    settings={
        "stages": {
            "evaluation": {"baselines": "popularity,popularity_recent,own_repeats,itemknn,cascade"}
        }
    },
    needs_files=True,
)
"""Consecutive nightly runs, the first from random weights; all of them development days. Sequence
baselines, trained anew every night, would take as long as all the rest."""
SIMULATED = Environment(
    name="simulated",
    dataset="simulated",
    test_days=("2026-06-14",),
    settings={
        "stages": {
            "evaluation": {"baselines": "popularity,popularity_recent,own_repeats,itemknn,cascade"}
        }
    },
)
SIMULATED_WEEK = Environment(
    name="simulated_week",
    dataset="simulated",
    test_days=tuple(f"2026-06-{day:02}" for day in range(7, 15)),
)
SIMULATED_TEST_WEEK = replace(
    SIMULATED,
    name="simulated_test_week",
    test_days=tuple(f"2026-06-{day}" for day in range(14, 21)),
)
"""Consecutive nightly runs from the day on that the A/B test of one nightly run serves."""
KUAIRAND_WEEK = Environment(
    name="kuairand_week",
    dataset="kuairand",
    test_days=(
        *("2022-04-29", "2022-04-30", "2022-05-01", "2022-05-02"),
        *("2022-05-03", "2022-05-04", "2022-05-05", "2022-05-06"),
    ),
    needs_files=True,
)
"""Consecutive nightly runs, to measure models up to a week old."""
QUICK = Environment(
    name="quick",
    dataset="simulated",
    test_days=("2026-06-05", "2026-06-06"),
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
            "evaluation": {
                "baselines": "popularity,popularity_recent,own_repeats,itemknn,cascade",
                "bootstrap_samples": 100,
                "max_cases": 60,
            },
        },
    },
)
"""A very small simulated app, for `--quick`."""
QUICK_VARIANTS = (DEFAULT, "ipa", "grpo", "point_wise", "elite_second_iteration", "share_5_percent")

TABLES = (
    TableSpec(
        name="walk_forward",
        environment=KUAIRAND_NIGHTS,
        files=(
            "walk_forward_kuairand_nights",
            "walk_forward_kuairand",
            "walk_forward_kuairand_rewards",
        ),
        asset="walk_forward_table",
        nights_by_seed=True,
        expected="six nightly runs of each seed, the first of some 25 minutes, the others of 10; "
        "SEEDS=0 makes one seed",
    ),
    TableSpec(
        name="alignment_kuairand",
        environment=KUAIRAND,
        files=("alignment_kuairand",),
        asset="alignment_table",
        variants=_compared("alignment"),
        seeds=(0,),
        expected="two nightly runs of some 30 minutes, a pretraining of 8, 11 alignments of 2",
    ),
    TableSpec(
        name="amazon_beauty",
        environment=Environment(name="amazon_beauty", dataset="simulated"),
        files=("amazon_beauty",),
        asset="amazon_beauty_table",
        partitions={"amazon_beauty_system": AMAZON_BEAUTY_SYSTEMS},
        quick=False,
        expected="ten minutes of a GPU, or a day of one core; its data is named by "
        "$ONEREC_AMAZON_BEAUTY or lies in ../shared/data/amazon_beauty",
    ),
    TableSpec(
        name="freshness_kuairand",
        environment=KUAIRAND_WEEK,
        files=("freshness_kuairand",),
        asset="freshness_table",
        expected="8 nightly runs, the first of some 15 minutes, the others of 5",
    ),
    TableSpec(
        name="freshness",
        environment=SIMULATED_WEEK,
        files=("freshness_simulated",),
        asset="freshness_table",
        expected="8 nightly runs, the first of 5 minutes, the others of 2",
    ),
    TableSpec(
        name="ab_test",
        environment=SIMULATED,
        files=("ab_test",),
        asset="ab_test_table",
        variants=tuple((p.asset, p.name) for p in AB_TEST_VARIANTS.values()),
        seeds=(0,),
        quick=False,
        expected="a nightly run of 5 minutes, a training of the larger model, three alignments "
        "and days of serving: an hour or two",
    ),
    TableSpec(
        name="ab_test_retrained",
        environment=SIMULATED_TEST_WEEK,
        files=("ab_test_retrained",),
        asset="ab_test_retrained_table",
        expected="7 nightly runs, the first of 5 minutes, the others of 2, then 14 arms of one",
    ),
    TableSpec(
        name="cold_items",
        environment=SIMULATED,
        files=("cold_items_simulated",),
        asset="cold_items_table",
        expected="a nightly run of 5 minutes and six trainings of as long",
    ),
    TableSpec(
        name="reward_quality",
        environment=SIMULATED,
        files=("reward_quality_simulated", "reward_calibration_simulated"),
        asset="reward_table",
        quick=False,
        expected="a nightly run of 5 minutes, then some minutes of one core",
    ),
    TableSpec(
        name="alignment",
        environment=SIMULATED,
        files=("alignment_simulated",),
        asset="alignment_table",
        variants=_compared("alignment"),
        expected="a nightly run of 5 minutes, 2 pretrainings of 1 to 2, then 33 alignments of one",
    ),
    TableSpec(
        name="ablation_training",
        environment=SIMULATED,
        files=("ablation_simulated_training",),
        asset="ablation_training_table",
        variants=_compared("ablation_training"),
        seeds=(0, 1),
        expected="34 results, all but one of them pretrainings of 1 to 5 minutes: an hour or two",
    ),
    TableSpec(
        name="ablation_alignment",
        environment=SIMULATED,
        files=("ablation_simulated_alignment",),
        asset="ablation_alignment_table",
        variants=_compared("ablation_alignment"),
        expected="39 alignments of one to three minutes, ipa's shared with alignment",
    ),
)
"""All tables, in the order in which they are made."""

PAGE_ORDER = (
    "walk_forward_kuairand_nights",
    "walk_forward_kuairand",
    "walk_forward_kuairand_rewards",
    "alignment_kuairand",
    "amazon_beauty",
    "freshness_kuairand",
    "freshness_simulated",
    "ab_test",
    "ab_test_retrained",
    "cold_items_simulated",
    "cold_items_movielens",
    "alignment_simulated",
    "ablation_simulated_training",
    "ablation_simulated_alignment",
    "reward_quality_simulated",
    "reward_calibration_simulated",
)
"""Order of tables on the results page; those without a section are left out."""


def chosen_tables(names: tuple[str, ...]) -> list[TableSpec]:
    """The tables of these names, all where there is none, in their order.

    Raises:
        ValueError: A name is unknown; the message lists the known ones.
    """
    known = [table.name for table in TABLES]
    for name in names:
        if name not in known:
            raise ValueError(f"TABLES={name!r}: use names out of {', '.join(known)}")
    return [table for table in TABLES if not names or table.name in names]


def quick_table(table: TableSpec) -> TableSpec:
    """The table on a very small simulated app, with few variants."""
    return replace(
        table,
        environment=QUICK,
        files=tuple(f.replace(table.environment.dataset, QUICK.dataset) for f in table.files),
        variants=tuple(v for v in table.variants if v[1] in QUICK_VARIANTS),
        seeds=(0, 1),
        expected="a very small app, a few minutes",
    )
