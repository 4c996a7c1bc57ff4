"""A log of one's own in a few small files."""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from onerec.datasets.own import OwnLog, open_source

DAY = date(2026, 3, 2)
COLUMNS = {"user_id": 1, "item_id": 2, "event_time": "2026-03-02T10:00:00Z", "watch_seconds": 3}


def write(path: Path, **changed: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([{k: v for k, v in {**COLUMNS, **changed}.items() if v is not None}])
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


def opened(directory: Path, **sections: Any) -> OwnLog:
    path = directory / "my_data.yaml"
    path.write_text(yaml.safe_dump(sections))
    return open_source(data_dir=None, config=path)
