"""Ten users of the test day with their lists, for manual inspection."""

from datetime import date

import dagster as dg

from assets.code_version import code_version
from assets.evaluation import (
    CHECKPOINTS,
    EVALUATED_WITH,
    evaluation_settings,
    measured_reward_weight,
    nightly_evaluation,
)
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    POOL_WAREHOUSE,
    published,
    upstream,
)
from onerec.config import ALIGNED, PRETRAINED, BeamConfig
from resources.stores import Artifacts, Compute
from resources.warehouse import Warehouse

CODE = code_version(__name__, "user_examples")


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"pytorch"},
    pool=POOL_WAREHOUSE,
    code_version=CODE,
    deps=[
        CORRECTABLE,
        *map(upstream, ("offline_metrics", *EVALUATED_WITH, *CHECKPOINTS.values())),
    ],
)
def user_examples(
    context: dg.AssetExecutionContext, artifacts: Artifacts, warehouse: Warehouse, compute: Compute
) -> dg.MaterializeResult:
    """What ten users did, what every system lists for them, and why the challenger does.

    For reading, with titles where the catalogue has them; nothing depends on it. The ids of the
    users stand in the artifact's file alone.
    """
    from onerec.alignment.round_gate import refusal
    from onerec.evaluation.example_page import PAGE_FILE, without_ids
    from onerec.evaluation.metric_table import MetricTable
    from onerec.evaluation.user_examples import as_markdown, collect_user_examples
    from onerec.promotion.champion import challenger_of

    day, store = context.partition_key, artifacts.store
    read = {n: store.latest(n, day) for n in (*EVALUATED_WITH, *CHECKPOINTS.values())}
    metrics = store.latest("offline_metrics", day)
    decoding = BeamConfig(**metrics.manifest["config"]["decoding"])
    settings = evaluation_settings(metrics)
    weight = measured_reward_weight(metrics, read[CHECKPOINTS[ALIGNED]])
    evaluation = nightly_evaluation(day, read, settings, decoding, compute.torch_device(), weight)
    data = evaluation.data()
    page = "nobody watched anything on this day"
    if len(data.user_ids):
        systems = evaluation.systems(data)
        explained = challenger_of(MetricTable.load(metrics.path), settings).system
        refused = refusal(read[CHECKPOINTS[ALIGNED]].path)
        if refused:  # its list would repeat that of the pretrained generator
            systems = {name: s for name, s in systems.items() if name != ALIGNED}
            explained = PRETRAINED
        catalogue = warehouse.catalogue(date.fromisoformat(day)).select(["item_id", "title"])
        titles = {r["item_id"]: r["title"] for r in catalogue.to_pylist() if r["title"]}
        examples = collect_user_examples(data, systems, explained=explained)
        page = as_markdown(examples, titles)
        if refused:
            page = f"Alignment round refused: {refused}. {ALIGNED} is {PRETRAINED}.\n\n{page}"
    with store.write(
        "user_examples",
        day,
        config=metrics.manifest["config"],
        upstream={n: a.version for n, a in {**read, "offline_metrics": metrics}.items()},
        code_version=CODE,
    ) as draft:
        (draft.path / PAGE_FILE).write_text(page, encoding="utf-8")
    # events cannot be edited: those of an asset hold no ids that `forget` would have to take out
    return published(draft.artifact, {"users": dg.MetadataValue.md(without_ids(page))})
