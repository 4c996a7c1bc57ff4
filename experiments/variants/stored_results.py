"""Stored results of variants, and their validity."""

from dataclasses import asdict, dataclass
from typing import Any

from experiments.nightly_artifacts import PublishedNightlyRun
from experiments.variants.grids import ALIGNED, PRETRAINED, VARIANTS
from experiments.variants.variant import Variant
from onerec.artifacts import Artifact, ArtifactStore


@dataclass(frozen=True)
class VariantPartition:
    """A variant with a seed.

    Attributes:
        asset: `pretrained_variant` or `aligned_variant`.
        name: Name of the variant.
        seed: Added to the nightly run's seeds; 0 is the nightly run's own.
    """

    asset: str
    name: str
    seed: int

    @property
    def stored_as(self) -> str:
        """Partition in the artifact store."""
        return f"{self.name}-{self.seed}"

    @property
    def dagster_key(self) -> str:
        """Partition key in Dagster: the dimensions in the order of their names."""
        return f"{self.seed}|{self.name}"

    def variant(self, night: PublishedNightlyRun) -> Variant:
        """The changes that it makes to a nightly run."""
        return VARIANTS[self.asset](night.base)[self.name]

    def start(self, night: PublishedNightlyRun) -> "VariantPartition | None":
        """The pretrained variant that an aligned one starts from."""
        if self.asset != ALIGNED:
            return None
        return VariantPartition(PRETRAINED, self.variant(night).start, self.seed)


def result_key(
    store: ArtifactStore, night: PublishedNightlyRun, wanted: VariantPartition, code_version: str
) -> dict[str, Any]:
    """Everything that a result depends on, as stored in its manifest.

    Raises:
        ArtifactError: The variant that it starts from has no result.
    """
    start = wanted.start(night)
    read = {PRETRAINED: store.latest(PRETRAINED, start.stored_as).version} if start else {}
    return {
        "config": asdict(wanted.variant(night)),
        "upstream": {**night.versions, **read},
        "code_version": code_version,
    }


def current_result(
    store: ArtifactStore, night: PublishedNightlyRun, wanted: VariantPartition, code_version: str
) -> Artifact | None:
    """The result for the nightly run's artifacts, current settings and code, if any."""
    start = wanted.start(night)
    if start and current_result(store, night, start, code_version) is None:
        return None
    key = result_key(store, night, wanted, code_version)
    return store.made_with(wanted.asset, wanted.stored_as, key)
