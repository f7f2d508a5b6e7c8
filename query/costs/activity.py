"""Busy but empty: GPUs whose utilization is high while nearly nothing runs on them.

NVML's utilization is the share of time in which any kernel ran, be it on one multiprocessor of 132. How many of them
had work (SM activity), and how much of it (occupancy), the profiling counters tell (GPM, Hopper and newer); where they
do not, power near the idle level is what gives an empty GPU away. A collective that hangs looks like that, and so do
tiny kernels, a GPU that waits in a spinning kernel, and a batch size of one.
"""

from dataclasses import dataclass
from typing import Any, Literal

from query.analysis import Analysis
from query.costs.prices import Bill, Prices, bill
from query.engine import Source, in_window, sql_text
from query.windows import Window
from store.events import GPU_SAMPLE

BUSY_PERCENT = 90.0
SM_BELOW_RATIO = 0.3
POWER_BELOW_RATIO = 0.3  # of the limit: a GPU at work is above half of it, one that idles below a fifth


@dataclass(frozen=True, slots=True)
class GpuActivity:
    """How busy one GPU was, and how full.

    Args:
        host, gpu_uuid, gpu_index: Which.
        recorded_seconds: How much of the window its samples stand for.
        busy_seconds: With a high utilization.
        judged_seconds: Of those, how many can be judged; else neither activity nor power is known.
        empty_seconds: Of those, with little activity.
        empty_ratio: The same as a share of what can be judged; None where nothing can.
        judged_by: `sm_activity`, the multiprocessors'; `power`, against its limit; `both`, each for some time.
        sm_active_ratio, sm_occupancy_ratio, tensor_active_ratio, dram_active_ratio: Mean while busy; None where the
            GPU does not tell.
        power_ratio: Mean share of the power limit while busy.
        empty_joules: What it used while busy but empty.
        cost: Of that.
    """

    host: str
    gpu_uuid: str
    gpu_index: int | None
    recorded_seconds: float
    busy_seconds: float
    judged_seconds: float
    empty_seconds: float
    empty_ratio: float | None
    judged_by: Literal["sm_activity", "power", "both"] | None
    sm_active_ratio: float | None
    sm_occupancy_ratio: float | None
    tensor_active_ratio: float | None
    dram_active_ratio: float | None
    power_ratio: float | None
    empty_joules: float | None
    cost: Bill


@dataclass(frozen=True, slots=True)
class Activity(Analysis):
    """How busy GPUs were, and how full.

    Args:
        coverage: Which share of it the GPUs' samples stand for; their mean.
        n: How many GPUs there are.
        method: How it was judged.
        gpus: Each GPU, the one that was empty longest first.
    """

    gpus: tuple[GpuActivity, ...]


def activity(source: Source, window: Window, *, prices: Prices | None = None) -> Activity:
    """For how long GPUs were busy by their utilization, and for how much of that nearly nothing ran on them."""
    with source.engine(["gpu_sample"], start_us=window.start_us, end_us=window.end_us) as engine:
        bounds = {
            "expected": GPU_SAMPLE.expected_every_seconds,
            "least": BUSY_PERCENT,
            "sm_below": SM_BELOW_RATIO,
            "power_below": POWER_BELOW_RATIO,
        }
        text = sql_text("busy_activity").format(
            relation=engine.relation("gpu_sample"),
            in_window=in_window(engine),
            **{name: engine.parameter(name, "float") for name in bounds},
        )
        rows = engine.query(text, start=window.start_us, end=window.end_us, **bounds).to_pylist()
    gpus = [_gpu(row, prices or Prices()) for row in rows]
    gpus.sort(key=lambda one: (-one.empty_seconds, one.host, one.gpu_uuid))
    recorded_s = sum(min(one.recorded_seconds, window.seconds) for one in gpus)
    return Activity(
        window=window,
        coverage=recorded_s / window.seconds / len(gpus) if gpus else 0.0,
        n=len(gpus),
        method=f"busy: utilization of at least {BUSY_PERCENT:g} %; empty: SM activity below "
        f"{100 * SM_BELOW_RATIO:g} %, "
        f"or where it is not known power below {100 * POWER_BELOW_RATIO:g} % of its limit",
        limits=_limits(gpus),
        gpus=tuple(gpus),
    )


def _gpu(row: dict[str, Any], prices: Prices) -> GpuActivity:
    by_sm_s, by_power_s = row["sm_seconds"] or 0.0, row["power_seconds"] or 0.0
    judged_s, empty_s = by_sm_s + by_power_s, row["empty_seconds"] or 0.0
    sm_active_s = row["sm_active_seconds"]
    return GpuActivity(
        host=row["host"],
        gpu_uuid=row["gpu_uuid"],
        gpu_index=row["gpu_index"],
        recorded_seconds=row["seconds"],
        busy_seconds=row["busy_seconds"] or 0.0,
        judged_seconds=judged_s,
        empty_seconds=empty_s,
        empty_ratio=empty_s / judged_s if judged_s else None,
        judged_by=_judged_by(by_sm_s, by_power_s),
        sm_active_ratio=sm_active_s / by_sm_s if by_sm_s else None,
        sm_occupancy_ratio=row["sm_occupancy_ratio"],
        tensor_active_ratio=row["tensor_active_ratio"],
        dram_active_ratio=row["dram_active_ratio"],
        power_ratio=row["power_ratio"],
        empty_joules=row["empty_joules"] if empty_s else 0.0,
        cost=bill(row["empty_joules"] if empty_s else 0.0, prices),
    )


def _judged_by(by_sm_s: float, by_power_s: float) -> Literal["sm_activity", "power", "both"] | None:
    if by_sm_s and by_power_s:
        return "both"
    if by_sm_s:
        return "sm_activity"
    return "power" if by_power_s else None


def _limits(gpus: list[GpuActivity]) -> tuple[str, ...]:
    by_power = [one for one in gpus if one.judged_by in ("power", "both")]
    unknown_s = sum(one.busy_seconds - one.judged_seconds for one in gpus)
    candidates = (
        ("power tells an idle GPU from one at work, not how well the work fills it", bool(by_power)),
        (f"{unknown_s:,.0f} busy GPU-seconds have neither SM activity nor power and are not judged", unknown_s >= 1),
        ("MIG devices have no utilization of their own and are not judged", True),
    )
    return tuple(words for words, is_so in candidates if is_so)
