"""One seed is one crash: at a step of a recording, and maybe again while the ledger starts and is kept up."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from store.times import DAY_US, HOUR_US

from .disk import SimulatedDisk, after_power_cut
from .invariants import BrokenError, check_after_upkeep, check_before_recovery
from .protocol import (
    GRACE_US,
    Moment,
    Truth,
    append,
    damage_one,
    emptied,
    keep_up,
    killed_after,
    record,
    running_on,
    start,
)

SEEDS_PER_RECORDING = 250
CRASHES_MAX = 3
DAMAGED_SHARE = 0.3


@dataclass
class Tally:
    """What was tried."""

    seeds: int = 0
    recordings: int = 0
    steps: int = 0
    power_cuts: int = 0
    kills: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    places: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        for name in ("seeds", "recordings", "steps", "power_cuts", "kills"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed |= other.failed
        self.places += other.places


def try_seeds(seeds: range, scratch: Path, *, skipped: str = "", until_one_fails: bool = False) -> Tally:
    """Try some seeds; those of one recording are `SEEDS_PER_RECORDING` in a row.

    Args:
        seeds: Which.
        scratch: A folder on tmpfs.
        skipped: The place whose syncs do nothing; see `disk.SimulatedDisk.places`.
        until_one_fails: Stop there.
    """
    tally = Tally()
    number = -1
    moments: list[Moment] = []
    passes_by = False
    for seed in seeds:
        if seed // SEEDS_PER_RECORDING != number:
            number = seed // SEEDS_PER_RECORDING
            moments, places = record(emptied(scratch / "recording"), number, skipped=skipped)
            tally.places.update(places)
            tally.recordings += 1
            tally.steps += len(moments)
            passes_by = bool(skipped) and not any(moment.is_after_skipped for moment in moments)
        if passes_by and seed % 5:
            continue  # only a start after the crash may come by the place
        tally.seeds += 1
        try:
            _try(seed, moments, scratch, tally, skipped)
        except Exception as error:  # noqa: BLE001 - whatever it is, the ledger is not as it has to be
            tally.failed[seed] = f"{type(error).__name__ if not isinstance(error, BrokenError) else ''} {error}".strip()
            if until_one_fails:
                break
    return tally


def _try(seed: int, moments: list[Moment], scratch: Path, tally: Tally, skipped: str) -> None:
    chance = Random(seed)
    moment = _moment_of(seed, moments, chance)
    truth = moment.truth.frozen()
    truth.written = dict(truth.written)
    tree = after_power_cut(moment.state, chance)
    disk = SimulatedDisk(emptied(scratch / "disk"), tree, moment.state.head, skipped=skipped)
    tally.power_cuts += 1
    check_before_recovery(disk.ledger, truth)
    if chance.random() < DAMAGED_SHARE:
        damage_one(disk, truth, chance)
    for _ in range(chance.randrange(CRASHES_MAX)):
        disk = _crash_again(disk, truth, chance, tally, scratch)
        check_before_recovery(disk.ledger, truth)
    tally.places.update(disk.places)
    with running_on(disk):
        _recover(disk, truth, chance)
        keep_up(disk.ledger, truth, truth.now_us + GRACE_US)
    tally.places.update(disk.places)
    check_after_upkeep(disk.ledger, truth)


def _moment_of(seed: int, moments: list[Moment], chance: Random) -> Moment:
    """Each step in turn, as evenly as the seeds of a recording allow; half of the time one where a sync is missing."""
    near = [one for one in moments if one.is_after_skipped]
    if near and seed % 2:
        return chance.choice(near)
    return moments[seed % SEEDS_PER_RECORDING * len(moments) // SEEDS_PER_RECORDING]


def _crash_again(disk: SimulatedDisk, truth: Truth, chance: Random, tally: Tally, scratch: Path) -> SimulatedDisk:
    with running_on(disk), killed_after(disk, chance.randrange(40)):
        _recover(disk, truth, chance)
    tally.places.update(disk.places)
    if chance.random() < 0.4:
        tally.kills += 1
        return disk
    tally.power_cuts += 1
    state = disk.at_crash or disk.state()
    return SimulatedDisk(emptied(scratch / "disk"), after_power_cut(state, chance), state.head, skipped=disk.skipped)


def _recover(disk: SimulatedDisk, truth: Truth, chance: Random) -> None:
    """A start and what follows it: recording, upkeep, some time later upkeep again."""
    now_us = truth.now_us + 1_000_000
    done = start(disk.ledger, now_us)
    wrong = [one.origin for one in done.set_aside if one.origin not in truth.damaged_paths]
    wrong += [path for path in done.lost if path not in truth.damaged_paths]
    if wrong:
        raise BrokenError(f"a start had to give up {wrong}")
    append(disk.ledger, truth, now_us, chance)
    keep_up(disk.ledger, truth, now_us + chance.choice((0, HOUR_US, DAY_US // 2)))
