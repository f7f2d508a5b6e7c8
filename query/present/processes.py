"""Which processes used the GPUs: how much memory, how much of their time, for how long."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from query.engine import Source, in_window, sql_text
from query.windows import Window
from store.events import stale_after_s

Ranking = Literal["gpu_memory", "gpu_util", "gpu_seconds", "cpu", "ram"]
RANKINGS: Sequence[Ranking] = get_args(Ranking)
_FIELD: Mapping[Ranking, str] = {
    "gpu_memory": "gpu_memory_bytes",
    "gpu_util": "sm_utilization_percent",
    "gpu_seconds": "gpu_seconds",
    "cpu": "cpu_seconds",
    "ram": "host_memory_bytes",
}


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """One process and what it used in the window.

    Args:
        pid, started_at, host: Its identity.
        name, command, user, container: As it was seen last; text from outside.
        gpus: NVML indexes of those it ran on.
        gpu_memory_bytes: The most it held, added up over its GPUs; None where no reading says it.
        sm_utilization_percent: The mean share of time its kernels ran, added up over its GPUs, while it was seen.
        gpu_seconds: The same as time: what it used of the GPUs.
        host_memory_bytes: The most resident memory.
        cpu_seconds: CPU time it used between its first and its last sample of the window.
        first_at, last_at: When it was seen first and last in the window.
        is_running: Whether it was still seen at the end of the window.
    """

    pid: int
    started_at: datetime | None
    host: str
    name: str | None
    command: str | None
    user: str | None
    container: str | None
    gpus: tuple[int, ...]
    gpu_memory_bytes: int | None
    sm_utilization_percent: float | None
    gpu_seconds: float | None
    host_memory_bytes: int | None
    cpu_seconds: float | None
    first_at: datetime
    last_at: datetime
    is_running: bool


@dataclass(frozen=True, slots=True)
class ProcessRanking:
    """Processes of a window, those that used most first.

    Args:
        window: As it was resolved.
        by: By what they are ranked.
        processes: The first of them.
        process_count: How many there were.
        newest_at: When any was seen last; None where none was.
    """

    window: Window
    by: Ranking
    processes: tuple[ProcessUse, ...]
    process_count: int
    newest_at: datetime | None


def rank_processes(
    source: Source,
    window: Window,
    *,
    by: Ranking = "gpu_memory",
    gpus: Sequence[int] = (),
    user: str | None = None,
    top: int = 10,
) -> ProcessRanking:
    """The processes that used most of the GPUs in `window`.

    Args:
        source: Where the events are.
        window: The time asked about.
        by: What is compared; a process that does not say it comes last.
        gpus: Only on these GPUs; on all where empty.
        user: Only of this owner.
        top: At most so many.
    """
    rows = _rows(source, window, gpus, user)
    grouped: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["host"], row["pid"], row["started_at"]), []).append(row)
    newest = max((row["last_at"] for row in rows), default=None)
    found = [_use(group, window) for group in grouped.values()]
    field = _FIELD[by]
    found.sort(key=lambda one: (getattr(one, field) is None, -(getattr(one, field) or 0), one.pid))
    return ProcessRanking(window, by, tuple(found[:top]), len(found), newest)


def _rows(source: Source, window: Window, gpus: Sequence[int], user: str | None) -> list[dict[str, Any]]:
    with source.engine(["process_sample"], start_us=window.start_us, end_us=window.end_us) as engine:
        conditions = [f"gpu_index in ({', '.join(str(int(gpu)) for gpu in gpus)})"] if gpus else []
        conditions += [f"user = {engine.parameter('user', 'text')}"] if user else []
        text = sql_text("process_use").format(
            relation=engine.relation("process_sample"),
            in_window=in_window(engine),
            filter=" and ".join(conditions) or "true",
        )
        bound = {"user": user} if user else {}
        found: list[dict[str, Any]] = engine.query(text, start=window.start_us, end=window.end_us, **bound).to_pylist()
        return found


def _use(rows: Sequence[Mapping[str, Any]], window: Window) -> ProcessUse:
    """One process of its rows, one a GPU."""
    newest = max(rows, key=lambda row: row["last_at"])
    cpu = _greatest(row["cpu_seconds"] for row in rows)
    return ProcessUse(
        pid=newest["pid"],
        started_at=newest["started_at"],
        host=newest["host"],
        name=newest["name"],
        command=newest["command"],
        user=newest["user"],
        container=newest["container"],
        gpus=tuple(sorted({row["gpu_index"] for row in rows if row["gpu_index"] is not None})),
        gpu_memory_bytes=_total(row["gpu_memory_bytes"] for row in rows),
        sm_utilization_percent=_total(row["sm_utilization_percent"] for row in rows),
        gpu_seconds=_total(row["gpu_seconds"] for row in rows),
        host_memory_bytes=_greatest(row["host_memory_bytes"] for row in rows),
        cpu_seconds=None if cpu is None else float(cpu),
        first_at=min(row["first_at"] for row in rows),
        last_at=newest["last_at"],
        is_running=(window.end - newest["last_at"]).total_seconds() <= stale_after_s(newest["interval_seconds"]),
    )


def _total(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _greatest(values: Iterable[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)
