"""`python -m onerec.training --config job.json`: one training, outside of any orchestrator.

The file holds the fields of `TrainingJob`, and `out`, the directory to write:

    {"session_dataset": "...", "semantic_ids": "...", "history_length": 20, "session_items": 5,
     "training": {"max_epochs": 12}, "out": "checkpoint"}

`out` appears when it is complete. A training that was killed and is started again resumes from the
directory `scratch` (default: `<out>.scratch`), which is deleted at the end.

Other models: `--job onerec.reward.job.RewardJob`, `onerec.alignment.job.AlignmentJob`,
`onerec.evaluation.baselines.job.BaselinesJob`, with the fields of these.

On several devices, with `"runtime": {"devices": 2}`, a launcher starts one process for each:

    python -m torch.distributed.run --standalone --nproc-per-node=2 -m onerec.training \
        --config job.json
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from onerec.training.launch import Log, job_kind, run_job_file

log = logging.getLogger("onerec.training")
GENERATOR = "onerec.training.job.TrainingJob"


def main(arguments: Sequence[str] | None = None, *, on_message: Log = log.info) -> None:
    """Run one training job, or this process's share of one.

    Args:
        arguments: Command line arguments.
        on_message: Called with progress messages.
    """
    parser = argparse.ArgumentParser(prog="python -m onerec.training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", type=Path, required=True, help="JSON file of the job")
    parser.add_argument("--job", default=GENERATOR, help=f"class of the job; default: {GENERATOR}")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    run_job_file(job_kind(options.job), options.config, log=on_message)


if __name__ == "__main__":
    main()
