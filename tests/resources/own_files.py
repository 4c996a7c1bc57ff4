"""Small files of one's own log, opened as an event source."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from resources.file_source import FileSource, open_source

DAY = date(2026, 3, 2)
NEXT = date(2026, 3, 3)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
DAY_MS = 86_400_000
MAPPING = {
    "user_id": "uid",
    "item_id": "vid",
    "event_time": "ts",
    "watch_seconds": {"column": "play_ms", "scale": 0.001},
    "is_like": "liked",
}


def opened(directory: Path, **sections: Any) -> FileSource:
    path = directory / "my_data.yaml"
    path.write_text(yaml.safe_dump(sections))
    source = open_source("own", data_dir=None, config=path)
    assert isinstance(source, FileSource)
    return source


def events_frame(times: list[Any], **columns: Any) -> pd.DataFrame:
    n = len(times)
    values = {"uid": range(n), "vid": range(100, 100 + n), "ts": times, "play_ms": 1500}
    return pd.DataFrame(values | {"liked": 0} | columns)


def section(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "columns": MAPPING, **more}


def kept_text(table: pa.Table) -> list[dict[str, str]]:
    """The values of each row that could not be read."""
    return [
        {k: v for k, v in json.loads(text or "{}").items() if v is not None}
        for text in table["unreadable"].to_pylist()
    ]
