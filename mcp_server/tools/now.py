"""The tools that say how the machine is now."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Annotated, Any

from mcp.types import CallToolResult
from pydantic import Field

from mcp_server.answers import Answer, Table, window_answer
from mcp_server.figures import figure
from mcp_server.names import clean
from mcp_server.tools.desk import Desk, Detail, Gpus, Zone
from query.figures import age_words, significant, spelled
from query.history.recorded import recorded_share
from query.present.availability import Availability, GpuAvailability, availability
from query.present.health import Health, Part, health
from query.present.live import GPU_COLUMNS, HOST_COLUMNS, LOOK_BACK_S, GpuNow, HostNow, LiveState, live_state
from query.windows import Window

_GPU_CONCISE = (
    "utilization_percent",
    "memory_used_bytes",
    "memory_total_bytes",
    "power_watts",
    "power_limit_watts",
    "temperature_celsius",
    "clock_sm_hertz",
)
_GPU_FULL = tuple(name for name in GPU_COLUMNS if name != "clock_event_reasons_bitmask")
_HOST_CONCISE = ("cpu_utilization_percent", "load_1m_count", "memory_used_bytes", "memory_total_bytes")
GIB = 2.0**30
HELD_NAMED_MAX = 2  # more than that stand in their cells


class LiveStateAnswer(Answer):
    """`stale` says that the newest sample is too old to stand for now; then values are null."""

    stale: bool
    gpus: Table
    host: Table


class AvailabilityAnswer(Answer):
    """`cuda_visible_devices` has the free GPUs, as many as were asked for; null where there are not enough."""

    available: bool
    cuda_visible_devices: str | None
    gpus: Table


class HealthAnswer(Answer):
    status: str
    parts: Table


class NowTools:
    """How the machine is now."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def live_state(
        self, gpu: Gpus = None, detail: Detail = "concise", tz: Zone = None
    ) -> Annotated[CallToolResult, LiveStateAnswer]:
        """GPUs and host now: utilization, memory, power, temperature, clocks. For the past use query_metrics."""
        state = live_state(self._desk.source, now=self._desk.now(tz), gpus=gpu or ())
        answer = live_answer(state, detail)
        if state.newest_age_s is None:
            metrics = {"metrics": ["gpu.utilization_percent", "cpu.utilization_percent"]}
            span = live_window(state)
            answer = self._desk.explained(answer, ["gpu_sample", "system_sample"], span, "query_metrics", metrics)
        return self._desk.answer(answer, detail=detail, more="live_state(gpu=[0])")

    def check_gpu_availability(
        self,
        min_free_memory_gb: Annotated[float, Field(ge=0)] = 0,
        max_utilization: Annotated[float, Field(ge=0, le=100, description="percent, mean")] = 20,
        count: Annotated[int, Field(ge=1, le=64)] = 1,
        over: Annotated[str, Field(description="judged over so long")] = "5m",
    ) -> Annotated[CallToolResult, AvailabilityAnswer]:
        """Whether `count` GPUs are free for a job, judged over minutes, with the reason for each that is not."""
        window = self._desk.window(over, None, self._desk.now())
        found = availability(
            self._desk.source,
            window,
            free_memory_bytes=min_free_memory_gb * GIB,
            utilization_max_percent=max_utilization,
        )
        answer = availability_answer(found, count)
        if not found.gpus:
            metrics = {"metrics": ["gpu.utilization_percent"]}
            answer = self._desk.explained(answer, ["gpu_sample"], window, "query_metrics", metrics)
        return self._desk.answer(answer, more=f"check_gpu_availability(over={over!r})")

    def get_system_health(self) -> Annotated[CallToolResult, HealthAnswer]:
        """Whether GPUs, host and the recording itself are well; what to do where not."""
        now = self._desk.now()
        found = health(self._desk.source, now=now)
        return self._desk.answer(health_answer(found, recorded_share(self._desk.source, found.window, now=now)))


def live_answer(state: LiveState, detail: str) -> LiveStateAnswer:
    """The machine now; `full` adds columns and the reasons of what is absent."""
    notes = [f"no GPU is recorded: {state.no_gpu_because}"] if state.no_gpu_because else []
    if state.newest_age_s is None:
        notes.append("nothing was recorded in the last 10 minutes; see that 'gpuledger up' runs")
    elif state.is_stale:
        age = age_words(state.newest_age_s)
        notes.append(f"the newest sample is {age} old, so values are null; see that 'gpuledger up' runs")
    is_full = detail == "full"
    return LiveStateAnswer(
        summary=_live_summary(state),
        window=window_answer(live_window(state), _fresh_share(state), state.newest_age_s),
        stale=state.is_stale,
        gpus=_gpu_table(state.gpus, _GPU_FULL if is_full else _GPU_CONCISE),
        host=_host_table(state.hosts, HOST_COLUMNS if is_full else _HOST_CONCISE),
        notes=[*notes, *(_absence_notes(state.gpus) if is_full else ())],
        next=["query_metrics(metrics=['gpu.utilization_percent'], window='1h')"] if state.gpus else ["describe_data()"],
    )


def live_window(state: LiveState) -> Window:
    """The time that the samples at hand are from, one expected of each GPU and host; where none is, that looked at."""
    ages = [gpu.age_s for gpu in state.gpus] + [host.age_s for host in state.hosts]
    start = state.as_of - timedelta(seconds=max(ages, default=LOOK_BACK_S))
    return Window(start, state.as_of, str(state.as_of.tzinfo), "now")


def _fresh_share(state: LiveState) -> float:
    """The share of GPUs and hosts whose newest sample stands for now."""
    are_fresh = ["*" not in gpu.absence for gpu in state.gpus] + ["*" not in host.absence for host in state.hosts]
    return sum(are_fresh) / len(are_fresh) if are_fresh else 0.0


def _live_summary(state: LiveState) -> str:
    if state.is_stale:
        return "No fresh samples: sampling has stopped or never began."
    busy = [gpu.values["utilization_percent"] for gpu in state.gpus if gpu.values["utilization_percent"] is not None]
    words = [f"{len(state.gpus)} GPU{'' if len(state.gpus) == 1 else 's'}"]
    if busy:
        words.append(f"mean utilization {significant(sum(busy) / len(busy))} %")
    held = [gpu for gpu in state.gpus if set(gpu.clock_event_reasons) - {"gpu_idle"}]
    if len(held) > HELD_NAMED_MAX:
        words.append(f"clocks of {len(held)} GPUs held down")
    else:
        words += [f"GPU {gpu.index} held by {', '.join(gpu.clock_event_reasons)}" for gpu in held]
    words += [f"CPU {spelled(host.values['cpu_utilization_percent'], '%')}" for host in state.hosts]
    return "; ".join(words) + "."


def _gpu_table(gpus: Sequence[GpuNow], names: Sequence[str]) -> Table:
    rows = [
        [
            gpu.index,
            clean(gpu.name),
            *(figure(gpu.values.get(name)) for name in names),
            " ".join(gpu.clock_event_reasons),
            significant(gpu.age_s),
        ]
        for gpu in gpus
    ]
    return Table(columns=["gpu", "name", *names, "clocks_held_by", "age_s"], rows=rows)


def _host_table(hosts: Sequence[HostNow], names: Sequence[str]) -> Table:
    rows = [
        [clean(host.host), *(figure(host.values.get(name)) for name in names), significant(host.age_s)]
        for host in hosts
    ]
    return Table(columns=["host", *names, "age_s"], rows=rows)


def _absence_notes(gpus: Sequence[GpuNow]) -> list[str]:
    return [
        f"GPU {gpu.index} absent: {', '.join(f'{column} ({reason})' for column, reason in gpu.absence.items())}"
        for gpu in gpus
        if gpu.absence
    ]


def availability_answer(found: Availability, count: int) -> AvailabilityAnswer:
    """Which GPUs are free, and why the others are not."""
    free = found.free
    are_enough = len(free) >= count
    coverages = [gpu.coverage for gpu in found.gpus]
    age_s = (found.window.end - found.newest_at).total_seconds() if found.newest_at else None
    rows = [_availability_row(gpu) for gpu in found.gpus]
    unified = any(gpu.memory_kind == "unified" for gpu in found.gpus)
    return AvailabilityAnswer(
        summary=f"{'Yes' if are_enough else 'No'}: {len(free)} of {len(found.gpus)} GPUs free, {count} wanted,"
        f" judged over {found.window.asked}.",
        window=window_answer(found.window, min(coverages, default=0.0), age_s),
        available=are_enough,
        cuda_visible_devices=",".join(str(gpu.index) for gpu in free[:count]) if are_enough else None,
        gpus=Table(
            columns=["gpu", "free", "utilization_percent", "utilization_max_percent", "free_gib", "total_gib",
                     "memory_kind", "processes", "why_not"],
            rows=rows,
        ),
        notes=list(_availability_notes(found, is_unified=unified)),
        next=["top_processes(window='5m')"] if found.gpus else ["live_state()"],
    )  # fmt: skip


def _availability_row(gpu: GpuAvailability) -> list[Any]:
    free, total = (None if value is None else significant(value / GIB) for value in (
        gpu.memory_available_bytes, gpu.memory_total_bytes
    ))  # fmt: skip
    return [
        gpu.index,
        gpu.is_free,
        significant(gpu.utilization_percent),
        significant(gpu.utilization_maximum_percent),
        free,
        total,
        gpu.memory_kind,
        gpu.process_count,
        "; ".join(gpu.reasons) or None,
    ]


def _availability_notes(found: Availability, *, is_unified: bool) -> Iterator[str]:
    if not found.gpus:
        yield "no GPU was sampled in that time"
    if is_unified:
        yield "unified memory: what is free is what the host can still give"


def health_answer(found: Health, coverage: float) -> HealthAnswer:
    """Each part with its verdict, the worst first."""
    order = ("critical", "warning", "unknown", "ok")
    parts: list[Part] = sorted(found.parts, key=lambda part: order.index(part.verdict))
    wrong = [part.part for part in parts if part.verdict in ("critical", "warning")]
    advice = f"look at {', '.join(wrong)}" if wrong else "nothing needs attention"
    return HealthAnswer(
        summary=f"{found.verdict}: {advice}.",
        window=window_answer(found.window, coverage, found.live.newest_age_s),
        status=found.verdict,
        parts=Table(
            columns=["part", "status", "what", "advice"],
            rows=[[part.part, part.verdict, clean(part.what, 240), part.advice or None] for part in parts],
        ),
        next=["list_events(window='24h', min_severity='warning')" if wrong else "live_state()"],
    )
