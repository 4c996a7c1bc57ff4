"""Write sample files that look like an export: other names, other units, CSV.

    .venv/bin/python examples/own_data/make_sample_data.py my_data

Writes `watch_log/<day>.csv.gz` and `videos.csv`, taken from the simulated app, and puts the
`my_data.yaml` that describes them beside them.
"""

import argparse
import shutil
from datetime import date, timedelta
from pathlib import Path

from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator.config import SimulatorConfig


def write(directory: Path, *, users: int, days: int) -> None:
    """Write the files of a small app.

    Args:
        directory: Where to.
        users: Users on the first day.
        days: Days of log from 2026-06-01.
    """
    size = SimulatorConfig(
        initial_users=users,
        new_users_per_day=1,
        initial_items=max(150, users // 2),
        new_items_per_day=3,
        seed=11,
    )
    source = SimulatedSource(size)
    (directory / "watch_log").mkdir(parents=True, exist_ok=True)
    for day in (date(2026, 6, 1) + timedelta(d) for d in range(days)):
        log = source.events(day).to_pandas()
        log["ts"] = log.event_time.dt.as_unit("ms").astype("int64")
        log["play_ms"] = (log.watch_seconds * 1_000).round().astype("int64")
        log["liked"] = log.is_like.astype(int)
        log = log.rename(columns={"user_id": "uid", "item_id": "video"})
        log[["uid", "video", "ts", "play_ms", "liked"]].to_csv(
            directory / "watch_log" / f"{day}.csv.gz",
            index=False,
            compression={"method": "gzip", "mtime": 0},
        )
    videos = source.items(date(2026, 6, 1) + timedelta(days - 1)).to_pandas()
    videos["len_s"] = videos.duration_seconds
    videos["channel"] = videos.author_id
    videos.rename(columns={"item_id": "video", "title": "caption"})[
        ["video", "len_s", "caption", "category", "channel", "published_at"]
    ].to_csv(directory / "videos.csv", index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
    mapping = Path(__file__).with_name("my_data.yaml")
    if directory.resolve() != mapping.parent:
        shutil.copy(mapping, directory)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--users", type=int, default=800)
    parser.add_argument("--days", type=int, default=7)
    arguments = parser.parse_args()
    write(arguments.directory, users=arguments.users, days=arguments.days)


if __name__ == "__main__":
    main()
