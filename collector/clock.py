"""Time, passed in: whoever samples is given a clock, so nothing sleeps in a test."""

import threading
import time
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on three clocks.

    Args:
        monotonic_s: Seconds that the machine has run; stands still in suspend.
        boottime_s: Seconds since boot, suspend included.
        wall_us: Microseconds since the epoch, UTC; may be stepped.
    """

    monotonic_s: float
    boottime_s: float
    wall_us: int


class Clock(Protocol):
    def now(self) -> Now: ...

    def wait_until(self, monotonic_s: float, stop: threading.Event) -> None:
        """Return at that moment, or as soon as `stop` is set."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> Now:
        return Now(
            monotonic_s=time.monotonic(),
            boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME),
            wall_us=time.time_ns() // 1000,
        )

    def wait_until(self, monotonic_s: float, stop: threading.Event) -> None:
        stop.wait(max(0.0, monotonic_s - time.monotonic()))
