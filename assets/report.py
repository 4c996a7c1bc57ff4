"""The nightly report: one page with the metrics, the decision and the time of every step."""

import shutil

import dagster as dg

from assets.code_version import code_version
from assets.support import CORRECTABLE, DAILY, DAY_BY_DAY, SETTINGS, published, upstream
from resources.stores import Artifacts

PAGE = ("nightly.py", "nightly_pictures.py", "pictures.py", "templates/report.html")
CODE = code_version(__name__, "nightly_report", also=[f"onerec/report/{file}" for file in PAGE])


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="serving",
    kinds={"html"},
    code_version=CODE,
    deps=[
        CORRECTABLE,
        *map(upstream, ("offline_metrics", "dpo_checkpoint", "champion", "recommendations")),
    ],
)
def nightly_report(context: dg.AssetExecutionContext, artifacts: Artifacts) -> dg.MaterializeResult:
    """The day's `report.html` and `metrics.json`; the newest ones also in the home's `report/`."""
    from onerec.report.nightly import load_report, write_report

    day, store = context.partition_key, artifacts.store
    read = {name: store.latest(name, day) for name in ("offline_metrics", "champion")}
    seconds = {
        s.step_key: round(s.end_time - s.start_time, 2)
        for s in context.instance.get_run_step_stats(context.run.run_id)
        if s.start_time is not None and s.end_time is not None
    }
    report = load_report(store, day, SETTINGS.dataset, seconds=seconds)
    with store.write(
        "nightly_report",
        day,
        config={},
        upstream={name: artifact.version for name, artifact in read.items()},
        code_version=CODE,
    ) as draft:
        write_report(draft.path, report, store=store)
    made = draft.artifact
    is_newest = day == max(store.partitions("nightly_report"))
    if is_newest:  # a nightly run that is made again does not displace that of a later day
        SETTINGS.report_dir.mkdir(parents=True, exist_ok=True)
        for name in ("report.html", "metrics.json"):
            shutil.copyfile(made.path / name, SETTINGS.report_dir / name)
    return published(
        made,
        {
            "report": dg.MetadataValue.path(str(made.path / "report.html")),
            "newest": "yes" if is_newest else "no, a later day has one",
        },
    )
