"""Posting a text to a chat's webhook: to the configured host and no other."""

import ipaddress
import json
import time
import urllib.request
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from onerec.config import require

WEBHOOK = "ONEREC_ALERT_WEBHOOK"
PAUSES = (1.0, 3.0)
"""Seconds before another try; all tries of two texts fit into a sensor's minute."""
TIMEOUT_SECONDS = 5


def post(url: str, text: str) -> None:
    """POST `{"text": ...}`, the form chat webhooks take; tries again after a failure.

    Raises:
        SettingError: The URL would carry the alert in the clear.
        ValueError: The server redirects it elsewhere.
        OSError: The server cannot be reached or answers with an error, at every try.
    """
    require_webhook(url)
    for pause in PAUSES:
        try:
            return _post_once(url, text)
        except OSError:
            time.sleep(pause)
    return _post_once(url, text)


def _post_once(url: str, text: str) -> None:
    request = urllib.request.Request(
        url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS):
            pass
    except HTTPError as error:
        error.close()
        if not 300 <= error.code < 400:
            raise
        host = urlsplit(error.headers.get("Location", "")).hostname
        raise ValueError(
            f"{WEBHOOK} answers with a redirect ({error.code}) to the host {host!r}, which is not "
            f"followed: set {WEBHOOK} to the final URL"
        ) from None


def require_webhook(url: str | None) -> None:
    """Check that alerts go over https, or to this machine; None sends none.

    Raises:
        SettingError: They would go in the clear. The URL is a secret and not shown.
    """
    parts = urlsplit(url or "https://")
    is_private = parts.scheme == "https" or (parts.scheme == "http" and _is_local(parts.hostname))
    require(is_private, WEBHOOK, "***", "must be an https:// URL (http:// only to localhost)")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An alert is for the configured host alone, and a redirected POST would lose its text."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None  # the answer is then an HTTPError


def _is_local(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
