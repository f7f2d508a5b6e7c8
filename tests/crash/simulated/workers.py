"""What a process of its own does of `__main__`."""

import os
from pathlib import Path

import pyarrow as pa

from .trials import Tally, try_seeds

pa.set_cpu_count(1)  # for tables of a few rows threads only cost


def try_part(seeds: range, scratch: Path) -> Tally:
    return try_seeds(seeds, scratch / str(os.getpid()))


def try_without(place: str, seeds: int, scratch: Path) -> tuple[str, tuple[int | None, str]]:
    """The first seed that fails when the syncs of a place do nothing, and why it fails."""
    tally = try_seeds(range(seeds), scratch / str(os.getpid()), skipped=place, until_one_fails=True)
    return place, next(iter(tally.failed.items()), (None, ""))
