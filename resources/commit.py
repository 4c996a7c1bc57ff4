"""The commit of the checkout, as results and nightly runs record it."""

import subprocess
from pathlib import Path

from resources.settings import CHECKOUT

UNKNOWN = "unknown"


def current_commit(root: Path = CHECKOUT) -> str:
    """Hash of the checkout's commit, with `+` for uncommitted changes; `UNKNOWN` outside of git.

    Changes of documents do not count, since writing a table changes the results page.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
