"""What was different after a change of the machine: another driver, other limits or modes, another recorder, a note.

A change is what `gpu_event`, `inventory`, `ledger_event` or `annotation` says of it; several within `TOGETHER_US` are
one. The time after it, up to the next change, is compared (`query.history.comparison`) with as long a time before it.
Where that is shorter than a day it is the same hours of the day before, if nothing else changed since then and they
were recorded; else the time right before the change. Of both sides only the hours of the day count that both have: what
differs between night and noon is not taken for the change's doing (stratification: Cochran, "The effectiveness of
adjustment by subclassification in removing bias in observational studies", Biometrics 24, 1968).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from query.analysis import Analysis
from query.catalogue import Metric, find_metric
from query.engine import Source, in_window, sql_text
from query.history.comparison import Comparison, Gathered, step_of
from query.history.steps import Calendar, History, read_history, window_between
from query.windows import Window
from store.events import INVENTORY

KINDS = ("gpu_event", "inventory", "ledger_event", "annotation")
GPU_EVENTS = ("driver_changed", "mig_changed", "reset", "appeared", "lost", "recovered")
TOGETHER_US = 300_000_000
SPAN = timedelta(days=1)
SPAN_MIN_S = 600
DAY_US = 86_400_000_000
LOOK_BACK_US = 400 * DAY_US  # of a state to compare the first description in the window with
_NOT_TOLD = ("capabilities", "attributes", "source", "gpu_uuid", "subject", "gpu_index")
_DESCRIBED = tuple(column.name for column in INVENTORY.fields if column.name not in _NOT_TOLD)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that changed.

    Args:
        at: When.
        until: When the last of what belongs to it was told.
        what: What, a sentence each.
    """

    at: datetime
    until: datetime
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangeEffect:
    """What was different after a change.

    Args:
        change: Which.
        matched: `whole_days` where both sides are, `day_before` where they are the same hours of two days, `adjacent`
            where they are one after the other; None where there was nothing to compare with.
        comparison: What was different; None where too little was recorded on one side.
        why_not: Why there is none; empty where there is.
    """

    change: Change
    matched: str | None
    comparison: Comparison | None
    why_not: str


@dataclass(frozen=True, slots=True)
class Changes(Analysis):
    """The changes of a window, and what was different after each.

    Args:
        coverage: Share of the compared times that was recorded, the mean over the changes; 0 where nothing was.
        n: How many changes there were.
        method: How the sides were compared.
        effects: The newest change first.
    """

    effects: tuple[ChangeEffect, ...]


def change_effects(
    source: Source,
    metrics: Sequence[str],
    window: Window,
    *,
    span: timedelta = SPAN,
    gpus: Sequence[int] = (),
    top: int = 5,
) -> Changes:
    """What changed in `window`, and what was different after it.

    Args:
        source: Where the events are.
        metrics: Names of the metrics to compare.
        window: Where to look for changes; the time after one reaches to its end at most.
        span: How long a time is compared, at most.
        gpus: Only these GPU indexes; all where empty.
        top: Of how many changes the effect is told, the newest first.

    Raises:
        UnknownMetricError: There is no such metric.
    """
    changes = find_changes(source, window)
    wanted = [find_metric(name) for name in metrics]
    edges = [_us(one.at) for one in changes]
    effects = []
    for place in reversed(range(max(0, len(changes) - top), len(changes))):
        before_us = _us(changes[place - 1].until) if place else 0
        after_us = edges[place + 1] if place + 1 < len(changes) else window.end_us
        sides = _Sides(source, window, changes[place], before_us, after_us, round(span.total_seconds() * 1e6))
        effects.append(sides.effect(wanted, gpus))
    told = [one.comparison.coverage for one in effects if one.comparison]
    return Changes(
        window=window,
        coverage=float(np.mean(told)) if told else 0.0,
        n=len(changes),
        method="equal times before and after, of the same hours of the day where they can be had; Cliff's delta",
        limits=tuple(_limits(changes, effects)),
        effects=tuple(effects),
    )


def _limits(changes: Sequence[Change], effects: Sequence[ChangeEffect]) -> Iterator[str]:
    yield "a difference after a change need not come from it: the work may have been another"
    if len(changes) > len(effects):
        yield f"of {len(changes)} changes the newest {len(effects)} are compared"
    if any(one.matched == "adjacent" for one in effects):
        yield "where no day before could be had, the hours right before are compared: they are not the same hours"


def find_changes(source: Source, window: Window) -> list[Change]:
    """What changed in a window, in order of time."""
    told: list[tuple[int, str]] = []
    first_us = max(0, window.start_us - LOOK_BACK_US)
    with source.engine(KINDS, start_us=first_us, end_us=window.end_us) as engine:
        for kind in KINDS:
            text = sql_text("events").format(relation=engine.relation(kind), in_window=in_window(engine))
            rows = engine.query(text, start=first_us, end=window.end_us).to_pylist()
            told += _TOLD[kind](rows)
    inside = sorted(one for one in told if window.start_us <= one[0] < window.end_us)
    return [_change(group, window) for group in _together(inside)]


def _together(told: Sequence[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    group: list[tuple[int, str]] = []
    for one in told:
        if group and one[0] - group[-1][0] > TOGETHER_US:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _change(group: Sequence[tuple[int, str]], window: Window) -> Change:
    zone = window.start.tzinfo
    first, last = (datetime.fromtimestamp(group[at][0] / 1e6, zone) for at in (0, -1))
    return Change(first, last, tuple(dict.fromkeys(what for _, what in group)))


def _of_gpu_events(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    for row in rows:
        if row["event"] in GPU_EVENTS:
            gpu = "" if row["gpu_index"] is None else f"GPU {row['gpu_index']}: "
            yield _us(row["observed_at"]), f"{gpu}{row['message'] or row['event'].replace('_', ' ')}"


def _of_inventory(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Where a description differs from the one before of the same thing."""
    known: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda one: (one["observed_at"], one["seq"])):
        key = (row["host"], row["subject"], row["gpu_uuid"])
        before = known.get(key, row)
        subject = f"GPU {row['gpu_index']}" if row["gpu_index"] is not None else row["subject"]
        for name in _DESCRIBED:
            if row[name] is not None and before[name] is not None and row[name] != before[name]:
                yield _us(row["observed_at"]), f"{subject}: {name} {before[name]} → {row[name]}"
        known[key] = {**before, **{name: value for name, value in row.items() if value is not None}}


def _of_ledger_events(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Where a recording was started by another program or other settings than the one before."""
    known: dict[tuple[str, str], Any] = {}
    for row in sorted(rows, key=lambda one: (one["observed_at"], one["seq"])):
        if row["event"] != "start":
            continue
        told = {"gpuledger": row["gpuledger_version"], **_settings(row["details"])}
        for name, value in told.items():
            before = known.get((row["host"], name), value)
            if value != before:
                yield _us(row["observed_at"]), f"{name} {before} → {value}"
        known |= {(row["host"], name): value for name, value in told.items()}


def _settings(details: str | None) -> Mapping[str, Any]:
    """What a recording was started with; nothing where it does not say."""
    told = msgspec.json.decode(details) if details else {}
    settings: Mapping[str, Any] = told.get("settings", {})
    return settings


def _of_annotations(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    for row in rows:
        yield _us(row["started_at"] or row["observed_at"]), f"note: {row['text']}"


_TOLD = {
    "gpu_event": _of_gpu_events,
    "inventory": _of_inventory,
    "ledger_event": _of_ledger_events,
    "annotation": _of_annotations,
}


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


class _Sides:
    """The times before and after one change.

    Args:
        source: Where the events are.
        window: The window that was asked for.
        change: Which.
        before_us: Nothing changed since then …
        after_us: … and until then.
        span_us: How long a time is compared, at most.
    """

    def __init__(
        self, source: Source, window: Window, change: Change, before_us: int, after_us: int, span_us: int
    ) -> None:
        self._source = source
        self._window = window
        self._change = change
        self._before_us = before_us
        self._first_us, self._last_us = _us(change.at), _us(change.until)
        length_us = min(span_us, after_us - self._last_us)
        self._length_us = length_us // DAY_US * DAY_US or length_us

    def effect(self, metrics: Sequence[Metric], gpus: Sequence[int]) -> ChangeEffect:
        if self._length_us < SPAN_MIN_S * 1_000_000:
            why = f"the time to the next change, or to the end of the window, is below {SPAN_MIN_S // 60} minutes"
            return ChangeEffect(self._change, None, None, why)
        for matched, before_us, length_us in self._candidates():
            before = window_between(before_us, before_us + length_us, self._window)
            after = window_between(self._last_us, self._last_us + length_us, self._window)
            gathered = self._gathered(metrics, gpus, before, after, by_hour=matched != "adjacent")
            if gathered.differences:
                comparison = gathered.comparison(before, after, step_of(after.seconds))
                return ChangeEffect(self._change, matched, comparison, "")
        return ChangeEffect(self._change, None, None, "too little was recorded before it or after it")

    def _candidates(self) -> Iterator[tuple[str, int, int]]:
        """Where the time before may begin and how long both sides are then, the best first."""
        room_us = min(self._length_us, self._first_us - self._before_us)
        day_before_us = self._last_us - DAY_US
        if room_us >= DAY_US:
            whole_us = room_us // DAY_US * DAY_US
            yield "whole_days", self._first_us - whole_us, whole_us
        elif day_before_us >= self._before_us and day_before_us + self._length_us <= self._first_us:
            yield "day_before", day_before_us, self._length_us
        if 0 < room_us < DAY_US:
            yield "adjacent", self._first_us - room_us, room_us

    def _gathered(
        self, metrics: Sequence[Metric], gpus: Sequence[int], before: Window, after: Window, *, by_hour: bool
    ) -> Gathered:
        gathered = Gathered()
        for metric in metrics:
            histories = [
                read_history(self._source, metric, window, step_of(after.seconds), gpus=gpus)
                for window in (before, after)
            ]
            gathered.add(histories[0], histories[1], _same_hours(histories) if by_hour else None)
        return gathered


def _same_hours(histories: Sequence[History]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which steps are of an hour of the day that both sides have recorded."""
    hours = [Calendar.of(one.starts_us, one.step_s, one.window).hour for one in histories]
    recorded = []
    for history, hour in zip(histories, hours, strict=True):
        is_known = np.zeros(len(hour), bool)
        for series in history.series:
            is_known |= ~np.isnan(series.values)
        recorded.append(np.unique(hour[is_known]))
    shared = np.intersect1d(recorded[0], recorded[1])
    return np.isin(hours[0], shared), np.isin(hours[1], shared)
