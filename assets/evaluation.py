"""Is it better, than what, by how much: baselines, offline metrics, and the promotion decision."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.support import (
    DAILY,
    DAY_BY_DAY,
    STAGES,
    launchpad,
    published,
    to_core,
    upstream,
)
from onerec.artifacts import Artifact, read_json, write_json
from onerec.config import BASELINES, SERVED, EvaluationConfig
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from onerec.evaluation.evaluate import Night

MEASURED_WITH = (
    "session_dataset",
    "semantic_ids",
    "baselines",
    "evaluator_model",
    "reward_model",
)
CHALLENGER = "dpo_checkpoint"
GENERATORS = {"pretrained": "pretrained_checkpoint", "dpo": CHALLENGER}
"""Name in metrics -> asset. The last one is the challenger."""
BASELINE_SETTINGS = (
    "baselines", "baseline_epochs", "baseline_width", "baseline_trials", "neighbours", "seed",
)  # fmt: skip
"""Settings of the evaluation stage that decide what the baselines are."""
BASELINES_CODE = code_version(__name__, "baselines")
METRICS_CODE = code_version(__name__, "offline_metrics")
CHAMPION_CODE = code_version(__name__, "champion")


class EvaluationLaunchpad(launchpad(STAGES.evaluation)):
    """Metrics, intervals and the promotion rule."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"scipy", "parquet"},
    code_version=BASELINES_CODE,
    deps=[upstream("session_dataset"), upstream("semantic_ids")],
)
def baselines(
    context: dg.AssetExecutionContext, config: EvaluationLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """Popularity, item-KNN and what else the settings name, fitted on the window [D - W, D - 1];
    nothing of day D."""
    from onerec.evaluation.baselines import fit_baselines, fit_learned
    from onerec.evaluation.interactions import load_interactions
    from onerec.pictures import histogram, svg_markdown
    from onerec.tokenizer.tokenized_catalogue import load_tokenized

    day, settings = context.partition_key, to_core(config, EvaluationConfig)
    read = {n: artifacts.store.latest(n, day) for n in ("session_dataset", "semantic_ids")}
    tokenized, test_day = load_tokenized(read["semantic_ids"].path), date.fromisoformat(day)
    ids = tokenized.ids
    data, candidates = read["session_dataset"].path, ids.known_before(test_day)
    counted = fit_baselines(
        load_interactions(data, ids, test_day=test_day), candidates, neighbours=settings.neighbours
    )
    seconds: dict[str, float] = {}
    learned = fit_learned(
        data,
        ids,
        candidates,
        settings,
        test_day=test_day,
        history_length=STAGES.sessions.history_length,
        vectors=tokenized.vectors,
        on_progress=context.log.info,
        on_fitted=lambda name, spent: seconds.update({f"seconds of {name}": spent}),
    )
    fitted = replace(counted, learned=learned)
    with artifacts.store.write(
        "baselines",
        day,
        config={name: getattr(settings, name) for name in BASELINE_SETTINGS},
        upstream={name: a.version for name, a in read.items()},
        code_version=BASELINES_CODE,
    ) as draft:
        fitted.save(draft.path)
        draft.row_counts["rows"] = int(fitted.candidates.sum())
    shown = histogram(
        fitted.exposures.tolist(), "How often an item was shown", "exposures", "items"
    )
    return published(
        draft.artifact,
        {
            "exposures per item": dg.MetadataValue.md(svg_markdown(shown)),
            **fitted.facts(),
            **seconds,
        },
    )


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"pytorch", "parquet"},
    code_version=METRICS_CODE,
    deps=[upstream(name) for name in (*MEASURED_WITH, *GENERATORS.values())],
)
def offline_metrics(
    context: dg.AssetExecutionContext,
    config: EvaluationLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """Every system on the cases of day D: the same histories, the full catalogue, with
    intervals."""
    from onerec.evaluation.comparison import write_protocol
    from onerec.evaluation.evaluate import evaluate, reward_aucs, summarise, write_cases
    from onerec.pictures import svg_markdown
    from onerec.report import markdown_table, metric_pictures, without_nan

    day, settings = context.partition_key, to_core(config, EvaluationConfig)
    store = artifacts.store
    read = {n: store.latest(n, day) for n in (*MEASURED_WITH, *GENERATORS.values())}
    night = _night(day, read, settings)
    checkpoints = {name: read[asset].path for name, asset in GENERATORS.items()}
    measured = evaluate(
        night,
        checkpoints,
        STAGES.decoding,
        device=compute.torch_device(),
        on_progress=context.log.info,
    )
    metrics = summarise(night, measured) | reward_aucs(read["reward_model"].path)
    with store.write(
        "offline_metrics",
        day,
        config=asdict(settings) | {"decoding": asdict(STAGES.decoding)},
        upstream={name: artifact.version for name, artifact in read.items()},
        code_version=METRICS_CODE,
        seed=settings.seed,
    ) as draft:
        write_json(draft.path / "metrics.json", without_nan(metrics))
        write_protocol(draft.path, night)
        draft.row_counts["rows"] = write_cases(draft.path / "cases.parquet", night, measured)
    pictures = {
        k: dg.MetadataValue.md(svg_markdown(v)) for k, v in metric_pictures(metrics).items()
    }
    table = dg.MetadataValue.md(markdown_table(metrics))
    return published(draft.artifact, {"metrics": table, **pictures, **_headlines(metrics)})


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "every_id_is_legal",
            asset=offline_metrics,
            blocking=True,
            description="Every generated item is a candidate with tokens of its own.",
        ),
        dg.AssetCheckSpec(
            "sessions_are_repeat_free",
            asset=offline_metrics,
            blocking=True,
            description="No generated session repeats an item.",
        ),
        dg.AssetCheckSpec(
            "beats_popularity",
            asset=offline_metrics,
            description="The challenger's Recall@10 is above popularity's beyond noise.",
        ),
    ]
)
def offline_metrics_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """What a generator must never do, and what it should do."""
    measured = artifacts.store.latest("offline_metrics", context.partition_key)
    yield from check_metrics(read_json(measured.path / "metrics.json"))


def check_metrics(metrics: Mapping[str, Any]) -> Iterator[dg.AssetCheckResult]:
    """The checks, as a function of a night's `metrics.json`."""
    for name, share in (
        ("every_id_is_legal", metrics["legal_share"]),
        ("sessions_are_repeat_free", metrics["repeat_free_share"]),
    ):
        yield dg.AssetCheckResult(
            passed=share == 1,
            check_name=name,
            asset_key="offline_metrics",
            metadata={"share": share},
        )
    gain = metrics["dpo_minus_popularity_recall@10_low"]
    yield dg.AssetCheckResult(
        passed=gain is not None and gain > 0,
        check_name="beats_popularity",
        asset_key="offline_metrics",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "Recall@10": metrics["dpo_recall@10"],
            "popularity's Recall@10": metrics["popularity_recall@10"],
            "lower end of the difference": gain,
        },
    )


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"pytorch"},
    code_version=CHAMPION_CODE,
    deps=[
        *(upstream(name) for name in (*MEASURED_WITH, CHALLENGER, "offline_metrics")),
        upstream("champion", first=-1, last=-1),
    ],
)
def champion(
    context: dg.AssetExecutionContext,
    config: EvaluationLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """The model that serves: the challenger if every gate passes, else the champion before it.

    Refusing is a success of the run. `champion.json` holds the decision with its numbers; beside it
    lies the champion's complete bundle for `Recommender.load`.
    """
    from onerec.evaluation.champion import (
        decide_champion,
        describe,
        keep_bundle,
        measure_incumbent,
        previous_champion,
        reward_chooses,
        weak_towers,
        write_decision,
    )
    from onerec.recommender import write_bundle

    day, settings = context.partition_key, to_core(config, EvaluationConfig)
    store = artifacts.store
    read = {n: store.latest(n, day) for n in (*MEASURED_WITH, CHALLENGER, "offline_metrics")}
    incumbent = previous_champion(store, day)
    standing = None
    if incumbent is not None:
        night = _night(day, read, settings)
        standing = measure_incumbent(
            night, incumbent.path, STAGES.decoding, device=compute.torch_device()
        )
    decision = decide_champion(
        read["offline_metrics"].path,
        standing,
        settings,
        weak_towers=weak_towers(read["reward_model"].path, STAGES.reward),
    )
    by_reward = reward_chooses(read["offline_metrics"].path, settings)
    description: dict[str, Any] = describe(decision, read[CHALLENGER], incumbent)
    description["reward_chooses"] = by_reward
    versions = {name: artifact.version for name, artifact in read.items()}
    if incumbent is not None:
        versions["champion"] = incumbent.version
    with store.write(
        "champion", day, config=asdict(settings), upstream=versions, code_version=CHAMPION_CODE
    ) as draft:
        if decision.promoted:
            write_bundle(
                draft.path,
                checkpoint=read[CHALLENGER].path,
                semantic_ids=read["semantic_ids"].path,
                reward=read["reward_model"].path if by_reward else None,
                config=STAGES.decoding,
            )
        elif incumbent is not None:
            keep_bundle(draft.path, incumbent)
        write_decision(draft.path, description)
    return published(
        draft.artifact,
        {
            "promoted": decision.promoted,
            "challenger's lists are chosen by": "reward" if by_reward else "probability",
            "reasons": dg.MetadataValue.md("\n".join(f"- {r}" for r in decision.reasons) or "none"),
            "warnings": dg.MetadataValue.json(decision.warnings),
            "gates": dg.MetadataValue.json(decision.gates),
            "numbers": dg.MetadataValue.json(description["numbers"]),
            "champion": dg.MetadataValue.json(description["model"]),
        },
    )


def _night(day: str, read: Mapping[str, Artifact], settings: EvaluationConfig) -> "Night":
    from onerec.evaluation.evaluate import load_night

    return load_night(
        test_day=date.fromisoformat(day),
        session_dataset=read["session_dataset"].path,
        semantic_ids=read["semantic_ids"].path,
        baselines=read["baselines"].path,
        checkpoint=read[CHALLENGER].path,
        evaluator=read["evaluator_model"].path,
        reward_model=read["reward_model"].path,
        config=settings,
        reward=STAGES.reward,
    )


def _headlines(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that Dagster plots over partitions."""
    wanted = [
        f"{s}_{m}"
        for s in (*GENERATORS, *SERVED)
        for m in ("recall@10", "ndcg@10", "evaluator_reward")
    ]
    wanted += [f"{name}_recall@10" for name in BASELINES if name != "popularity_recent"]
    wanted += ["legal_share", "users"]
    known = [name for name in wanted if name in metrics]
    return {name: metrics[name] for name in known if metrics[name] == metrics[name]}
