"""`make init DATA=directory`: propose a YAML file for one's own data, and say why.

Looks at the names and the first rows of the columns. Writes `my_data.yaml`, or the file that CONFIG
names, and never over one that exists. A proposal that cannot be opened is shown and not kept.
"""

import os
import sys
from pathlib import Path

from resources.file_source import open_source
from resources.proposal.yaml_file import propose


def main() -> None:
    """Write a proposal for the files of ONEREC_DATA."""
    data = os.environ.get("ONEREC_DATA")
    target = Path(os.environ.get("ONEREC_CONFIG") or "my_data.yaml")
    if not data:
        sys.exit("make init: say where the files are, make init DATA=my_files")
    try:
        proposal = propose(data, target.resolve().parent)
        print(proposal.text)
        for note in proposal.notes:
            print(f"note: {note}")
        with target.open("x", encoding="utf-8") as file:
            file.write(
                f"# Proposed by make init DATA={data}; docs/own_data.md explains the keys.\n"
            )
            file.write(proposal.text)
        _require_usable(target)
    except FileExistsError:
        sys.exit(f"make init: {target} exists and is kept: name another file with CONFIG=")
    except (OSError, ValueError) as error:  # what a user can correct: the message says how
        sys.exit(f"make init: {error}")
    print(f"Written to {target}. Look at every line, then: make inspect CONFIG={target}")


def _require_usable(target: Path) -> None:
    """Open the data as the file describes it; without success the file is removed.

    Raises:
        ValueError: It cannot be opened.
    """
    try:
        open_source("own", data_dir=None, config=target)
    except (OSError, ValueError) as error:
        target.unlink()
        remedy = "correct the data, or write the file by hand from the lines above"
        raise ValueError(f"the proposal is not kept, {remedy}: {error}") from error


if __name__ == "__main__":
    main()
