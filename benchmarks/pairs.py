"""Item-KNN and co-watching vectors by the size of the log: time, and memory that rows do not fill.

Users draw most items from a topic of their own and the rest from all, topics and items with a
skewed popularity. Every row of the table is a process of its own.
"""

import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.section import Section, Table
from onerec.catalogue import Catalogue
from onerec.embeddings.collaborative import co_watching, collaborative_vectors
from onerec.evaluation.baselines import fit_item_knn
from onerec.session_dataset.interactions import load_interactions

DAY = date(2026, 6, 14)
SIZES = (1_000_000, 10_000_000, 100_000_000)
QUICK_SIZES = (20_000,)
EVENTS_PER_USER, EVENTS_PER_ITEM = 48, 100
SESSION, HISTORY = 8, 20
USERS_AT_ONCE = 20_000
NEIGHBOURS, DIM = 50, 64
WATCHED_SHARE, SHARE_OF_TOPIC, ITEMS_PER_TOPIC = 0.6, 0.7, 500
POLL_SECONDS = 0.05


def run(quick: bool) -> Section:
    """The table of the section; `quick` takes a log that needs a second."""
    rows = []
    for size in QUICK_SIZES if quick else SIZES:
        with TemporaryDirectory(prefix="onerec-pairs-") as directory:
            make_sessions(Path(directory), size)
            for what in MEASURED:
                figures = _alone(what, directory, _num_items(size))
                rows.append([f"{size:,}", f"{_num_items(size):,}", what, *figures])
    return Section(
        title="Item pairs",
        text=(
            f"{EVENTS_PER_USER} events a user in sessions of {SESSION}, histories of up to "
            f"{HISTORY}, an item for {EVENTS_PER_ITEM} events; {WATCHED_SHARE:.0%} watched, "
            f"{SHARE_OF_TOPIC:.0%} from the user's topic of {ITEMS_PER_TOPIC} items. "
            f"{NEIGHBOURS} neighbours an item; vectors of width {DIM} by truncated SVD. Seconds "
            "are of the processor. Peak memory is the process's own, without pages of files, "
            "which the system takes back at need; import of the packages included."
        ),
        tables=[
            Table(
                caption="From a session dataset to pairs, one process",
                columns=["events", "items", "what", "CPU s", "peak GiB", "pairs kept"],
                rows=rows,
            )
        ],
        figures={f"pairs_largest_{'knn' if r[2] == 'item-KNN' else 'vectors'}_gib": r[4]
                 for r in rows[-2:]},
    )  # fmt: skip


def make_sessions(directory: Path, num_events: int) -> None:
    """Write the columns of a session dataset that pairs are counted from."""
    rng, split = np.random.default_rng(0), directory / "split=train"
    split.mkdir()
    num_users = max(1, num_events // EVENTS_PER_USER)
    for first in range(0, num_users, USERS_AT_ONCE):
        users = np.arange(first, min(first + USERS_AT_ONCE, num_users))
        table = _sessions_of(users, _num_items(num_events), rng)
        pq.write_table(table, split / f"part-{first // USERS_AT_ONCE:05d}.parquet")


def _sessions_of(users: np.ndarray, num_items: int, rng: np.random.Generator) -> pa.Table:
    shape = (len(users), EVENTS_PER_USER)
    items = (num_items * rng.random(shape) ** 3).astype(np.int64)
    num_topics = max(1, num_items // ITEMS_PER_TOPIC)
    topic = (num_topics * rng.random((len(users), 1)) ** 3).astype(np.int64)
    own = (ITEMS_PER_TOPIC * rng.random(shape) ** 3).astype(np.int64) + topic * ITEMS_PER_TOPIC
    items = np.where(rng.random(shape) < SHARE_OF_TOPIC, own % num_items, items)
    per_user = EVENTS_PER_USER // SESSION
    session = np.arange(len(users) * per_user)
    begin = session * SESSION
    before = np.minimum(session % per_user * SESSION, HISTORY)
    past = np.repeat(begin - np.cumsum(before), before) + np.arange(before.sum())
    names = pa.array([f"v{n}" for n in range(num_items)])
    watched = pa.array(rng.random(items.size) < WATCHED_SHARE)
    day = np.datetime64(DAY, "D") - 1 - session % per_user
    columns = {
        "user_id": pa.array([f"u{n}" for n in users]).take(pa.array(session // per_user)),
        "session_date": pa.array(day.astype("datetime64[D]")),
        "item_ids": _lists(names.take(pa.array(items.ravel())), np.full(len(session), SESSION)),
        "is_watched": _lists(watched, np.full(len(session), SESSION)),
        "is_positive": _lists(watched, np.full(len(session), SESSION)),
        "history_item_ids": _lists(names.take(pa.array(items.ravel()[past])), before),
    }
    return pa.table(columns)


def _lists(values: pa.Array, lengths: np.ndarray) -> pa.Array:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)


def _num_items(num_events: int) -> int:
    return num_events // EVENTS_PER_ITEM


def _alone(what: str, directory: str, num_items: int) -> list[float]:
    """CPU seconds, peak GiB of anonymous memory, and pairs."""
    command = [sys.executable, "-m", "benchmarks.pairs", what, directory, str(num_items)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, _anonymous_kib(process.pid))
            time.sleep(POLL_SECONDS)
        assert process.stdout is not None, "it is a pipe"
        printed = process.stdout.read().split()
    if process.returncode:
        sys.exit(f"{' '.join(command[2:])} failed")
    seconds, pairs = (float(word) for word in printed)
    print(f"{what}, {num_items:,} items: {seconds:.0f} s, {peak / 2**20:.2f} GiB", flush=True)
    return [seconds, peak / 2**20, int(pairs)]


def _anonymous_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def _item_knn(directory: Path, catalogue: Catalogue) -> int:
    window = load_interactions(directory, catalogue, test_day=DAY, splits=("train",))
    everything = np.ones(len(catalogue), bool)
    return fit_item_knn(window, everything, neighbours=NEIGHBOURS).similarity.nnz


def _vectors(directory: Path, catalogue: Catalogue) -> int:
    pairs, _ = co_watching(directory, catalogue)
    collaborative_vectors(pairs, DIM)
    return pairs.nnz


MEASURED = {"item-KNN": _item_knn, "co-watching vectors": _vectors}


def _measure(what: str, directory: str, num_items: str) -> None:
    """Entry point of a measuring process; prints its seconds and pairs."""
    item_ids = np.array([f"v{n}" for n in range(int(num_items))], object)
    catalogue = Catalogue(item_ids, np.full(len(item_ids), np.datetime64(DAY, "D") - 100))
    began = time.process_time()
    pairs = MEASURED[what](Path(directory), catalogue)
    print(time.process_time() - began, pairs)


if __name__ == "__main__":
    _measure(*sys.argv[1:])
