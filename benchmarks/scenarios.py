"""Stories with a planted cause, from a seed: half an hour of a server, its GPUs and its host, and one slow request.

Requests come at random, with tokens of many lengths, of two operations; two GPUs, the host, its disk, the server and
the processes are sampled as the collector does, with noise and with blips that mean nothing: a moment of pressure, a
process that looks in for a second, a clock that wanders. Into that one thing is planted, at a random time, of a random
length and strength, and what runs meanwhile takes longer by it. `PLANTS` says what a diagnosis should name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from store.events import Event
from store.ledger import Ledger
from store.upkeep.sealing import seal

BEGINNING_US = round(datetime(2026, 11, 22, 14, 0, tzinfo=UTC).timestamp() * 1e6)
LENGTH_S = 1800
GPU, OTHER_GPU = "GPU-0", "GPU-1"
SERVER = "llm:8000"
MEMORY_BYTES = 80 * 2**30

PLANTS: Mapping[str, str | None] = {
    "nothing": None,
    "long_answer": None,
    "client": None,
    "gap": None,
    "throttling": "throttling",
    "throttling_without_counters": "throttling",
    "clock_deficit": "clock_deficit",
    "slow_state": "slow_state",
    "other_process": "other_process",
    "queueing": "queueing",
    "kv_pressure": "kv_pressure",
    "prefill": "prefill",
    "decode": "decode",
    "leak": "leak",
    "slow_disk": "io_pressure",
    "cpu": "cpu_pressure",
    "memory": "memory_pressure",
    "xid": "xid",
    "pcie_replay": "pcie_replay",
}
"""What is planted, and the cause that a diagnosis should name; None where it should name none.

`nothing` is a request as all others, `long_answer` one with many tokens; `client` took long outside of what is sampled;
of a `gap` nothing is known. The others are what such a cause looks like in the samples.
"""
NOT_SLOW = ("nothing", "long_answer")


@dataclass(frozen=True, slots=True)
class Story:
    """One planted story.

    Args:
        plant: What was planted.
        seed: Of what chance.
        begins_s, ends_s: From when to when, in seconds of the story.
        events: All of it, in order; the request to ask about has the trace id `asked`.
    """

    plant: str
    seed: int
    begins_s: float
    ends_s: float
    events: tuple[Event, ...] = field(repr=False)

    @property
    def window_us(self) -> tuple[int, int]:
        """The planted time and some minutes on both sides."""
        return at_us(self.begins_s - 120), at_us(self.ends_s + 60)


def at_us(second: float) -> int:
    return BEGINNING_US + round(second * 1e6)


def at(second: float) -> datetime:
    return datetime.fromtimestamp(at_us(second) / 1e6, UTC)


def story(plant: str, seed: int, *, with_requests: bool = True) -> Story:
    """A story of `plant`; without requests it is the machine alone that it is to be seen in."""
    return _Teller(plant, seed).told(with_requests=with_requests)


def record(folder: Path, told: Story) -> None:
    """A ledger of it: the first part sealed, the rest in the tail."""
    half = len(told.events) // 2
    with Ledger(folder, host="node", boot_id="boot-1") as ledger:
        ledger.append(list(told.events[:half]))
    seal(folder)
    with Ledger(folder, host="node", boot_id="boot-1") as ledger:
        ledger.append(list(told.events[half:]))


class _Teller:
    """What happens, second by second."""

    def __init__(self, plant: str, seed: int) -> None:
        self.plant = plant
        self.random = np.random.default_rng((seed, sum(plant.encode())))
        self.seed = seed
        self.begins_s = float(self.random.uniform(1200, 1500))
        self.ends_s = self.begins_s + float(self.random.uniform(10, 120))
        self.strength = float(self.random.uniform(0.2, 0.6))
        self.counters: dict[str, float] = {}

    def told(self, *, with_requests: bool) -> Story:
        events = [event for second in range(LENGTH_S) for event in self._tick(second)]
        if with_requests:
            events += self._requests()
        events.sort(key=lambda one: one.observed_at_us)
        return Story(self.plant, self.seed, self.begins_s, self.ends_s, tuple(events))

    def _is_on(self, second: float, *plants: str) -> bool:
        return self.plant in plants and self.begins_s <= second < self.ends_s

    def _event(self, kind: str, second: float, **values: Any) -> Event:
        return Event(kind, at_us(second), values)

    def _sample(self, kind: str, second: float, every_s: float, **values: Any) -> Event:
        jitter_s = float(self.random.exponential(0.0002))
        return self._event(kind, second + jitter_s, interval_seconds=every_s, counter_epoch=0, **values)

    def _counted(self, name: str, step: float) -> float:
        self.counters[name] = self.counters.get(name, 0.0) + step
        return round(self.counters[name], 3)

    def _noise(self, level: float, spread: float) -> float:
        return max(0.0, float(self.random.normal(level, spread)))

    def _rarely(self, chance: float, value: float) -> float:
        return value * float(self.random.random()) if self.random.random() < chance else 0.0

    # Samples ----------------------------------------------------------------------------------------------------

    def _tick(self, second: int) -> Iterator[Event]:
        if self.plant == "gap" and self.begins_s - 20 <= second < self.ends_s + 20:
            if second + 1 >= self.ends_s + 20:
                yield self._event("ledger_event", second, event="gap", message="nothing was sampled for a while")
            return
        for uuid in (GPU, OTHER_GPU):
            yield self._gpu(uuid, second)
        yield self._host(second)
        if second % 5 == 0:
            yield self._disk(second)
            yield self._server(second)
            yield from self._processes(second)
        if self.plant == "xid" and second == int(self.begins_s) + 1:
            yield self._event("gpu_event", second, event="xid", gpu_uuid=GPU, xid=94, message="Xid 94: contained ECC")

    def _gpu(self, uuid: str, second: int) -> Event:
        is_ours = uuid == GPU
        clock, power, bits = self._noise(1.98e9, 8e6), self._noise(520, 15), 0
        capped_s = self._rarely(0.05, 0.05)
        if is_ours and self._is_on(second, "throttling", "throttling_without_counters", "clock_deficit"):
            clock *= 1 - self.strength
        if is_ours and self._is_on(second, "throttling"):
            capped_s, bits = float(self.random.uniform(0.7, 1.0)), 4
        if is_ours and self._is_on(second, "throttling_without_counters"):
            bits = 0x20
        if is_ours and self._is_on(second, "slow_state"):
            power, clock = power * (0.7 - self.strength / 2), clock * (1 - self.strength / 2)
        has_counters = self.plant != "throttling_without_counters"
        replays = self.random.poisson(40) if is_ours and self._is_on(second, "pcie_replay") else self._rarely(0.02, 2)
        throttle = {"throttle_sw_power_cap_seconds": self._counted(f"cap {uuid}", capped_s)} if has_counters else {}
        return self._sample(
            "gpu_sample", second, 1.0, gpu_uuid=uuid, gpu_index=int(uuid[-1]), up=True, **throttle,
            utilization_percent=int(np.clip(self.random.normal(95, 2), 0, 100)), power_watts=round(power, 2),
            clock_sm_hertz=round(clock / 15e6) * 15_000_000, clock_event_reasons_bitmask=bits,
            pcie_replay_count=int(self._counted(f"replay {uuid}", int(replays))),
            memory_used_bytes=round(self._memory_used(second)), memory_total_bytes=MEMORY_BYTES,
        )  # fmt: skip

    def _memory_used(self, second: float) -> float:
        if self.plant != "leak":
            return 0.8 * MEMORY_BYTES + 2**20 * float(self.random.integers(0, 99))
        return MEMORY_BYTES * min(0.985, 0.5 + 0.485 * second / self.begins_s)

    def _host(self, second: int) -> Event:
        stalled = {name: self._noise(0.02, 0.01) + self._rarely(0.01, 0.6) for name in ("cpu", "memory", "io")}
        running, swapped = int(self.random.poisson(6)), self._rarely(0.01, 4e6)
        if self._is_on(second, "cpu"):
            stalled["cpu"], running = float(self.random.uniform(0.5, 0.95)), running + 60
        if self._is_on(second, "slow_disk"):
            stalled["io"] = float(self.random.uniform(0.5, 0.95))
        if self._is_on(second, "memory"):
            stalled["memory"], stalled["io"] = (float(one) for one in self.random.uniform(0.4, 0.9, 2))
            swapped = self._noise(2e8, 4e7)
        return self._sample(
            "system_sample", second, 1.0,
            **{f"pressure_{name}_some_seconds": self._counted(name, one) for name, one in stalled.items()},
            swap_in_bytes=int(self._counted("swap", swapped)), swap_out_bytes=0,
            tasks_running_count=running, cpu_count=16, cpu_utilization_percent=round(self._noise(30, 4), 1),
        )  # fmt: skip

    def _disk(self, second: int) -> Event:
        reads = int(self.random.poisson(200)) + 1
        each_s = self._noise(0.0008, 0.0001) * (60 if self._is_on(second, "slow_disk") else 1)
        return self._sample(
            "device_sample", second, 5.0, device_type="disk", device="nvme0n1",
            reads_count=int(self._counted("reads", reads)), read_seconds=self._counted("read", reads * each_s),
        )  # fmt: skip

    def _server(self, second: int) -> Event:
        waiting, running = int(self.random.integers(0, 2)), int(self.random.poisson(8))
        cache, put_aside = self._noise(0.5, 0.05), 0
        if self._is_on(second, "queueing"):
            waiting += 30
        if self._is_on(second, "decode"):
            running += 24
        if self._is_on(second, "kv_pressure"):
            cache, put_aside = float(self.random.uniform(0.97, 1.0)), int(self.random.poisson(4))
        return self._sample(
            "server_sample", second, 5.0, server_address=SERVER, server_kind="vllm", model="llama", up=True,
            requests_waiting_count=waiting, requests_running_count=running, kv_cache_used_ratio=min(cache, 1.0),
            preemption_count=int(self._counted("preemptions", put_aside)),
        )  # fmt: skip

    def _processes(self, second: int) -> Iterator[Event]:
        ours = self._memory_used(second) - 2**29
        yield self._process(second, 4711, "vllm", ours, int(self._noise(90, 3)))
        if self.random.random() < 0.03:
            yield self._process(second, int(self.random.integers(9000, 9999)), "nvtop", 2**20, 1)
        if self._is_on(second, "other_process"):
            yield self._process(second, 6001, "train.py", 2**33, int(100 * self.strength))

    def _process(self, second: int, pid: int, name: str, used: float, percent: int) -> Event:
        return self._sample(
            "process_sample", second, 5.0, gpu_uuid=GPU, gpu_index=0, pid=pid, name=name,
            memory_used_bytes=round(used), sm_utilization_percent=percent,
        )  # fmt: skip

    # Requests ---------------------------------------------------------------------------------------------------

    def _requests(self) -> list[Event]:
        starts = np.cumsum(self.random.exponential(3.0, 2 * LENGTH_S // 3))
        events = [self._request(float(one)) for one in starts if one < LENGTH_S - 30]
        return [*events, self._request((self.begins_s + self.ends_s) / 2, is_asked=True)]

    def _request(self, starts_s: float, *, is_asked: bool = False) -> Event:
        """A request, longer by as much as what is planted is in force."""
        is_chat = is_asked or self.random.random() < 0.8
        prompt = int(np.clip(self.random.lognormal(6, 0.8), 20, 8000))
        answer = int(np.clip(self.random.lognormal(4.8, 0.7), 5, 2000))
        if is_asked:
            answer = 3000 if self.plant == "long_answer" else max(answer, 60)
        steady = float(np.exp(self.random.normal(0, 0.03)))
        cached_ratio = float(np.clip(self.random.normal(0.8, 0.05), 0, 1))
        queue_s = float(self.random.exponential(0.01))
        prefill_s = (0.05 + 0.0001 * prompt) * steady
        decode_s = 0.02 * answer * steady
        if self._is_on(starts_s, *PLANTS):
            factor = 1 / (1 - self.strength)
            if self.plant == "queueing":
                queue_s += self.strength * 15
            elif self.plant == "prefill":
                prefill_s, cached_ratio = prefill_s + self.strength * 15, 0.0
            elif self.plant not in (*NOT_SLOW, "client"):
                prefill_s, decode_s = prefill_s * factor, decode_s * factor
        outside_s = 6.0 if self.plant == "client" and is_asked else 0.0
        duration_s = queue_s + prefill_s + decode_s + outside_s
        phases = {
            "queue_seconds": queue_s,
            "time_to_first_token_seconds": queue_s + prefill_s,
            "decode_seconds": decode_s,
        }
        put_aside = int(
            self.plant == "kv_pressure" and self._is_on(starts_s, self.plant) and self.random.random() < 0.5
        )
        return self._event(
            "request", starts_s + duration_s, operation="chat" if is_chat else "completion", response_model="llama",
            status="ok", duration_seconds=duration_s, input_tokens=prompt, output_tokens=answer, server_address=SERVER,
            cached_input_tokens=int(prompt * cached_ratio), gpu_uuids=[GPU], preemption_count=put_aside, **phases,
            **({"trace_id": "asked"} if is_asked else {}),
        )  # fmt: skip
