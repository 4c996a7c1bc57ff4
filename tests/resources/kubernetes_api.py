"""As much of a Kubernetes API on localhost as a training needs; pods are processes of this one."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse


@dataclass
class Cluster:
    """Attributes:
    url: Where it listens.
    directory: Has the logs of pods.
    jobs: Manifests of the jobs there ever were.
    services: Names of the services that are there.
    pods: Processes of the job that is there.
    """

    directory: Path
    url: str = ""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    pods: list[subprocess.Popen] = field(default_factory=list)

    def start(self, job: dict[str, Any]) -> None:
        """A process for each pod; names of pods are localhost here."""
        self.jobs.append(job)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        python, *command = container["command"]
        assert python == "python"
        command = [
            f"--rdzv-endpoint=127.0.0.1:{port}" if word.startswith("--rdzv-endpoint") else word
            for word in command
        ]
        environ = {**os.environ, **{entry["name"]: entry["value"] for entry in container["env"]}}
        for number in range(job["spec"]["completions"]):
            with (self.directory / f"pod-{number}.log").open("w") as log:
                self.pods.append(
                    subprocess.Popen(
                        [sys.executable, *command], env=environ, stdout=log, stderr=log
                    )
                )

    def stop(self) -> None:
        for pod in self.pods:
            pod.kill()
            pod.wait()
        self.pods.clear()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | str | None:
        """The JSON or text of a request; None where there is nothing."""
        *_, kind, name = ["", *path.strip("/").split("/")]
        if method == "POST":
            if name == "jobs":
                self.start(body)
            else:
                self.services.add(body["metadata"]["name"])
            return body
        if path.endswith("/status"):
            codes = [pod.poll() for pod in self.pods]
            failed = sum(code not in (0, None) for code in codes)
            return {"status": {"succeeded": codes.count(0), "failed": failed or None}}
        if name == "pods":
            return {"items": [{"metadata": {"name": f"pod-{n}"}} for n in range(len(self.pods))]}
        if name == "log":
            return (self.directory / f"{kind}.log").read_text()[-2000:]
        assert method == "DELETE", (method, path)
        if kind == "jobs":
            there, _ = bool(self.pods), self.stop()
        else:
            there = name in self.services
            self.services.discard(name)
        return {} if there else None


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster that `directory/kubeconfig` names."""
    found = Cluster(directory)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            answer = found.answer(self.command, urlparse(self.path).path, body)
            self.send_response(404 if answer is None else 200)
            text = answer if isinstance(answer, str) else json.dumps(answer or {})
            kind = "text/plain" if isinstance(answer, str) else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    named = {"name": "here", "cluster": {"server": found.url}}
    context = {"name": "here", "context": {"cluster": "here", "user": "nobody"}}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "clusters": [named],
        "contexts": [context], "users": [{"name": "nobody", "user": {}}],
    }  # fmt: skip
    (directory / "kubeconfig").write_text(json.dumps(config))
    try:
        yield found
    finally:
        found.stop()
        server.shutdown()
        server.server_close()
        thread.join()
