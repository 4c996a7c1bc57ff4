"""Resources: the artifact store, the event source, and what trainings run on."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from onerec.artifacts import ArtifactStore
from onerec.datasets import EventSource, open_source


class Artifacts(dg.ConfigurableResource):
    """Where artifacts live."""

    url: str = Field(description="fsspec URL of the artifact root, without credentials")
    cache_dir: str | None = Field(
        default=None, description="Where copies of a remote store's artifacts are kept"
    )

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.url, cache_dir=self.cache_dir)


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


class Compute(dg.ConfigurableResource):
    """What trainings run on."""

    accelerator: str = Field(default="auto", description="Lightning's: auto, cpu, gpu")
    devices: int = Field(
        default=1,
        description="Devices of the pretraining on each node; with more than one in all it runs in "
        "processes of its own, started by torch.distributed.run",
    )
    num_nodes: int = Field(default=1, description="Nodes of the pretraining")
    strategy: str = Field(default="auto", description="auto or ddp")
    precision: str = Field(
        default="auto", description="auto, or Lightning's: 32-true, bf16-mixed, ..."
    )
    compile: bool = Field(default=False, description="Compile the blocks with torch.compile")
    threads: int = Field(default=0, description="Torch threads; 0 leaves torch's choice")
    checkpoint_every_steps: int = Field(
        default=200,
        description="Steps between two states from which a killed pretraining goes on; 0 writes "
        "only at the end of an epoch",
    )
