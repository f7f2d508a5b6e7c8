"""Files that no catalogue names: taken in, removed, set aside or left, and no event ever counted twice."""

import shutil
from collections import Counter
from dataclasses import replace
from datetime import date
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.events import Event
from store.files import publish_file
from store.head import HEAD_NAME, open_head
from store.ledger import Ledger
from store.repair.adoption import adopt, main
from store.repair.recovery import repair
from store.segments import Segment
from store.snapshot import LedgerReader
from store.upkeep import sealing
from store.upkeep.sealing import seal

DAY = "events/gpu_sample/v=1/date=2026-11-23"
SMALL = ["spark-1-1-3-0.parquet", "spark-1-5-7-0.parquet", "spark-1-9-11-0.parquet"]


def verdicts(judged):
    return sorted((one.path.rpartition("/")[2], one.verdict) for one in judged if "gpu_sample" in one.path)


def merge(folder, names, *, level=1):
    """Write what a compaction of these files would have written; the catalogue is not told."""
    table = pa.concat_tables([pq.ParquetFile(folder / DAY / name).read() for name in names])
    first = pq.read_metadata(folder / DAY / names[0]).metadata
    described = sealing._describe(sealing.shape("gpu_sample", 1), "spark-1", date(2026, 11, 23), table)
    path = described.path.replace("-0.parquet", f"-{level}.parquet")
    segment: Segment = replace(described, path=path, level=level)
    ledger_id = first[b"gpuledger.ledger_id"].decode()
    publish_file(folder / path, partial(sealing._write, segment, table, ledger_id))
    return path.rpartition("/")[2]


def lose_head(folder, by):
    for path in folder.glob(f"{HEAD_NAME}*"):
        path.unlink()
    repair(folder, by)


def test_a_head_lost_in_the_middle_of_a_compaction_counts_nothing_twice(sealed, by, seqs_seen):
    merged = merge(sealed, SMALL[:2])
    lose_head(sealed, by)
    assert verdicts(adopt(sealed, by)) == [
        (SMALL[0], "removed"),
        (merged, "taken in"),
        (SMALL[1], "removed"),
        (SMALL[2], "taken in"),
    ]
    seen = seqs_seen(sealed)
    assert [seen[seq] for seq in range(1, 13)] == [1] * 12
    assert not (sealed / DAY / SMALL[0]).exists()


def test_a_small_file_that_the_merged_one_spans_but_does_not_hold_is_kept(sealed, by, seqs_seen):
    merged = merge(sealed, [SMALL[0], SMALL[2]])
    lose_head(sealed, by)
    assert verdicts(adopt(sealed, by)) == [
        (merged, "taken in"),
        (SMALL[0], "removed"),
        (SMALL[1], "taken in"),
        (SMALL[2], "removed"),
    ]
    assert [seqs_seen(sealed)[seq] for seq in range(1, 13)] == [1] * 12


def test_a_merged_from_file_that_is_damaged_during_its_grace_leaves_no_gap(sealed, by, seqs_seen, told):
    merged = merge(sealed, SMALL[:2])
    lose_head(sealed, by)
    before = told(sealed)
    content = (sealed / DAY / SMALL[0]).read_bytes()
    (sealed / DAY / SMALL[0]).write_bytes(content[:600] + b"\xff" * 40 + content[640:])
    assert verdicts(adopt(sealed, by)) == [
        (SMALL[0], "set aside"),
        (merged, "taken in"),
        (SMALL[1], "removed"),
        (SMALL[2], "taken in"),
    ]
    assert [event for event, _ in told(sealed)[len(before) :]] == ["quarantine"]
    assert [seqs_seen(sealed)[seq] for seq in range(1, 13)] == [1] * 12


def test_a_damaged_merged_file_never_stands_for_the_small_ones(sealed, by, seqs_seen):
    merged = merge(sealed, SMALL)
    content = bytearray((sealed / DAY / merged).read_bytes())
    content[600:640] = b"\xff" * 40
    (sealed / DAY / merged).write_bytes(content)
    lose_head(sealed, by)
    found = dict(verdicts(adopt(sealed, by)))
    assert found == {merged: "set aside", **dict.fromkeys(SMALL, "taken in")}
    assert [seqs_seen(sealed)[seq] for seq in range(1, 13)] == [1] * 12


def test_a_file_that_is_known_in_part_is_set_aside(sealed, by, seqs_seen):
    merge(sealed, SMALL[:2], level=1)
    lose_head(sealed, by)
    overlapping = merge(sealed, SMALL[1:], level=0)
    for name in SMALL:
        (sealed / DAY / name).unlink()
    found = dict(verdicts(adopt(sealed, by)))
    assert found[overlapping] == "set aside"
    assert set(seqs_seen(sealed).values()) == {1}


def test_a_copy_beside_a_catalogued_segment_is_removed_and_a_reader_never_saw_it(sealed, by, seqs_seen):
    shutil.copy(sealed / DAY / SMALL[0], sealed / DAY / "spark-1-1-3-9.parquet")
    before = seqs_seen(sealed)
    assert verdicts(adopt(sealed, by)) == [("spark-1-1-3-9.parquet", "removed")]
    assert seqs_seen(sealed) == before


def test_another_ledgers_segment_is_set_aside(sealed, tmp_path, tick, by, seqs_seen, told):
    with Ledger(tmp_path / "other", host="spark-2") as other:
        other.append(tick(0))
    seal(tmp_path / "other")
    before = seqs_seen(sealed)
    shutil.copy(tmp_path / "other" / DAY / "spark-2-1-1-0.parquet", sealed / DAY)
    (judged,) = adopt(sealed, by)
    assert (judged.verdict, judged.reason[:25]) == ("set aside", "it belongs to the ledger ")
    assert set(seqs_seen(sealed)) == {*before, 15}  # the event that tells of it
    assert told(sealed) == [("quarantine", f"{DAY}/spark-2-1-1-0.parquet was set aside: {judged.reason}")]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"torn" * 500])
def test_a_torn_file_is_set_aside(sealed, by, content):
    (sealed / DAY / "spark-1-90-99-0.parquet").write_bytes(content)
    (judged,) = adopt(sealed, by)
    assert (judged.verdict, judged.reason[:32]) == ("set aside", "it is not a whole Parquet file (")
    assert next((sealed / "quarantine").glob("*.parquet")).read_bytes() == content


def test_a_file_that_cannot_be_read_now_is_judged_the_next_time(sealed, by, told, out_of_reach):
    lose_head(sealed, by)
    before = told(sealed)
    with out_of_reach(sealed / DAY / SMALL[1]):
        assert verdicts(adopt(sealed, by)) == [
            (SMALL[0], "taken in"),
            (SMALL[1], "not judged"),
            (SMALL[2], "taken in"),
        ]
    assert verdicts(adopt(sealed, by)) == [(SMALL[1], "taken in")]
    assert told(sealed) == before


def test_a_copy_beside_a_segment_that_cannot_be_read_now_is_judged_the_next_time(sealed, by, told, out_of_reach):
    copy = SMALL[0].replace("-0.parquet", "-1.parquet")
    shutil.copy(sealed / DAY / SMALL[0], sealed / DAY / copy)
    with out_of_reach(sealed / DAY / SMALL[0]):
        assert verdicts(adopt(sealed, by)) == [(copy, "not judged")]
    assert verdicts(adopt(sealed, by)) == [(copy, "removed")]
    assert told(sealed) == []


def test_somebodys_own_parquet_file_is_left_alone(sealed, by):
    pq.write_table(pa.table({"x": [1]}), sealed / DAY / "mine-1-2-0.parquet")
    (judged,) = adopt(sealed, by)
    assert judged.verdict == "left alone"
    assert pq.read_table(sealed / DAY / "mine-1-2-0.parquet", partitioning=None)["x"].to_pylist() == [1]


def test_a_temporary_file_is_removed_unless_a_sealing_announced_it(sealed, by):
    (sealed / DAY / ".spark-1-90-99-0.parquet.tmp").write_bytes(b"half")
    (sealed / DAY / ".spark-1-80-89-0.parquet.tmp").write_bytes(b"half")
    with open_head(sealed) as head:
        head.execute("insert into unfinished_segment values (?)", (f"{DAY}/spark-1-80-89-0.parquet",))
    assert verdicts(adopt(sealed, by)) == [(".spark-1-90-99-0.parquet.tmp", "removed")]


def test_a_frame_that_crosses_midnight_is_dropped_only_when_both_days_were_taken_in(folder, by, seqs_seen, tmp_path):
    midnight_us = 1_795_478_400_000_000
    events = [Event("annotation", midnight_us + offset, {"text": "x"}) for offset in (-2, -1, 1, 2)]
    with Ledger(folder, host="spark-1") as ledger:
        ledger.append(events)
    shutil.copytree(folder, tmp_path / "older")
    seal(folder)
    shutil.copytree(folder / "events", tmp_path / "older/events")
    shutil.copytree(tmp_path / "older", tmp_path / "half")
    assert {one.verdict for one in adopt(tmp_path / "older", by)} == {"taken in"}
    assert seqs_seen(tmp_path / "older") == Counter(range(1, 5))
    with LedgerReader(tmp_path / "older") as reader:
        assert reader.snapshot(["annotation"])["annotation"].tail.num_rows == 0

    next((tmp_path / "half/events/annotation/v=1/date=2026-11-24").iterdir()).unlink()
    (judged,) = adopt(tmp_path / "half", by)
    assert judged.verdict == "set aside"
    assert [seqs_seen(tmp_path / "half")[seq] for seq in range(1, 5)] == [1] * 4


def test_the_command_says_what_it_did_not_take_in(sealed, capsys):
    (sealed / DAY / "spark-1-90-99-0.parquet").write_bytes(b"")
    assert main([str(sealed)]) == 0
    assert capsys.readouterr().err == (
        f"{DAY}/spark-1-90-99-0.parquet was set aside: it is not a whole Parquet file (Parquet file size is 0 bytes)\n"
    )
