"""Retention: whole files go, oldest first, by age, size and free space; what is held stays; it is written down."""

from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.events import Event
from store.head import open_head
from store.ledger import Ledger
from store.repair.quarantine import Repairer
from store.segments import Segment, catalogued, enter_segments
from store.snapshot import LedgerReader
from store.times import DAY_US
from store.upkeep import sealing
from store.upkeep.retention import (
    Hold,
    Removal,
    RetentionRules,
    add_hold,
    holds,
    may_exceed,
    note_upkeep,
    release_hold,
    removals,
    retain,
)
from store.upkeep.run import compact, expired, upkeep
from store.upkeep.sealing import seal
from store.upkeep.settings import UpkeepSettings

START_US = 1_795_392_000_000_000  # 2026-11-23 00:00:00 UTC
PLENTY = 10**18


def segment(day: int, *, kind: str = "gpu_sample", size_bytes: int = 100, number: int = 0) -> Segment:
    first_us = START_US + day * DAY_US
    path = f"events/{kind}/v=1/date={day}/a-{number}.parquet"
    return Segment(path, kind, 1, 2, "a", number, number, 10, first_us, first_us + DAY_US - 1, size_bytes)


def gone(segments, rules, *, held=(), now_day: float, free_bytes: int = PLENTY, age_rests: bool = False) -> list:
    now_us = START_US + int(now_day * DAY_US)
    found = removals(segments, held, rules, now_us=now_us, free_bytes=free_bytes, age_rests=age_rests)
    return [(one.segment.kind, (one.segment.first_observed_at_us - START_US) // DAY_US, one.rule) for one in found]


# --- the rules


def test_a_file_goes_by_age_once_its_newest_event_is_too_old():
    rules = RetentionRules(max_age_days={"gpu_sample": 3, "annotation": 0})
    days = [segment(day) for day in range(5)] + [segment(0, kind="annotation"), segment(0, kind="request")]
    assert gone(days, rules, now_day=3.999) == []
    assert gone(days, rules, now_day=4) == [("gpu_sample", 0, "age")]
    assert gone(days, rules, now_day=5) == [("gpu_sample", 0, "age"), ("gpu_sample", 1, "age")]
    assert gone(days, rules, now_day=6, age_rests=True) == []


def test_the_oldest_files_of_all_kinds_go_until_the_rest_fits_and_what_says_why_goes_last():
    days = [segment(day, kind=kind) for day in range(3) for kind in ("gpu_event", "gpu_sample", "request")]
    assert gone(days, RetentionRules(max_size_bytes=900), now_day=3) == []
    assert gone(days, RetentionRules(max_size_bytes=650), now_day=3) == [
        ("gpu_sample", 0, "size"),
        ("request", 0, "size"),
        ("gpu_sample", 1, "size"),
    ]
    assert gone(days, RetentionRules(max_size_bytes=250), now_day=3)[-1] == ("gpu_event", 0, "size")


@pytest.mark.parametrize(
    ("rules", "free_bytes", "is_exceeded"),
    [
        (RetentionRules(), 0, False),
        (RetentionRules(max_age_days={"request": 1, "gpu_sample": 3}), PLENTY, False),
        (RetentionRules(max_age_days={"gpu_sample": 2.9}), PLENTY, True),
        (RetentionRules(max_size_bytes=300), PLENTY, False),
        (RetentionRules(max_size_bytes=299), PLENTY, True),
        (RetentionRules(min_free_bytes=100, free_space_keeps_days=1), 100, False),
        (RetentionRules(min_free_bytes=100, free_space_keeps_days=1), 99, True),
    ],
)
def test_that_no_rule_is_exceeded_is_known_without_going_through_the_catalogue(folder, rules, free_bytes, is_exceeded):
    days = [segment(0), segment(1), segment(2)]
    now_us = START_US + 4 * DAY_US - 1
    with closing(open_head(folder)) as head:
        with head:
            enter_segments(head, days, now_us=0)
        assert may_exceed(head, rules, now_us=now_us, free_bytes=free_bytes) == is_exceeded
    assert bool(removals(days, [], rules, now_us=now_us, free_bytes=free_bytes)) == is_exceeded


def test_free_space_is_made_of_old_files_only_and_counts_what_the_other_rules_give():
    days = [segment(day) for day in range(10)]
    rules = RetentionRules(min_free_bytes=1000, free_space_keeps_days=7)
    assert gone(days, rules, now_day=10, free_bytes=1000) == []
    assert gone(days, rules, now_day=10, free_bytes=899) == [
        ("gpu_sample", 0, "free space"),
        ("gpu_sample", 1, "free space"),
    ]
    assert [day for _, day, _ in gone(days, rules, now_day=10, free_bytes=0)] == [0, 1, 2]
    rules = RetentionRules(max_age_days={"gpu_sample": 9}, max_size_bytes=800, min_free_bytes=1000)
    assert gone(days, rules, now_day=10, free_bytes=750) == [
        ("gpu_sample", 0, "age"),
        ("gpu_sample", 1, "size"),
        ("gpu_sample", 2, "free space"),
    ]


def test_a_held_window_keeps_each_file_that_meets_it_under_every_rule():
    days = [segment(day) for day in range(5)]
    held = [Hold(1, START_US + DAY_US, START_US + 2 * DAY_US, "the outage", 0)]
    rules = RetentionRules(max_age_days={"gpu_sample": 0.5}, max_size_bytes=1, min_free_bytes=10**6)
    assert [day for _, day, _ in gone(days, rules, held=held, now_day=50, free_bytes=0)] == [0, 2, 3, 4]
    assert [day for _, day, _ in gone(days, RetentionRules(max_size_bytes=300), held=held, now_day=5)] == [0, 2]


# --- a ledger


@pytest.fixture
def head(folder):
    opened = open_head(folder)
    yield opened
    opened.close()


@pytest.fixture
def five_days(ledger, folder):
    """A ledger with one sealed file of gpu_sample on each of five days, 20 events in all."""
    for day in range(5):
        ledger.append([sample(day, number) for number in range(4)])
    seal(folder)
    return folder


def sample(day: int, number: int) -> Event:
    return Event("gpu_sample", START_US + day * DAY_US + number * 1_000_000, {"gpu_uuid": "GPU-1", "up": True})


def seqs(folder: Path, kind: str = "gpu_sample") -> list[int]:
    with LedgerReader(folder) as reader:
        events = reader.snapshot([kind])[kind]
    found = events.tail["seq"].to_pylist()
    for path in events.files:
        found += pq.ParquetFile(path).read(["seq"])["seq"].to_pylist()
    return sorted(found)


def told(folder: Path) -> list[dict]:
    with LedgerReader(folder) as reader:
        return reader.snapshot(["ledger_event"])["ledger_event"].tail.to_pylist()


def after_days(days: float) -> int:
    return START_US + int(days * DAY_US)


def test_what_goes_leaves_the_answers_at_once_and_the_disk_after_the_grace_and_is_written_down(five_days):
    rules = UpkeepSettings(grace_s=600, retention=RetentionRules(max_age_days={"gpu_sample": 2}))
    with LedgerReader(five_days) as reader:
        before = reader.snapshot(["gpu_sample"])["gpu_sample"].files
    now_us = after_days(4)
    done = upkeep(five_days, rules, now_us=now_us)
    assert [one.segment.first_seq for one in done.removed] == [1, 5]
    assert seqs(five_days) == [*range(9, 21)]
    assert all(path.exists() for path in before)
    (event,) = told(five_days)
    assert event["event"] == "retention"
    assert event["message"] == "8 events of gpu_sample were removed by the rule of age."
    size_bytes = sum(path.stat().st_size for path in before[:2])
    assert event["details"] == (
        f'{{"kind":"gpu_sample","rule":"age","file_count":2,"event_count":8,"size_bytes":{size_bytes}}}'
    )
    assert event["started_at"].timestamp() * 1e6 == START_US
    assert event["ended_at"].timestamp() * 1e6 == START_US + DAY_US + 3_000_000
    upkeep(five_days, rules, now_us=now_us + 600_000_000)
    assert [path.exists() for path in before] == [False, False, True, True, True]
    assert not before[0].parent.exists()  # nor does the empty folder of that day stay
    assert upkeep(five_days, rules, now_us=now_us + 700_000_000).removed == []


def test_a_ledger_that_is_too_large_shrinks_to_its_size_and_stays_there(five_days, head):
    sizes = [one.size_bytes for one in catalogued(head)]
    rules = UpkeepSettings(grace_s=0, retention=RetentionRules(max_size_bytes=sum(sizes[-2:])))
    upkeep(five_days, rules, now_us=after_days(6))
    assert seqs(five_days) == [*range(13, 21)]


def test_a_disk_too_full_to_seal_is_still_made_room_on(five_days, ledger, monkeypatch):
    ledger.append([sample(5, 0)])

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealing, "_write", no_room)
    rules = UpkeepSettings(grace_s=0, retention=RetentionRules(max_age_days={"gpu_sample": 2}))
    done = upkeep(five_days, rules, now_us=after_days(4))
    assert len(done.removed) == 2
    assert done.problems == [
        f"The tail of the ledger {five_days} was not sealed and is kept as it is (no space left on device): "
        "see that its disk has space and is writable"
    ]
    assert seqs(five_days) == [*range(9, 22)]


def test_files_on_their_way_out_count_as_free_space(five_days, head, monkeypatch):
    class Full:
        f_bavail, f_frsize = 0, 4096

    monkeypatch.setattr("os.statvfs", lambda _: Full)
    first = catalogued(head)[0].size_bytes
    rules = UpkeepSettings(retention=RetentionRules(min_free_bytes=first, free_space_keeps_days=0))
    for _ in range(3):  # the disk stays full until the grace is over
        upkeep(five_days, rules, now_us=after_days(6))
    assert seqs(five_days) == [*range(5, 21)]


def test_a_hold_keeps_its_window_until_it_is_released_and_both_are_written_down(five_days, head):
    rules = UpkeepSettings(grace_s=0, retention=RetentionRules(max_age_days={"gpu_sample": 1}))
    held = add_hold(
        head, start_us=after_days(1), end_us=after_days(1.1), why="the outage", host="spark-1", now_us=after_days(5)
    )
    assert holds(head) == [held] == [Hold(1, after_days(1), after_days(1.1), "the outage", after_days(5))]
    upkeep(five_days, rules, now_us=after_days(9))
    assert seqs(five_days) == [5, 6, 7, 8]
    assert release_hold(head, 2, host="spark-1", now_us=after_days(9)) is None
    assert release_hold(head, 1, host="spark-1", now_us=after_days(9)) == held
    upkeep(five_days, rules, now_us=after_days(9.01))
    assert seqs(five_days) == []
    seal(five_days)
    assert holds(head) == []


def test_a_hold_and_its_release_are_ledger_events(ledger, folder, head):
    add_hold(head, start_us=1_000_000, end_us=2_000_000, why="the outage", host="spark-1", now_us=5_000_000)
    release_hold(head, 1, host="spark-1", now_us=6_000_000)
    found = [(row["event"], row["message"], row["details"], row["host"]) for row in told(folder)]
    assert found == [
        ("hold", "A window is held against retention: the outage.", '{"hold":1}', "spark-1"),
        ("release", "A window is open again to retention: the outage.", '{"hold":1}', "spark-1"),
    ]


def test_a_clock_that_leaps_costs_no_history(five_days, head):
    rules = UpkeepSettings(grace_s=0, retention=RetentionRules(max_age_days={"gpu_sample": 30}))
    upkeep(five_days, rules, now_us=after_days(5))
    for day in (3000, 3000.5, 3000.99):
        upkeep(five_days, rules, now_us=after_days(day))
    upkeep(five_days, rules, now_us=after_days(5.01))
    assert len(seqs(five_days)) == 20


def test_after_a_leap_the_rule_by_age_rests_for_a_day_and_works_again(head):
    def rests(day: float) -> bool:
        return note_upkeep(head, now_us=after_days(day))

    assert [rests(day) for day in (1, 1.5, 2.4)] == [False, False, False]
    assert [rests(day) for day in (9, 9.5, 9.99, 10, 10.5)] == [True, True, True, False, False]
    assert [rests(day) for day in (5, 5.9, 6)] == [True, True, False]  # set back


def test_removed_and_told_are_one_transaction(five_days, head, monkeypatch):
    found = [Removal(one, "age") for one in catalogued(head)]
    monkeypatch.setattr("store.upkeep.retention._events", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError):
        retain(head, found, host="spark-1", now_us=after_days(9), grace_us=0)
    assert len(seqs(five_days)) == 20
    assert head.execute("select count(*) from removable_file").get == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 6)),
        st.tuples(st.just("seal"), st.just(0)),
        st.tuples(st.just("upkeep"), st.integers(0, 8)),
        st.tuples(st.just("retain"), st.integers(0, 8)),
        st.tuples(st.just("hold"), st.integers(0, 6)),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_whatever_is_done_in_whatever_order_only_what_a_rule_took_is_gone(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("any") / "ledger"
    age_days = 3
    rules = UpkeepSettings(grace_s=0, retention=RetentionRules(max_age_days={"gpu_sample": age_days}))
    day_of: dict[int, int] = {}  # seq to the day of its event
    held_days: set[int] = set()
    oldest_kept = 0
    with Ledger(folder, host="spark-1", boot_id="b") as ledger:
        for step, day in steps:
            before = set(seqs(folder))
            if step == "append":
                new = ledger.append([sample(day, number) for number in range(3)])
                day_of |= dict.fromkeys(new, day)
                before |= set(new)
            elif step == "seal":
                seal(folder)
            elif step == "upkeep":
                upkeep(folder, UpkeepSettings(grace_s=0), now_us=after_days(day))
            else:
                with_head(folder, step, day, rules)
                held_days |= {day} if step == "hold" else set()
                oldest_kept = day - age_days if step == "retain" else 0
            after = set(seqs(folder))
            assert after <= before
            lost_days = {day_of[seq] for seq in before - after}
            assert step == "retain" or not lost_days
            assert all(lost < oldest_kept and lost not in held_days for lost in lost_days)
    with LedgerReader(folder) as reader:
        assert all(path.exists() for path in reader.snapshot(["gpu_sample"])["gpu_sample"].files)


def with_head(folder: Path, step: str, day: int, rules: UpkeepSettings) -> None:
    head = open_head(folder)
    now_us = after_days(day)
    try:
        if step == "hold":
            add_hold(head, start_us=now_us, end_us=now_us + DAY_US, why="", host="spark-1", now_us=now_us)
        else:
            retain(head, expired(folder, head, rules, now_us=now_us), host="spark-1", now_us=now_us, grace_us=0)
            compact(folder, head, Repairer(now_us, "spark-1", "b"), grace_s=0)
    finally:
        head.close()
