"""A tick in which every exposed column has a value."""

import pytest

from collector.clock import Now
from collector.exposition import Received
from collector.ingest.tally import Tally
from collector.probe import Condition
from collector.sampler import Latest, XidCount
from store.derivations import prometheus_families
from store.events import DEVICE_SAMPLE, GPU_SAMPLE, SERVER_SAMPLE, SYSTEM_SAMPLE, Event, Kind

NOW = Now(monotonic_s=10.0, boottime_s=20.0, wall_us=1_795_435_200_000_000)
IDENTITY = {
    "gpu_uuid": "GPU-a",
    "gpu_index": 0,
    "device_type": "disk",
    "device": "sda",
    "server_address": "a:8000",
    "model": "llama",
    "engine": "0",
}
DESCRIPTION = {
    "gpu_uuid": "GPU-a",
    "gpu_index": 0,
    "name": "NVIDIA H200",
    "source": "nvml",
    "driver_version": "580.95.05",
    "memory_kind": "dedicated",
}


@pytest.fixture(scope="session")
def received() -> Received:
    """An inference server that was scraped, and events that were sent."""
    tally = Tally()
    tally.events["/ingest/events", "accepted"] += 1
    return Received(tally, lambda: [_full_row(SERVER_SAMPLE)])


@pytest.fixture(scope="session")
def full_tick() -> Latest:
    rows = [_full_row(kind) for kind in (GPU_SAMPLE, SYSTEM_SAMPLE, DEVICE_SAMPLE)]
    return Latest(
        now=NOW,
        events=rows[:2],
        devices=rows[2:],
        inventory={"GPU-a": DESCRIPTION},
        conditions={"gpu": Condition.ANSWERS},
        xids={("0", "GPU-a", "79"): XidCount(1, NOW.wall_us)},
    )


def _full_row(kind: Kind) -> Event:
    identity = {name: value for name, value in IDENTITY.items() if name in kind.by_name}
    columns = [column for family in prometheus_families(kind) for column, _ in family.members]
    exposed = {column.name: True if column.type == "bool" else 1 for column in columns}
    return Event(kind.name, NOW.wall_us, {**identity, "interval_seconds": 1.0, "counter_epoch": 0, **exposed})
