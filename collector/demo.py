"""`--source demo`: two H200 and a GB10 that are not there, for screenshots, tutorials and tests without a GPU.

Each H200 has an InfiniBand port whose traffic follows its load; the host and its other devices are the real ones.

What they do follows from the seed and the time alone, so that two runs agree on the past: jobs come and go, memory
follows, clocks give way to the power cap and to heat. The figures at idle and under load are those of a real H200
(78 and 627 W, 345 and 1980 MHz, 28 and 52 °C). Every GPU is labelled as demo in `inventory`, every port in its name.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from collector.clock import Now
from collector.probe import Condition, Turn
from store.events import CLOCK_EVENT_REASONS, WARM_SECONDS, AbsenceReason, Event

GIB = 2**30
MEGA = 1_000_000
_JOB_SLOT_S = 90
_PORT_BYTES_PER_S = 50_000_000_000  # 400 Gb/s
_REASON_BITS = {reason: bit for bit, reason in CLOCK_EVENT_REASONS.items()}


@dataclass(frozen=True, slots=True)
class _Model:
    """A GPU's datasheet, and how it looks at idle and under full load."""

    name: str
    architecture: str
    compute_capability: str
    memory_bytes: int
    power_idle_w: float
    power_limit_w: float
    clock_idle_mhz: int
    clock_full_mhz: int
    clock_memory_mhz: int
    temperature_idle_c: float
    temperature_full_c: float
    is_unified: bool = False


_H200 = _Model("NVIDIA H200 (demo)", "Hopper", "9.0", 150_754_820_096, 78, 700, 345, 1980, 3201, 28, 52)
_GB10 = _Model("NVIDIA GB10 (demo)", "Blackwell", "12.1", 119 * GIB, 5, 140, 208, 2418, 8533, 38, 78, is_unified=True)


@dataclass(frozen=True, slots=True)
class _Job:
    """What one GPU does in one slot of time."""

    intensity: float
    memory_share: float


_NO_JOB = _Job(0.0, 0.004)


@lru_cache(maxsize=64)
def _job(seed: int, gpu_index: int, slot: int) -> _Job:
    chance = random.Random(f"{seed}/{gpu_index}/{slot}")  # noqa: S311 - a made-up history, no secret
    return _Job(chance.uniform(0.55, 1.0), chance.uniform(0.3, 0.92)) if chance.random() < 0.75 else _NO_JOB


def _job_and_ramp(seed: int, gpu_index: int, second: int) -> tuple[_Job, float]:
    """The job of that second, and how far it has come up."""
    slot, into_slot_s = divmod(second + gpu_index * 37, _JOB_SLOT_S)
    return _job(seed, gpu_index, slot), min(1.0, into_slot_s / 8)


def _heat(seed: int, gpu_index: int, second: int) -> float:
    """How warm the GPU is, 0 at idle to 1: its load until then, the older the less, with a time constant of 20 s."""
    jobs = (_job_and_ramp(seed, gpu_index, second - age_s) for age_s in range(100))
    return sum(job.intensity * ramp * 0.95**age_s for age_s, (job, ramp) in enumerate(jobs)) / 20


@dataclass(slots=True)
class _Gpu:
    index: int
    uuid: str
    model: _Model
    counters: dict[str, float] = field(default_factory=dict)
    sent_bytes: int = 0


class DemoProbe:
    """Reads made-up `gpu_sample` rows, the same shape as a real machine's, and `device_sample` rows of their ports.

    Args:
        interval_s: Time between two reads.
        seed: Which made-up history to show.
    """

    name = "gpu"
    condition = Condition.ANSWERS
    busy_with = None

    def __init__(self, *, interval_s: float, seed: int = 0) -> None:
        self._interval_s = interval_s
        self._seed = seed
        models = (_H200, _H200, _GB10)
        self._gpus = [
            _Gpu(index, f"GPU-demo{index:04d}-0000-4000-8000-{seed:012x}", model) for index, model in enumerate(models)
        ]
        self._ports_turn = Turn(WARM_SECONDS, interval_s)
        self._epoch: int | None = None
        self._before: Now | None = None

    def read(self, now: Now) -> Sequence[Event]:
        elapsed_s = now.monotonic_s - self._before.monotonic_s if self._before else 0.0
        self._before = now
        is_first = self._epoch is None
        if self._epoch is None:
            self._epoch = now.wall_us // MEGA % 2**31  # its counters begin at this start
        events = [Event("gpu_sample", now.wall_us, self._row(gpu, now, elapsed_s)) for gpu in self._gpus]
        if self._ports_turn.has_come(now):
            ports = (self._port(gpu) for gpu in self._gpus if not gpu.model.is_unified)
            events += [Event("device_sample", now.wall_us, port) for port in ports]
        if is_first:
            events += [Event("inventory", now.wall_us, self._description(gpu)) for gpu in self._gpus]
        return events

    def status(self) -> str:
        return f"{len(self._gpus)} demo GPUs (made up, seed {self._seed})"

    def rest(self) -> Sequence[str]:
        return ()

    def meanwhile(self) -> Sequence[Event]:
        return ()

    def abandon(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _row(self, gpu: _Gpu, now: Now, elapsed_s: float) -> dict[str, Any]:
        second = now.wall_us // MEGA
        noise = random.Random(f"{self._seed}/{gpu.index}/{now.wall_us}")  # noqa: S311 - as above
        job, ramp = _job_and_ramp(self._seed, gpu.index, second)
        load = job.intensity * ramp + (noise.gauss(0, 0.04) if job.intensity else 0.0)
        utilization = min(100, max(0, round(100 * load)))
        gpu.sent_bytes += int(0.8 * _PORT_BYTES_PER_S * utilization / 100 * elapsed_s)
        memory_share = max(_NO_JOB.memory_share, job.memory_share * ramp)
        return {
            **self._measured(gpu, utilization, _heat(self._seed, gpu.index, second), noise, elapsed_s),
            **self._memory(gpu.model, memory_share),
        }

    def _measured(
        self, gpu: _Gpu, utilization: int, heat: float, noise: random.Random, elapsed_s: float
    ) -> dict[str, Any]:
        model, load = gpu.model, utilization / 100
        wanted_w = model.power_idle_w + (1.06 * model.power_limit_w - model.power_idle_w) * load**1.3
        power_w = max(model.power_idle_w * 0.97, min(wanted_w, model.power_limit_w) * noise.gauss(1, 0.003))
        temperature_c = model.temperature_idle_c + (model.temperature_full_c - model.temperature_idle_c) * heat
        is_capped = wanted_w > model.power_limit_w
        is_hot = gpu.model.is_unified and heat > 0.93
        share = 0.86 if is_hot else 0.95 if is_capped else 1.0
        clock_mhz = round(model.clock_full_mhz * share / 15) * 15 if load else model.clock_idle_mhz
        self._count(gpu, "energy_joules", power_w * elapsed_s)
        self._count(gpu, "throttle_sw_power_cap_seconds", elapsed_s if is_capped else 0.0)
        self._count(gpu, "throttle_sw_thermal_seconds", elapsed_s if is_hot else 0.0)
        reasons = (_REASON_BITS["sw_power_cap"] if is_capped else 0) | (
            _REASON_BITS["sw_thermal_slowdown"] if is_hot else 0
        )
        return {
            "gpu_uuid": gpu.uuid,
            "gpu_index": gpu.index,
            "interval_seconds": self._interval_s,
            "counter_epoch": self._epoch,
            "up": True,
            "utilization_percent": utilization,
            "memory_utilization_percent": round(utilization * 0.6),
            "temperature_celsius": float(round(temperature_c)),
            "power_watts": round(power_w, 3),
            "power_instant_watts": round(power_w * max(0.9, noise.gauss(1, 0.02)), 3),
            "power_limit_watts": float(model.power_limit_w),
            "clock_sm_hertz": clock_mhz * MEGA,
            "clock_graphics_hertz": clock_mhz * MEGA,
            "clock_memory_hertz": model.clock_memory_mhz * MEGA,
            "performance_state": 0 if load else 8,
            "clock_event_reasons_bitmask": reasons if load else _REASON_BITS["gpu_idle"],
            **gpu.counters,
        }

    def _port(self, gpu: _Gpu) -> dict[str, Any]:
        return {
            "device_type": "infiniband",
            "device": f"demo_mlx5_{gpu.index}/1",
            "interval_seconds": self._ports_turn.every_s,
            "counter_epoch": self._epoch,
            "received_bytes": gpu.sent_bytes,  # an all-reduce receives what it sends
            "sent_bytes": gpu.sent_bytes,
            "link_up": True,
            "link_speed_bytes_per_second": _PORT_BYTES_PER_S,
            "link_down_count": 0,
        }

    @staticmethod
    def _count(gpu: _Gpu, counter: str, amount: float) -> None:
        gpu.counters[counter] = round(gpu.counters.get(counter, 0.0) + amount, 3)

    @staticmethod
    def _memory(model: _Model, share: float) -> Mapping[str, Any]:
        used = int(model.memory_bytes * share)
        if model.is_unified:
            return {
                "memory_kind": "unified",
                "memory_total_bytes": model.memory_bytes,
                "memory_available_bytes": model.memory_bytes - used - 6 * GIB,
                "memory_used_bytes": used,
                "memory_process_bytes": used,
                "absence": dict.fromkeys(("memory_free_bytes", "memory_reserved_bytes"), AbsenceReason.NOT_SUPPORTED),
            }
        reserved = 643_825_664
        return {
            "memory_kind": "dedicated",
            "memory_total_bytes": model.memory_bytes,
            "memory_used_bytes": used,
            "memory_reserved_bytes": reserved,
            "memory_free_bytes": model.memory_bytes - used - reserved,
        }

    def _description(self, gpu: _Gpu) -> dict[str, Any]:
        model = gpu.model
        return {
            "subject": "gpu",
            "source": "demo",
            "gpu_uuid": gpu.uuid,
            "gpu_index": gpu.index,
            "name": model.name,
            "architecture": model.architecture,
            "compute_capability": model.compute_capability,
            "memory_kind": "unified" if model.is_unified else "dedicated",
            "memory_total_bytes": model.memory_bytes,
            "power_limit_watts": float(model.power_limit_w),
            "clock_sm_maximum_hertz": model.clock_full_mhz * MEGA,
            "attributes": {"demo": True, "seed": self._seed},
        }
