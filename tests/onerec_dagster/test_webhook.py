"""Alerts reach the configured host and no other."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from onerec.config import SettingError
from onerec_dagster import webhook
from onerec_dagster.alerts import send_all
from onerec_dagster.webhook import WEBHOOK, post, require_webhook


class _Hook(BaseHTTPRequestHandler):
    received: list[tuple[str, bytes]]
    redirect: str | None = None
    code = 302
    failures = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.received.append((self.path, body))
        if len(self.received) <= self.failures:
            self.send_response(503)
        elif self.redirect and self.path == "/moved":
            self.send_response(self.code)
            self.send_header("Location", self.redirect)
        else:
            self.send_response(200)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[str, type[_Hook]]]:
    handler = type("Handler", (_Hook,), {"received": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
        server.shutdown()
        thread.join()


def test_the_text_arrives(hook: tuple[str, type[_Hook]]) -> None:
    url, handler = hook
    post(f"{url}/T0/secret", "nightly for 2026-06-14 failed")
    ((path, body),) = handler.received
    assert path == "/T0/secret"
    assert json.loads(body) == {"text": "nightly for 2026-06-14 failed"}


def test_a_text_arrives_although_tries_fail_and_another_text_never_does(
    hook: tuple[str, type[_Hook]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
    url, handler = hook
    handler.failures = 2
    post(url, "late")
    assert len(handler.received) == 3
    handler.received.clear()
    handler.failures = 3  # every try of the first text
    monkeypatch.setenv(WEBHOOK, url)
    with pytest.raises(ExceptionGroup, match="1 alerts could not be sent"):
        send_all(logging.getLogger("test"), ["first", "second"])
    assert json.loads(handler.received[-1][1]) == {"text": "second"}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://elsewhere.invalid/steal", "/other"])
def test_a_redirect_is_not_followed(code: int, target: str, hook: tuple[str, type[_Hook]]) -> None:
    url, handler = hook
    handler.redirect, handler.code = target, code
    with pytest.raises(ValueError, match=rf"{WEBHOOK} answers with a redirect \({code}\)") as error:
        post(f"{url}/moved", "text")
    assert [path for path, _ in handler.received] == ["/moved"]
    assert "steal" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://chat.example/hook/s3cret", "ftp://localhost/s3cret", "s3cret", "file:///s3cret"]
)
def test_an_alert_is_not_sent_in_the_clear(url: str) -> None:
    for send in (require_webhook, lambda url: post(url, "text")):
        with pytest.raises(SettingError, match=rf"{WEBHOOK}='\*\*\*': must be an https:") as error:
            send(url)
        assert "s3cret" not in str(error.value)


def test_https_and_no_webhook_are_fine() -> None:
    for url in (None, "", "https://chat.example/hook", "http://localhost:8065/hook"):
        require_webhook(url)
