"""`gpuledger pause` and `resume`: have the collector let go of the driver, and wait until it has."""

import os
import pwd
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

from collector.pausing import PAUSE_MAX_S, Pause, ask_for_pause, asked_pause, end_pause
from query.present.live import probe_words
from query.reading.local_source import LocalSource
from store.errors import GpuledgerError, UsageError
from store.ledger import lock_holder

WAIT_S = 15.0  # how long the collector may take to let go, or to go on, beyond two of its intervals
_LOOK_EVERY_S = 0.2
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def pause_length_s(text: str) -> float:
    """Seconds of `90s`, `15m`, `1h30m`.

    Raises:
        UsageError: It is none of those, or longer than a day.
    """
    parts = re.findall(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh])", text)
    length_s = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not length_s:
        raise UsageError(f"{text!r} is no length of a pause", "write it as 90s, 15m or 1h30m")
    if length_s > PAUSE_MAX_S:
        raise UsageError(f"A pause of {text} is too long", "it may last 24h; ask again when that is over")
    return length_s


def pause_recording(source: LocalSource, *, length_s: float, why: str, interval_s: float) -> str:
    """Ask for a pause and wait until the driver is let go; what to tell the person.

    Args:
        source: The ledger.
        length_s: After how long it goes on by itself.
        why: For whoever wonders.
        interval_s: The collector's interval.

    Raises:
        LedgerUnusableError: The folder cannot be written.
        GpuledgerError: The collector does not let go.
    """
    now_us = time.time_ns() // 1000
    pause = Pause(asked_at_us=now_us, until_us=now_us + round(length_s * 1e6), by=_user(), why=why)
    ask_for_pause(source.folder, pause)
    until = f"{datetime.fromtimestamp(pause.until_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if lock_holder(source.folder) is None:
        return (
            f"no collector records to {source.folder}, so gpuledger holds nothing of the driver; "
            f"one that is started before {until} begins paused"
        )
    if not _comes_about(lambda: _was_told(source, "paused", pause.asked_at_us, 0), interval_s):
        raise _not_done(source, "let go of the driver")
    return (
        f"paused until {until}: the driver is let go, GPUs can be reset; the host is still recorded. "
        "It goes on by itself, or with 'gpuledger resume'"
    )


def resume_recording(source: LocalSource, *, interval_s: float) -> str:
    """Take a pause back and wait until the GPUs are looked at again; what to tell the person. Raises as above."""
    newest_seq = _newest_seq(source)
    pause = asked_pause(source.folder)
    if not end_pause(source.folder) or pause is None or pause.until_us <= time.time_ns() // 1000:
        return "it is not paused"
    if lock_holder(source.folder) is None:
        return f"the pause is taken back; no collector records to {source.folder}"
    if not _comes_about(lambda: _was_told(source, "resumed", None, newest_seq), interval_s):
        raise _not_done(source, "gone on")
    return "the GPUs are recorded again"


def _user() -> str:
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} (as {name})" if behind and behind != name else name


def _comes_about(look: Callable[[], bool], interval_s: float) -> bool:
    deadline_s = time.monotonic() + WAIT_S + 2 * interval_s
    while not look():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _was_told(source: LocalSource, event: str, asked_at_us: int | None, after_seq: int) -> bool:
    with source.engine(("ledger_event",)) as engine:
        sql = (
            f"select count(*) as n from {engine.relation('ledger_event')} "
            f"where event = {engine.parameter('event', 'text')} and seq > {after_seq}"
        )
        if asked_at_us is not None:
            sql += f" and details ->> 'asked_at_us' = '{asked_at_us}'"
        return bool(engine.query(sql, event=event)["n"][0].as_py())


def _newest_seq(source: LocalSource) -> int:
    with source.engine(("ledger_event",)) as engine:
        sql = f"select coalesce(max(seq), 0) as n from {engine.relation('ledger_event')}"
        newest: int = engine.query(sql)["n"][0].as_py()
        return newest


def _not_done(source: LocalSource, what: str) -> GpuledgerError:
    holder = lock_holder(source.folder) or {}
    words = probe_words(source, "gpu") or "it says nothing of its GPUs"
    return GpuledgerError(
        f"The collector, pid {holder.get('pid', 'unknown')}, has not {what} in time (gpu: {words})",
        "it is asked for all the same; see 'gpuledger status', and if need be stop the collector",
    )
