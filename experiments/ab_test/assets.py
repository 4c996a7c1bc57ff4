"""The paper's Table 2 in the simulator: the cascade and OneRecs serve the same users for days."""

import shutil
from dataclasses import asdict
from datetime import date
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets.code_version import code_version
from assets.support import POOL_TRAINER, STAGES, launchpad, upstream
from experiments.ab_test.config import READ, ABTestConfig
from experiments.asset_support import GROUP, written
from experiments.nightly_artifacts import chosen_day
from onerec.config import require
from resources.stores import Artifacts, Compute, Source

if TYPE_CHECKING:
    from experiments.ab_test.simulation import Night

NAME = "ab_test_table"
MODELS_CODE = code_version("experiments.ab_test.policies", "train_larger", "align")
"""Of the models that the test trains; what it measures of them may change without a training."""
CODE = code_version(__name__, "ab_test_table")


class ABTestLaunchpad(launchpad(ABTestConfig())):
    """What is served, to whom, for how long."""

    day: str = Field(
        default="",
        description="Night whose models are tested, 2026-06-14 say; the last complete one if empty",
    )


@dg.asset(
    name=NAME,
    group_name=GROUP,
    kinds={"pytorch", "lightgbm"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[upstream(name) for name in READ],
)
def ab_test_table(
    context: dg.AssetExecutionContext,
    config: ABTestLaunchpad,
    artifacts: Artifacts,
    source: Source,
    compute: Compute,
) -> dg.MaterializeResult:
    """Cascade, OneRec small, larger, larger + IPA: the same simulated users, visits and luck."""
    from experiments.ab_test.simulation import run
    from experiments.ab_test.table import make_table

    require(
        source.dataset == "simulated",
        "dataset",
        source.dataset,
        "an A/B test needs users who answer; set ONEREC_DATASET=simulated",
    )
    values = config.model_dump()
    day = chosen_day(artifacts.store, values.pop("day"), READ)
    night = _night(context, day, ABTestConfig(**values), artifacts, source, compute)
    versions = {name: artifact.version for name, artifact in night.read.items()}
    key: dict[str, Any] = {
        "config": {"test": asdict(night.config), "stages": asdict(STAGES)},
        "upstream": versions,
        "code_version": CODE,
    }
    scratch = artifacts.store.scratch(NAME, day, key)
    table = make_table(
        run(night, scratch),
        night.config,
        _provenance(night, key),
        repeat_days=night.source.config.repeat_days,
    )
    shutil.rmtree(scratch)
    return written([table], {"night": day, "upstream versions": dg.MetadataValue.json(versions)})


def _night(
    context: dg.AssetExecutionContext,
    day: str,
    config: ABTestConfig,
    artifacts: Artifacts,
    source: Source,
    compute: Compute,
) -> "Night":
    from experiments.ab_test.simulation import Night
    from onerec.datasets.simulated import SimulatedSource

    app = source.open()
    assert isinstance(app, SimulatedSource)
    return Night(
        source=app,
        store=artifacts.store,
        read={name: artifacts.store.latest(name, day) for name in READ},
        day=date.fromisoformat(day),
        stages=STAGES,
        config=config,
        code=MODELS_CODE,
        runtime=compute.runtime().on_one_device(),
        device=compute.torch_device(),
        on_progress=context.log.info,
    )


def _provenance(night: "Night", key: dict[str, Any]) -> Any:
    from experiments.reporting import Provenance, current_commit

    test = night.config
    data = night.read["session_dataset"]
    digest = sha256(repr(sorted(key["config"].items())).encode()).hexdigest()[:10]
    return Provenance(
        data=f"simulated (seed {night.source.config.seed}), night {data.partition}, "
        f"sessions {data.content_hash}",
        config=digest,
        seeds=range(test.traffic_seeds),
        budget=f"one training per generator as the night's (the larger one's dropout was chosen by "
        f"validation loss), one round of {STAGES.alignment.method} with "
        f"{STAGES.alignment.sample_users} users, beam {test.beam}; nothing was tuned on the test",
        commit=current_commit(),
    )
