"""Retention: the oldest files go, by age, by size and by free space. A window that is held stays.

Whole files only: a file goes by age once its newest event is too old. By size and free space the samples and requests
go first, oldest first; the few rows that say what happened to the machine (`LASTING_KINDS`) follow only when nothing
else is left. Free space can be short because of someone else, so that rule leaves the newest days alone.

A clock that is wrong must not cost the history. When the time since the last upkeep, forward or back, is more than a
day, it is either a machine that was off or a clock that leapt; the rule by age rests for a day after that.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import apsw
import msgspec

from store.events import Event
from store.head import has_table
from store.ledger import insert_events, read_boot_id, transaction
from store.segments import Segment, discard, total_bytes
from store.times import DAY_US

LASTING_KINDS = frozenset({"gpu_event", "inventory", "ledger_event", "annotation"})
"""Kinds whose rows are few and say why: they stay for ever unless they are given an age of their own."""

LEAP_US = DAY_US
AGE_RESTS_US = DAY_US

Rule = Literal["age", "size", "free space"]


class RetentionRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be kept. 0 stands for no limit.

    Args:
        max_age_days: Age beyond which events of a kind go, by kind; a kind that is not named stays for ever.
        max_size_bytes: Size of all segments together.
        min_free_bytes: Free space on the ledger's file system.
        free_space_keeps_days: The newest days, which the rule of free space leaves alone.
    """

    max_age_days: dict[str, float] = {}
    max_size_bytes: int = 0
    min_free_bytes: int = 0
    free_space_keeps_days: float = 7.0


@dataclass(frozen=True, slots=True)
class Hold:
    """A window that retention leaves alone. Times are microseconds UTC, half-open."""

    id: int
    started_at_us: int
    ended_at_us: int
    why: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Removal:
    """One segment that goes, and the rule by which."""

    segment: Segment
    rule: Rule


def removals(
    segments: Sequence[Segment],
    holds: Sequence[Hold],
    rules: RetentionRules,
    *,
    now_us: int,
    free_bytes: int,
    age_rests: bool = False,
) -> list[Removal]:
    """What goes, oldest first within each rule.

    Args:
        segments: The catalogue.
        holds: The windows that are held.
        rules: What may be kept.
        now_us: Microseconds since the epoch, UTC.
        free_bytes: Free space of the file system, with what files on their way out will give back.
        age_rests: Leave out the rule by age.
    """
    loose = [one for one in segments if not any(_meets(one, hold) for hold in holds)]
    loose.sort(key=lambda one: (one.kind in LASTING_KINDS, one.last_observed_at_us, one.path))
    aged = [] if age_rests else [one for one in loose if _is_aged(one, rules, now_us)]
    rest = _without(loose, aged)
    excess_bytes = total_bytes(segments) - total_bytes(aged) - rules.max_size_bytes if rules.max_size_bytes else 0
    oversize = _first_bytes(rest, excess_bytes)
    rest = _without(rest, oversize)
    missing_bytes = rules.min_free_bytes - free_bytes - total_bytes([*aged, *oversize])
    keeps_from_us = now_us - rules.free_space_keeps_days * DAY_US
    crowding = _first_bytes([one for one in rest if one.last_observed_at_us < keeps_from_us], missing_bytes)
    by_rule: tuple[tuple[Rule, list[Segment]], ...] = (
        ("age", aged),
        ("size", oversize),
        ("free space", crowding),
    )
    return [Removal(one, rule) for rule, gone in by_rule for one in gone]


def may_exceed(head: apsw.Connection, rules: RetentionRules, *, now_us: int, free_bytes: int) -> bool:
    """Whether any rule is exceeded, holds aside: mostly none is, and the catalogue need not be gone through."""
    sql = "select kind, min(last_observed_at_us), sum(size_bytes) from segment group by kind"
    kinds: list[tuple[str, int, int]] = list(head.execute(sql))
    is_aged = any(_is_older(last_us, kind, rules, now_us) for kind, last_us, _ in kinds)
    is_oversize = 0 < rules.max_size_bytes < sum(size_bytes for _, _, size_bytes in kinds)
    return is_aged or is_oversize or free_bytes < rules.min_free_bytes


def _meets(segment: Segment, hold: Hold) -> bool:
    return segment.first_observed_at_us < hold.ended_at_us and segment.last_observed_at_us >= hold.started_at_us


def _is_aged(segment: Segment, rules: RetentionRules, now_us: int) -> bool:
    return _is_older(segment.last_observed_at_us, segment.kind, rules, now_us)


def _is_older(last_us: int, kind: str, rules: RetentionRules, now_us: int) -> bool:
    days = rules.max_age_days.get(kind, 0)
    return bool(days) and last_us < now_us - days * DAY_US


def _without(segments: Iterable[Segment], gone: Iterable[Segment]) -> list[Segment]:
    paths = {one.path for one in gone}
    return [one for one in segments if one.path not in paths]


def _first_bytes(segments: Iterable[Segment], wanted_bytes: int) -> list[Segment]:
    """The first segments that together have at least so many bytes."""
    taken: list[Segment] = []
    for one in segments:
        if wanted_bytes <= 0:
            break
        taken.append(one)
        wanted_bytes -= one.size_bytes
    return taken


def retain(head: apsw.Connection, gone: Sequence[Removal], *, host: str, now_us: int, grace_us: int) -> None:
    """Take segments out of the catalogue and record it as `ledger_event`s, in one transaction."""
    if not gone:
        return
    with transaction(head):
        discard(head, [one.segment for one in gone], removable_at_us=now_us + grace_us)
        insert_events(head, list(_events(gone, now_us)), host=host, boot_id=read_boot_id())


def _events(gone: Sequence[Removal], now_us: int) -> Iterator[Event]:
    def key(one: Removal) -> tuple[str, str]:
        return one.segment.kind, one.rule

    for (kind, rule), group in groupby(sorted(gone, key=key), key=key):
        segments = [one.segment for one in group]
        details = {
            "kind": kind,
            "rule": rule,
            "file_count": len(segments),
            "event_count": sum(one.event_count for one in segments),
            "size_bytes": total_bytes(segments),
        }
        values = {
            "event": "retention",
            "message": f"{details['event_count']:,} events of {kind} were removed by the rule of {rule}.",
            "started_at": min(one.first_observed_at_us for one in segments),
            "ended_at": max(one.last_observed_at_us for one in segments),
            "details": details,
        }
        yield Event("ledger_event", now_us, values)


def note_upkeep(head: apsw.Connection, *, now_us: int) -> bool:
    """Note that upkeep runs now; returns whether the rule by age rests because the clock leapt lately."""
    row = head.execute("select last_run_at_us, age_rests_until_us from upkeep").fetchone()
    last_run_us, rests_until_us = row or (now_us, 0)
    if abs(now_us - last_run_us) > LEAP_US:
        rests_until_us = now_us + AGE_RESTS_US
    elif rests_until_us > now_us + AGE_RESTS_US:
        rests_until_us = 0  # noted under a clock that has been put right since
    with transaction(head):
        head.execute("delete from upkeep")
        head.execute("insert into upkeep values (?, ?)", (now_us, rests_until_us))
    return now_us < rests_until_us


def holds(head: apsw.Connection) -> list[Hold]:
    """The held windows, in the order in which they were made."""
    if not has_table(head, "hold"):
        return []
    return [Hold(*row) for row in head.execute("select * from hold order by id")]


def add_hold(head: apsw.Connection, *, start_us: int, end_us: int, why: str, host: str, now_us: int) -> Hold:
    """Hold a window, until `release_hold`. It is recorded as a `ledger_event`, too."""
    with transaction(head):
        head.execute(
            "insert into hold (started_at_us, ended_at_us, why, created_at_us) values (?, ?, ?, ?)",
            (start_us, end_us, why, now_us),
        )
        hold = Hold(head.last_insert_rowid(), start_us, end_us, why, now_us)
        insert_events(head, [_hold_event("hold", hold, now_us)], host=host, boot_id=read_boot_id())
    return hold


def release_hold(head: apsw.Connection, number: int, *, host: str, now_us: int) -> Hold | None:
    """Release a held window; None where there is none of this number."""
    with transaction(head):
        row = head.execute("delete from hold where id = ? returning *", (number,)).fetchone()
        if row is None:
            return None
        hold = Hold(*row)
        insert_events(head, [_hold_event("release", hold, now_us)], host=host, boot_id=read_boot_id())
    return hold


def _hold_event(event: str, hold: Hold, now_us: int) -> Event:
    verb = "is held against" if event == "hold" else "is open again to"
    values = {
        "event": event,
        "message": f"A window {verb} retention{f': {hold.why}' if hold.why else ''}.",
        "started_at": hold.started_at_us,
        "ended_at": hold.ended_at_us,
        "details": {"hold": hold.id},
    }
    return Event("ledger_event", now_us, values)
