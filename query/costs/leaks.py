"""Memory that only grows: processes whose device memory leaks, and when the GPU's is used up.

The slope is that of Theil and Sen, the median over all pairs (Sen, "Estimates of the regression coefficient based on
Kendall's tau", JASA 63, 1968), which single steps do not move. Whether there is one at all is not asked of it, because
memory remembers: of a level that wanders by chance every test for independent readings finds trends. The process's time
is cut into ten parts, and the nine rises between their medians are what is tested (Student's t, 99 %). They are
independent of each other for a level that wanders; one step or a warm-up is one or two rises among nine and
no trend; a leak is nine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

import numpy as np

from query.analysis import Analysis
from query.engine import Engine, Source, in_window, sql_text
from query.history.recorded import recorded_seconds, recorded_share
from query.windows import Window
from store.rollups.cells import Floats

PARTS = 10
T_99 = 3.3554  # Student's t of eight degrees of freedom, 99 % two-sided
POINTS_MAX = 480
POINTS_LEAST = 2 * PARTS
SPAN_LEAST_S = 1800
GROWTH_LEAST_BYTES = 64 * 2**20
NEWEST_S = 300

Verdict = Literal["leak", "unsteady", "none", "too_short"]


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """How the device memory of one process went.

    Args:
        host, gpu_uuid, gpu_index: The GPU.
        pid, started_at, name, user: The process.
        verdict: `leak`: it grows all the time; `unsteady`: it has grown, in steps or no more than chance explains;
            `none`: it has not; `too_short`: it was not there for long enough to tell.
        n: How many points the figures are made from.
        observed_seconds: From the first to the last of them.
        memory_used_bytes: At the end.
        slope_bytes_per_hour: Theil and Sen's; None where it is too short.
        slope_low_bytes_per_hour, slope_high_bytes_per_hour: 99 % interval of the mean rise.
        free_bytes: What was left for it at the end: of the GPU's memory, or of the host's where they share one.
        exhausted_in_seconds: When that is used up if it goes on alone; None where it does not leak or that is unknown.
        exhausted_in_low_seconds, exhausted_in_high_seconds: The same at the edges of the interval.
    """

    host: str
    gpu_uuid: str
    gpu_index: int | None
    pid: int
    started_at: datetime | None
    name: str | None
    user: str | None
    verdict: Verdict
    n: int
    observed_seconds: float
    memory_used_bytes: float
    slope_bytes_per_hour: float | None
    slope_low_bytes_per_hour: float | None
    slope_high_bytes_per_hour: float | None
    free_bytes: int | None
    exhausted_in_seconds: float | None
    exhausted_in_low_seconds: float | None
    exhausted_in_high_seconds: float | None


@dataclass(frozen=True, slots=True)
class MemoryLeaks(Analysis):
    """Which processes leak.

    Args:
        n: How many processes were looked at.
        method: How it was judged.
        processes: All of them: leaks first, the steepest of them first.
    """

    processes: tuple[ProcessMemory, ...]


@dataclass(frozen=True, slots=True)
class Rise:
    """The slope of a series that remembers, with an interval; in units per second."""

    slope: float
    low: float
    high: float


def rise(time_s: Floats, values: Floats) -> Rise:
    """Theil and Sen's slope, and the 99 % interval of the mean rise between tenths of the series.

    Args:
        time_s: At least `POINTS_LEAST`, in order.
        values: As many.
    """
    first, second = np.triu_indices(len(time_s), 1)
    slope = float(np.median((values[second] - values[first]) / (time_s[second] - time_s[first])))
    levels = np.array([np.median(part) for part in np.array_split(values, PARTS)])
    middles = np.array([part.mean() for part in np.array_split(time_s, PARTS)])
    rates = np.diff(levels) / np.diff(middles)
    error = T_99 * float(rates.std(ddof=1)) / np.sqrt(len(rates))
    return Rise(slope, float(rates.mean() - error), float(rates.mean() + error))


def memory_leaks(source: Source, window: Window, *, now: datetime) -> MemoryLeaks:
    """How the device memory of each process went in `window`, and which leaks.

    Args:
        source: Where the events are.
        window: The time asked about.
        now: The time of the question.
    """
    kinds = ["process_sample", "gpu_sample"]
    with source.engine(kinds, start_us=window.start_us, end_us=window.end_us) as engine:
        step_s = max(5, round(recorded_seconds(engine, "process_sample", window) / POINTS_MAX))
        text = sql_text("process_memory").format(
            bucket=engine.bucket("observed_at", engine.parameter("step", "int")),
            relation=engine.relation("process_sample"),
            in_window=in_window(engine),
        )
        rows = engine.query(text, start=window.start_us, end=window.end_us, step=step_s).to_pylist()
        free = _free_bytes(engine, window)
    found = [
        _process(list(points), step_s, free)
        for _, points in groupby(rows, lambda row: (row["host"], row["gpu_uuid"], row["pid"], row["started_at"]))
    ]
    order: Sequence[Verdict] = ("leak", "unsteady", "none", "too_short")
    found.sort(key=lambda one: (order.index(one.verdict), -(one.slope_bytes_per_hour or 0.0), one.pid))
    return MemoryLeaks(
        window=window,
        coverage=recorded_share(source, window, now=now),
        n=len(found),
        method=f"means of {step_s} s; Theil-Sen slope; a leak rises between ten parts of the process's time beyond "
        f"chance (Student's t, 99 %) and by {GROWTH_LEAST_BYTES // 2**20} MiB at least",
        limits=(
            "of 200 processes whose memory wanders by chance, one is called a leak",
            f"a process that was there for less than {SPAN_LEAST_S // 60} minutes, or for {POINTS_LEAST} points, "
            "is not judged",
            "the time left takes it that the process goes on growing and that nothing else does",
        ),
        processes=tuple(found),
    )


def _free_bytes(engine: Engine, window: Window) -> dict[tuple[str, str], int | None]:
    """What was left of each GPU's memory, or of the host's where they share one, at the end of the window."""
    text = sql_text("newest_rows").format(
        columns="host, gpu_uuid, memory_available_bytes, memory_free_bytes",
        relation=engine.relation("gpu_sample"),
        in_window=in_window(engine),
        keys="host, gpu_uuid",
    )
    start_us = max(window.start_us, window.end_us - NEWEST_S * 1_000_000)
    rows = engine.query(text, start=start_us, end=window.end_us).to_pylist()
    return {(row["host"], row["gpu_uuid"]): row["memory_available_bytes"] or row["memory_free_bytes"] for row in rows}


def _process(points: list[dict[str, Any]], step_s: int, free: dict[tuple[str, str], int | None]) -> ProcessMemory:
    time_s = np.array([float(row["bucket"] * step_s) for row in points])
    values = np.array([row["memory_bytes"] for row in points])
    span_s = float(time_s[-1] - time_s[0])
    is_judged = len(points) >= POINTS_LEAST and span_s >= SPAN_LEAST_S
    found = rise(time_s, values) if is_judged else None
    verdict = _verdict(found, span_s)
    last = points[-1]
    left = free.get((last["host"], last["gpu_uuid"]))
    is_leak = verdict == "leak" and found is not None and left is not None
    slope, low, high = (found.slope, found.low, found.high) if found else (None, None, None)
    return ProcessMemory(
        host=last["host"],
        gpu_uuid=last["gpu_uuid"],
        gpu_index=last["gpu_index"],
        pid=last["pid"],
        started_at=last["started_at"],
        name=last["name"],
        user=last["owner"],
        verdict=verdict,
        n=len(points),
        observed_seconds=span_s,
        memory_used_bytes=float(values[-1]),
        slope_bytes_per_hour=_per_hour(slope),
        slope_low_bytes_per_hour=_per_hour(low),
        slope_high_bytes_per_hour=_per_hour(high),
        free_bytes=left,
        exhausted_in_seconds=_lasts_s(left, slope) if is_leak else None,
        exhausted_in_low_seconds=_lasts_s(left, high) if is_leak else None,
        exhausted_in_high_seconds=_lasts_s(left, low) if is_leak else None,
    )


def _verdict(found: Rise | None, span_s: float) -> Verdict:
    if found is None:
        return "too_short"
    if found.slope * span_s < GROWTH_LEAST_BYTES:
        return "none"
    return "leak" if found.low > 0 else "unsteady"


def _per_hour(slope: float | None) -> float | None:
    return None if slope is None else slope * 3600


def _lasts_s(left: int | None, slope: float | None) -> float | None:
    return left / slope if left is not None and slope else None
