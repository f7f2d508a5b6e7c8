"""Which GPUs are free to be used: judged over minutes, because a job between two batches looks idle for a second.

A GPU is free where, all through the window, enough of its memory was free and it was busy no more than is allowed on
average, and where it was sampled to the end. On unified memory, what is free is what the host could still give:
NVML has no figure for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from query.engine import Source, in_window, sql_text
from query.windows import Window
from store.events import stale_after_s

COVERED_LEAST = 0.5  # of the window: with less nobody knows


@dataclass(frozen=True, slots=True)
class GpuAvailability:
    """One GPU, and whether it can be used.

    Args:
        index: NVML index.
        uuid: Identity.
        is_free: None where it was not sampled enough to know.
        reasons: Why it is not free, or why that is not known; none where it is.
        utilization_percent: Mean over the window.
        utilization_maximum_percent: Its busiest sample.
        memory_available_bytes: The least that was free in the window.
        memory_total_bytes: Of the GPU, or of the host where they share it.
        memory_kind: dedicated or unified.
        process_count: Processes that were on it in the window.
        coverage: Share of the window that was sampled.
    """

    index: int
    uuid: str
    is_free: bool | None
    reasons: tuple[str, ...]
    utilization_percent: float | None
    utilization_maximum_percent: float | None
    memory_available_bytes: int | None
    memory_total_bytes: int | None
    memory_kind: str | None
    process_count: int
    coverage: float


@dataclass(frozen=True, slots=True)
class Availability:
    """Which GPUs are free.

    Args:
        window: Over which time that was judged.
        gpus: Each, by index.
        newest_at: The newest sample of any; None where there is none.
    """

    window: Window
    gpus: tuple[GpuAvailability, ...]
    newest_at: datetime | None

    @property
    def free(self) -> tuple[GpuAvailability, ...]:
        """Those that are, with the most free memory first."""
        found = [gpu for gpu in self.gpus if gpu.is_free]
        return tuple(sorted(found, key=lambda gpu: -(gpu.memory_available_bytes or 0)))


def availability(
    source: Source, window: Window, *, free_memory_bytes: float = 0, utilization_max_percent: float = 20
) -> Availability:
    """Which GPUs are free.

    Args:
        source: Where the events are.
        window: The minutes over which it is judged; they should end now.
        free_memory_bytes: So much must be free throughout.
        utilization_max_percent: The mean utilization may be no higher.
    """
    edges = {"start": window.start_us, "end": window.end_us}
    with source.engine(["gpu_sample", "process_sample"], start_us=window.start_us, end_us=window.end_us) as engine:
        use = sql_text("gpu_use").format(relation=engine.relation("gpu_sample"), in_window=in_window(engine))
        rows = engine.query(use, **edges).to_pylist()
        text = sql_text("process_use").format(
            relation=engine.relation("process_sample"), in_window=in_window(engine), filter="true"
        )
        processes = engine.query(text, **edges)["gpu_uuid"].to_pylist()
    found = [_judged(row, window, processes, free_memory_bytes, utilization_max_percent) for row in rows]
    newest = max((row["last_at"] for row in rows), default=None)
    return Availability(window, tuple(sorted(found, key=lambda gpu: gpu.index)), newest)


def _judged(
    row: Mapping[str, Any],
    window: Window,
    processes: Sequence[str],
    free_memory_bytes: float,
    utilization_max_percent: float,
) -> GpuAvailability:
    coverage = min(1.0, row["covered_seconds"] / window.seconds)
    used = tuple(_in_use(row, free_memory_bytes, utilization_max_percent))
    unknown = tuple(_not_known(row, window, coverage))
    return GpuAvailability(
        index=row["gpu_index"],
        uuid=row["gpu_uuid"],
        is_free=False if used else None if unknown else True,
        reasons=(*used, *unknown),
        utilization_percent=row["utilization_percent"],
        utilization_maximum_percent=row["utilization_maximum_percent"],
        memory_available_bytes=row["memory_available_minimum_bytes"],
        memory_total_bytes=row["memory_total_bytes"],
        memory_kind=row["memory_kind"],
        process_count=processes.count(row["gpu_uuid"]),
        coverage=coverage,
    )


def _in_use(row: Mapping[str, Any], free_memory_bytes: float, utilization_max_percent: float) -> list[str]:
    busy, free = row["utilization_percent"], row["memory_available_minimum_bytes"]
    reasons = []
    if busy is not None and busy > utilization_max_percent:
        reasons.append(f"busy {busy:.3g} % on average, {utilization_max_percent:g} % is allowed")
    if free is not None and free < free_memory_bytes:
        gib = 2.0**30
        reasons.append(f"{free / gib:.3g} GiB were free at the least, {free_memory_bytes / gib:.3g} GiB are wanted")
    return reasons


def _not_known(row: Mapping[str, Any], window: Window, coverage: float) -> list[str]:
    age_s = (window.end - row["last_at"]).total_seconds()
    reasons = []
    if age_s > stale_after_s(row["covered_seconds"] / row["n"]):
        reasons.append(f"its newest sample is {age_s:.3g} s old")
    elif coverage < COVERED_LEAST:
        reasons.append(f"only {100 * coverage:.3g} % of the window was sampled")
    if row["utilization_percent"] is None:
        reasons.append("it does not say how busy it is")
    if row["memory_available_minimum_bytes"] is None:
        reasons.append("it does not say how much memory is free")
    return reasons
