"""What each call of the driver gave on one GPU: the honest answer to why a column is NULL.

A call that is not supported, or not permitted, is left alone for a while and tried again, never given up for good: a
driver that is reloaded, or a right that is granted, makes it work.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

import pynvml

from collector.clock import Now
from collector.gpu.nvml import Absent, absence_reason
from store.events import AbsenceReason

T = TypeVar("T")
RETRY_FIRST_S = 60.0
RETRY_LAST_S = 600.0


class Status(StrEnum):
    """How the last try of a call went."""

    UNTRIED = "untried"
    OK = "ok"
    NOT_SUPPORTED = "not_supported"
    MISSING_SYMBOL = "missing_symbol"  # the driver is older than the call
    NO_PERMISSION = "no_permission"
    ERROR = "error"


@dataclass(slots=True, eq=False)
class Capability:
    """One call on one GPU.

    Args:
        call: The function or field, as a person looks it up.
        status: How the last try went.
        code: What NVML returned then; None where it was not asked.
        tried_at_us: When that was, microseconds since the epoch, UTC.
        rests_until_s: Until when it is left alone, on the monotonic clock.
    """

    call: str
    status: Status = Status.UNTRIED
    code: int | None = None
    tried_at_us: int = 0
    rests_until_s: float = float("-inf")
    _rest_s: float = 0.0

    def worked(self, now: Now) -> None:
        self.tried_at_us = now.wall_us
        if self.status is not Status.OK:
            self.status, self.code, self._rest_s = Status.OK, 0, 0.0

    def failed(self, absent: Absent, now: Now) -> None:
        self.note(absent.code, absent.reason, now)
        if absent.reason in (AbsenceReason.NOT_SUPPORTED, AbsenceReason.NO_PERMISSION):
            self._rest_s = min(max(RETRY_FIRST_S, 2 * self._rest_s), RETRY_LAST_S)
            self.rests_until_s = now.monotonic_s + self._rest_s

    def note(self, code: int | None, reason: AbsenceReason, now: Now) -> None:
        """Take down how it went, of a call that is not ours to leave out."""
        self.tried_at_us, self.code = now.wall_us, code
        self.status = _status(code, reason)


class Ways(Generic[T]):
    """Several calls that answer one question, newest first: the first that the driver knows is made.

    Args:
        ways: The call as a person looks it up, and what makes it.
    """

    def __init__(self, *ways: tuple[str, Callable[[], T]]) -> None:
        self._ways = [(Capability(call), make) for call, make in ways]

    @property
    def capabilities(self) -> list[Capability]:
        return [capability for capability, _ in self._ways]

    def take(self, now: Now) -> T:
        """The answer.

        Raises:
            Absent: There is none, with the reason.
            DriverAway: The driver is gone.
        """
        code: int | None = None
        for capability, make in self._ways:
            if capability.rests_until_s > now.monotonic_s:
                code = capability.code
                continue
            try:
                answer = make()
            except Absent as absent:
                capability.failed(absent, now)
                if absent.reason is not AbsenceReason.NOT_SUPPORTED:
                    raise
                code = absent.code
                continue
            capability.worked(now)
            return answer
        raise Absent(AbsenceReason.NOT_SUPPORTED if code is None else absence_reason(code), code)


def _status(code: int | None, reason: AbsenceReason) -> Status:
    if code == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
        return Status.MISSING_SYMBOL
    if reason is AbsenceReason.NOT_SUPPORTED:
        return Status.NOT_SUPPORTED
    return Status.NO_PERMISSION if reason is AbsenceReason.NO_PERMISSION else Status.ERROR


def statuses(capabilities: Iterable[Capability]) -> dict[str, str]:
    """How each call that was tried went, by the call; an error's code beside it."""
    return {one.call: _spelled(one.status, one.code) for one in capabilities if one.status is not Status.UNTRIED}


def word(code: int | None, reason: AbsenceReason) -> str:
    """How a call that failed is told of, as `statuses` does."""
    return _spelled(_status(code, reason), code)


def _spelled(status: Status, code: int | None) -> str:
    return f"{status} {code}" if status is Status.ERROR and code is not None else str(status)
