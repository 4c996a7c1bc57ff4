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
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise SettingError("port", port, f"{error}; name a free one") from None
