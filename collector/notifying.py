"""Telling the service manager how the collector is: systemd's notification socket, `man sd_notify`.

Ready is said after the first tick, and the watchdog is fed by ticks alone: a collector whose sampler stands still is
started again, however well its other threads are. Where no socket is named, as outside of systemd, nothing is said.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

SOCKET_VARIABLE = "NOTIFY_SOCKET"


class ServiceManager:
    """Whoever started this process and wants to know how it is.

    Args:
        environment: Names its socket, a path or, with a leading @, a name in the abstract namespace.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get(SOCKET_VARIABLE, "")
        self._is_told = False

    def ticked(self) -> None:
        """A tick has been taken."""
        self._tell("WATCHDOG=1" if self._is_told else "READY=1\nWATCHDOG=1")
        self._is_told = True

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        name = self._address.replace("@", "\0", 1) if self._address.startswith("@") else self._address
        # A manager that has gone, or whose queue is full, is no reason to stop recording.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as wire:
            wire.sendto(state.encode(), name)
