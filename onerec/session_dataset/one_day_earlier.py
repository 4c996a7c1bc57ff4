"""A session dataset as it was one day earlier, for what is chosen on its validation day."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as pads

from onerec.session_dataset.newest_watches import split_day
from onerec.session_dataset.reader import open_sessions


def write_one_day_earlier(directory: Path, out_dir: Path) -> bool:
    """Write the training days once more: the last of them validates, those before it train.

    Args:
        directory: Files of a `session_dataset` artifact; only `train` is read.
        out_dir: Gets both splits; nothing where this returns false.

    Returns:
        Whether there are two training days with sessions.
    """
    last, sessions = split_day(directory, "train"), open_sessions(directory, ["train"])
    if last is None or not sessions.count_rows(filter=pc.field("session_date") < last):
        return False
    for split, days in (
        ("train", pc.field("session_date") < last),
        ("valid", pc.field("session_date") == last),
    ):
        rows = sessions.scanner(filter=days, use_threads=False)
        pads.write_dataset(rows, out_dir / f"split={split}", format="parquet", use_threads=False)
    return True
