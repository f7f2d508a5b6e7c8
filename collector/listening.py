"""Taking a port before anything else is begun."""

import os
import socket

from store.errors import UsageError


def bound_socket(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        UsageError: The address is taken or not this machine's; the message names the setting to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        raise UsageError(
            f"{host} port {port} cannot be listened on ({reason})", f"stop what listens there, or set {setting}"
        ) from None
