"""Why a window has nothing of what was asked for, and the nearest one of its length that has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from query.engine import Source, in_window, sql_text
from query.windows import Window


@dataclass(frozen=True, slots=True)
class Nothing:
    """What is to be said where nothing was found.

    Args:
        reason: Why, as a phrase.
        nearest: The nearest window of the same length that holds some; None where there is none, or the asked one does.
        has_others: Whether the asked one holds some, none of which is what was asked for.
    """

    reason: str
    nearest: Window | None = None
    has_others: bool = False

    @property
    def window(self) -> str | None:
        """The nearest window as it is asked for."""
        return self.nearest.asked if self.nearest else None


def why_nothing(source: Source, kinds: Sequence[str], window: Window) -> Nothing:
    """Why there is nothing of some kinds of events in a window."""
    named = ", ".join(kinds)
    with source.engine(kinds, columns=dict.fromkeys(kinds, ("observed_at",))) as engine:
        places = {edge: engine.parameter(edge, "time") for edge in ("start", "end")}
        parts = {"epoch_us": engine.epoch_us("observed_at"), "in_window": in_window(engine), **places}
        rows: list[Mapping[str, Any]] = []
        for kind in kinds:
            text = sql_text("nearest_events").format(relation=engine.relation(kind), **parts)
            rows += engine.query(text, start=window.start_us, end=window.end_us).to_pylist()
    if within := sum(row["within_count"] for row in rows):
        words = f"{named}: {within} rows lie in that time, none of them is what was asked for"
        return Nothing(words, has_others=True)
    befores, afters = ([row[name] for row in rows if row[name] is not None] for name in ("before_us", "after_us"))
    nearest = nearest_window(window, max(befores, default=None), min(afters, default=None))
    return Nothing(f"{named}: {_words(window, nearest)}", nearest)


def nearest_window(window: Window, before_us: int | None, after_us: int | None) -> Window | None:
    """The window of the same length that ends with what came before, or begins with what came after: the nearer."""
    length = timedelta(seconds=window.seconds)
    from_before_us = None if before_us is None else window.start_us - before_us
    from_after_us = None if after_us is None else after_us - window.end_us
    if from_before_us is not None and (from_after_us is None or from_before_us <= from_after_us):
        end = _whole_second(before_us or 0, window) + timedelta(seconds=1)
        return _asked(end - length, end, window)
    if after_us is not None:
        begin = _whole_second(after_us, window)
        return _asked(begin, begin + length, window)
    return None


def _whole_second(time_us: int, window: Window) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).astimezone(window.start.tzinfo)


def _asked(start: datetime, end: datetime, window: Window) -> Window:
    found = Window(start, end, window.time_zone, "")
    return replace(found, asked=window_text(found))


def window_text(window: Window) -> str:
    """A window as it can be asked for at any time and in any zone."""
    return "..".join(edge.isoformat(timespec="seconds") for edge in (window.start, window.end))


def _words(window: Window, nearest: Window | None) -> str:
    if nearest is None:
        return "none was ever recorded"
    if nearest.end <= window.start + timedelta(seconds=1):
        newest = nearest.end - timedelta(seconds=1)
        return f"none lies in that time, the newest before it is of {newest:%Y-%m-%d %H:%M:%S}"
    return f"none lies in that time, the first after it is of {nearest.start:%Y-%m-%d %H:%M:%S}"
