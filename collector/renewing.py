"""A driver that was replaced under the collector: the process replaces itself where nothing less helps.

A session that ends unmaps the driver's library, so the next one loads what is installed then. Where something else
keeps the old library mapped (a second handle on it, a tool that was preloaded), every nvmlInit of this process fails
with a version mismatch for ever. A fresh process tells whether it is that: where NVML can be initialised in one, this
one ends its recording in order and becomes one, with the same arguments and pid. Where it cannot, because the
installed library does not match the kernel's module (between an upgrade and the reboot), it stays.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, MutableMapping, Sequence
from typing import NoReturn

from collector.clock import Now
from collector.gpu.driver_library import LIBRARY, mapped_files
from store.events import Event

logger = logging.getLogger(__name__)

RENEW_AT_MOST_EVERY_S = 3600.0
CHECK_TIME_LIMIT_S = 20.0
RENEWED_VARIABLE = "_GPULEDGER_RENEWED_AT_BOOTTIME_S"  # a process that replaces itself keeps its environment only
_RENEWED = "renewed"
_CHECK = "import pynvml; pynvml.nvmlInit()"


def fresh_process_has_driver() -> bool:
    """Whether NVML can be initialised by a process that was just started."""
    command = [sys.executable, "-P", "-c", _CHECK]
    try:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return child.wait(CHECK_TIME_LIMIT_S) == 0
    except subprocess.TimeoutExpired:
        child.kill()  # and not waited for: in the driver it may not even die
    except OSError as error:
        logger.warning("a process could not be started (%s)", error)
    return False


class Renewal:
    """Whether this process is to be replaced by itself, and how.

    Args:
        stop: Set once it is, and the event that says so is in the ledger; ends the recording.
        is_worth_it: Whether a fresh process would fare better.
        environment: Where the time of the last renewal is kept.
    """

    def __init__(
        self,
        stop: threading.Event,
        is_worth_it: Callable[[], bool] = fresh_process_has_driver,
        environment: MutableMapping[str, str] = os.environ,
    ) -> None:
        self.is_wanted = False
        self._stop = stop
        self._is_worth_it = is_worth_it
        self._environment = environment

    def consider(self, now: Now) -> Sequence[Event]:
        """Decide, when the old library stays mapped; gives the event that says why the process is replaced."""
        if self._was_tried_lately(now) or LIBRARY.is_in_use or not self._is_worth_it():
            return []
        self._environment[RENEWED_VARIABLE] = str(now.boottime_s)
        message = (
            "the collector replaces itself: the NVIDIA driver was replaced under it, and the old library stays mapped"
        )
        logger.warning("%s", message)
        values = {"event": _RENEWED, "probe": "gpu", "message": message, "details": {"mapped": mapped_files()}}
        return [Event("ledger_event", now.wall_us, values)]

    def look(self, events: Sequence[Event]) -> None:
        """End the recording if these events, which are recorded, say that the process is replaced."""
        if any(event.values.get("event") == _RENEWED for event in events if event.kind == "ledger_event"):
            self.is_wanted = True
            self._stop.set()

    def _was_tried_lately(self, now: Now) -> bool:
        try:
            tried_s = float(self._environment[RENEWED_VARIABLE])
        except (KeyError, ValueError):
            return False
        return 0 <= now.boottime_s - tried_s < RENEW_AT_MOST_EVERY_S


def become_anew() -> NoReturn:
    """Replace this process by the command line that started it; what it holds is closed by the kernel on the way."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own interpreter and module
