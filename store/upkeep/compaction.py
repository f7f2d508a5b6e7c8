"""Compaction: small segments become large ones.

What is merged: within one kind, version, host and UTC day, the files of an hour that is over, and the files of a day
that is over. Of those, always the smaller ones up to the largest that is at most `RATIO` times all smaller ones
together. So

- an event is in the ordinary course written three or four times: sealed, with its hour, with its day;
- what comes late (an import, a clock that was set back) is a new file beside the large one, and joins it once it is
  a quarter of it: whatever comes in whatever order, each rewriting of an event puts it into a file at least 1.25 times
  as large, which bounds how often that can happen;
- of a day that is over at most 2 + log5(largest / smallest / 4) files are left.

`store.upkeep.merging` does it; the plan needs no Arrow.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import apsw

from store.events import KINDS
from store.segments import Segment, beside_others
from store.times import DAY_US, HOUR_US

RATIO = 4
FILES_AT_MOST = 120  # an open file is a parsed footer of up to 200 KB
OPEN_HOUR_FILES = 16  # how many files of the hour that runs are merged before it is over
DAY_IS_CLOSED_AFTER_US = 600_000_000
LONE_EVENTS = 100_000  # a single file as sealed, of an import, is sorted where it is worth it

Merge = tuple[Segment, ...]


def may_be_due(head: apsw.Connection) -> list[Segment]:
    """The part of the catalogue that `due_merges` need be asked about."""
    return beside_others(head, lone_events=LONE_EVENTS)


def due_merges(segments: Sequence[Segment], *, now_us: int, everything: bool = False) -> list[Merge]:
    """What is to be merged now; a part of it may call for more once it is done.

    Args:
        segments: The catalogue, or what of it may be due.
        now_us: Microseconds since the epoch, UTC.
        everything: Merge also what is still being added to, and whatever the sizes: one file a day and kind is left.
    """
    known = [one for one in segments if one.kind in KINDS and one.version <= KINDS[one.kind].version]
    return [
        merge
        for partition in _groups(known, lambda one: (one.folder, one.host))
        for merge in _due_in_partition(partition, now_us, everything=everything)
    ]


def _groups(segments: Sequence[Segment], key: Callable[[Segment], Any]) -> list[list[Segment]]:
    return [list(group) for _, group in groupby(sorted(segments, key=key), key=key)]


def _due_in_partition(partition: list[Segment], now_us: int, *, everything: bool) -> list[Merge]:
    day_us = partition[0].first_observed_at_us // DAY_US * DAY_US
    is_closed = now_us >= day_us + DAY_US + DAY_IS_CLOSED_AFTER_US
    merges = [
        _run(hour)
        for hour in _groups(partition, lambda one: one.first_observed_at_us // HOUR_US)
        if _is_hour_over(hour, now_us) or len(hour) >= OPEN_HOUR_FILES
    ]
    merges = [merge for merge in merges if len(merge) > 1]
    if merges or not (is_closed or everything):
        return merges
    merge = _smallest(partition) if everything else _run(partition)
    is_unsorted = merge[0].level == 0 and merge[0].event_count >= LONE_EVENTS
    return [merge] if len(merge) > 1 or is_unsorted else []


def _is_hour_over(hour: Sequence[Segment], now_us: int) -> bool:
    return now_us >= (hour[0].first_observed_at_us // HOUR_US + 1) * HOUR_US


def _smallest(segments: Sequence[Segment]) -> Merge:
    return tuple(sorted(segments, key=lambda one: (one.size_bytes, one.path))[:FILES_AT_MOST])


def _run(segments: Sequence[Segment]) -> Merge:
    """The smaller files, up to the largest that is at most `RATIO` times all smaller ones; at least the smallest."""
    ascending = _smallest(segments)
    smaller_bytes = 0
    length = 1
    for number, one in enumerate(ascending, start=1):
        if one.size_bytes <= RATIO * smaller_bytes:
            length = number
        smaller_bytes += one.size_bytes
    return ascending[:length]
