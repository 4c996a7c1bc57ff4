"""What nightly runs before measured of a weight that is chosen on several days.

An asset that chooses such weights depends on itself, some days back. Its manifest has what it
measured on its own validation or test day, and the versions of earlier ones that it counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.support import upstream
from onerec.artifacts import Artifact, ArtifactError, ArtifactStore

if TYPE_CHECKING:
    from onerec.evaluation.ndcg_by_weight import Earlier, NdcgByWeight

BY_WEIGHT = "ndcg_by_weight"
"""In a manifest's metadata: what its day measured, by name of what the weight is of."""


@dataclass(frozen=True)
class NightsBefore:
    """Artifacts of earlier nightly runs whose measurements count."""

    artifacts: Sequence[Artifact]

    @property
    def upstream(self) -> dict[str, str]:
        """Their versions, for the manifest of what is made with them."""
        return {f"{a.asset}[{a.partition}]": a.version for a in self.artifacts}

    @property
    def measured(self) -> "Earlier":
        """What they measured."""
        from onerec.evaluation.ndcg_by_weight import NdcgByWeight

        found: dict[str, tuple[NdcgByWeight, ...]] = {}
        for artifact in self.artifacts:
            for name, stored in artifact.manifest["metadata"][BY_WEIGHT].items():
                found[name] = (*found.get(name, ()), NdcgByWeight.from_json(stored))
        return found


def on_nights_before(asset: str, days: int) -> list[dg.AssetDep]:
    """Dependencies of an asset on itself, for `nights_before` of as many days."""
    return [upstream(asset, first=1 - days, last=-1)] if days > 1 else []


def nights_before(
    context: dg.AssetExecutionContext,
    store: ArtifactStore,
    asset: str,
    config: Mapping[str, Any],
    days: int,
    *,
    beside: Sequence[str] = (),
    apart_from: Sequence[str] = (),
) -> NightsBefore:
    """The nightly runs of the days before that measured weights with the same settings.

    One that measured nothing, had other settings or cannot be read is left out with a line in the
    log: it is one of several measurements.

    Args:
        context: Of the asset on day D.
        store: The store.
        asset: What has the measurements in its manifest.
        config: Settings of the asset as it is made now, as in its manifest; those that are not
            named may differ.
        days: How many days choose, that of D included.
        beside: Further assets of the same nightly run whose settings have to be D's.
        apart_from: Settings of these assets that may differ.

    Raises:
        ArtifactError: One of `beside` is not there on day D.
    """
    day, log = context.partition_key, context.log.info
    now = [
        {k: v for k, v in store.latest(name, day).manifest["config"].items() if k not in apart_from}
        for name in beside
    ]
    first = (date.fromisoformat(day) - timedelta(days - 1)).isoformat()
    found = []
    for partition in (p for p in store.partitions(asset) if first <= p < day):
        try:
            made = [store.latest(name, partition) for name in (asset, *beside)]
        except ArtifactError as error:
            log(f"{asset}[{partition}] is not counted: {error}")
            continue
        others = [
            artifact.asset
            for artifact, wanted in zip(made, (config, *now), strict=True)
            if not wanted.items() <= artifact.manifest["config"].items()
        ]
        if not made[0].manifest["metadata"].get(BY_WEIGHT):
            log(f"{asset}[{partition}] is not counted: it measured none")
        elif others:
            log(f"{asset}[{partition}] is not counted: other settings of {others}")
        else:
            found.append(made[0])
    return NightsBefore(found)


def as_metadata(measured: "Mapping[str, NdcgByWeight]") -> dict[str, Any]:
    """Metadata of a manifest with what a day measured."""
    stored = {name: ndcg.as_json() for name, ndcg in measured.items() if ndcg.users}
    return {BY_WEIGHT: stored} if stored else {}
