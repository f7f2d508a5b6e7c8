"""What held the clocks down: time lost by reason, and how much work that may have cost.

The driver counts the time that each reason was in force, and the counters are believed where there are any. Where there
are none, the samples are counted in which the reason stood in `clock_event_reasons_bitmask`. The work that was lost is
an estimate: while the GPU was busy and something held its clocks, 1 - clock / reference of the time, where the
reference is the mean clock at which the same GPU was busy in the same window while nothing held it, and where that is
too little to say, its highest clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from query.analysis import Analysis
from query.engine import Source, in_window, sql_text
from query.history.trends import trend
from query.windows import Window
from store.events import GPU_SAMPLE

BUSY_PERCENT = 50
REFERENCE_LEAST_S = 60.0

COUNTERS: Mapping[str, str] = {
    "sw_power_cap": "throttle_sw_power_cap_seconds",
    "sw_thermal_slowdown": "throttle_sw_thermal_seconds",
    "hw_thermal_slowdown": "throttle_hw_thermal_seconds",
    "hw_power_brake_slowdown": "throttle_hw_power_brake_seconds",
    "sync_boost": "throttle_sync_boost_seconds",
    "board_limit": "throttle_board_limit_seconds",
    "reliability": "throttle_reliability_seconds",
}
BITS: Mapping[str, int] = {
    "sw_power_cap": 0x04,
    "hw_slowdown": 0x08,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
LIMITERS = sum(BITS.values())


@dataclass(frozen=True, slots=True)
class ThrottleReason:
    """One reason for which a GPU was slower than it could be.

    Args:
        reason: As the vendor calls it.
        seconds: How long it was in force.
        ratio: The same as a share of the time that was recorded.
        source: `counter`, the driver's own; `samples`, counted at the sampling interval.
        lost_seconds: An estimate of the work lost to it, in seconds at the reference clock; reasons in force together
            share it equally. None where no sample says it or no clock is known.
    """

    reason: str
    seconds: float
    ratio: float
    source: Literal["counter", "samples"]
    lost_seconds: float | None


@dataclass(frozen=True, slots=True)
class GpuThrottling:
    """What held one GPU down.

    Args:
        host, gpu_uuid, gpu_index: Which.
        recorded_seconds: How much of the window its samples stand for.
        busy_seconds: How much of that it was at least half utilized.
        held_seconds: How much of the busy time any reason stood in its samples.
        held_clock_hertz: Its mean SM clock then.
        reference_clock_hertz: What it is put against.
        reference: `own`, its clock while busy and held by nothing; `maximum`, its highest; None where neither is known.
        lost_seconds: An estimate of the work lost, in seconds at the reference clock.
        reasons: Those that were in force, the longest first.
    """

    host: str
    gpu_uuid: str
    gpu_index: int | None
    recorded_seconds: float
    busy_seconds: float
    held_seconds: float
    held_clock_hertz: float | None
    reference_clock_hertz: float | None
    reference: Literal["own", "maximum"] | None
    lost_seconds: float | None
    reasons: tuple[ThrottleReason, ...]


@dataclass(frozen=True, slots=True)
class Throttling(Analysis):
    """What held the GPUs down.

    Args:
        coverage: Which share of it the GPUs' samples stand for; their mean.
        n: How many GPUs there are.
        method: How it was found.
        gpus: Each GPU, in the order of host and index.
    """

    gpus: tuple[GpuThrottling, ...]


def throttling(source: Source, window: Window, *, now: datetime) -> Throttling:
    """What held the GPUs' clocks down in `window`, for how long, and what it may have cost."""
    with source.engine(["gpu_sample"], start_us=window.start_us, end_us=window.end_us) as engine:
        text = sql_text("clock_states").format(
            relation=engine.relation("gpu_sample"),
            in_window=in_window(engine),
            expected=engine.parameter("expected", "float"),
            least=engine.parameter("least", "float"),
        )
        states = engine.query(
            text,
            start=window.start_us,
            end=window.end_us,
            expected=GPU_SAMPLE.expected_every_seconds,
            least=float(BUSY_PERCENT),
        ).to_pylist()
    with source.engine(["inventory"]) as engine:
        clocks = engine.query(sql_text("gpu_clocks").format(relation=engine.relation("inventory"))).to_pylist()
    highest = {row["gpu_uuid"]: row["clock_sm_maximum_hertz"] for row in clocks}
    counted = _counted(source, window, now)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in states:
        groups.setdefault((row["host"], row["gpu_uuid"]), []).append(row)
    gpus = [_gpu(key, rows, highest.get(key[1]), counted.get(key[1], {})) for key, rows in groups.items()]
    gpus.sort(key=lambda one: (one.host, one.gpu_index is None, one.gpu_index or 0))
    recorded_s = sum(min(one.recorded_seconds, window.seconds) for one in gpus)
    return Throttling(
        window=window,
        coverage=recorded_s / window.seconds / len(gpus) if gpus else 0.0,
        n=len(gpus),
        method="the driver's counters of each reason, and where there is none the samples in which it stood; "
        f"clocks of samples with utilization of at least {BUSY_PERCENT} %",
        limits=(
            "reasons can be in force together, so that their times do not add up",
            "work lost is an estimate: it takes work to go with the SM clock, which what waits for memory does not",
        ),
        gpus=tuple(gpus),
    )


def _counted(source: Source, window: Window, now: datetime) -> dict[str, dict[str, float]]:
    """By GPU what each reason's counter grew by."""
    found: dict[str, dict[str, float]] = {}
    for reason, column in COUNTERS.items():
        for one in trend(source, f"gpu.{column}", window, now=now, points=1).series:
            if one.increase is not None:
                found.setdefault(one.series, {})[reason] = float(one.increase)
    return found


def _gpu(
    key: tuple[str, str], states: Sequence[dict[str, Any]], highest_hertz: int | None, counted: Mapping[str, float]
) -> GpuThrottling:
    recorded_s = sum(row["seconds"] for row in states)
    busy = [row for row in states if row["busy_seconds"] and row["clock_event_reasons_bitmask"] is not None]
    held = [row for row in busy if _reasons(row)]
    reference_hertz, reference = _reference([row for row in busy if not _reasons(row)], highest_hertz)
    return GpuThrottling(
        host=key[0],
        gpu_uuid=key[1],
        gpu_index=states[0]["gpu_index"],
        recorded_seconds=recorded_s,
        busy_seconds=sum(row["busy_seconds"] or 0.0 for row in states),
        held_seconds=_busy_s(held),
        held_clock_hertz=_mean_clock(held),
        reference_clock_hertz=reference_hertz,
        reference=reference,
        lost_seconds=sum(_lost_s(row, reference_hertz) for row in held) if reference_hertz else None,
        reasons=_all_reasons(states, held, counted, reference_hertz, recorded_s),
    )


def _reasons(state: Mapping[str, Any]) -> list[str]:
    """What holds the clocks in a state; a GPU that idles or was told its clocks is not held."""
    mask = state["clock_event_reasons_bitmask"] or 0
    return [reason for reason, bit in BITS.items() if mask & bit]


def _busy_s(states: Sequence[Mapping[str, Any]]) -> float:
    return sum((row["busy_seconds"] for row in states), 0.0)


def _mean_clock(states: Sequence[Mapping[str, Any]]) -> float | None:
    seconds = _busy_s(states)
    return sum(row["busy_cycles"] for row in states) / seconds if seconds else None


def _reference(
    unheld: Sequence[Mapping[str, Any]], highest_hertz: int | None
) -> tuple[float | None, Literal["own", "maximum"] | None]:
    own = _mean_clock(unheld)
    if own and _busy_s(unheld) >= REFERENCE_LEAST_S:
        return own, "own"
    return (float(highest_hertz), "maximum") if highest_hertz else (None, None)


def _lost_s(state: Mapping[str, Any], reference_hertz: float) -> float:
    at_reference_s: float = state["busy_cycles"] / reference_hertz
    return max(0.0, float(state["busy_seconds"]) - at_reference_s)


def _all_reasons(
    states: Sequence[Mapping[str, Any]],
    held: Sequence[Mapping[str, Any]],
    counted: Mapping[str, float],
    reference_hertz: float | None,
    recorded_s: float,
) -> tuple[ThrottleReason, ...]:
    found = []
    for reason in dict.fromkeys((*COUNTERS, *BITS)):
        sampled_s = sum((row["seconds"] for row in states if reason in _reasons(row)), 0.0)
        seconds = counted.get(reason, sampled_s)
        if not seconds and not sampled_s:
            continue
        own = [row for row in held if reason in _reasons(row)]
        lost = [_lost_s(row, reference_hertz) / len(_reasons(row)) for row in own] if reference_hertz else []
        found.append(
            ThrottleReason(
                reason=reason,
                seconds=seconds,
                ratio=seconds / recorded_s if recorded_s else 0.0,
                source="counter" if reason in counted else "samples",
                lost_seconds=sum(lost) if lost else None,
            )
        )
    return tuple(sorted(found, key=lambda one: -one.seconds))
