"""Files behind a path, a glob, a directory or a URL."""

from pathlib import Path

import fsspec
import pandas as pd
import pytest

from onerec.datasets.file_search import find
from onerec.datasets.table_formats import about_table_around
from tests.core.datasets.small_files import ROWS, TEXT, cells, only


def test_what_is_not_read_in_a_directory_is_named(tmp_path: Path) -> None:
    for name in ("a.csv", "b.json", "part-0", "_SUCCESS", ".a.csv.crc", "README.md"):
        (tmp_path / name).write_bytes(TEXT)
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "_delta_log" / "0.csv").write_bytes(TEXT)
    (tmp_path / "_day=1").mkdir()
    (tmp_path / "_day=1" / "c.tsv.gz").write_bytes(TEXT)
    found = find(str(tmp_path))
    assert [Path(f.path).name for f in found.files] == ["c.tsv.gz", "a.csv"]
    assert [Path(p).name for p in found.skipped] == ["README.md", "b.json", "part-0"]
    # a format said out loud reads them
    assert len(find(str(tmp_path), format="csv").files) == 5
    # and so does naming a file, or matching it
    assert [f.is_parquet for f in find(str(tmp_path / "part-*")).files] == [False]
    assert find(str(tmp_path / "_*")).files == find(str(tmp_path / "_day=1")).files


@pytest.mark.parametrize(
    ("kind", "mark", "below"),
    [
        ("Delta", "_delta_log/00000000000000000000.json", ""),
        ("Delta", "_delta_log/00000000000000000000.json", "day=2026-03-02/"),
        ("Iceberg", "metadata/v1.metadata.json", "data/"),
        ("Hudi", ".hoodie/hoodie.properties", ""),
    ],
)
def test_a_table_with_a_log_of_its_own_is_refused_and_its_files_are_warned_about(
    tmp_path: Path, kind: str, mark: str, below: str
) -> None:
    path = tmp_path / "log" / below / "a.parquet"
    for file in (path, tmp_path / "log" / mark):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for directory in (tmp_path, tmp_path / "log"):
        with pytest.raises(ValueError, match=f"log is a table of {kind}.* as Parquet"):
            find(str(directory))
    for url in (path, path.parent / "*.parquet", path.parent):
        assert f"log is a table of {kind}" in (about_table_around(str(url)) or "")
    (tmp_path / "log" / mark).unlink()
    assert about_table_around(str(path)) is None
    assert len(find(str(tmp_path)).files) == 1


def test_the_content_tells_the_format_of_a_named_file(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "log.data")
    (tmp_path / "log.inter").write_bytes(b"a:token\tb\n")
    assert only(tmp_path / "log.data").is_parquet
    assert only(tmp_path / "log.inter", delimiter="\t").names == ("a:token", "b")


def test_any_file_system() -> None:
    fsspec.filesystem("memory").pipe_file("/files/log.csv", TEXT)
    (file,) = find("memory://files").files
    assert file.url == "memory:///files/log.csv"
    assert cells(file) == ROWS
