"""`make inspect CONFIG=my_data.yaml`: what is in a log, before anything is trained.

Prints what was read and rejected, and what a nightly run for the last day would learn from, each
with the line of the YAML file that changes it. Exits with 1 where a nightly run would stop.
"""

import sys
import time

from onerec_dagster.job_runner import full_disk_in_one_line
from onerec_dagster.process_end import run_and_exit


def main() -> None:
    """Inspect the log of the environment's settings."""
    started = time.monotonic()
    try:
        # the code location opens the source, and parses the session models
        from assets.log_inspection import session_build
        from assets.support import PIPELINE, SETTINGS
        from resources import resources_for
        from resources.file_source import FileSource
        from resources.inspection.findings_text import findings_as_text
        from resources.inspection.log_inspection import days_of, inspect_log

        if isinstance(SETTINGS.source, FileSource):
            SETTINGS.source.require_readable()
        first, last = days_of(SETTINGS.source)
        print(f"{SETTINGS.config or SETTINGS.dataset}: {first} to {last}", flush=True)
        with full_disk_in_one_line("make inspect", SETTINGS.home):
            build = session_build(resources_for(SETTINGS)["dbt"])
            findings = inspect_log(SETTINGS.source, PIPELINE, build, (first, last))
    except (OSError, ValueError) as error:  # what a user can correct: the message says how
        sys.exit(f"make inspect: {error}")
    print(findings_as_text(findings))
    print(f"{time.monotonic() - started:.0f} s. Reading the lines: a.b: c is c under b under a")
    sys.exit(any(f.level == "error" for f in findings))


if __name__ == "__main__":
    run_and_exit(main)
