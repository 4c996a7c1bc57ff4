"""Ports of localhost."""

import socket

from onerec.config import SettingError


def require_free_port(port: int) -> None:
    """Check that a server of ours can listen on localhost, before it starts.

    Raises:
        SettingError: The port is taken, or is none.
    """
    with socket.socket() as probe:
        try:
            if port == 0:
                raise OverflowError("no port is called 0")
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingError("port", port, f"{reason}; name a free one, {_free()} say") from None


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
