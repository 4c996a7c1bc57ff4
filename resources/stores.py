"""Resources: artifact store, event source, consumers' directory, and what trainings run on."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, create_model

from onerec.artifacts import ArtifactStore
from onerec.config import Runtime
from onerec.config.fields import pydantic_fields
from onerec.datasets import EventSource
from resources.file_source import open_source

if TYPE_CHECKING:
    from onerec.shards import ShardPool

PROGRESS_SECONDS = 15.0


class Artifacts(dg.ConfigurableResource):
    """Where artifacts live."""

    url: str = Field(description="fsspec URL of the artifact root, without credentials")
    cache_dir: str | None = Field(
        default=None, description="Where copies of a remote store's artifacts are kept"
    )

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.url, cache_dir=self.cache_dir)


class Consumers(dg.ConfigurableResource):
    """Where consumers read the current recommendations; see `onerec.serving.current`."""

    root: str = Field(description="A directory of this machine, or of a volume that they share")


class Source(dg.ConfigurableResource):
    """The event log that is read."""

    dataset: str = Field(description="A key of onerec.datasets.DATASETS")
    data_dir: str | None = Field(default=None, description="Directory or URL of its files")
    config: str | None = Field(default=None, description="YAML file of one's own data")

    def open(self) -> EventSource:
        return open_source(
            self.dataset,
            data_dir=self.data_dir,
            config=Path(self.config) if self.config else None,
        )


_RUNTIME_FIELDS: dict[str, Any] = {
    name: (kind, Field(default=getattr(Runtime(), name), **arguments))
    for name, (kind, arguments) in pydantic_fields(Runtime).items()
}
_RuntimeResource = create_model(
    "_RuntimeResource", __base__=dg.ConfigurableResource, **_RUNTIME_FIELDS
)


class Compute(_RuntimeResource):
    """What trainings, generation, evaluation and serving run on; the fields are `Runtime`'s."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        threads = self.runtime().threads
        if threads:
            import torch

            torch.set_num_threads(threads)

    def runtime(self) -> Runtime:
        """The core's settings; trainings of small models take its `on_one_device()`."""
        return Runtime(**self.model_dump())

    @contextmanager
    def shard_pool(
        self,
        store: ArtifactStore,
        asset: str,
        partition: str,
        key: Mapping[str, Any],
        report: Callable[[str], None],
    ) -> Iterator["ShardPool"]:
        """How the work of an asset is spread over users or items; `workers` chooses the engine.

        Finished shards outlive a run that was killed, and the next run goes on from them; they are
        removed when the block ends.

        Args:
            store: Where the asset's scratch directory is.
            asset: The asset.
            partition: Its partition.
            key: Everything that the rows depend on.
            report: Gets a line of progress now and then.
        """
        from onerec.shards import ShardPool

        runtime = self.runtime()
        scratch = store.scratch(asset, partition, {**key, "shard_rows": runtime.shard_rows})
        yield ShardPool.of(runtime, scratch, _periodic_report(report))
        shutil.rmtree(scratch, ignore_errors=True)

    def torch_device(self) -> str:
        """`cuda` or `cpu`, for all that is no training as well as for trainings.

        Raises:
            SettingError: A GPU is required and torch finds none.
        """
        return self.runtime().torch_device()


def _periodic_report(report: Callable[[str], None]) -> Callable[[int, int], None]:
    """Reports rows done, rows a second and the time left, now and then and at the end."""
    began = last = time.monotonic()
    already: int | None = None

    def on_progress(done: int, total: int) -> None:
        nonlocal last, already
        already = done if already is None else already
        if done == total or time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            rate = (done - already) / (last - began) if done > already else 0.0
            left = f", {rate:,.0f} a second, {(total - done) / rate:.0f} s left" if rate else ""
            report(f"{done:,} of {total:,} done{left}")

    return on_progress
