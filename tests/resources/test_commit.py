"""The commit that results name."""

import shutil
import subprocess
from pathlib import Path

import pytest

from resources.commit import UNKNOWN, current_commit


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_written_page_is_no_other_code(tmp_path: Path):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    page, code = tmp_path / "docs" / "results.md", tmp_path / "code.py"
    page.parent.mkdir()
    page.write_text("no table yet")
    code.write_text("a = 1")
    assert current_commit(tmp_path) == UNKNOWN
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    clean = current_commit(tmp_path)
    assert len(clean) == 10
    page.write_text("a table")
    assert current_commit(tmp_path) == clean
    code.write_text("a = 2")
    assert current_commit(tmp_path) == clean + "+"
