"""The state of a ledger: who records, how much there is, what is absent."""

import os
from datetime import timedelta, timezone

import pytest

from query.present.status import KindStatus, LedgerStatus, ledger_status
from store.events import KINDS
from store.ledger import CollectorLock


def of_kind(status: LedgerStatus, name: str) -> KindStatus:
    [found] = [kind for kind in status.kinds if kind.kind == name]
    return found


def test_an_empty_ledger_holds_every_kind_and_nothing_of_it(book):
    status = ledger_status(book.source, now=book.at(0))
    assert status == LedgerStatus(
        folder=book.folder,
        ledger_id=status.ledger_id,
        size_bytes=sum(path.stat().st_size for path in book.folder.glob("head.sqlite*")),
        collector_pid=None,
        collector_started_at=None,
        newest_age_s=None,
        is_recording=False,
        probes={},
        kinds=tuple(KindStatus(kind, 0, None, None, None, 0, 0) for kind in KINDS),
        absent={},
    )
    assert len(status.ledger_id) == 36


def test_kinds_are_counted_over_segments_and_tail(book):
    book.record(book.gpu(s) for s in range(10))
    book.record([book.host(s) for s in range(2, 6)])
    book.append([book.event("request", 50, service="x")])
    status = ledger_status(book.source, now=book.at(60))
    sealed = {
        kind: sum(path.stat().st_size for path in book.folder.glob(f"events/{kind}/**/*.parquet")) for kind in KINDS
    }
    # the first half of each, and of the GPU's the second as well: sealing takes the whole tail
    expected = {
        "gpu_sample": KindStatus("gpu_sample", 10, book.at(0), book.at(9), 51.0, 2, sealed["gpu_sample"]),
        "system_sample": KindStatus("system_sample", 4, book.at(2), book.at(5), 55.0, 1, sealed["system_sample"]),
        "request": KindStatus("request", 1, book.at(50), book.at(50), 10.0, 0, 0),
    }
    assert {kind.kind: kind for kind in status.kinds if kind.event_count} == expected
    assert status.newest_age_s == 51.0  # a request is no sample
    assert status.size_bytes == sum(path.stat().st_size for path in book.folder.rglob("*") if path.is_file()) - sum(
        path.stat().st_size for path in book.folder.glob("*.lock")
    )


def test_it_is_recording_while_a_collector_holds_the_ledger_and_samples_are_fresh(book):
    book.record([book.gpu(s) for s in range(4)])
    lock = CollectorLock(book.folder)
    try:
        fresh = ledger_status(book.source, now=book.at(4))
        stale = ledger_status(book.source, now=book.at(60))
    finally:
        lock.close()
    released = ledger_status(book.source, now=book.at(4))
    assert (fresh.is_recording, fresh.collector_pid, fresh.newest_age_s) == (True, os.getpid(), 1.0)
    assert fresh.collector_started_at is not None
    assert (stale.is_recording, stale.collector_pid, stale.newest_age_s) == (False, os.getpid(), 57.0)
    assert (released.is_recording, released.collector_pid, released.collector_started_at) == (False, None, None)


def test_a_collector_that_has_not_sampled_yet_is_not_recording(book):
    lock = CollectorLock(book.folder)
    try:
        assert not ledger_status(book.source, now=book.at(0)).is_recording
    finally:
        lock.close()


def test_a_collector_that_is_just_starting_has_no_number_yet(book):
    lock = CollectorLock(book.folder)
    try:
        (book.folder / "collector.lock").write_text("")
        status = ledger_status(book.source, now=book.at(0))
    finally:
        lock.close()
    assert (status.collector_pid, status.collector_started_at) == (None, None)


def test_what_is_absent_now_is_said_with_its_reason(book):
    book.record(
        [
            book.gpu(0, 0, absence={"power_watts": "lost"}),
            book.gpu(1, 0, absence={"fan_speed_percent": "not_supported"}),
            book.gpu(1, 1, up=False, absence={"*": "lost"}),
            book.host(1, absence={"pressure_cpu_full_seconds": "not_supported", "disk": "no_permission"}),
        ]
    )
    assert ledger_status(book.source, now=book.at(1)).absent == {
        "gpu 0 fan_speed_percent": "not_supported",
        "gpu 1 *": "lost",
        "host pressure_cpu_full_seconds": "not_supported",
        "host disk": "no_permission",
    }
    assert ledger_status(book.source, now=book.at(60)).absent == {
        "gpu 0 *": "stale",
        "gpu 1 *": "stale",
        "host *": "stale",
    }


def test_each_probe_says_what_it_watches(book):
    told = [("gpu", "no GPU: no driver"), ("host", "host"), ("gpu", "2 GPUs"), ("other", "not shown")]
    book.record(
        book.event("ledger_event", s, event="probe_status", probe=probe, message=words)
        for s, (probe, words) in enumerate(told)
    )
    assert ledger_status(book.source, now=book.at(9)).probes == {"host": "host", "gpu": "2 GPUs"}


def test_times_are_in_the_zone_of_the_question(book):
    book.record([book.gpu(0), book.gpu(1)])
    zone = timezone(timedelta(hours=5, minutes=45))
    found = of_kind(ledger_status(book.source, now=book.at(2).astimezone(zone)), "gpu_sample")
    assert [found.first_at.isoformat(), found.newest_at.isoformat()] == [
        "2026-11-22T13:45:00+05:45",
        "2026-11-22T13:45:01+05:45",
    ]


@pytest.mark.parametrize("seconds", [-5, 0])
def test_no_age_is_negative(book, seconds):
    book.record([book.gpu(0), book.gpu(0)])
    assert of_kind(ledger_status(book.source, now=book.at(seconds)), "gpu_sample").newest_age_s == 0.0
