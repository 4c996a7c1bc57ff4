"""Spark in local mode with its Thrift server on localhost: for tests and for a first try.

    python -m resources.spark_server --port 10000

A cluster brings its own endpoint; `ONEREC_SPARK_HOST` and `ONEREC_SPARK_PORT` name it.
"""

# the extra `spark` need not be installed:
# pyright: reportMissingImports=false

import argparse
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_CLASS = "org.apache.spark.sql.hive.thriftserver.HiveThriftServer2"
_START_SECONDS = 180.0


def missing() -> str | None:
    """What Spark lacks on this machine, in words; None where it can run."""
    if importlib.util.find_spec("pyspark") is None or importlib.util.find_spec("pyhive") is None:
        return "the extra `spark` is not installed"
    java = os.environ.get("JAVA_HOME")
    if not (java and (Path(java) / "bin" / "java").exists()) and shutil.which("java") is None:
        return "there is no Java (17, e.g. Debian's openjdk-17-jre-headless)"
    return None


@contextmanager
def thrift_server(directory: Path, *, port: int = 0, cores: int = 2) -> Iterator[int]:
    """A Thrift server that ends with the block.

    Args:
        directory: Gets its metastore and log.
        port: To listen on at localhost; 0 chooses a free one.
        cores: Tasks at a time.

    Yields:
        The port.

    Raises:
        RuntimeError: Spark cannot run here, or did not start; the message says why.
    """
    if lacking := missing():
        raise RuntimeError(f"Spark cannot run: {lacking}")
    port = port or _free_port()
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "thrift_server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            _command(directory, port, cores),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
        )
    try:
        _wait_for(server, port, log)
        yield port
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _command(directory: Path, port: int, cores: int) -> Sequence[str]:
    from pyspark.find_spark_home import _find_spark_home

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.warehouse.dir": str(directory / "spark_warehouse"),
        "spark.sql.shuffle.partitions": str(cores),
        "spark.hadoop.hive.server2.thrift.bind.host": "127.0.0.1",
        "spark.hadoop.hive.server2.thrift.port": str(port),
        "spark.hadoop.javax.jdo.option.ConnectionURL": (
            f"jdbc:derby:;databaseName={directory / 'metastore'};create=true"
        ),
        "spark.hadoop.datanucleus.schema.autoCreateAll": "true",
        "spark.hadoop.hive.metastore.schema.verification": "false",
    }
    flags = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    submit = str(Path(_find_spark_home()) / "bin" / "spark-submit")
    master = ["--master", f"local[{cores}]", "--driver-memory", "2g"]
    return [submit, *master, *flags, "--class", _CLASS, "spark-internal"]


def _wait_for(server: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.3)
    end = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the Thrift server did not start; the end of {log}:\n{end}")


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Spark's Thrift server on localhost")
    parser.add_argument("--port", type=int, default=10000)
    parser.add_argument("--directory", type=Path, help="keeps the metastore between starts")
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    directory = given.directory or Path(tempfile.mkdtemp(prefix="onerec-spark-"))
    with thrift_server(directory.resolve(), port=given.port, cores=given.cores) as port:
        print(f"Spark SQL listens on localhost:{port}, state in {directory}")  # noqa: T201
        # both signals end the block, and Spark with it
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
