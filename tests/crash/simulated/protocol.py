"""What a ledger goes through on a simulated disk: a recording with all its steps, and starts after a crash."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from unittest.mock import patch

import apsw
import pyarrow.parquet as pq

from store.events import Event
from store.files import on_disk
from store.head import HEAD_NAME, open_head
from store.ledger import Ledger
from store.repair.adoption import adopt
from store.repair.quarantine import Repairer
from store.repair.recovery import Recovery, repair
from store.rollups.due import rollups_are_due
from store.segments import EVENTS_FOLDER, catalogued, catalogued_rollups
from store.times import DAY_US, HOUR_US
from store.upkeep.retention import RetentionRules
from store.upkeep.run import UpkeepResult, upkeep
from store.upkeep.settings import UpkeepSettings

from .disk import CrashError, SimulatedDisk, State

START_US = 1_795_435_200_000_000  # 2026-11-23 12:00:00 UTC
GRACE_US = 600_000_000
ROLLED, GAUGE = "server_sample", "requests_running_count"
AGED = frozenset({"gpu_event", ROLLED})
SETTINGS = UpkeepSettings(
    grace_s=GRACE_US / 1e6, retention=RetentionRules(max_age_days=dict.fromkeys(sorted(AGED), 1.0))
)
HOST = "spark-1"
KINDS_PLAIN = ("annotation", "gpu_event")
KINDS_ROLLED = (*KINDS_PLAIN, ROLLED)
KINDS = ("annotation", "gpu_event", "ledger_event", ROLLED)
LATE_SHARE = 0.2
KILLED_SHARE = 0.2
STEPS_OF_A_MOVE = 10  # of a segment into quarantine, with its reason and the row
NEAR_STEPS = 5
ROUNDS = 7


@dataclass
class Truth:
    """What the ledger has to know, apart from it.

    Args:
        written: Every event that an append began to write: seq to kind and time. Filled in when it returns.
        acknowledged: How many of them have returned, in order of seq.
        damaged: Seqs of segments that were damaged on purpose.
        now_us: The greatest time that upkeep was told.
        rolls_up: Whether there are samples, and rollups of them.
    """

    written: dict[int, tuple[str, int]] = field(default_factory=dict)
    acknowledged: tuple[int, ...] = ()
    damaged: frozenset[int] = frozenset()
    damaged_paths: frozenset[str] = frozenset()
    now_us: int = START_US
    rolls_up: bool = True

    def may_be_gone(self, seq: int) -> bool:
        kind, observed_at_us = self.written[seq]
        return seq in self.damaged or (kind in AGED and observed_at_us < self.now_us - DAY_US)

    def acknowledge(self, seen: dict[int, tuple[str, int]]) -> None:
        """What was read once after a crash has to stay, too: an append that was killed may have written its events."""
        unknown = sorted(seen.keys() - set(self.acknowledged))
        self.written.update({seq: seen[seq] for seq in unknown})
        self.acknowledged += tuple(unknown)

    def frozen(self) -> "Truth":
        """As it is now; what is written later is still known to it, as what may be there."""
        return replace(self)


@dataclass(frozen=True)
class Moment:
    """The disk after one step, and what was true then.

    Args:
        state: The disk.
        truth: What was true.
        is_after_skipped: Whether one of the last few syncs was left out.
    """

    state: State
    truth: Truth
    is_after_skipped: bool


@dataclass(frozen=True)
class Course:
    """What a recording is full of.

    Args:
        rolls_up: Whether there are samples, and rollups of them, which take twice the time.
        damage_share: In how much of its rounds a file is damaged and found.
    """

    rolls_up: bool
    damage_share: float


def course_of(number: int) -> Course:
    return Course(rolls_up=number % 4 == 0, damage_share=0.6 if number % 2 else 0.2)


@contextmanager
def running_on(disk: SimulatedDisk) -> Iterator[None]:
    """Let what is ours change this disk, and tell it of each commit."""

    def watch(connection: apsw.Connection) -> None:
        connection.set_wal_hook(lambda *_: disk.step() or apsw.SQLITE_OK)

    apsw.connection_hooks.append(watch)
    try:
        with on_disk(disk), patch("store.head.check_file_system"):  # tmpfs it is; to ask takes a sixth of all time
            yield
    finally:
        apsw.connection_hooks.remove(watch)


def start(folder: Path, now_us: int) -> Recovery:
    """What a collector does before it records."""
    by = Repairer(now_us, HOST, "boot")
    done = repair(folder, by)
    adopt(folder, by)
    return done


def keep_up(folder: Path, truth: Truth, now_us: int) -> UpkeepResult:
    truth.now_us = max(truth.now_us, now_us)
    done = upkeep(folder, SETTINGS, now_us=now_us, rolls_up=truth.rolls_up and rollups_are_due(folder, now_us=now_us))
    assert done is not None
    return done


def append(folder: Path, truth: Truth, now_us: int, chance: Random) -> None:
    """One batch of a few events, acknowledged when it returns."""
    events = batch(now_us, chance, KINDS_ROLLED if truth.rolls_up else KINDS_PLAIN)
    with Ledger(folder, host=HOST, boot_id="boot") as ledger:
        seqs = ledger.append(events)
    truth.written.update({seq: (event.kind, event.observed_at_us) for seq, event in zip(seqs, events, strict=True)})
    truth.acknowledged += tuple(seqs)


def batch(now_us: int, chance: Random, of: Sequence[str]) -> list[Event]:
    """A few events in the order in which they get their seqs; some samples are late."""
    kinds = sorted(chance.choices(of, k=chance.randint(1, 3)))
    times_us = [now_us + number for number in range(len(kinds))]
    return [
        Event(kind, time_us, {})
        if kind != ROLLED
        else sample(time_us - (2 * HOUR_US if chance.random() < LATE_SHARE else 0))
        for kind, time_us in zip(kinds, times_us, strict=True)
    ]


def sample(time_us: int) -> Event:
    """An event that is rolled up."""
    return Event(ROLLED, time_us, {"server_address": "localhost:8000", "model": "m", GAUGE: value_at(time_us)})


def value_at(time_us: int) -> int:
    """What the gauge read, so that a sum tells which samples it is of."""
    return time_us // 1_000_000 % 9_973 + time_us % 1_000_000 * 10_000


def record(folder: Path, number: int, *, skipped: str = "") -> tuple[list[Moment], set[str]]:
    """Record and keep up a ledger for some days; every step of it, and the places of the syncs on the way."""
    chance, course = Random(number), course_of(number)
    truth = Truth(rolls_up=course.rolls_up)
    moments: list[Moment] = []
    disk = SimulatedDisk(folder, skipped=skipped)
    disk.on_step = lambda: moments.append(Moment(disk.state(), truth.frozen(), disk.steps_since_skipped < NEAR_STEPS))
    now_us = START_US
    with running_on(disk):
        if chance.random() < 0.3:
            with killed_after(disk, chance.randrange(3)):
                start(disk.ledger, now_us)
        start(disk.ledger, now_us)
        for _ in range(ROUNDS):
            for _ in range(chance.randint(1, 3)):
                append(disk.ledger, truth, now_us, chance)
                now_us += chance.choice((1_000_000, 120_000_000))
            _one_round(disk, truth, now_us, chance, course)
            now_us += chance.choice((120_000_000, HOUR_US, 13 * HOUR_US))
    return moments, disk.places


def _one_round(disk: SimulatedDisk, truth: Truth, now_us: int, chance: Random, course: Course) -> None:
    what = chance.random()
    if what < KILLED_SHARE:
        steps = chance.randrange(12)
        with killed_after(disk, steps):
            keep_up(disk.ledger, truth, now_us)
    elif what < KILLED_SHARE + course.damage_share:
        damage_one(disk, truth, chance)
        with killed_after(disk, chance.randrange(STEPS_OF_A_MOVE)):
            start(disk.ledger, now_us)
        start(disk.ledger, now_us)
    keep_up(disk.ledger, truth, now_us)


@contextmanager
def killed_after(disk: SimulatedDisk, steps: int) -> Iterator[None]:
    """A kill -9 of this process after some steps; what it saw of the disk stays as it is."""
    before, disk.at_crash = disk.on_step, None
    disk.on_step = _counted(before, steps)
    try:
        yield
    except BaseException:  # SQLite may have made an error of its own of it
        if not disk.is_off:
            raise
    finally:
        disk.on_step = before
        disk.is_off = False


def _counted(step: Callable[[], None], steps: int) -> Callable[[], None]:
    left = iter(range(steps))

    def count() -> None:
        step()
        if next(left, None) is None:
            raise CrashError

    return count


def damage_one(disk: SimulatedDisk, truth: Truth, chance: Random) -> None:
    """Cut a segment or a rollup short, as a disk that fails may."""
    if not (disk.ledger / HEAD_NAME).exists():
        return
    with closing(open_head(disk.ledger)) as head:
        paths = [one.path for one in (*catalogued(head), *catalogued_rollups(head))]
    paths = [path for path in paths if path not in truth.damaged_paths]
    if not paths:
        return
    path = disk.ledger / chance.choice(paths)
    if EVENTS_FOLDER in path.parts:
        truth.damaged |= frozenset(pq.ParquetFile(path).read(["seq"], use_threads=False)["seq"].to_pylist())
    truth.damaged_paths |= {str(path.relative_to(disk.ledger))}
    disk.damage(path, path.read_bytes()[:-1])


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
