"""Artifacts on a real S3 API (moto's server on localhost): whole or not at all, and verified."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from onerec.artifacts import ArtifactError, ArtifactStore, DamagedArtifactError, remote
from tests.core.artifacts.small import DAY, NEXT, publish
from tests.s3_server import forget_s3, s3_bucket


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_bucket() as url:
        yield url


@pytest.fixture
def root(server: str, tmp_path: Path) -> str:
    return f"{server}/{tmp_path.name}"


@pytest.fixture
def store(root: str, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(root, cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def elsewhere(root: str, tmp_path: Path) -> ArtifactStore:
    """The same store from a machine with a cache of its own."""
    return ArtifactStore(root, cache_dir=str(tmp_path / "elsewhere"))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)


def objects(root: str) -> dict[str, bytes]:
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    base = root.removeprefix("s3://") + "/"
    return {p.removeprefix(base): fs.cat_file(p) for p in fs.find(base)}


def change(root: str, name: str, body: bytes | None) -> None:
    fs, path = fsspec.filesystem("s3", use_listings_cache=False), f"{root}/{name}"
    fs.rm_file(path) if body is None else fs.pipe_file(path, body)


WRITER = """
import sys
from onerec.artifacts import ArtifactStore
from tests.core.artifacts.small import publish

store = ArtifactStore(sys.argv[1], cache_dir=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for text in sys.argv[3:]:
    print(publish(store, text).version, flush=True)
"""


def test_another_process_sees_what_was_published(
    store: ArtifactStore, root: str, tmp_path: Path
) -> None:
    publish(store, "yesterday", "2026-06-13")
    assert store.partitions("codebook") == ["2026-06-13"]
    before = objects(root)
    writer = subprocess.run(
        [sys.executable, "-c", WRITER, root, str(tmp_path / "elsewhere"), "hello"],
        input="go\n",
        capture_output=True,
        text=True,
        check=True,
    )
    # what was listed before is no answer now
    assert store.partitions("codebook") == ["2026-06-13", DAY]
    read = store.latest("codebook", DAY)
    assert writer.stdout == f"ready\n{read.version}\n"
    assert (read.path / "text.txt").read_text() == "hello"
    version = f"codebook/{DAY}/{read.version}"
    assert objects(root).keys() - before.keys() == {
        f"{version}/deep/er/numbers.json",
        f"{version}/manifest.json",
        f"{version}/text.txt",
        f"codebook/{DAY}/current.json",
    }
    publish(store, "tomorrow", NEXT)
    assert store.latest_until("codebook", "2026-07-01").partition == NEXT  # pyright: ignore


KILLED = """
import os, signal, sys
from onerec.artifacts import ArtifactStore, remote
from tests.core.artifacts.small import publish

root, cache, after = sys.argv[1:]
puts = 0

def counted(operation):
    def put(*args, **kwargs):
        global puts
        if puts == int(after):
            os.kill(os.getpid(), signal.SIGKILL)
        puts += 1
        return operation(*args, **kwargs)
    return put

store = ArtifactStore(root, cache_dir=cache)
store.fs.put_file, store.fs.pipe_file = counted(store.fs.put_file), counted(store.fs.pipe_file)
publish(store)
"""


@pytest.mark.parametrize("after", range(4))
def test_killed_between_two_puts_nothing_is_visible(
    after: int, root: str, store: ArtifactStore, tmp_path: Path
) -> None:
    """Two files, the manifest and the pointer are four PUTs."""
    kept = publish(store, "kept", "2026-06-13")
    before = objects(root)
    writer = subprocess.run(
        [sys.executable, "-c", KILLED, root, str(tmp_path / "cache"), str(after)], check=False
    )
    assert writer.returncode == -signal.SIGKILL
    assert len(objects(root)) == len(before) + after
    assert store.partitions("codebook") == ["2026-06-13"]
    with pytest.raises(ArtifactError, match="not there yet"):
        store.latest("codebook", DAY)
    made = publish(store)
    assert store.latest("codebook", DAY).verify().version == made.version
    assert len(objects(root)) == len(before) + 4
    assert not list((tmp_path / "cache" / ".staging" / "codebook" / DAY).iterdir())
    assert store.latest("codebook", "2026-06-13").verify().version == kept.version


def test_two_processes_publish_whole_versions(
    root: str, tmp_path: Path, elsewhere: ArtifactStore
) -> None:
    """They share a cache; some of their versions are the same ones."""
    writers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WRITER,
                root,
                str(tmp_path / "cache"),
                "both",
                f"only {w}",
                "both again",
                f"last of {w}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for w in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    outputs = [writer.communicate("go\n")[0].split() for writer in writers]
    assert [w.returncode for w in writers] == [0, 0]
    assert outputs[0][0] == outputs[1][0]
    assert elsewhere.latest("codebook", DAY).version in (outputs[0][-1], outputs[1][-1])
    versions = {v for output in outputs for v in output}
    assert len(versions) == 6
    for version in versions:
        elsewhere.get("codebook", DAY, version).verify()


@pytest.mark.parametrize("body", [b"jello", b"hell", None], ids=["changed", "cut off", "gone"])
def test_damage_in_the_store_is_an_error_until_it_is_made_again(
    body: bytes | None,
    root: str,
    store: ArtifactStore,
    elsewhere: ArtifactStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = publish(store)
    name = f"codebook/{DAY}/{made.version}/text.txt"
    change(root, name, body)
    with pytest.raises(
        DamagedArtifactError, match=rf"{name} differs.*materialise codebook for {DAY} again"
    ):
        _ = elsewhere.latest("codebook", DAY).path
    caplog.clear()
    assert publish(store).version == made.version
    assert (elsewhere.latest("codebook", DAY).path / "text.txt").read_text() == "hello"
    aside = {n.rpartition("/")[2]: c for n, c in objects(root).items() if n.startswith(".damaged/")}
    assert aside.get("text.txt") == body
    assert {"manifest.json", "numbers.json"} <= aside.keys()
    assert [r.getMessage() for r in caplog.records if made.version in r.getMessage()]
    assert store.set_aside() == [("codebook", DAY)]
    assert store.remove_set_aside("codebook", DAY) > 0
    assert store.set_aside() == []
    assert not [name for name in objects(root) if name.startswith(".damaged/")]


def test_a_damaged_copy_is_fetched_again(store: ArtifactStore, tmp_path: Path) -> None:
    made = publish(store)
    (made.path / "text.txt").write_text("jello")
    assert (store.latest("codebook", DAY).path / "text.txt").read_text() == "hello"
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_a_short_download_is_repeated(
    store: ArtifactStore, elsewhere: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    get_file, calls = elsewhere.fs.get_file, []

    def cut_off(remote_path: str, local_path: str) -> None:
        get_file(remote_path, local_path)
        calls.append(remote_path)
        if len(calls) <= 3:
            os.truncate(local_path, 1)

    monkeypatch.setattr(elsewhere.fs, "get_file", cut_off)
    assert (elsewhere.latest("codebook", DAY).path / "text.txt").read_text() == "hello"
    assert len(calls) == 6


def test_an_upload_that_is_cut_off_is_not_published(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file = store.fs.put_file

    def cut_off(local_path: str, remote_path: str) -> None:
        os.truncate(local_path, 1)
        put_file(local_path, remote_path)

    monkeypatch.setattr(store.fs, "put_file", cut_off)
    with pytest.raises(
        ArtifactError, match=r"1 bytes after the upload, not .*nothing was published"
    ):
        publish(store)
    assert store.partitions("codebook") == []


def test_a_passing_fault_is_tried_again(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    cat_file, calls = store.fs.cat_file, []

    def flaky(path: str) -> bytes:
        calls.append(path)
        if len(calls) in (1, 2):
            raise ConnectionResetError("connection reset")
        return cat_file(path)

    monkeypatch.setattr(store.fs, "cat_file", flaky)
    assert store.latest("codebook", DAY).partition == DAY
    assert len(calls) == 4  # two faults, the pointer, the manifest


def test_a_missing_bucket_names_the_remedy(store: ArtifactStore, tmp_path: Path) -> None:
    other = ArtifactStore("s3://no-such-bucket/a", cache_dir=str(tmp_path / "other"))
    assert other.partitions("codebook") == []
    with pytest.raises(ArtifactError, match=r"s3://no-such-bucket/a .*check ONEREC_ARTIFACTS"):
        publish(other)
    assert not store.fs.exists("s3://no-such-bucket")


def test_a_dead_store_names_the_remedy_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://name:hush@127.0.0.1:{port}")
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    forget_s3()
    store = ArtifactStore("s3://bucket/dead", cache_dir=str(tmp_path))
    with pytest.raises(ArtifactError, match=r"s3://bucket/dead .*AWS_ENDPOINT_URL") as error:
        store.latest("codebook", DAY)
    with pytest.raises(ArtifactError, match=r"s3://bucket/dead .*AWS_ENDPOINT_URL"):
        store.assets()
    forget_s3()
    assert "hush" not in str(error.value)
    assert "hush" not in caplog.text


def test_the_cache_of_another_user_is_refused(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    ArtifactStore(root, cache_dir=str(shared))
    assert stat.S_IMODE(shared.stat().st_mode) == 0o700
    monkeypatch.setattr(remote.os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(ArtifactError, match=r"belongs to another user.*ONEREC_HOME"):
        ArtifactStore(root, cache_dir=str(shared))


def test_a_kind_of_store_that_is_not_known_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"ONEREC_ARTIFACTS='foo://x': .*use a directory, or s3://"
    ):
        ArtifactStore("foo://x")


def test_the_cache_lies_under_home(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEREC_HOME", str(tmp_path / "home"))
    assert publish(ArtifactStore(root)).path.parent == tmp_path / "home" / "cache" / "artifacts"


def test_credentials_in_the_url_are_refused() -> None:
    with pytest.raises(ValueError, match=r"s3://\*\*\*@bucket.*AWS_PROFILE") as error:
        ArtifactStore("s3://KEY:se/cret@bucket/a")
    assert "KEY" not in str(error.value).replace("AWS_ACCESS_KEY_ID", "").replace(
        "AWS_SECRET_ACCESS_KEY", ""
    )
    assert "cret@" not in str(error.value)
