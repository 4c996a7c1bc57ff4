"""A reader sees a whole artifact or none, and the same inputs give the same version."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from onerec.artifacts import ArtifactError, ArtifactStore, read_json, write_json
from tests.core.artifacts.small import DAY, NEXT, publish
from tests.other_user import without_rights


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    if request.param == "local":
        yield ArtifactStore(str(tmp_path / "artifacts"))
        return
    root = f"memory://{uuid.uuid4().hex}"
    yield ArtifactStore(root, cache_dir=str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


def test_what_is_written_is_read(store: ArtifactStore) -> None:
    written = publish(store)
    read = store.latest("codebook", DAY).verify()
    assert (read.asset, read.partition, read.version) == ("codebook", DAY, written.version)
    assert (read.path / "text.txt").read_text() == "hello"
    assert read_json(read.path / "deep" / "er" / "numbers.json") == {"a": 2, "b": 1}
    assert read.manifest["config"] == {"k": 32}
    assert read.manifest["upstream"] == {"before": "1"}
    assert read.manifest["row_counts"] == {"rows": 5}
    assert sorted(read.manifest["files"]) == ["deep/er/numbers.json", "text.txt"]
    assert read.size_bytes == sum(
        f.stat().st_size for f in read.path.rglob("*") if f.is_file() and f.name != "manifest.json"
    )


def test_same_inputs_same_version(store: ArtifactStore) -> None:
    first, again = publish(store), publish(store)
    assert first.version == again.version
    assert first.manifest == again.manifest


@pytest.mark.parametrize(
    "changed",
    [{"config": {"k": 64}}, {"upstream": {"before": "2"}}, {"code_version": "d"}, {"seed": 1}],
)
def test_what_made_it_is_in_the_version_but_not_in_the_content(
    changed: dict[str, Any], store: ArtifactStore
) -> None:
    first, other = publish(store), publish(store, **changed)
    assert first.version != other.version
    assert first.content_hash == other.content_hash
    assert publish(store, text="other").content_hash != first.content_hash


def test_a_new_version_replaces_the_pointer_and_keeps_the_old_files(store: ArtifactStore) -> None:
    old, new = publish(store, "old"), publish(store, "new")
    assert store.latest("codebook", DAY).version == new.version
    assert (store.get("codebook", DAY, old.version).verify().path / "text.txt").read_text() == "old"
    publish(store, "old")  # back to the first: nothing is written twice
    assert store.latest("codebook", DAY).version == old.version


def test_partitions_and_latest_until(store: ArtifactStore) -> None:
    assert store.partitions("codebook") == []
    assert store.latest_until("codebook", DAY) is None
    publish(store, "today")
    publish(store, "tomorrow", NEXT)
    assert store.partitions("codebook") == [DAY, NEXT]
    found = {
        (day, inclusive): store.latest_until("codebook", day, inclusive=inclusive)
        for day in (DAY, NEXT, "2026-07-01")
        for inclusive in (True, False)
    }
    assert {k: v and v.partition for k, v in found.items()} == {
        (DAY, True): DAY,
        (DAY, False): None,
        (NEXT, True): NEXT,
        (NEXT, False): DAY,
        ("2026-07-01", True): NEXT,
        ("2026-07-01", False): NEXT,
    }


def test_missing_artifacts_say_what_to_do(store: ArtifactStore) -> None:
    with pytest.raises(
        ArtifactError, match=r"codebook\[2026-06-14\].*published: none.*materialise"
    ):
        store.latest("codebook", DAY)
    publish(store)
    with pytest.raises(ArtifactError, match=r"codebook\[2026-06-15\].*published: 2026-06-14"):
        store.latest("codebook", NEXT)
    with pytest.raises(ArtifactError, match="no published version abc"):
        store.get("codebook", DAY, "abc")


def write_half(store: ArtifactStore) -> None:
    with store.write("codebook", DAY, config={}, upstream={}, code_version="c") as draft:
        (draft.path / "half.txt").write_text("half")
        raise RuntimeError(str(draft.path))


def test_a_failed_write_leaves_nothing(store: ArtifactStore) -> None:
    with pytest.raises(RuntimeError) as failure:
        write_half(store)
    assert not Path(str(failure.value)).exists()
    assert store.partitions("codebook") == []


def test_a_failed_rewrite_keeps_the_published_version(store: ArtifactStore) -> None:
    kept = publish(store)
    with pytest.raises(RuntimeError):
        write_half(store)
    assert store.latest("codebook", DAY).verify().version == kept.version


KILLED_WRITER = """
import sys, time
from pathlib import Path
from onerec.artifacts import ArtifactStore
from onerec.artifacts import local, manifest

def stop(*args, **kwargs):
    print("writing", flush=True)
    time.sleep(60)

root, moment = sys.argv[1:]
if moment == "hashing":
    manifest.file_entry = stop
elif moment == "publishing":
    local.os.rename = stop
elif moment == "pointing":
    local.os.replace = stop
with ArtifactStore(root).write(
    "codebook", "2026-06-14", config={}, upstream={}, code_version="c"
) as draft:
    (draft.path / "text.txt").write_text("unfinished")
    if moment == "filling":
        stop()
"""


@pytest.mark.parametrize("moment", ["filling", "hashing", "publishing", "pointing"])
def test_a_killed_writer_leaves_nothing_visible(moment: str, local: ArtifactStore) -> None:
    kept = publish(local, day="2026-06-13")
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, local.root, moment],
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert local.partitions("codebook") == ["2026-06-13"]
    with pytest.raises(ArtifactError, match="not there yet"):
        local.latest("codebook", DAY)
    # a plain repetition publishes what an undisturbed run would have, and clears the rest away
    with local.write("codebook", DAY, config={}, upstream={}, code_version="c") as draft:
        (draft.path / "text.txt").write_text("unfinished")
    assert local.latest("codebook", DAY).verify().version == draft.artifact.version
    assert not list((Path(local.root) / ".staging" / "codebook" / DAY).iterdir())
    assert local.latest("codebook", "2026-06-13").verify().version == kept.version


CONCURRENT_WRITER = """
import sys
from onerec.artifacts import ArtifactStore

root, *texts = sys.argv[1:]
store = ArtifactStore(root)
print("ready", flush=True)
sys.stdin.readline()
for text in texts:
    with store.write("codebook", "2026-06-14", config={}, upstream={}, code_version="c") as draft:
        (draft.path / "text.txt").write_text(text)
    print(draft.artifact.version, flush=True)
"""


def test_concurrent_writers_publish_whole_versions(local: ArtifactStore) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", CONCURRENT_WRITER, local.root]
            + [f"writer {w} version {v}" for v in range(20)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for w in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    versions: set[str] = set()
    for writer in writers:
        out, _ = writer.communicate()
        assert writer.returncode == 0
        versions.update(out.split())
    assert len(versions) == 60
    assert local.latest("codebook", DAY).verify().version in versions
    for version in versions:
        local.get("codebook", DAY, version).verify()


def test_a_reader_never_sees_half_a_version(local: ArtifactStore) -> None:
    publish(local, "0")
    with ThreadPoolExecutor(1) as pool:
        writes = [pool.submit(publish, local, str(n) * 10_000) for n in range(20)]
        while not all(write.done() for write in writes):
            local.latest("codebook", DAY).verify()
    for write in writes:
        write.result()


def test_a_remote_version_is_downloaded_once(tmp_path: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    store = ArtifactStore(root, cache_dir=str(tmp_path / "cache"))
    first = publish(store)
    (first.path / ".mark").write_text("kept")
    assert (store.latest("codebook", DAY).path / ".mark").exists()
    elsewhere = ArtifactStore(root, cache_dir=str(tmp_path / "other"))
    assert (elsewhere.latest("codebook", DAY).verify().path / "text.txt").read_text() == "hello"


def test_a_second_download_leaves_the_copy_that_another_step_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    publish(ArtifactStore(root, cache_dir=str(tmp_path / "writer")))
    one, other = (ArtifactStore(root, cache_dir=str(tmp_path / "shared")) for _ in range(2))
    get_file, reads = one.fs.get_file, []

    def overtaken(remote_path: str, local_path: str) -> None:
        monkeypatch.setattr(one.fs, "get_file", get_file)
        reads.append(other.latest("codebook", DAY).path.stat().st_ino)
        get_file(remote_path, local_path)

    monkeypatch.setattr(one.fs, "get_file", overtaken)
    path = one.latest("codebook", DAY).path
    assert [path.stat().st_ino] == reads
    assert not list((tmp_path / "shared" / ".staging" / "downloads").iterdir())


def test_what_was_made_with_the_same_is_found_while_it_verifies(store: ArtifactStore) -> None:
    key = {"config": {"k": 32, "widths": (1, 2)}, "code_version": "c"}
    assert store.made_with("codebook", DAY, key) is None
    made = publish(store, **key)
    found = store.made_with("codebook", DAY, key)
    assert found is not None
    assert found.version == made.version
    assert store.made_with("codebook", DAY, {**key, "code_version": "d"}) is None


def test_what_does_not_verify_is_to_be_made_again(local: ArtifactStore) -> None:
    key = {"code_version": "c"}
    made = publish(local, **key)
    assert local.made_with("codebook", DAY, key) is not None
    (made.path / "text.txt").unlink()
    assert local.made_with("codebook", DAY, key) is None
    publish(local, **key)
    assert local.made_with("codebook", DAY, key) is not None


def test_scratch_outlives_a_run_but_not_a_change(store: ArtifactStore) -> None:
    mine = store.scratch("pretrained_checkpoint", DAY, {"seed": 0})
    (mine / "step.ckpt").write_text("half way")
    assert (store.scratch("pretrained_checkpoint", DAY, {"seed": 0}) / "step.ckpt").exists()
    other = store.scratch("pretrained_checkpoint", DAY, {"seed": 1})
    assert other != mine
    assert not mine.exists()
    assert store.partitions("pretrained_checkpoint") == []


def test_json_is_the_same_bytes_for_equal_values(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5]})
    write_json(tmp_path / "b.json", {"a": [1.5], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.5], "b": 1}


def test_what_may_not_be_read_does_not_pass_for_what_is_not_there(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))
    with store.write("codebook", "2026-06-01", config={}, upstream={}, code_version="1"):
        pass
    for place in ("codebook", "codebook/2026-06-01"):
        with (
            without_rights(tmp_path / "artifacts" / place),
            pytest.raises(PermissionError, match="codebook"),
        ):
            store.partitions("codebook")
    assert store.partitions("codebook") == ["2026-06-01"]
    assert store.partitions("none") == []
