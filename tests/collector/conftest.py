"""Stand-ins for what the collector is given: a clock, a ledger, a probe, and a process with a GPU machine in it."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from collector.clock import Now
from collector.probe import Condition
from store.errors import LedgerUnusableError
from store.events import GPU_SAMPLE, Event

MACHINES = Path(__file__).parents[1] / "fixtures"
START_US = 1_795_435_200_000_000  # 2026-11-23 12:00:00 UTC


class FakeClock:
    """Three clocks that stand still until they are moved; waiting moves them.

    Args:
        end_s: How long `Sampler.run` goes on: a wait beyond it sets the stop event.
    """

    def __init__(self, end_s: float = float("inf")) -> None:
        self._end_s = 1000.0 + end_s
        self._now = Now(monotonic_s=1000.0, boottime_s=4000.0, wall_us=START_US)

    def now(self) -> Now:
        return self._now

    def wait_until(self, monotonic_s: float, stop: threading.Event) -> None:
        self.advance(max(0.0, min(monotonic_s, self._end_s) - self._now.monotonic_s))
        if monotonic_s > self._end_s:
            stop.set()

    def advance(self, seconds: float) -> Now:
        return self._move(running_s=seconds)

    def suspend(self, seconds: float) -> Now:
        return self._move(asleep_s=seconds)

    def step(self, seconds: float) -> Now:
        return self._move(stepped_s=seconds)

    def _move(self, running_s: float = 0.0, asleep_s: float = 0.0, stepped_s: float = 0.0) -> Now:
        self._now = Now(
            monotonic_s=self._now.monotonic_s + running_s,
            boottime_s=self._now.boottime_s + running_s + asleep_s,
            wall_us=self._now.wall_us + round((running_s + asleep_s + stepped_s) * 1e6),
        )
        return self._now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def clock_until() -> Callable[[float], FakeClock]:
    return FakeClock


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of a folder that stands for a machine, to be changed."""

    def copy(name: str = "host-h200-node") -> Path:
        return Path(shutil.copytree(MACHINES / name, tmp_path / name))

    return copy


class PatientClock(FakeClock):
    """Waits for a thread as long as it takes, unless that hangs: then it moves on to the moment that is waited for.

    `hanging` is set by whoever stands for what hangs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hanging = threading.Event()

    def wait_until(self, monotonic_s: float, stop: threading.Event) -> None:
        while not (stop.is_set() or self.hanging.is_set()):
            stop.wait(0.001)
        if not stop.is_set():
            super().wait_until(monotonic_s, stop)


@pytest.fixture
def patient_clock() -> PatientClock:
    return PatientClock()


@dataclass
class FakeLedger:
    """Keeps what it is given in memory, batch by batch, and takes nothing while `problem` is set."""

    batches: list[list[Event]] = field(default_factory=list)
    problem: str | None = None

    def append(self, events: Sequence[Event]) -> range:
        if self.problem:
            raise LedgerUnusableError(self.problem)
        self.batches.append(list(events))
        return range(len(events))

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


class FakeProbe:
    """Gives one event a read, numbered; `trouble` is called before and may take time or raise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.words = f"watching {name}"
        self.trouble: Callable[[], Any] = lambda: None
        self.reads: list[Now] = []
        self.is_closed = False
        self.condition = Condition.ANSWERS
        self.busy_with: str | None = None
        self.came: list[Event] = []
        self.is_abandoned = False
        self.held: list[str] = []
        self.rests = 0

    def read(self, now: Now) -> list[Event]:
        self.reads.append(now)
        self.trouble()
        return [Event("annotation", now.wall_us, {"text": f"{self.name} {len(self.reads)}"})]

    def status(self) -> str:
        return self.words

    def meanwhile(self) -> list[Event]:
        came, self.came = self.came, []
        return came

    def abandon(self) -> None:
        self.is_abandoned = True

    def rest(self) -> list[str]:
        self.rests += 1
        return self.held

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def probe() -> FakeProbe:
    return FakeProbe("one")


@pytest.fixture
def other_probe() -> FakeProbe:
    return FakeProbe("two")


@pytest.fixture
def make_probe() -> Callable[[str], FakeProbe]:
    return FakeProbe


BETWEEN = ("nvmlDeviceGetSamples", "nvmlGpm")
"""Sources of the columns that say what was between two ticks."""


@dataclass(frozen=True)
class Seen:
    """What one read of a `GpuProbe` in its own process gave."""

    status: str
    events: list[Event]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event.values for event in self.events if event.kind == kind]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What is read of the moment; `whole_rows` has the slower tiers and what was between two ticks too."""
        return [_hot(row) for row in self.whole_rows]

    @property
    def whole_rows(self) -> list[dict[str, Any]]:
        return self.of("gpu_sample")

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.rows
        return row

    @property
    def told(self) -> list[str]:
        """What happened to the GPUs themselves, without what held their clocks."""
        return [values["message"] for values in self.of("gpu_event") if "throttle_reason" not in values]


def _hot(row: dict[str, Any]) -> dict[str, Any]:
    others = {column.name for column in GPU_SAMPLE.fields if column.every_seconds or column.source.startswith(BETWEEN)}
    hot = {column: value for column, value in row.items() if column not in {*others, "absence"}}
    absence = {column: reason for column, reason in row.get("absence", {}).items() if column not in others}
    return hot | ({"absence": absence} if absence else {})


class GpuMachine:
    """A `GpuProbe` in a process of its own, where the loader finds the stand-in driver.

    Args:
        fake: The stand-in, as the fixture `fake_nvml` gives it.
        clock: The time that is passed to the probe.
        options: Arguments of `GpuProbe`.
    """

    def __init__(self, fake: Any, clock: FakeClock, options: dict[str, Any]) -> None:
        self.fake = fake
        self._clock = clock
        self._options = options
        self._process = subprocess.Popen(
            [sys.executable, "-P", Path(__file__).with_name("gpu_probe_process.py")],
            env=fake.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begin()

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self) -> None:
        """Begin anew, with another probe."""
        self._ask({"begin": {"interval_s": 1.0, **self._options}})

    def becomes(self, scenario: str) -> None:
        """Change the machine under the running probe."""
        self.fake.write(scenario)

    def run(self, statement: str) -> None:
        """Change something in the probe's process, to stand for another version of a library."""
        self._ask({"run": statement})

    def read(self, after_s: float = 1.0) -> Seen:
        """What the probe says when so much time has passed."""
        now = self._clock.advance(after_s)
        answer = self._ask({"read": [now.monotonic_s, now.boottime_s, now.wall_us]})
        return Seen(answer["status"], [Event(**event) for event in answer["events"]])

    def save(self, path: Path, load: str = "made up") -> int:
        """End what a probe of the kind `record` records and write it; its size in bytes."""
        return self._ask({"save": [str(path), load]})

    def rest(self) -> dict[str, Any]:
        """Have the probe let go: what it says it holds, and which libraries of the driver its process has mapped."""
        return self._ask({"rest": None})

    def leave_alone(self, *uuids: str) -> None:
        self._ask({"leave_alone": uuids})

    def _ask(self, request: dict[str, Any]) -> Any:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._process.stderr.read()
        return json.loads(answer)

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture
def gpu_machine(clock: FakeClock) -> Iterator[Callable[..., GpuMachine]]:
    """Start a probe on a stand-in's machine: `gpu_machine(fake_nvml, proc=...)`."""
    machines: list[GpuMachine] = []

    def start(fake: Any, **options: Any) -> GpuMachine:
        machines.append(GpuMachine(fake, clock, options))
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()
