"""Load test of the HTTP service on localhost.

`python -m onerec.serving.http_load_test --port 8080`

Prints the throughput in requests per second and the latency at the 50th and 99th percentile.
"""

import argparse
import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from onerec.serving.http_service import HOST


@dataclass(frozen=True)
class LoadTimes:
    """Latencies of a load test.

    Attributes:
        seconds: (R,) latency of each request.
        total_seconds: Wall time of the test.
    """

    seconds: np.ndarray
    total_seconds: float

    def __str__(self) -> str:
        p50, p99 = 1000 * np.quantile(self.seconds, (0.5, 0.99))
        rate = len(self.seconds) / self.total_seconds
        return f"{len(self.seconds)} requests, {rate:.1f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def load_test(port: int, *, requests: int, clients: int, k: int = 20) -> LoadTimes:
    """Send requests whose histories are items that earlier responses recommended.

    Raises:
        OSError: The service cannot be reached, or answers with an error.
    """
    history = [item["item_id"] for item in ask(port, [], k)[0]]

    def timed(number: int) -> float:
        return ask(port, history[: number % (len(history) + 1)], k)[1]

    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        seconds = np.array(list(pool.map(timed, range(requests))))
    return LoadTimes(seconds, time.monotonic() - began)


def ask(port: int, history: list[str], k: int) -> tuple[list[dict], float]:
    """Send one request; returns the items and the latency in seconds."""
    body = json.dumps({"history": history, "k": k}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{HOST}:{port}/recommend", body, headers)
    began = time.monotonic()
    with urllib.request.urlopen(request, timeout=60) as response:
        items = json.load(response)["items"]
    return items, time.monotonic() - began


def main() -> None:
    """Run the test that the arguments describe."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=4)
    args = parser.parse_args()
    load = load_test(args.port, requests=args.requests, clients=args.clients)
    sys.stdout.write(f"{load}\n")


if __name__ == "__main__":
    main()
