"""A program's own requests: in the ledger once the log is closed, and never in the program's way."""

import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import request_log
from collector.request_log import RequestLog, event_id
from store.ledger import Ledger
from store.snapshot import LedgerReader

VALUES = {"operation": "trend", "status": "ok", "method": "tools/call"}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "ledger"
    Ledger(folder).close()
    return folder


def open_log(folder):
    return RequestLog(folder, source="mcp", service="gpuledger")


def recorded(folder):
    """The request events of the ledger, without what is NULL."""
    with LedgerReader(folder) as reader:
        rows = reader.snapshot(["request"])["request"].tail.to_pylist()
    return [{column: value for column, value in row.items() if value is not None} for row in rows]


# --- what is written


def test_requests_are_in_the_ledger_when_the_log_is_closed(folder):
    log = open_log(folder)
    for number in range(25):
        log.record({**VALUES, "input_tokens": number}, duration_s=0.25)
    log.close()
    rows = recorded(folder)
    common = {"source": "mcp", "service": "gpuledger", "duration_seconds": 0.25, **VALUES}
    added = {"seq", "host", "boot_id", "observed_at", "event_id", "started_at", "ended_at"}
    assert [{column: row[column] for column in row if column not in added} for row in rows] == [
        {**common, "input_tokens": number} for number in range(25)
    ]
    assert all(added <= set(row) for row in rows)
    assert log.dropped == 0


def test_a_request_ends_when_it_is_recorded_and_began_its_duration_before(folder):
    log = open_log(folder)
    log.record(VALUES, duration_s=1.5)
    log.close()
    (row,) = recorded(folder)
    assert row["ended_at"] == row["observed_at"]
    assert row["ended_at"] - row["started_at"] == timedelta(seconds=1.5)
    milliseconds = uuid.UUID(row["event_id"]).int >> 80
    assert datetime.fromtimestamp(milliseconds / 1000, UTC) <= row["ended_at"]


def test_a_log_that_nothing_was_recorded_in_closes_and_leaves_the_ledger_as_it_was(folder):
    open_log(folder).close()
    assert recorded(folder) == []


# --- what is in the way of writing


def test_a_ledger_that_is_not_there_is_not_made_and_what_is_dropped_is_counted(tmp_path):
    log = open_log(tmp_path / "none")
    for _ in range(3):
        log.record(VALUES, duration_s=0.1)
    log.close()
    assert log.dropped == 3
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_ledger_stays_without_one(tmp_path):
    log = open_log(tmp_path)
    log.record(VALUES, duration_s=0.1)
    log.close()
    assert log.dropped == 1
    assert list(tmp_path.iterdir()) == []


RECORD_AS_NOBODY = """
import os, sys
from pathlib import Path
from collector.request_log import RequestLog
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
log = RequestLog(Path(sys.argv[1]), source="mcp", service="gpuledger")
for _ in range(4):
    log.record({"operation": "trend"}, duration_s=0.1)
log.close()
print(log.dropped)
"""


@pytest.fixture
def public_folder():
    """Return a folder that any user may enter; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_ledger_that_may_only_be_read_is_left_alone_and_what_is_dropped_is_counted(public_folder, folder):
    read_only = public_folder / "ledger"
    shutil.copytree(folder, read_only)
    for path in read_only.iterdir():
        path.chmod(0o444)
    read_only.chmod(0o555)
    before = {path.name: path.read_bytes() for path in read_only.iterdir()}
    done = subprocess.run(
        [sys.executable, "-P", "-c", RECORD_AS_NOBODY, read_only], capture_output=True, text=True, check=True
    )
    assert done.stdout == "4\n"
    assert {path.name: path.read_bytes() for path in read_only.iterdir()} == before
    read_only.chmod(0o755)


class GatedLedger:
    """A ledger whose appends begin, and end when the gate is opened."""

    def __init__(self):
        self.begun, self.gate = threading.Event(), threading.Event()
        self.events = []

    def append(self, events):
        self.begun.set()
        self.gate.wait()
        self.events += [event.values["operation"] for event in events]

    def close(self):
        pass


@pytest.fixture
def gated(monkeypatch):
    ledger = GatedLedger()
    monkeypatch.setattr(request_log, "Ledger", lambda _: ledger)
    monkeypatch.setattr(request_log, "QUEUE_MAX", 3)
    yield ledger
    ledger.gate.set()


def record_all(log, operations):
    for operation in operations:
        log.record({"operation": operation}, duration_s=0.1)


def test_a_ledger_that_takes_its_time_makes_no_request_wait_and_what_does_not_fit_is_counted(folder, gated):
    log = open_log(folder)
    record_all(log, "a")
    gated.begun.wait()
    record_all(log, "bcdef")  # returns, though nothing is being written
    assert log.dropped == 2
    gated.gate.set()
    log.close()
    assert gated.events == ["a", "b", "c", "d"]


def test_a_ledger_that_hangs_does_not_hold_up_the_end_of_the_program(folder, gated, monkeypatch):
    monkeypatch.setattr(request_log, "CLOSE_TIME_LIMIT_S", 0.01)
    log = open_log(folder)
    record_all(log, "a")
    gated.begun.wait()
    record_all(log, "bcd")
    log.close()
    assert gated.events == []


def test_a_request_that_cannot_be_written_costs_its_batch_and_the_log_goes_on(folder, gated, caplog):
    good, log = gated.append, open_log(folder)

    def append(events):
        good(events)
        if "b" in gated.events[-len(events) :]:
            raise ValueError("request has no field 'colour' to be given")

    gated.append = append
    gated.gate.set()
    for operation in "abc":
        gated.begun.clear()
        record_all(log, operation)
        gated.begun.wait()
    log.close()
    assert gated.events == ["a", "b", "c"]
    assert log.dropped == 1
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "request has no field 'colour' to be given; this server's own requests are not recorded")
    ]


def test_what_is_recorded_after_the_close_is_counted_as_dropped(folder):
    log = open_log(folder)
    log.close()
    log.record(VALUES, duration_s=0.1)
    assert log.dropped == 1
    assert recorded(folder) == []


def test_a_full_batch_is_written_while_more_is_coming(folder, gated, monkeypatch):
    monkeypatch.setattr(request_log, "BATCH_MAX", 2)
    batches = []
    good = gated.append
    gated.append = lambda events: batches.append(len(events)) or good(events)
    log = open_log(folder)
    record_all(log, "a")
    gated.begun.wait()
    record_all(log, "bcd")
    gated.gate.set()
    log.close()
    assert (batches, gated.events) == ([1, 2, 1], ["a", "b", "c", "d"])


# --- the identity


@given(st.integers(0, 2**48 * 1000 - 1))
def test_an_identity_is_a_uuid_of_version_7_that_says_its_millisecond(time_us):
    identity = uuid.UUID(event_id(time_us))
    assert (identity.version, identity.variant) == (7, uuid.RFC_4122)
    assert identity.int >> 80 == time_us // 1000


@given(st.lists(st.integers(1_795_435_200_000_000, 1_795_435_200_010_000), min_size=2, unique=True))
def test_identities_sort_by_time_to_the_microsecond(times_us):
    by_identity = sorted(times_us, key=event_id)
    assert by_identity == sorted(times_us)


def test_identities_of_one_microsecond_are_all_different():
    assert len({event_id(1_795_435_200_000_000) for _ in range(10_000)}) == 10_000
