"""One GPU or MIG device from tick to tick: what belongs to its session with the driver, and what outlives that."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from collector.clock import Now
from collector.gpu.calls import Reading
from collector.gpu.capabilities import Capability
from collector.gpu.links import GpuLinks
from collector.gpu.listing import Listed
from collector.gpu.nvml import address
from collector.gpu.processes import GpuProcesses
from collector.gpu.readings import EPOCH_COUNTERS
from collector.gpu.throttling import Throttling
from collector.probe import CounterEpoch, Row
from store.events import GPU_SAMPLE, AbsenceReason

_NEVER_ZERO = [column.name for column in GPU_SAMPLE.fields if column.is_never_zero]


@dataclass(slots=True, eq=False)
class Session:
    """What belongs to one GPU or MIG device for as long as its handle is good; readings by how often they are made."""

    device: Listed
    readings: Mapping[float, Sequence[Reading]]
    substitutes: Sequence[Reading]
    processes: GpuProcesses | None
    links: GpuLinks | None = None
    is_described: bool = False

    def is_for(self, device: Listed, *, is_divided: bool) -> bool:
        """Whether it is good for the device as it is listed now."""
        is_same = address(device.handle) == address(self.device.handle)
        return is_same and is_divided == (self.processes is None)

    @property
    def capabilities(self) -> Iterator[Capability]:
        for reading in (*chain.from_iterable(self.readings.values()), *self.substitutes):
            yield from reading.capabilities
        if self.processes:
            yield from self.processes.capabilities
        if self.links:
            yield from self.links.capabilities


@dataclass(slots=True, eq=False)
class Gpu:
    """What is known of one GPU or MIG device from tick to tick; without a session it is gone, its rows all NULL."""

    device: Listed
    session: Session | None = None
    gone_because: str = ""
    is_lost: bool = False
    is_busy: bool = True
    epoch: CounterEpoch = field(default_factory=lambda: CounterEpoch(EPOCH_COUNTERS))
    throttling: Throttling = field(default_factory=Throttling)
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        return {"gpu_uuid": self.device.uuid, "gpu_index": self.device.index}

    def let_go(self, why: str) -> None:
        """Forget the handle: a driver that comes back may have put something else where it points."""
        if self.session is not None:
            self.session, self.gone_because = None, why
            self.epoch.end()

    def rest(self) -> None:
        """Forget the handle for as long as a pause lasts: the GPU is not lost, and its counters may go on."""
        if self.session is not None:
            self.session, self.gone_because = None, "it is not there after a pause"

    def row(self, due: Collection[float], now: Now) -> Row:
        """What it tells at this tick; nothing of one that is gone.

        Raises:
            DriverAway: The driver is gone.
        """
        row = Row()
        if self.session is None:
            return row
        for every_s in due:
            for reading in self.session.readings.get(every_s, ()):
                row.put(reading.answers(now))
        for reading in self.session.substitutes:
            if not row.absence.keys().isdisjoint(reading.columns):
                row.fill(reading.answers(now))
        if 0 in map(row.values.get, _NEVER_ZERO):
            row.put({column: AbsenceReason.SUSPECT for column in _NEVER_ZERO if row.values.get(column) == 0})
        return row
