"""Appending: durable, ordered, shared; and what stands in the tail."""

import math
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from store.errors import LedgerHeldError, LedgerUnusableError
from store.events import KINDS, Event
from store.frames import encode_frames, frames_to_arrow
from store.ledger import CollectorLock, Ledger, lock_holder, read_boot_id
from store.snapshot import LedgerReader


def tail_rows(folder: Path, kind: str) -> list[dict]:
    with LedgerReader(folder) as reader:
        return reader.snapshot([kind])[kind].tail.to_pylist()


def test_an_append_gives_the_range_of_seq_that_its_events_got(ledger, tick):
    assert ledger.append(tick(0)) == range(1, 3)
    assert ledger.append(tick(1) + tick(2)) == range(3, 7)
    assert ledger.append([]) == range(7, 7)


def test_appended_events_are_read_back_with_every_value_and_null_for_the_rest(ledger, folder, tick):
    ledger.append(tick(0))
    (row,) = tail_rows(folder, "gpu_sample")
    present = {name: value for name, value in row.items() if value is not None}
    assert present == {
        "seq": 1,
        "observed_at": datetime(2026, 11, 23, 12, tzinfo=UTC),
        "host": "spark-1",
        "boot_id": "boot-a",
        "gpu_uuid": "GPU-1",
        "gpu_index": 0,
        "utilization_percent": 0,
        "power_watts": 100.5,
        "energy_joules": Decimal("1000.125"),
        "absence": '{"fan_speed_percent":"not_supported"}',
    }
    assert list(row) == [column.name for column in KINDS["gpu_sample"].columns]


def test_rows_with_other_fields_or_in_another_order_keep_their_own_values():
    rows = [{"gpu_index": 0, "up": True}, {"up": False, "gpu_index": 1}, {"power_watts": 7.5, "gpu_index": 2}, {}]
    frames = encode_frames([Event("gpu_sample", 5, row) for row in rows], first_seq=1, host="h", boot_id="b")
    frames += encode_frames([Event("gpu_sample", 6, {"up": None, "gpu_uuid": "G"})], first_seq=5, host="h", boot_id="b")
    table = frames_to_arrow(KINDS["gpu_sample"], frames).select(["seq", "gpu_index", "up", "power_watts", "gpu_uuid"])
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (1, 0, True, None, None),
        (2, 1, False, None, None),
        (3, 2, None, 7.5, None),
        (4, None, None, None, None),
        (5, None, None, None, "G"),
    ]


def test_every_column_type_survives_the_way_through_a_frame():
    sample = {"up": True, "gpu_index": -1, "memory_used_bytes": 2**62, "energy_joules": 0.001, "power_watts": 0.5}
    request = {"duration_seconds": 1e-9, "gpu_uuids": ["A", "B"], "attributes": {"a": [1, None]}, "stream": False}
    values = {"gpu_sample": sample, "request": request}
    for kind, given in values.items():
        frames = encode_frames([Event(kind, 5, given)], first_seq=9, host="h", boot_id="b")
        (row,) = frames_to_arrow(KINDS[kind], frames).to_pylist()
        expected = {**given, "attributes": '{"a":[1,null]}'} if kind == "request" else given
        assert {name: float(row[name]) if name == "energy_joules" else row[name] for name in given} == expected


def test_a_frame_of_an_older_program_lacks_later_columns_and_reads_as_null():
    frames = encode_frames([Event("gpu_sample", 5, {"gpu_index": 1})], first_seq=1, host="h", boot_id="b")
    (row,) = frames_to_arrow(KINDS["gpu_sample"], frames).to_pylist()
    assert row["memory_temperature_celsius"] is None


def test_a_decimal_is_what_arrow_would_cast_it_to():
    given = [0.0, None, 1234567.891, -0.25, 999_999_999_999.999, 5]
    wanted = pa.array(given, pa.float64()).cast(pa.decimal128(18, 3), safe=False)
    found = joules(given)
    assert found.combine_chunks() == wanted
    found.validate(full=True)


@pytest.mark.parametrize("odd", [1e15, -1e15, math.nan, math.inf, -math.inf])
def test_what_no_decimal_can_hold_is_null_and_never_zero(odd):
    assert joules([1.5, odd]).to_pylist() == [Decimal("1.500"), None]


def joules(given: list[float | None]) -> pa.ChunkedArray:
    events = [Event("gpu_sample", 1, {"gpu_uuid": "GPU-1", "energy_joules": value}) for value in given]
    frames = encode_frames(events, first_seq=1, host="a", boot_id="b")
    return frames_to_arrow(KINDS["gpu_sample"], frames)["energy_joules"]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event("gpu_smaple", 1, {}), "'gpu_smaple' is not a declared kind of event"),
        (Event("gpu_sample", 1, {"util": 3}), "gpu_sample has no field 'util' to be given"),
        (Event("gpu_sample", 1, {"seq": 3}), "gpu_sample has no field 'seq' to be given"),
    ],
)
def test_an_undeclared_kind_or_field_is_refused_and_nothing_of_the_batch_is_written(
    ledger, folder, tick, event, message
):
    with pytest.raises(ValueError, match=message):
        ledger.append([*tick(0), event])
    assert tail_rows(folder, "gpu_sample") == []
    assert ledger.append(tick(0)) == range(1, 3)


def test_two_appenders_share_one_order(ledger, folder, tick):
    with Ledger(folder, host="spark-1", boot_id="boot-a") as other:
        ranges = [appender.append(tick(number)) for number in range(20) for appender in (ledger, other)]
    assert [seq for seqs in ranges for seq in seqs] == list(range(1, 81))


def test_many_processes_append_at_once_and_no_seq_is_given_twice(folder):
    script = (
        "import sys; from pathlib import Path; from store.ledger import Ledger; from store.events import Event\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for number in range(50): print(ledger.append([Event('annotation', number, {'text': sys.argv[2]})]).start)\n"
    )
    Ledger(folder).close()
    children = [
        subprocess.Popen([sys.executable, "-c", script, str(folder), name], stdout=subprocess.PIPE, text=True)
        for name in "abcd"
    ]
    given = sorted(int(line) for child in children for line in child.communicate(timeout=120)[0].split())
    assert [child.returncode for child in children] == [0, 0, 0, 0]
    assert given == list(range(1, 201))
    assert [row["seq"] for row in tail_rows(folder, "annotation")] == given


def test_seq_goes_on_after_the_ledger_is_opened_again(folder, tick):
    for number in range(3):
        with Ledger(folder) as opened:
            assert opened.append(tick(number)) == range(2 * number + 1, 2 * number + 3)


def test_an_append_to_a_full_disk_is_refused_whole_and_works_again_afterwards(ledger, folder, tick):
    ledger.append(tick(0))
    # SQLite answers a database that may not grow exactly as it answers a full disk.
    pages = ledger._head.pragma("page_count")
    ledger._head.pragma("max_page_count", pages)
    with pytest.raises(LedgerUnusableError, match=r"took no events .*full.*: see that its disk has space"):
        ledger.append([Event("annotation", 1, {"text": "x" * 100_000})])
    ledger._head.pragma("max_page_count", pages + 1000)
    assert ledger.append(tick(1)) == range(3, 5)
    assert [row["seq"] for row in tail_rows(folder, "gpu_sample")] == [1, 3]


def test_the_head_is_in_wal_mode_and_syncs_every_commit(ledger):
    assert ledger._head.pragma("journal_mode") == "wal"
    assert ledger._head.pragma("synchronous") == 2


def test_a_commit_is_synced_to_disk_before_append_returns(folder, tmp_path):
    script = (
        "import sys, os; from pathlib import Path; from store.ledger import Ledger; from store.events import Event\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "os.write(2, b'BEFORE'); ledger.append([Event('annotation', 1, {'text': 'a'})]); os.write(2, b'AFTER')\n"
    )
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-o",
        str(trace),
        "-e",
        "trace=fdatasync,fsync,write",
        sys.executable,
        "-c",
        script,
        str(folder),
    ]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    during = trace.read_text().split('"BEFORE"', 1)[1].split('"AFTER"', 1)[0]
    assert "sync(" in during


def test_a_second_collector_is_refused_with_the_pid_and_start_of_the_first(ledger, folder):
    lock = CollectorLock(folder)
    holder = lock_holder(folder)
    assert holder is not None
    assert holder["pid"] == os.getpid()
    with pytest.raises(LedgerHeldError) as refusal:
        CollectorLock(folder)
    assert str(refusal.value) == (
        f"The ledger {folder} is held by another collector (pid {os.getpid()}, started {holder['started_at']}): "
        "stop that one first, or name another folder with --data"
    )
    lock.close()
    assert lock_holder(folder) is None
    CollectorLock(folder).close()


def test_the_lock_falls_with_its_process_however_it_dies(ledger, folder):
    script = (
        "import sys, time; from pathlib import Path; from store.ledger import CollectorLock\n"
        "lock = CollectorLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"held\n"
        assert lock_holder(folder)["pid"] == child.pid
        child.kill()
    assert lock_holder(folder) is None
    CollectorLock(folder).close()


def test_asking_for_the_holder_never_keeps_a_collector_out(ledger, folder):
    CollectorLock(folder).close()
    assert lock_holder(folder) is None
    CollectorLock(folder).close()


def test_the_boot_id_is_the_kernels_and_unknown_without_one(tmp_path):
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    assert read_boot_id(tmp_path) == "unknown"
    (tmp_path / "sys/kernel/random/boot_id").write_text("116d4400-4005\n")
    assert read_boot_id(tmp_path) == "116d4400-4005"


def test_the_head_is_a_plain_sqlite_file_with_our_application_id(ledger, folder):
    ledger.close()
    connection = sqlite3.connect(folder / "head.sqlite")
    assert connection.execute("pragma application_id").fetchone() == (int.from_bytes(b"gpld"),)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()
