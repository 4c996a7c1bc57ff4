"""How the project's commands end."""

import subprocess
import sys

ENDS = """
import multiprocessing, sys
from onerec_dagster.process_end import run_and_exit

def main():
    global lock
    lock = multiprocessing.get_context("spawn").RLock()  # as dbt holds one
    print("done")
    sys.exit({status})

run_and_exit(main)
"""


def end(status: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ENDS.format(status=status)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_command_ends_with_its_status_and_nothing_below_what_it_printed() -> None:
    done = end("3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")


def test_a_message_is_printed_and_the_status_is_1() -> None:
    done = end("'the reason'")
    assert (done.returncode, done.stdout, done.stderr) == (1, "done\n", "the reason\n")
