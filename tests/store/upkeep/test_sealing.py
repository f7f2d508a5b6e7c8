"""Sealing: the tail becomes Parquet, and every event stays there exactly once."""

import fcntl
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from store.errors import LedgerFullError
from store.events import KINDS, Event
from store.ledger import Ledger
from store.snapshot import LedgerReader
from store.upkeep import sealing
from store.upkeep.run import main
from store.upkeep.sealing import seal

DAY_US = 86_400_000_000


def all_seqs(folder: Path) -> list[int]:
    """Every seq that a reader sees, over segments and tail of all kinds."""
    with LedgerReader(folder) as reader:
        snapshot = reader.snapshot(KINDS)
    seqs: list[int] = []
    for events in snapshot.values():
        seqs += events.tail["seq"].to_pylist()
        for path in events.files:
            seqs += pq.read_table(path, columns=["seq"])["seq"].to_pylist()
    return sorted(seqs)


def files_under(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "events" in path.parts
    )


def test_sealing_moves_the_tail_into_one_file_per_kind_and_day(ledger, folder, tick):
    for number in range(3):
        ledger.append(tick(number))
    done = seal(folder)
    assert done.event_count == 6
    assert (
        [segment.path for segment in done.segments]
        == files_under(folder)
        == [
            "events/gpu_sample/v=1/date=2026-11-23/spark-1-1-5-0.parquet",
            "events/system_sample/v=1/date=2026-11-23/spark-1-2-6-0.parquet",
        ]
    )
    with LedgerReader(folder) as reader:
        snapshot = reader.snapshot(["gpu_sample"])["gpu_sample"]
    assert snapshot.tail.num_rows == 0
    assert snapshot.files == (folder / "events/gpu_sample/v=1/date=2026-11-23/spark-1-1-5-0.parquet",)


def test_sealed_rows_equal_the_rows_of_the_tail(ledger, folder, tick):
    for number in range(5):
        ledger.append(tick(number))
    with LedgerReader(folder) as reader:
        before = reader.snapshot(["gpu_sample"])["gpu_sample"].tail
    seal(folder)
    (path,) = (folder / "events/gpu_sample").rglob("*.parquet")
    after = pq.read_table(path)
    assert after.schema.names == before.schema.names
    assert after.to_pylist() == before.to_pylist()


def test_duckdb_and_polars_read_a_segment_alike(ledger, folder, tick):
    ledger.append(tick(7))
    seal(folder)
    (path,) = (folder / "events/gpu_sample").rglob("*.parquet")
    columns = "seq, utilization_percent, power_watts, energy_joules"
    from_duckdb = duckdb.sql(f"select {columns} from read_parquet('{path}')").fetchall()
    from_polars = pl.read_parquet(path).select(columns.split(", ")).rows()
    assert [tuple(map(float, row)) for row in from_duckdb] == [(1.0, 7.0, 107.5, 1007.125)]
    assert from_polars == from_duckdb


def test_the_footer_describes_the_segment_without_the_head(ledger, folder, tick):
    for number in range(2):
        ledger.append(tick(number))
    seal(folder)
    (path,) = (folder / "events/gpu_sample").rglob("*.parquet")
    footer = pq.read_metadata(path).metadata
    with LedgerReader(folder) as reader:
        ledger_id = reader.ledger_id
    ours = {key.decode(): value.decode() for key, value in footer.items() if key.startswith(b"gpuledger.")}
    assert ours == {
        "gpuledger.ledger_id": ledger_id,
        "gpuledger.kind": "gpu_sample",
        "gpuledger.version": "1",
        "gpuledger.level": "0",
        "gpuledger.host": "spark-1",
        "gpuledger.first_seq": "1",
        "gpuledger.last_seq": "3",
        "gpuledger.event_count": "2",
        "gpuledger.first_observed_at": "2026-11-23T12:00:00.000000+00:00",
        "gpuledger.last_observed_at": "2026-11-23T12:00:01.000000+00:00",
    }


def test_events_around_midnight_go_to_the_utc_day_they_belong_to(ledger, folder):
    midnight_us = datetime(2026, 11, 24, tzinfo=UTC).timestamp() * 1e6
    times = [midnight_us - 1, midnight_us, midnight_us + 1, midnight_us - 2]
    ledger.append([Event("annotation", int(time_us), {"text": "x"}) for time_us in times])
    done = seal(folder)
    assert [(one.path.split("/")[3], one.first_seq, one.last_seq, one.event_count) for one in done.segments] == [
        ("date=2026-11-23", 1, 4, 2),
        ("date=2026-11-24", 2, 3, 2),
    ]
    assert all_seqs(folder) == [1, 2, 3, 4]


def test_two_hosts_in_one_tail_go_to_files_of_their_own(ledger, folder, tick):
    ledger.append(tick(0))
    with Ledger(folder, host="../evil host", boot_id="b") as other:
        other.append(tick(0))
    seal(folder)
    assert [path for path in files_under(folder) if "gpu_sample" in path] == [
        "events/gpu_sample/v=1/date=2026-11-23/.._evil_host-3-3-0.parquet",
        "events/gpu_sample/v=1/date=2026-11-23/spark-1-1-1-0.parquet",
    ]
    assert all_seqs(folder) == [1, 2, 3, 4]


def test_sealing_an_empty_tail_writes_nothing(ledger, folder):
    assert seal(folder).event_count == 0
    assert files_under(folder) == []


def test_sealing_while_another_process_seals_leaves_it_to_that_one(ledger, folder, tick):
    ledger.append(tick(0))
    with (folder / "seal.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert seal(folder).event_count == 0
    assert seal(folder).event_count == 2


def test_what_is_appended_while_sealing_stays_in_the_tail(ledger, folder, tick, monkeypatch):
    ledger.append(tick(0))
    announce = sealing.announce

    def append_meanwhile(*arguments):
        announce(*arguments)
        ledger.append(tick(1))

    monkeypatch.setattr(sealing, "announce", append_meanwhile)
    assert seal(folder).event_count == 2
    assert all_seqs(folder) == [1, 2, 3, 4]
    with LedgerReader(folder) as reader:
        assert reader.snapshot(["gpu_sample"])["gpu_sample"].tail["seq"].to_pylist() == [3]


def test_a_sealing_that_fails_keeps_the_tail_and_the_next_one_cleans_up(ledger, folder, tick, monkeypatch):
    ledger.append(tick(0))
    real_write = sealing._write
    written = []

    def fail_at_the_second(segment, table, ledger_id, path):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        real_write(segment, table, ledger_id, path)

    monkeypatch.setattr(sealing, "_write", fail_at_the_second)
    with pytest.raises(LedgerFullError, match=r"was not sealed and is kept as it is \(no space left on device\)"):
        seal(folder)
    assert all_seqs(folder) == [1, 2]
    assert len(files_under(folder)) == 1  # published and not in the catalogue
    monkeypatch.undo()
    ledger.append(tick(1))
    seal(folder)
    assert files_under(folder) == [
        "events/gpu_sample/v=1/date=2026-11-23/spark-1-1-3-0.parquet",
        "events/system_sample/v=1/date=2026-11-23/spark-1-2-4-0.parquet",
    ]
    assert all_seqs(folder) == [1, 2, 3, 4]


def test_a_snapshot_taken_before_a_sealing_can_still_be_read_after_it(ledger, folder, tick):
    ledger.append(tick(0))
    seal(folder)
    ledger.append(tick(1))
    with LedgerReader(folder) as reader:
        before = reader.snapshot(["gpu_sample"])["gpu_sample"]
        seal(folder)
        after = reader.snapshot(["gpu_sample"])["gpu_sample"]
    assert (before.tail.num_rows, len(before.files)) == (1, 1)
    assert (after.tail.num_rows, len(after.files)) == (0, 2)
    assert pq.read_table(before.files[0])["seq"].to_pylist() == [1]


def test_a_snapshot_gives_the_files_and_frames_that_meet_the_window(ledger, folder, tick):
    for number in (0, 100, 200):
        ledger.append(tick(number))
        if number < 200:
            seal(folder)
    start_us = 1_795_435_200_000_000

    def seen(from_s: float, to_s: float) -> tuple[int, int]:
        with LedgerReader(folder) as reader:
            events = reader.snapshot(
                ["gpu_sample"], start_us=start_us + int(from_s * 1e6), end_us=start_us + int(to_s * 1e6)
            )["gpu_sample"]
        return len(events.files), events.tail.num_rows

    assert seen(0, 201) == (2, 1)
    assert seen(0, 200) == (2, 0)  # half-open: the end is not in it
    assert seen(100, 101) == (1, 0)
    assert seen(101, 200) == (0, 0)
    assert seen(200, 300) == (0, 1)


def test_extents_say_how_much_there_is_of_each_kind(ledger, folder, tick):
    for number in range(2):
        ledger.append(tick(number))
    seal(folder)
    ledger.append(tick(2))
    with LedgerReader(folder) as reader:
        extents, size_bytes = reader.extents(), reader.size_bytes
    gpu = extents["gpu_sample"]
    assert (gpu.event_count, gpu.segment_count) == (3, 1)
    assert (gpu.first_observed_at_us, gpu.last_observed_at_us) == (1_795_435_200_000_000, 1_795_435_202_000_000)
    assert extents["request"].event_count == 0
    assert extents["request"].first_observed_at_us is None
    assert size_bytes > gpu.sealed_bytes > 0


def test_the_command_reports_an_unusable_ledger_in_one_sentence(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path} is not a ledger: it holds 'notes.txt' and no head.sqlite: name an empty or new folder with --data\n"
    )
