"""Readers that turn a log into the data contract of `onerec.schema`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from onerec.datasets.own import OwnLog


class EventSource(Protocol):
    """A log, day by day, in the names of the data contract.

    Columns carry the contract's names; their values may be of any type (a watch time may still be a
    text): landing types them and keeps what does not fit, so that nothing is lost on the way.
    Exposures stand in the order that breaks ties in time.
    """

    @property
    def first_day(self) -> date:
        """First day of the log, in its time zone."""
        ...

    @property
    def last_day(self) -> date | None:
        """Last day of the log, in its time zone; None when the log goes on."""
        ...

    @property
    def delivers_full_catalogue(self) -> bool:
        """Whether `items` is the whole catalogue: what a later day lacks is then withdrawn."""
        ...

    def has_arrived(self, day: date) -> bool:
        """Whether a day's log is there, as far as the source can know; nightly runs wait for it."""
        ...

    def events(self, day: date) -> pa.Table:
        """Exposures of a day; columns are a subset of `schema.EVENTS`, in any type."""
        ...

    def items(self, day: date) -> pa.Table:
        """The catalogue as known at the end of a day; a subset of `schema.ITEMS`."""
        ...

    def prior_history(self) -> pa.Table:
        """What was watched before the log begins, `schema.PRIOR_HISTORY`; may be empty."""
        ...

    def item_vectors(self) -> pa.Table | None:
        """The user's own embeddings, `schema.ITEM_VECTORS`, if there are any."""
        ...

    def user_attributes(self) -> pa.Table | None:
        """What is known of users, if anything: `user_id` and a text column for every attribute.

        It is a snapshot, as delivered today: not what was known at the time of an event. Of several
        rows of a user the first counts.
        """
        ...


@dataclass(frozen=True)
class Dataset:
    """A kind of source.

    Attributes:
        module: What reads it.
        stages: Stage settings it needs.
        sections: Sections of the user's YAML file that its reader knows, beside those of every data
            set; None: the reader checks the file's sections itself.
    """

    module: str
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sections: tuple[str, ...] | None = ()


DATASETS: dict[str, Dataset] = {
    # Ten epochs from random weights gained nothing over six, preset tiny (docs/log.md, 2026-11-29)
    "simulated": Dataset(
        "onerec.datasets.simulated", {"training": {"max_epochs": 6}}, sections=("simulator",)
    ),
    # A user-day is the session: Pure keeps only exposures of 7.6 k videos, so 30-minute sessions
    # hold 1.2 views. Watched = the log's own long_view rule: complete, or at least 18 seconds.
    "kuairand": Dataset(
        "onerec.datasets.kuairand",
        {
            "sessions": {
                "session_mode": "user_day",
                "watched_min_seconds": 18.0,
                "watched_min_share": 1.0,
                "good_min_watched_items": 2,
                "good_min_watch_seconds": 30.0,
            },
            "window": {"window_days": 11},
        },
    ),
    "own": Dataset("onerec.datasets.own", sections=None),
}


def open_source(name: str, *, data_dir: str | None, config: Path | None) -> "EventSource | OwnLog":
    """Open a source by name.

    One's own data is a description of files only: `resources.file_source.open_source` reads them.

    Args:
        name: A key of `DATASETS`.
        data_dir: Directory or URL of its files, where it reads files.
        config: The YAML file of one's own data.

    Raises:
        ValueError: Something is missing; the message names it.
    """
    module = import_module(DATASETS[name].module)
    return module.open_source(data_dir=data_dir, config=config)
