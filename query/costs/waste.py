"""Held and not used: GPUs that somebody has and that do nothing.

A GPU is held while a process is on it, or while memory of it is in use that no process is seen to hold. It is idle
while its utilization stays below a threshold throughout a bucket of some seconds, so that a pause between two batches
is no waste. Holders of one GPU at the same time share what is lost equally.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from query.analysis import Analysis
from query.costs.prices import Bill, Prices, bill
from query.engine import Source, in_window, sql_text
from query.errors import GroupingError
from query.history.recorded import recorded_share
from query.windows import Window
from store.errors import did_you_mean
from store.events import GPU_SAMPLE

HOLDERS = {
    "user": '"user"',
    "container": "coalesce(container_name, container_id)",
    "pod": "coalesce(pod_namespace || '/' || pod_name, pod_uid)",
    "job": "slurm_job_id",
    "process": "name",
}
IDLE_BELOW_PERCENT = 5.0
HELD_LEAST_BYTES = 512 * 2**20  # a driver with no client keeps less than that for itself
BUCKET_S = 10  # two samples of processes lie in it
BUCKET_LONG_S = 60
SHORT_UPTO_S = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Held:
    """What was held and not used, of one GPU or by one holder.

    Args:
        host, gpu_uuid, gpu_index: Which GPU; None in the sum of a holder.
        holder: The user, container, pod, job or process; None in the sum of a GPU, and for processes in none.
        is_process_seen: Whether a process was seen to hold it; else there was memory in use alone.
        held_hours: GPU-hours held.
        idle_hours: GPU-hours of those in which it did nothing.
        idle_ratio: The same as a share; None where it is not known whether it did anything.
        unknown_hours: GPU-hours held of which no utilization is known.
        idle_joules: What it used while it did nothing; None where its power is not known.
        cost: Of that.
    """

    host: str | None
    gpu_uuid: str | None
    gpu_index: int | None
    holder: str | None
    is_process_seen: bool
    held_hours: float
    idle_hours: float
    idle_ratio: float | None
    unknown_hours: float
    idle_joules: float | None
    cost: Bill


@dataclass(frozen=True, slots=True)
class Waste(Analysis):
    """What was held and not used.

    Args:
        n: How many GPUs were held at some time.
        method: How it was judged.
        by: What a holder is.
        total: All of it.
        gpus: By GPU, the most hours lost first.
        holders: By holder, likewise.
    """

    by: str
    total: Held
    gpus: tuple[Held, ...]
    holders: tuple[Held, ...]


def waste(
    source: Source,
    window: Window,
    *,
    now: datetime,
    by: str = "user",
    idle_below_percent: float = IDLE_BELOW_PERCENT,
    prices: Prices | None = None,
) -> Waste:
    """Which GPU-hours were held and not used in `window`, and by whom.

    Args:
        source: Where the events are.
        window: The time asked about.
        now: The time of the question.
        by: One of `HOLDERS`.
        idle_below_percent: A GPU whose utilization stays below that does nothing.
        prices: What energy costs.

    Raises:
        GroupingError: A holder that there is not.
    """
    if by not in HOLDERS:
        raise GroupingError(
            f"GPUs are not held by {by!r}", did_you_mean(by, HOLDERS, f"give one of {', '.join(HOLDERS)}")
        )
    bucket_s = BUCKET_S if window.seconds <= SHORT_UPTO_S else BUCKET_LONG_S
    rows = _read(source, window, by, idle_below_percent, bucket_s)
    prices = prices or Prices()
    gpus = _sums(rows, lambda row: (row["host"], row["gpu_uuid"], row["gpu_index"], None, True), prices)
    holders = _sums(rows, lambda row: (None, None, None, row["holder"], row["is_process_seen"]), prices)
    unseen = any(not row["is_process_seen"] for row in rows)
    return Waste(
        window=window,
        coverage=recorded_share(source, window, now=now),
        n=len(gpus),
        method=f"held: a process is on it, or {HELD_LEAST_BYTES // 2**20} MiB of its memory are in use; idle: "
        f"utilization below {idle_below_percent:g} % throughout {bucket_s} s; energy from sampled power",
        limits=_limits(bucket_s, unseen=unseen),
        by=by,
        total=_held((None, None, None, None, True), rows, prices),
        gpus=gpus,
        holders=holders,
    )


def _read(source: Source, window: Window, by: str, idle_below_percent: float, bucket_s: int) -> list[dict[str, Any]]:
    with source.engine(["gpu_sample", "process_sample"], start_us=window.start_us, end_us=window.end_us) as engine:
        bounds = {
            "expected": GPU_SAMPLE.expected_every_seconds,
            "least": idle_below_percent,
            "held_least": float(HELD_LEAST_BYTES),
        }
        text = sql_text("held_and_idle").format(
            bucket=engine.bucket("observed_at", engine.parameter("step", "int")),
            relation=engine.relation("gpu_sample"),
            processes=engine.relation("process_sample"),
            in_window=in_window(engine),
            holder=HOLDERS[by],
            **{name: engine.parameter(name, "float") for name in bounds},
        )
        found: list[dict[str, Any]] = engine.query(
            text, start=window.start_us, end=window.end_us, step=bucket_s, **bounds
        ).to_pylist()
    return _without_split(found)


def _without_split(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is known, without the time in which a GPU was split: it has no utilization then, and its instances have."""
    split = {(row["host"], row["gpu_index"]) for row in rows if row["is_instance"]}
    told = [
        _unsplit(row) if not row["is_instance"] and (row["host"], row["gpu_index"]) in split else row for row in rows
    ]
    return [row for row in told if row["held_seconds"] > 0]


def _unsplit(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"held_seconds": row["held_seconds"] - (row["unknown_seconds"] or 0.0), "unknown_seconds": 0.0}


_Key = tuple[str | None, str | None, int | None, str | None, bool]


def _sums(rows: Sequence[dict[str, Any]], key_of: Callable[[dict[str, Any]], _Key], prices: Prices) -> tuple[Held, ...]:
    groups: dict[_Key, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key_of(row), []).append(row)
    found = [_held(key, group, prices) for key, group in groups.items()]
    return tuple(sorted(found, key=lambda one: (-one.idle_hours, -one.held_hours, str(one.holder), str(one.gpu_uuid))))


def _held(key: _Key, rows: Sequence[dict[str, Any]], prices: Prices) -> Held:
    held_s, idle_s, unknown_s = (
        sum(row[name] or 0.0 for row in rows) for name in ("held_seconds", "idle_seconds", "unknown_seconds")
    )
    known = [row["idle_joules"] for row in rows if row["idle_joules"] is not None]
    joules = sum(known) if known else (None if idle_s else 0.0)
    return Held(
        host=key[0],
        gpu_uuid=key[1],
        gpu_index=key[2],
        holder=key[3],
        is_process_seen=key[4],
        held_hours=held_s / 3600,
        idle_hours=idle_s / 3600,
        idle_ratio=idle_s / (held_s - unknown_s) if held_s > unknown_s else None,
        unknown_hours=unknown_s / 3600,
        idle_joules=joules,
        cost=bill(joules, prices),
    )


def _limits(bucket_s: int, *, unseen: bool) -> tuple[str, ...]:
    candidates = (
        (f"who holds a GPU is known to {bucket_s} s", True),
        ("holders of one GPU at the same time are given equal parts of it", True),
        ("some memory was in use that no process was seen to hold: what the collector may see, or a leftover", unseen),
    )
    return tuple(words for words, is_so in candidates if is_so)
