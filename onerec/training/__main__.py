"""`python -m onerec.training --config job.json`: one pretraining, outside of any orchestrator.

The file holds the fields of `TrainingJob`, and `out`, the directory to write:

    {"session_dataset": "...", "semantic_ids": "...", "history_length": 20, "session_items": 5,
     "training": {"max_epochs": 12}, "out": "checkpoint"}

`out` appears when it is complete. Killed and started again, the training goes on where it was, from
the directory `scratch` (default: `<out>.scratch`), which is deleted at the end.

On several devices, with `"runtime": {"devices": 2}`, a launcher starts one process for each:

    python -m torch.distributed.run --standalone --nproc-per-node=2 -m onerec.training \
        --config job.json
"""

import argparse
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from onerec.config import require
from onerec.training.job import TrainingJob, train
from onerec.training.progress import TrainingProgress
from onerec.training.runtime import process_rank

log = logging.getLogger("onerec.training")


def main(
    arguments: Sequence[str] | None = None,
    *,
    log_progress: Callable[[TrainingProgress], None] = log.info,
) -> None:
    """Run one training job, or this process's share of one.

    Args:
        arguments: Of the command line.
        log_progress: Called with the progress every so many steps.
    """
    parser = argparse.ArgumentParser(prog="python -m onerec.training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", type=Path, required=True, help="JSON file of the job")
    values = json.loads(parser.parse_args(arguments).config.read_text())
    require("out" in values, "out", None, "name the directory to write")
    out = Path(values.pop("out"))
    scratch = Path(values.pop("scratch", f"{out}.scratch"))
    require(not out.exists(), "out", str(out), "it exists already; delete it or choose another")

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    job = TrainingJob.parse(values)
    first = process_rank(job.runtime) == 0
    aside = out.with_name(f"{out.name}.aside")
    if first:
        shutil.rmtree(aside, ignore_errors=True)
    report = train(job, out_dir=aside, scratch=scratch, on_progress=log_progress)
    if not first:
        return
    os.replace(aside, out)
    shutil.rmtree(scratch)
    log.info("best epoch %d, validation loss %.4f", report.best_epoch, report.best_valid_loss)


if __name__ == "__main__":
    main()
