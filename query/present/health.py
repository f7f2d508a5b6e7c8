"""Whether the machine and its recording are well: one verdict a part, with the figure behind it and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from query.figures import age_words, spelled
from query.present.live import GpuNow, HostNow, LiveState, live_state
from query.present.status import LedgerStatus, ledger_status
from query.present.timeline import Timeline, timeline
from query.reading.local_source import LocalSource
from query.windows import Window

Verdict = Literal["ok", "warning", "critical", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("ok", "unknown", "warning", "critical")

HOT_CELSIUS = 85.0  # most boards slow down between 87 and 93
GPU_MEMORY_FULL = 0.95
HOST_MEMORY = (0.8, 0.9)  # warning, critical
CPU_BUSY_PERCENT = 95.0
LEDGER_FREE_BYTES = 2_000_000_000
_EVENTS_OVER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the machine.

    Args:
        part: `gpu 0`, `cpu`, `memory`, `storage`, `recorder`, `events`.
        verdict: How it is.
        what: The figures behind that.
        advice: What to do; empty where nothing is to be done.
    """

    part: str
    verdict: Verdict
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """How the machine is.

    Args:
        parts: Each.
        live: The state it was judged by.
        status: The ledger's.
        window: Over which time events were looked at.
    """

    parts: tuple[Part, ...]
    live: LiveState
    status: LedgerStatus
    window: Window

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return max((part.verdict for part in self.parts), key=VERDICTS.index, default="unknown")


def health(source: LocalSource, *, now: datetime) -> Health:
    """How the machine and its recording are."""
    live = live_state(source, now=now)
    status = ledger_status(source, now=now, live=live)
    window = Window(now - _EVENTS_OVER, now, str(now.tzinfo), "24h")
    parts = (
        *(_gpu(gpu) for gpu in live.gpus),
        *([] if live.gpus else [Part("gpu", "unknown", live.no_gpu_because or "no GPU was sampled lately")]),
        *(part for host in live.hosts for part in _host(host)),
        _recorder(status),
        _events(timeline(source, window, severity="warning")),
    )
    return Health(parts, live, status, window)


def _gpu(gpu: GpuNow) -> Part:
    name, values = f"gpu {gpu.index}", gpu.values
    if "*" in gpu.absence:
        return Part(name, "unknown", f"its newest sample is {age_words(gpu.age_s)} old", "see that 'gpuledger up' runs")
    celsius, used, total = values["temperature_celsius"], values["memory_used_bytes"], values["memory_total_bytes"]
    what = (
        f"{spelled(celsius, '°C')}, memory {spelled(used, 'B')} of {spelled(total, 'B')},"
        f" power {spelled(values['power_watts'], 'W')}"
    )
    slowed = set(gpu.clock_event_reasons) & {"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
    if not values["up"]:
        return Part(name, "critical", "it does not answer", "see list_events of this GPU for an Xid")
    if slowed:
        return Part(name, "critical", f"{what}; held by {' '.join(sorted(slowed))}", "look at its cooling and power")
    if celsius is not None and celsius >= HOT_CELSIUS:
        return Part(name, "warning", what, "look at its cooling")
    if used is not None and total and values["memory_kind"] != "unified" and used > GPU_MEMORY_FULL * total:
        return Part(name, "warning", what, "see top_processes for what holds its memory")
    return Part(name, "ok", what)


def _host(host: HostNow) -> Iterator[Part]:
    values = host.values
    if "*" in host.absence:
        yield Part("host", "unknown", f"its newest sample is {age_words(host.age_s)} old")
        return
    busy = values["cpu_utilization_percent"]
    is_busy = busy is not None and busy > CPU_BUSY_PERCENT
    words = f"{spelled(busy, '%')} busy, load {spelled(values['load_1m_count'], '')}"
    advice = "see what runs on it; top_processes by cpu has what runs on GPUs" if is_busy else ""
    yield Part("cpu", "unknown" if busy is None else "warning" if is_busy else "ok", words, advice)
    yield _memory(host)
    free = values["ledger_filesystem_free_bytes"]
    is_low = free is not None and free < LEDGER_FREE_BYTES
    yield Part(
        "storage",
        "unknown" if free is None else "warning" if is_low else "ok",
        f"{spelled(free, 'B')} free on the ledger's disk",
        "lower retention.max_size_bytes, or make room" if is_low else "",
    )


def _memory(host: HostNow) -> Part:
    total, available = (host.values[f"memory_{name}_bytes"] for name in ("total", "available"))
    if not total or available is None:
        used = host.values["memory_used_bytes"]
        if not total or used is None:
            return Part("memory", "unknown", "it is not recorded")
        available = total - used
    share = 1 - available / total
    verdict: Verdict = "critical" if share > HOST_MEMORY[1] else "warning" if share > HOST_MEMORY[0] else "ok"
    words = f"{spelled(available, 'B')} of {spelled(total, 'B')} available"
    return Part("memory", verdict, words, "" if verdict == "ok" else "top_processes(by='ram') lists who holds it")


def _recorder(status: LedgerStatus) -> Part:
    age = age_words(status.newest_age_s)
    size = f"ledger of {spelled(status.size_bytes, 'B')}"
    if not status.is_recording:
        return Part("recorder", "critical", f"nothing is recorded; newest sample {age}; {size}", "start 'gpuledger up'")
    if status.set_aside:
        words = f"newest sample {age} old; {len(status.set_aside)} damaged files set aside"
        return Part("recorder", "warning", words, "see 'gpuledger verify'")
    return Part("recorder", "ok", f"newest sample {age} old; {size}")


def _events(found: Timeline) -> Part:
    if not found.happenings:
        return Part("events", "ok", "none worse than info in 24 hours")
    worst: Verdict = "critical" if any(one.severity == "critical" for one in found.happenings) else "warning"
    kinds = ", ".join(dict.fromkeys(one.event for one in found.happenings))
    return Part(
        "events",
        worst,
        f"{found.event_count} in 24 hours: {kinds}",
        "list_events(window='24h', min_severity='warning')",
    )
