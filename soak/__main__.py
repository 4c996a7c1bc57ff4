"""`python -m soak`: resumes after the last nightly run, and prints the table of all so far."""

import argparse
import json
import os
from pathlib import Path

from onerec.markdown import markdown_table
from soak.nights import Soak
from soak.schedule import SCHEDULE

NIGHTS = 30
COLUMNS = ("night", "day", "what happened", "served", "minutes", "GiB")


def table(rows: list[dict[str, object]]) -> str:
    """The rows in Markdown."""
    return markdown_table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows])


def main() -> None:
    """Make the missing nightly runs, and verify each."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    default = Path(os.environ.get("ONEREC_HOME") or ".onerec") / "soak"
    parser.add_argument("--home", type=Path, default=default, help="state; delete it to begin anew")
    parser.add_argument("--nights", type=int, default=NIGHTS, help="up to this one")
    args = parser.parse_args()
    home = args.home.expanduser().resolve()
    soak, file = Soak.at(home, SCHEDULE), home / "nights.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for number in range(len(rows) + 1, args.nights + 1):
        rows.append(soak.night(number))
        file.write_text(json.dumps(rows, indent=1))
        print(" | ".join(str(value) for value in rows[-1].values()), flush=True)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
