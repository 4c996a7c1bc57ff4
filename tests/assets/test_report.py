"""The nightly report as Dagster makes it: which day's stands in the home."""

import dataclasses
from pathlib import Path

import dagster as dg
import pytest

from assets import report
from onerec.artifacts import ArtifactStore, read_json
from onerec.report import nightly
from resources.stores import Artifacts
from tests.core.report.test_nightly import REPORT


def test_a_day_that_is_made_again_does_not_displace_the_report_of_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SETTINGS", dataclasses.replace(report.SETTINGS, home=tmp_path))

    def load_report(store, day, dataset, **resources):
        protocol = dataclasses.replace(REPORT.protocol, test_day=day)
        return dataclasses.replace(REPORT, protocol=protocol)

    monkeypatch.setattr(nightly, "load_report", load_report)
    url = str(tmp_path / "artifacts")
    store = ArtifactStore(url)

    def make(day: str) -> dict[str, object]:
        for asset in ("offline_metrics", "champion"):
            with store.write(asset, day, config={}, upstream={}, code_version="1"):
                pass
        with dg.DagsterInstance.ephemeral() as instance:
            made = dg.materialize(
                [report.nightly_report],
                partition_key=day,
                resources={"artifacts": Artifacts(url=url)},
                instance=instance,
            )
        (event,) = made.asset_materializations_for_node("nightly_report")
        return {name: value.value for name, value in event.metadata.items()}

    assert make("2026-06-14")["newest"] == "yes"
    again = make("2026-06-10")
    assert again["newest"] == "no, a later day has one"
    assert (
        read_json(Path(str(again["report"])).with_name("metrics.json"))["test_day"] == "2026-06-10"
    )
    assert "test day 2026-06-10" in Path(str(again["report"])).read_text()
    assert read_json(tmp_path / "report" / "metrics.json")["test_day"] == "2026-06-14"
    make("2026-06-15")
    assert "test day 2026-06-15" in (tmp_path / "report" / "report.html").read_text()
