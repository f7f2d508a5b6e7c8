"""Compaction: many small files become few, and every event stays there exactly once, with every value."""

import math
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.events import KINDS, Event
from store.files import sha256_of
from store.head import open_head
from store.ledger import Ledger, transaction
from store.repair.adoption import adopt
from store.repair.quarantine import Repairer
from store.repair.recovery import examine, repair
from store.repair.verification import verify
from store.segments import Segment, as_written, beside_others, catalogued, enter_segments
from store.snapshot import LedgerReader
from store.times import DAY_US, HOUR_US
from store.upkeep import compaction, merging
from store.upkeep.compaction import due_merges
from store.upkeep.run import main, upkeep
from store.upkeep.sealing import seal
from store.upkeep.settings import UpkeepSettings

DAY_START_US = 1_795_392_000_000_000  # 2026-11-23 00:00:00 UTC
LONG_AFTER_US = DAY_START_US + 2 * DAY_US
KEEP_ALL = UpkeepSettings(grace_s=600)


def gpu_rows(second: int, gpus: int = 2) -> list[Event]:
    time_us = DAY_START_US + second * 1_000_000
    return [
        Event(
            "gpu_sample",
            time_us,
            {
                "gpu_uuid": f"GPU-{gpu}",
                "gpu_index": gpu,
                "utilization_percent": (second * 7 + gpu) % 101,
                "power_watts": 100.25 + second % 17,
                "energy_joules": second * 3.125,
                "clock_sm_hertz": 1_980_000_000 - second % 3 * 15_000_000,
                "up": True,
                "absence": {"fan_speed_percent": "not_supported"} if gpu else None,
            },
        )
        for gpu in reversed(range(gpus))  # not in the order in which they are stored
    ]


@pytest.fixture
def sealed(ledger, folder):
    """Gives a function that appends and seals GPU rows, one file for each of some times in seconds."""

    def make(*seconds: int, rows: int = 3) -> None:
        for second in seconds:
            for number in range(rows):
                ledger.append(gpu_rows(second + number))
            seal(folder)

    return make


def events_of(folder: Path, kind: str = "gpu_sample") -> list[dict]:
    """Every row that a reader sees of a kind, in order of seq."""
    with LedgerReader(folder) as reader:
        events = reader.snapshot([kind])[kind]
    tables = [pq.ParquetFile(path).read() for path in events.files]
    rows = [row for table in [events.tail, *tables] for row in table.to_pylist()]
    return sorted(rows, key=lambda row: row["seq"])


def stored(folder: Path) -> list[Segment]:
    head = open_head(folder)
    try:
        return catalogued(head)
    finally:
        head.close()


def rewrite(folder: Path, segment: Segment, table: pa.Table) -> None:
    """Put other content into a segment, as if it had been sealed so."""
    pq.write_table(table, folder / segment.path)
    with closing(open_head(folder)) as head, transaction(head):
        enter_segments(head, [as_written(folder, segment)], now_us=LONG_AFTER_US)


def names(folder: Path) -> list[str]:
    return [Path(one.path).name for one in stored(folder)]


def parquet_files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "events").rglob("*.parquet")}


# --- what is due


def test_the_files_of_an_hour_become_one_when_it_is_over_and_those_of_a_day_when_that_is(sealed, folder):
    sealed(0, 120, 240, 3600, 3720)
    before = events_of(folder)
    assert upkeep(folder, KEEP_ALL, now_us=DAY_START_US + 3599 * 1_000_000).merged == []
    upkeep(folder, KEEP_ALL, now_us=DAY_START_US + 3600 * 1_000_000)
    assert names(folder) == ["spark-1-1-18-1.parquet", "spark-1-19-24-0.parquet", "spark-1-25-30-0.parquet"]
    upkeep(folder, KEEP_ALL, now_us=DAY_START_US + DAY_US)
    assert names(folder) == ["spark-1-1-18-1.parquet", "spark-1-19-30-1.parquet"]
    upkeep(folder, KEEP_ALL, now_us=DAY_START_US + DAY_US + 600_000_000)
    assert names(folder) == ["spark-1-1-30-2.parquet"]
    assert events_of(folder) == before
    assert upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US).merged == []


def test_an_hour_that_runs_is_merged_once_it_has_many_files(sealed, folder):
    sealed(*range(0, 16 * 30, 30), rows=1)
    upkeep(folder, KEEP_ALL, now_us=DAY_START_US + 500_000_000)
    assert names(folder) == ["spark-1-1-32-1.parquet"]


def test_kinds_hosts_and_days_are_never_mixed(ledger, folder, sealed):
    with Ledger(folder, host="spark-2", boot_id="b") as other:
        for second in (0, 60, 86_400, 86_460):
            sealed(second, rows=1)
            other.append([*gpu_rows(second, gpus=1), Event("annotation", DAY_START_US + second * 10**6, {"text": "a"})])
            seal(folder)
    before = {kind: events_of(folder, kind) for kind in KINDS}
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US + DAY_US)
    found = [(one.kind, one.host, one.path.split("/")[3], one.level, one.event_count) for one in stored(folder)]
    assert sorted(found) == [
        ("annotation", "spark-2", "date=2026-11-23", 1, 2),
        ("annotation", "spark-2", "date=2026-11-24", 1, 2),
        ("gpu_sample", "spark-1", "date=2026-11-23", 1, 4),
        ("gpu_sample", "spark-1", "date=2026-11-24", 1, 4),
        ("gpu_sample", "spark-2", "date=2026-11-23", 1, 2),
        ("gpu_sample", "spark-2", "date=2026-11-24", 1, 2),
    ]
    assert {kind: events_of(folder, kind) for kind in KINDS} == before


def segment(number: int, size_bytes: int, *, hour: int = 0, level: int = 0) -> Segment:
    time_us = DAY_START_US + hour * HOUR_US + number
    path = f"events/gpu_sample/v=1/date=2026-11-23/a-{number}-{number}-{level}.parquet"
    return Segment(path, "gpu_sample", 1, level, "a", number, number, 1, time_us, time_us, size_bytes)


def settle(segments: list[Segment]) -> tuple[list[Segment], int]:
    """Merge by the plan alone, sizes added up, until nothing is due. Returns what is left and the bytes written."""
    written_bytes = 0
    while due := due_merges(segments, now_us=LONG_AFTER_US):
        for merge in due:
            made = replace(
                min(merge, key=lambda one: one.first_seq),
                level=1 + max(one.level for one in merge),
                last_seq=max(one.last_seq for one in merge),
                size_bytes=sum(one.size_bytes for one in merge),
            )
            made = replace(made, path=f"{made.folder}/a-{made.first_seq}-{made.last_seq}-{made.level}.parquet")
            segments = [one for one in segments if one not in merge]
            assert made.path not in {one.path for one in segments}
            segments.append(made)
            written_bytes += made.size_bytes
    return segments, written_bytes


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 23)), min_size=1, max_size=60))
def test_late_files_leave_few_behind_and_rewrite_no_byte_often(arrivals):
    segments: list[Segment] = []
    written_bytes = 0
    for number, (size_bytes, hour) in enumerate(arrivals, start=1):
        segments, more_bytes = settle([*segments, segment(number, size_bytes, hour=hour)])
        written_bytes += more_bytes
    sizes = [size_bytes for size_bytes, _ in arrivals]
    assert sum(one.size_bytes for one in segments) == sum(sizes)
    assert len(segments) <= 2 + math.log(max(one.size_bytes for one in segments) / min(sizes) / 4, 5)
    assert written_bytes <= sum(sizes) * (1 + math.log(sum(sizes) / min(sizes), 1.25))


def test_a_late_file_waits_beside_the_large_one_until_it_is_a_quarter_of_it():
    day = segment(1, 4000, level=2)
    assert due_merges([day, segment(2, 999)], now_us=LONG_AFTER_US) == []
    assert due_merges([day, segment(2, 1000)], now_us=LONG_AFTER_US) == [(segment(2, 1000), day)]
    assert due_merges([day, segment(2, 999)], now_us=LONG_AFTER_US, everything=True) == [(segment(2, 999), day)]


def test_a_large_file_as_sealed_is_sorted_though_it_is_alone_in_its_day():
    lone = replace(segment(1, 10**6), event_count=100_000)
    assert due_merges([lone], now_us=LONG_AFTER_US) == [(lone,)]
    assert due_merges([replace(lone, level=1)], now_us=LONG_AFTER_US) == []
    assert due_merges([replace(lone, event_count=99_999)], now_us=LONG_AFTER_US) == []


def test_settled_days_are_not_looked_at_until_a_late_file_comes(folder):
    settled = [replace(segment(number, 4000, level=2), event_count=10**6) for number in (1, 2)]
    settled[1] = replace(settled[1], path="b", host="b")
    unsorted = replace(segment(3, 4000), path="c", host="c", event_count=100)
    late = segment(4, 10)
    with closing(open_head(folder)) as head, head:
        enter_segments(head, [*settled, unsorted], now_us=0)
        assert beside_others(head, lone_events=101) == []
        assert beside_others(head, lone_events=100) == [unsorted]
        enter_segments(head, [late], now_us=0)
        assert beside_others(head, lone_events=101) == [settled[0], late]


# --- what is written


def rows_of_row_groups(folder: Path) -> list[list[tuple[str, float]]]:
    """GPU and second of each row of the only file, by row group."""
    (one,) = stored(folder)
    file = pq.ParquetFile(folder / one.path)
    return [
        [(row["gpu_uuid"], (row["observed_at"].timestamp() * 1e6 - DAY_START_US) / 1e6) for row in rows.to_pylist()]
        for rows in (file.read_row_group(number) for number in range(file.num_row_groups))
    ]


def test_rows_stand_by_gpu_then_time_in_row_groups_of_whole_hours(sealed, folder, monkeypatch):
    monkeypatch.setattr(merging, "ROWS_PER_ROW_GROUP", 13)
    sealed(0, 1800, 3600, 7198)
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US)
    hour_0 = [0, 1, 2, 1800, 1801, 1802]
    hour_1 = [3600, 3601, 3602, 7198, 7199]
    assert rows_of_row_groups(folder) == [
        [(f"GPU-{gpu}", second) for gpu in (0, 1) for second in hour_0],
        [(f"GPU-{gpu}", second) for gpu in (0, 1) for second in [*hour_1, 7200]],
    ]


def test_a_row_group_has_blocks_of_so_many_instants_each_of_them_by_gpu_then_time(sealed, folder, monkeypatch):
    monkeypatch.setattr(merging, "INSTANTS_PER_BLOCK", 4)
    sealed(0, 1800)
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US)
    blocks = ([0, 1, 2, 1800], [1801, 1802])
    assert rows_of_row_groups(folder) == [
        [(f"GPU-{gpu}", second) for block in blocks for gpu in (0, 1) for second in block]
    ]


@pytest.mark.parametrize("values", [{"utilization_percent": 1}, {"utilization_percent": 1, "energy_joules": 2.5}])
def test_as_many_rows_are_held_at_once_as_the_columns_with_a_value_leave_room_for(ledger, folder, monkeypatch, values):
    for second in range(40):
        ledger.append([Event("gpu_sample", DAY_START_US + second * 1_000_000, {"gpu_uuid": "GPU-0", **values})])
    seal(folder)
    (one,) = stored(folder)
    table = pq.read_table(folder / one.path, partitioning=None)
    with_value = [name for name in table.column_names if table[name].null_count < len(table)]
    row_bytes = sum(table[name].nbytes for name in with_value) / len(table)
    monkeypatch.setattr(compaction, "LONE_EVENTS", 1)
    monkeypatch.setattr(merging, "BYTES_PER_ROW_GROUP", 10.5 * row_bytes)
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US)
    assert [len(rows) for rows in rows_of_row_groups(folder)] == [10, 10, 10, 10]


def test_more_rows_of_one_instant_than_a_row_group_should_have_stay_together(ledger, folder, monkeypatch):
    monkeypatch.setattr(merging, "ROWS_PER_ROW_GROUP", 2)
    for text in "abc":
        ledger.append([Event("annotation", DAY_START_US, {"text": text, "tags": [text, "x"]})] * 3)
        seal(folder)
    before = events_of(folder, "annotation")
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US)
    assert names(folder) == ["spark-1-1-9-1.parquet"]
    assert events_of(folder, "annotation") == before


def test_a_column_of_a_newer_program_is_kept_and_one_that_a_file_lacks_is_null(sealed, folder):
    sealed(0, 60)
    older, newer = stored(folder)
    table = pq.read_table(folder / older.path)
    rewrite(folder, older, table.drop_columns(["power_watts"]))
    table = pq.read_table(folder / newer.path)
    rewrite(folder, newer, table.append_column("from_the_future", pa.array(range(len(table)))))
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US)
    rows = events_of(folder)
    assert len(rows) == 12
    assert [row["power_watts"] for row in rows[:6]] == [None] * 6
    assert [row["from_the_future"] for row in rows] == [None] * 6 + list(range(6))
    assert rows[6]["power_watts"] == 100.25 + 60 % 17


def test_the_footer_says_what_the_file_holds(sealed, folder):
    sealed(0, 60)
    upkeep(folder, KEEP_ALL, now_us=DAY_START_US + HOUR_US)
    (one,) = stored(folder)
    footer = pq.read_metadata(folder / one.path).metadata
    ours = {key.decode(): value.decode() for key, value in footer.items() if key.startswith(b"gpuledger.")}
    assert ours.pop("gpuledger.ledger_id")
    assert ours == {
        "gpuledger.kind": "gpu_sample",
        "gpuledger.version": "1",
        "gpuledger.level": "1",
        "gpuledger.host": "spark-1",
        "gpuledger.first_seq": "1",
        "gpuledger.last_seq": "12",
        "gpuledger.event_count": "12",
        "gpuledger.first_observed_at": "2026-11-23T00:00:00.000000+00:00",
        "gpuledger.last_observed_at": "2026-11-23T00:01:02.000000+00:00",
    }


# --- files on their way out


def test_replaced_files_stay_for_the_grace_and_no_longer(sealed, folder):
    sealed(0, 60)
    now_us = DAY_START_US + HOUR_US
    upkeep(folder, KEEP_ALL, now_us=now_us)
    everything = {"spark-1-1-6-0.parquet", "spark-1-7-12-0.parquet", "spark-1-1-12-1.parquet"}
    assert parquet_files(folder) == everything
    upkeep(folder, KEEP_ALL, now_us=now_us + 599_999_999)
    assert parquet_files(folder) == everything
    upkeep(folder, KEEP_ALL, now_us=now_us + 600_000_000)
    assert parquet_files(folder) == {"spark-1-1-12-1.parquet"}


def test_a_list_of_files_taken_before_a_compaction_can_be_read_after_it(sealed, folder):
    sealed(0, 60)
    with LedgerReader(folder) as reader:
        before = reader.snapshot(["gpu_sample"])["gpu_sample"].files
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US)
    assert [seq for path in before for seq in pq.ParquetFile(path).read(["seq"])["seq"].to_pylist()] == [*range(1, 13)]


# --- what goes wrong


@pytest.mark.parametrize("known_by", ["its checksum", "its pages", "its length"])
def test_a_damaged_file_is_set_aside_by_the_merge_that_meets_it_and_the_rest_is_merged(
    sealed, folder, ledger, capsys, known_by
):
    sealed(0, 60, 120)
    for number in range(2):
        ledger.append([Event("annotation", DAY_START_US + number, {"text": "a"})])
        seal(folder)
    damaged = next(one for one in stored(folder) if one.kind == "gpu_sample")
    damage(folder, damaged, known_by)
    done = upkeep(folder, KEEP_ALL, now_us=DAY_START_US + HOUR_US)  # before it is due to be read again
    assert sorted((output.kind, output.event_count) for _, output in done.merged) == [
        ("annotation", 2),
        ("gpu_sample", 12),
    ]
    assert [one.origin for one in done.set_aside] == [damaged.path]
    assert done.problems == []
    assert (folder / "quarantine" / done.set_aside[0].name).exists()
    assert [row["seq"] for row in events_of(folder)] == [*range(7, 19)]
    assert [row["event"] for row in events_of(folder, "ledger_event")] == ["quarantine", "gap"]
    assert upkeep(folder, KEEP_ALL, now_us=DAY_START_US + HOUR_US).set_aside == []


def damage(folder: Path, segment: Segment, known_by: str, *, verified_at_us: int = DAY_START_US) -> None:
    content = bytearray((folder / segment.path).read_bytes())
    content[600:640] = b"\xff" * 40
    (folder / segment.path).write_bytes(content[:-1] if known_by == "its length" else content)
    with closing(open_head(folder)) as head:
        head.execute("update checksum set verified_at_us = ?", (verified_at_us,))
        if known_by == "its pages":
            head.execute("delete from checksum")


def test_what_was_set_aside_is_said_by_the_command(sealed, folder, capsys):
    sealed(0, 60)
    damaged = stored(folder)[0]
    damage(folder, damaged, "its checksum", verified_at_us=time.time_ns() // 1000)  # or it would be read again first
    assert main([str(folder)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{damaged.path} was set aside: it cannot be read (could not verify page integrity")


def test_a_merge_for_which_there_is_no_room_blames_no_file_and_is_tried_again(sealed, folder, monkeypatch):
    sealed(0, 60)

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "_write", no_room)
    done = upkeep(folder, KEEP_ALL, now_us=DAY_START_US + HOUR_US)
    assert (done.merged, done.set_aside) == ([], [])
    assert done.problems == [
        "2 files under events/gpu_sample/v=1/date=2026-11-23 were not merged: [Errno 28] No space left on device"
    ]
    monkeypatch.undo()
    assert len(upkeep(folder, KEEP_ALL, now_us=DAY_START_US + HOUR_US).merged) == 1


def test_a_merged_file_has_a_checksum_and_none_of_those_on_their_way_out_is_a_stray(sealed, folder):
    sealed(0, 60)
    upkeep(folder, KEEP_ALL, now_us=DAY_START_US + HOUR_US)
    (one,) = stored(folder)
    assert one.sha256 == sha256_of(folder / one.path)
    assert len(parquet_files(folder)) == 3
    assert examine(folder).is_sound
    assert verify(folder, Repairer(LONG_AFTER_US, "spark-1", "b"), repair=True).findings == ()
    assert parquet_files(folder) == {"spark-1-1-6-0.parquet", "spark-1-7-12-0.parquet", "spark-1-1-12-1.parquet"}


def test_a_head_lost_within_the_grace_counts_nothing_twice(sealed, folder, ledger):
    sealed(0, 60, 3600)
    before = events_of(folder)
    upkeep(folder, KEEP_ALL, now_us=DAY_START_US + HOUR_US)
    assert len(parquet_files(folder)) == 4
    ledger.close()
    for path in folder.glob("head.sqlite*"):
        path.unlink()
    by = Repairer(LONG_AFTER_US, "spark-1", "b")
    repair(folder, by)
    adopt(folder, by)
    assert events_of(folder) == before
    assert parquet_files(folder) == {"spark-1-1-12-1.parquet", "spark-1-13-18-0.parquet"}
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US)
    assert events_of(folder) == before


def test_a_merge_that_lost_an_event_is_not_taken(sealed, folder, monkeypatch):
    sealed(0, 60)
    before = events_of(folder)
    sort = merging._sorted_slice
    monkeypatch.setattr(merging, "_sorted_slice", lambda *given: sort(*given).slice(1))
    (problem,) = upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US).problems
    assert "gave 11 events where 12 were expected" in problem
    assert events_of(folder) == before
    monkeypatch.undo()
    upkeep(folder, KEEP_ALL, now_us=LONG_AFTER_US)
    assert parquet_files(folder) >= {"spark-1-1-12-1.parquet"}
    assert events_of(folder) == before


def test_settings_that_upkeep_does_not_know_are_refused_in_one_sentence(folder, capsys):
    assert main([str(folder), "--settings", '{"grace": 1}']) == 2
    assert capsys.readouterr().err == "--settings cannot be used: Object contains unknown field `grace`\n"


# --- readers meanwhile


def test_readers_beside_it_see_every_event_once_at_every_moment(ledger, folder):
    """Two readers, without a pause, beside a writer that appends, seals and compacts."""
    wrong: list[str] = []
    appended = [0]
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            least = appended[0]
            try:
                seqs = [row["seq"] for row in events_of(folder)]
            except OSError as error:
                wrong.append(repr(error))
                return
            if seqs != [*range(1, len(seqs) + 1)] or len(seqs) < least:
                wrong.append(f"{len(seqs)} seqs of {least}: {seqs[:5]} … {seqs[-5:]}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for round_number in range(25):
        for second in range(3):
            appended[0] = ledger.append(gpu_rows(round_number * 400 + second))[-1]
        upkeep(folder, UpkeepSettings(grace_s=3600), now_us=DAY_START_US + round_number * 400_000_000)
    upkeep(folder, UpkeepSettings(grace_s=3600), now_us=LONG_AFTER_US)
    is_over.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(stored(folder)) == 1
    assert len(events_of(folder)) == 150


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3 * 86_400)),
        st.tuples(st.just("seal"), st.just(0)),
        st.tuples(st.just("upkeep"), st.integers(0, 4 * 86_400)),
        st.tuples(st.just("compact all"), st.just(0)),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_whatever_is_appended_sealed_and_compacted_in_whatever_order_is_there_once_and_the_same(
    tmp_path_factory, steps
):
    folder = tmp_path_factory.mktemp("any") / "ledger"
    count = 0
    with Ledger(folder, host="spark-1", boot_id="b") as ledger:
        for step, second in steps:
            if step == "append":
                count = ledger.append(gpu_rows(second))[-1]
            elif step == "seal":
                seal(folder)
            elif step == "upkeep":
                upkeep(folder, KEEP_ALL, now_us=DAY_START_US + second * 1_000_000)
            else:
                compact_all(folder)
            assert [row["seq"] for row in events_of(folder)] == [*range(1, count + 1)]
    appended = [event for step, second in steps if step == "append" for event in gpu_rows(second)]
    for row, event in zip(events_of(folder), appended, strict=True):
        wanted = {name: row[name] for name in ("gpu_uuid", "utilization_percent", "power_watts", "clock_sm_hertz")}
        assert wanted == {name: event.values[name] for name in wanted}
        assert round(row["observed_at"].timestamp() * 1e6) == event.observed_at_us
        assert float(row["energy_joules"]) == event.values["energy_joules"]
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
    assert on_disk >= {one.path for one in stored(folder)}


def compact_all(folder: Path) -> None:
    from store.upkeep.run import compact

    head = open_head(folder)
    try:
        compact(folder, head, Repairer(DAY_START_US, "spark-1", "b"), grace_s=600, everything=True)
        assert due_merges(catalogued(head), now_us=DAY_START_US, everything=True) == []
    finally:
        head.close()


def test_a_sealed_file_and_a_merged_one_tell_without_being_read_which_traces_they_lack(ledger, folder):
    for half in ("a", "b"):
        for number in range(40):
            values = {"trace_id": f"trace-{half}-{number}", "source": "python", "duration_seconds": 1.0}
            ledger.append([Event("request", DAY_START_US + number, values)])
        seal(folder)

    def may_have(trace: str) -> list[bool]:
        probes = [
            f"select bloom_filter_excludes from parquet_bloom_probe('{folder / one.path}', 'trace_id', '{trace}')"
            for one in stored(folder)
            if one.kind == "request"
        ]
        return [not excludes for probe in probes for (excludes,) in duckdb.sql(probe).fetchall()]

    assert may_have("trace-a-7") == [True, False]
    assert may_have("trace-b-39") == [False, True]
    assert upkeep(folder, KEEP_ALL, now_us=DAY_START_US + 2 * HOUR_US).merged
    assert may_have("trace-a-7") == may_have("trace-b-39") == [True]
    assert may_have("trace-c-1") == [False]
