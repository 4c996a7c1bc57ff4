"""Time and memory of tokenizer and trie by catalogue size, up to ten million items.

Each row is measured in a separate process. Vectors are memory-mapped from a file, like those of an
artifact, so that peak memory is that of the computation plus the file's pages in memory.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.generation_models import peer_shaped, unique_codes
from benchmarks.section import Section, Table, side_by_side
from benchmarks.tokenizer import topical
from onerec.config import TokenizerConfig
from onerec.generation import Trie, generate_sessions
from onerec.tokenizer.codebook import fit_codebook

THREADS = 2
WIDTH, CODES, LEVELS = 256, 256, 3
BEAMS, ROUNDS = 1280, 50
SIZES = (100_000, 1_000_000, 10_000_000)
QUICK_SIZES = (1_000, 4_000)


def run(quick: bool) -> Section:
    """Both tables of the section."""
    sizes, small = (QUICK_SIZES, "quick") if quick else (SIZES, "full")
    tokenizers = [[size, *_alone("tokenizer", size, small)] for size in sizes]
    tries = [[size, *_alone("trie", size, small)] for size in sizes]
    return Section(
        title="Catalogue size",
        text=(
            f"Vectors of width {WIDTH} around 2,000 Zipf-weighted topics, K={CODES}, L={LEVELS}; "
            "every row is a process of its own. Peak memory is resident memory with what of the "
            "vectors' file is mapped."
        ),
        tables=[
            Table(
                caption="Balanced residual K-means, 20 steps on a sample, then exact sizes",
                columns=["items", "seconds", "peak GiB", "of it vectors, GiB", "size spread"],
                rows=tokenizers,
            ),
            Table(
                caption=f"Trie of unique IDs of 4 SID tokens; {BEAMS} beams read children at once",
                columns=["items", "seconds to build", "MiB held", "MiB more at the peak",
                         "us per beam", "seconds for one user, half the items allowed"],
                rows=tries,
            ),
        ],
        figures={
            "tokenizer_largest_seconds": tokenizers[-1][1],
            "tokenizer_largest_gib": tokenizers[-1][2],
            "trie_largest_seconds": tries[-1][1],
        },
    )  # fmt: skip


def _alone(what: str, num_items: int, size: str) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.catalogue", what, str(num_items), size]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    print(f"{what} of {num_items:,} items: {' '.join(printed)}", flush=True)
    return [float(word) for word in printed]


def _tokenizer(num_items: int, width: int, num_codes: int) -> list[float]:
    """Seconds, peak GiB, GiB of vectors, largest minus smallest cluster of any level."""
    with TemporaryDirectory(prefix="onerec-bench-") as directory:
        shape = (num_items, width)
        rows = np.memmap(Path(directory) / "vectors", dtype=np.float32, mode="w+", shape=shape)
        vectors = topical(num_items, width, topics=2000, out=torch.from_numpy(rows))
        config = TokenizerConfig(codebook_size=num_codes, num_levels=LEVELS, iterations=20)
        began = time.perf_counter()
        _, codes = fit_codebook(vectors, config)
        seconds = time.perf_counter() - began
    sizes = [torch.bincount(level, minlength=num_codes) for level in codes.T]
    spread = max(int(level.max() - level.min()) for level in sizes)
    return [seconds, _peak_gib(), num_items * width * 4 / 2**30, spread]


def _trie(num_items: int) -> list[float]:
    """Seconds to build, MiB of the trie, further MiB at peak, us per beam, seconds with a mask."""
    codes = unique_codes(num_items)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak memory counter (Linux)
    before = _peak_since_cleared_mib()
    began = time.perf_counter()
    trie = Trie.build(codes, CODES)
    seconds = time.perf_counter() - began
    more = _peak_since_cleared_mib() - before
    node = torch.randint(0, len(trie.code[1]), (1, BEAMS))
    children = side_by_side({"children": lambda: trie.children(2, node)}, repeats=ROUNDS)
    per_beam = 1e6 * children["children"].best / BEAMS
    began = time.perf_counter()
    generate_sessions(
        peer_shaped("items"), torch.zeros(1, 1, dtype=torch.long), codes, trie, num_items=1,
        beam=1, allowed=torch.rand(num_items) < 0.5,
    )  # fmt: skip
    masked = time.perf_counter() - began
    return [seconds, trie.num_bytes / 2**20, more, per_beam, masked]


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _peak_since_cleared_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _measure(what: str, num_items: str, size: str) -> None:
    """Entry point of a measuring process; prints its numbers."""
    quick = size == "quick"
    torch.set_num_threads(1 if quick else THREADS)
    width, num_codes = (32, 32) if quick else (WIDTH, CODES)
    if what == "trie":
        found = _trie(int(num_items))
    else:
        found = _tokenizer(int(num_items), width, num_codes)
    print(" ".join(f"{number:.4g}" for number in found))


if __name__ == "__main__":
    _measure(*sys.argv[1:])
