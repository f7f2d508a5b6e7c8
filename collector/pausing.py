"""Pausing: the driver is let go for a while, so that a GPU can be reset, MIG changed or the driver replaced.

Whoever may write the ledger's folder asks for it by a small file there, which the collector looks at once a tick
(one stat). It outlives a restart of the collector, and every pause has an end, so that nobody forgets one. Once the
driver is let go, a `paused` event says so.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from collector.clock import Now
from collector.probe import Condition, RestingProbe
from store.errors import LedgerUnusableError
from store.events import Event
from store.files import publish_file

PAUSE_NAME = "pause.json"
PAUSE_MAX_S = 24 * 3600.0
_WORDS_MAX = 200


_TimeUs = Annotated[int, msgspec.Meta(ge=0, lt=2**52)]  # until 2112: a time that can be written out


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A pause that was asked for. Times in microseconds UTC."""

    asked_at_us: _TimeUs
    until_us: _TimeUs
    by: str
    why: str = ""

    @property
    def words(self) -> str:
        until = datetime.fromtimestamp(self.until_us / 1e6, UTC)
        why = f": {_printable(self.why)}" if self.why else ""
        return f"paused until {until:%Y-%m-%d %H:%M:%S} UTC by {_printable(self.by)}{why}"


def _printable(text: str) -> str:
    """The text without what could play tricks on a terminal."""
    return "".join(one if one.isprintable() else " " for one in text)[:_WORDS_MAX]


def ask_for_pause(folder: Path, pause: Pause) -> None:
    """Ask the collector of this ledger to pause.

    Raises:
        LedgerUnusableError: The folder cannot be written.
    """
    try:
        publish_file(folder / PAUSE_NAME, lambda path: _write(path, pause))
    except OSError as error:
        raise _not_writable(folder, error) from None


def _write(path: Path, pause: Pause) -> None:
    path.write_bytes(msgspec.json.encode(pause))


def end_pause(folder: Path) -> bool:
    """Take the pause back; whether there was one to take back.

    Raises:
        LedgerUnusableError: The folder cannot be written.
    """
    try:
        (folder / PAUSE_NAME).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _not_writable(folder, error) from None
    return True


def _not_writable(folder: Path, error: OSError) -> LedgerUnusableError:
    reason = (error.strerror or str(error)).lower()
    return LedgerUnusableError(
        f"The ledger's folder {folder} cannot be written ({reason})", "run as the user who records into it"
    )


def asked_pause(folder: Path) -> Pause | None:
    """The pause that was asked for last, which may be over; None where there is none, or its file is not one."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((folder / PAUSE_NAME).read_bytes(), type=Pause)
    return None


class PauseFile:
    """Looks whether the pause that is asked for holds now.

    Its end is on the wall clock, and is counted down on the clock that runs on in suspend from the moment the file is
    seen first: a wall clock that is stepped back does not prolong it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / PAUSE_NAME
        self._seen: tuple[int, int] | None = None
        self._pause: Pause | None = None
        self._end_s = 0.0

    def look(self, now: Now) -> Pause | None:
        """The pause that holds now; costs one stat."""
        try:
            found = self._path.stat()
        except OSError:
            self._seen = self._pause = None
            return None
        if self._seen != (seen := (found.st_ino, found.st_mtime_ns)):
            self._seen, self._pause = seen, asked_pause(self._folder)
            self._end_s = now.boottime_s + _left_s(self._pause, now)
        return self._pause if now.boottime_s < self._end_s else None


def _left_s(pause: Pause | None, now: Now) -> float:
    if pause is None:
        return 0.0
    return min(pause.until_us - now.wall_us, pause.until_us - pause.asked_at_us, PAUSE_MAX_S * 1e6) / 1e6


class PausableProbe:
    """A probe that rests while a pause holds.

    Args:
        probe: The probe; made anew by nobody, so it knows after a pause what it knew before.
        folder: The ledger's folder.
    """

    def __init__(self, probe: RestingProbe, folder: Path) -> None:
        self.name = probe.name
        self._probe = probe
        self._file = PauseFile(folder)
        self._pause: Pause | None = None
        self._since: Now | None = None
        self._held: Sequence[str] = ()

    def read(self, now: Now) -> Sequence[Event]:
        pause = self._file.look(now)
        if pause is None:
            return [*self._resumed(now), *self._probe.read(now)]
        return [*self._paused(pause, now), *self._probe.meanwhile()]

    @property
    def condition(self) -> Condition:
        return Condition.PAUSED if self._pause else self._probe.condition

    def status(self) -> str:
        if self._held:
            return f"is to be paused, and still holds {', '.join(self._held)}"
        return self._pause.words if self._pause else self._probe.status()

    @property
    def busy_with(self) -> str | None:
        return self._probe.busy_with

    def meanwhile(self) -> Sequence[Event]:
        return self._probe.meanwhile()

    def abandon(self) -> None:
        self._probe.abandon()

    def close(self) -> None:
        self._probe.close()

    def _paused(self, pause: Pause, now: Now) -> list[Event]:
        """Let go, and say so once nothing is held any more; it is tried at each tick until then."""
        if pause == self._pause:
            return []
        self._held = self._probe.rest()
        if self._held:
            return []
        self._pause, self._since = pause, self._since or now
        details = {**msgspec.structs.asdict(pause), "why": _printable(pause.why), "by": _printable(pause.by)}
        message = f"the {self.name} probe is {pause.words}; the driver is let go"
        return [self._event("paused", now, message, details=details)]

    def _resumed(self, now: Now) -> list[Event]:
        self._held = ()
        if self._pause is None or self._since is None:
            return []
        pause, since = self._pause, self._since
        self._pause = self._since = None
        how = "its time was over" if now.wall_us >= pause.until_us else "it was told to go on"
        span = {
            "started_at": since.wall_us,
            "ended_at": now.wall_us,
            "duration_seconds": now.boottime_s - since.boottime_s,
        }
        return [self._event("resumed", now, f"the {self.name} probe goes on: {how}", **span)]

    def _event(self, event: str, now: Now, message: str, **more: Any) -> Event:
        return Event("ledger_event", now.wall_us, {"event": event, "probe": self.name, "message": message, **more})
