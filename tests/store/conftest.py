from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from store.events import KINDS, Event
from store.files import Disk, on_disk
from store.ledger import Ledger
from store.repair.quarantine import Repairer
from store.snapshot import LedgerReader
from store.upkeep.sealing import seal

START_US = 1_795_435_200_000_000  # 2026-11-23 12:00:00 UTC


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(folder: Path):
    with Ledger(folder, host="spark-1", boot_id="boot-a") as opened:
        yield opened


@pytest.fixture
def tick():
    """The events of one tick: a GPU row and a host row, `number` seconds after 12:00."""

    def make(number: int) -> list[Event]:
        time_us = START_US + number * 1_000_000
        gpu = {
            "gpu_uuid": "GPU-1",
            "gpu_index": 0,
            "utilization_percent": number % 101,
            "power_watts": 100.5 + number,
            "energy_joules": 1000.125 + number,
            "absence": {"fan_speed_percent": "not_supported"},
        }
        return [Event("gpu_sample", time_us, gpu), Event("system_sample", time_us, {"cpu_utilization_percent": 1.5})]

    return make


class WatchedDisk(Disk):
    """Notes what was renamed or removed and not synced yet, by its folder."""

    def __init__(self) -> None:
        self.unsynced: list[Path] = []
        self.synced: list[Path] = []

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.unsynced += [source.parent, target.parent]

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.unsynced.append(path.parent)

    def sync(self, path: Path) -> None:
        super().sync(path)
        self.synced.append(path)
        self.unsynced = [one for one in self.unsynced if one != path]


@pytest.fixture
def watched_disk():
    """The disk, which tells what of its folders was synced."""
    disk = WatchedDisk()
    with on_disk(disk):
        yield disk


@pytest.fixture
def out_of_reach():
    """Lets the system refuse a file for a while, for root, too: ELOOP in the place of EIO or EACCES."""

    @contextmanager
    def refused(path: Path) -> Iterator[None]:
        away = path.with_name("away")
        path.rename(away)
        path.symlink_to(path)
        try:
            yield
        finally:
            path.unlink()
            away.rename(path)

    return refused


@pytest.fixture
def seqs_seen():
    """How often each seq is seen by a reader, over segments and tail of all kinds."""

    def count(folder: Path) -> Counter[int]:
        with LedgerReader(folder) as reader:
            snapshot = reader.snapshot(KINDS)
        seen: Counter[int] = Counter()
        for events in snapshot.values():
            seen.update(events.tail["seq"].to_pylist())
            for path in events.files:
                seen.update(pq.ParquetFile(path).read(columns=["seq"])["seq"].to_pylist())
        return seen

    return count


@pytest.fixture
def told():
    """What the ledger tells of itself: (event, message) of its ledger events, in order of seq."""

    def events(folder: Path) -> list[tuple[str, str]]:
        with LedgerReader(folder) as reader:
            found = reader.snapshot(["ledger_event"])["ledger_event"]
        tables = [found.tail, *(pq.ParquetFile(path).read() for path in found.files)]
        rows = sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["seq"])
        return [(row["event"], row["message"]) for row in rows]

    return events


@pytest.fixture
def by() -> Repairer:
    """Who repairs in these tests, and when: 13:00 on the day of the ticks."""
    return Repairer(START_US + 3_600_000_000, "spark-1", "boot-b")


@pytest.fixture
def sealed(folder: Path, tick) -> Path:
    """A ledger of three sealings of two ticks each, and one tick in the tail: seqs 1 to 14."""
    with Ledger(folder, host="spark-1", boot_id="boot-a") as opened:
        for number in range(6):
            opened.append(tick(number))
            if number % 2:
                seal(folder)
        opened.append(tick(6))
    return folder
