"""When something begins and ends to hold a GPU's clocks down."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from collector.clock import Now
from store.events import CLOCK_EVENT_REASONS

QUIET_S = 5.0
"""How long a reason must be gone to count as ended: a GPU at its power cap touches it some times a second."""

_SEVERITIES: Mapping[str, str] = {
    "sw_power_cap": "info",  # a GPU that is busy enough is at its cap, and meant to be
    "sync_boost": "info",
    "hw_slowdown": "warning",
    "sw_thermal_slowdown": "warning",
    "hw_thermal_slowdown": "critical",
    "hw_power_brake_slowdown": "critical",
}
"""The reasons that are told. The others (idle, clocks that somebody set) hold nothing down that was asked for."""


@dataclass(slots=True)
class _Spell:
    """A time for which one reason held the clocks."""

    begin: Now
    last: Now


class Throttling:
    """Follows one GPU's reasons from tick to tick."""

    def __init__(self) -> None:
        self._spells: dict[str, _Spell] = {}

    def follow(self, reasons: int | None, now: Now) -> Iterator[dict[str, Any]]:
        """The begins and ends, as columns of `gpu_event`.

        Args:
            reasons: The set of reasons; None where the GPU did not tell, which neither begins nor ends anything.
            now: The time of the tick.
        """
        if reasons is None:
            return
        for bit, reason in CLOCK_EVENT_REASONS.items():
            if reason not in _SEVERITIES:
                continue
            spell = self._spells.get(reason)
            if reasons & bit and spell:
                spell.last = now
            elif reasons & bit:
                self._spells[reason] = _Spell(now, now)
                yield _told("throttle_begin", reason, f"{reason} holds the clocks down")
            elif spell and now.monotonic_s - spell.last.monotonic_s >= QUIET_S:
                del self._spells[reason]
                lasted_s = spell.last.monotonic_s - spell.begin.monotonic_s
                words = f"{reason} no longer holds the clocks down; it was seen for {lasted_s:.0f} s"
                yield _told("throttle_end", reason, words) | {"duration_seconds": lasted_s}


def _told(event: str, reason: str, message: str) -> dict[str, Any]:
    return {"event": event, "throttle_reason": reason, "severity": _SEVERITIES[reason], "message": message}
