"""What is done before a recording begins: a damaged or lost head, torn segments, and files that are nobody's."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from store.errors import NotALedgerError
from store.events import Event
from store.head import HEAD_NAME
from store.ledger import Ledger
from store.repair.adoption import adopt
from store.repair.quarantine import quarantined
from store.repair.recovery import SEQ_MARGIN, examine, repair
from store.snapshot import LedgerReader

GPU_FILES = [f"events/gpu_sample/v=1/date=2026-11-23/spark-1-{name}-0.parquet" for name in ("1-3", "5-7", "9-11")]


def ledger_id(folder: Path) -> str:
    with LedgerReader(folder) as reader:
        return reader.ledger_id


def next_seq(folder: Path) -> int:
    with Ledger(folder) as ledger:
        return ledger.append([]).start


def lose_head(folder: Path) -> None:
    for path in folder.glob(f"{HEAD_NAME}*"):
        path.unlink()


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def test_a_sound_ledger_is_left_as_it_is(sealed, by):
    before = content_of(sealed)
    found = examine(sealed)
    assert (found.head, found.is_sound, found.set_aside, found.foreign) == ("sound", True, (), ())
    done = repair(sealed, by)
    assert done.sentences() == []
    assert content_of(sealed) == before


def test_a_folder_where_nothing_was_recorded_is_new_and_gets_nothing(tmp_path, by):
    assert examine(tmp_path / "ledger").head == "new"
    assert repair(tmp_path / "ledger", by).head == "new"
    assert not (tmp_path / "ledger").exists()


def test_looking_changes_nothing_however_bad_it_is(sealed):
    (sealed / GPU_FILES[0]).write_bytes(b"torn")
    (sealed / GPU_FILES[1]).unlink()
    before = content_of(sealed)
    found = examine(sealed)
    assert [(one.segment.path, one.reason.split()[0]) for one in found.unsound] == [
        (GPU_FILES[0], "it"),
        (GPU_FILES[1], "the"),
    ]
    assert content_of(sealed) == before


def test_a_torn_segment_costs_its_own_events_and_is_told_of(sealed, by, seqs_seen, told):
    size_bytes = (sealed / GPU_FILES[1]).stat().st_size
    torn = (sealed / GPU_FILES[1]).read_bytes()[:1000]
    (sealed / GPU_FILES[1]).write_bytes(torn)
    done = repair(sealed, by)
    (aside,) = done.set_aside
    assert (aside.origin, aside.reason) == (GPU_FILES[1], f"it has 1,000 bytes and was sealed with {size_bytes:,}")
    assert aside.details == {
        "path": GPU_FILES[1],
        "kind": "gpu_sample",
        "host": "spark-1",
        "first_seq": 5,
        "last_seq": 7,
        "event_count": 2,
    }
    assert (sealed / "quarantine" / aside.name).read_bytes() == torn
    assert quarantined(sealed) == (aside,)
    assert seqs_seen(sealed) == Counter({*range(1, 15)} - {5, 7} | {15, 16})
    assert told(sealed) == [
        ("quarantine", f"{GPU_FILES[1]} was set aside: {aside.reason}"),
        ("gap", f"2 events of gpu_sample cannot be read: {aside.reason}"),
    ]
    assert repair(sealed, by).sentences() == []


def test_a_segment_that_is_gone_is_a_gap_and_no_quarantine(sealed, by, seqs_seen, told):
    (sealed / GPU_FILES[0]).unlink()
    done = repair(sealed, by)
    assert (done.set_aside, done.lost) == ((), (GPU_FILES[0],))
    assert told(sealed) == [("gap", "2 events of gpu_sample cannot be read: the file is gone")]
    assert set(seqs_seen(sealed)) == {*range(1, 16)} - {1, 3}


def test_a_repair_that_was_killed_between_moving_the_file_and_dropping_its_row_is_finished(
    sealed, by, told, monkeypatch
):
    (sealed / GPU_FILES[1]).write_bytes(b"torn")
    with monkeypatch.context() as patch:
        patch.setattr("store.repair.quarantine.transaction", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            repair(sealed, by)
    assert not (sealed / GPU_FILES[1]).exists()
    done = repair(sealed, by)
    assert [one.origin for one in done.set_aside] == [GPU_FILES[1]]
    assert [event for event, _ in told(sealed)] == ["quarantine", "gap"]
    assert len(quarantined(sealed)) == 1


def test_a_move_that_was_killed_before_it_was_synced_is_synced_before_the_ledger_tells_of_it(
    sealed, by, told, monkeypatch, watched_disk
):
    (sealed / GPU_FILES[1]).write_bytes(b"torn")
    with monkeypatch.context() as patch:
        patch.setattr("store.files.sync_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            repair(sealed, by)
    moved_between = [(sealed / GPU_FILES[1]).parent, sealed / "quarantine"]
    assert watched_disk.unsynced == moved_between
    with monkeypatch.context() as patch:
        patch.setattr("store.repair.quarantine.transaction", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            repair(sealed, by)
    assert watched_disk.unsynced == []
    assert told(sealed) == []
    repair(sealed, by)
    assert [event for event, _ in told(sealed)] == ["quarantine", "gap"]


@pytest.mark.parametrize("left", ["nothing", "an empty file", "a stale log"])
def test_a_lost_head_is_begun_anew_with_its_identity_and_no_seq_is_given_twice(sealed, by, seqs_seen, told, left):
    identity = ledger_id(sealed)
    lose_head(sealed)
    if left == "an empty file":
        (sealed / HEAD_NAME).touch()
    if left == "a stale log":
        (sealed / f"{HEAD_NAME}-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(5000))
    assert examine(sealed).head == "lost"
    done = repair(sealed, by)
    assert (done.head, done.is_rebuilt, len(done.uncatalogued)) == ("lost", True, 6)
    assert ledger_id(sealed) == identity
    assert next_seq(sealed) > 12 + SEQ_MARGIN
    judged = adopt(sealed, by)
    assert {one.verdict for one in judged} == {"taken in"}
    seen = seqs_seen(sealed)
    assert [seen[seq] for seq in range(1, 15)] == [1] * 12 + [0, 0]  # the tail went with the head
    assert [event for event, _ in told(sealed)] == ["quarantine", "gap"]
    assert repair(sealed, by).sentences() == []


def test_the_gap_of_a_lost_head_begins_where_the_sealed_events_end(sealed, by):
    lose_head(sealed)
    repair(sealed, by)
    with LedgerReader(sealed) as reader:
        rows = reader.snapshot(["ledger_event"])["ledger_event"].tail.to_pylist()
    spans = [(row["started_at"].isoformat(), row["ended_at"].isoformat()) for row in rows]
    assert spans == [("2026-11-23T12:00:05+00:00", "2026-11-23T13:00:00+00:00")] * 2


def test_a_head_of_garbage_is_set_aside_and_the_sealed_events_stay(sealed, by, seqs_seen):
    identity = ledger_id(sealed)
    (sealed / HEAD_NAME).write_bytes(b"\x00garbage" * 4096)
    done = repair(sealed, by)
    assert (done.head, done.is_rebuilt) == ("damaged", True)
    assert done.set_aside[0].origin == HEAD_NAME
    assert (sealed / "quarantine" / done.set_aside[0].name).read_bytes() == b"\x00garbage" * 4096
    adopt(sealed, by)
    assert ledger_id(sealed) == identity
    assert [seqs_seen(sealed)[seq] for seq in range(1, 13)] == [1] * 12


def test_what_can_be_read_of_a_damaged_heads_tail_is_kept(folder, by, seqs_seen):
    with Ledger(folder) as ledger:
        for number in range(200):
            ledger.append([Event("annotation", number, {"text": "x" * 500})])
        page_count = ledger._head.pragma("page_count")
        first_page = ledger._head.execute("select rootpage from sqlite_schema where name = 'segment'").get
    identity = ledger_id(folder)
    content = bytearray((folder / HEAD_NAME).read_bytes())
    assert page_count > 20
    middle = page_count // 2
    content[4096 * middle : 4096 * (middle + 1)] = b"\xff" * 4096  # a leaf in the middle of the frames
    assert first_page < middle
    (folder / HEAD_NAME).write_bytes(content)
    assert examine(folder).head == "damaged"
    done = repair(folder, by)
    assert ledger_id(folder) == identity
    assert 100 < done.kept_event_count < 200
    seen = seqs_seen(folder)
    assert set(seen.values()) == {1}
    assert len([seq for seq in seen if seq <= 200]) == done.kept_event_count
    assert next_seq(folder) > 201 + SEQ_MARGIN


def test_a_head_from_an_older_backup_takes_the_newer_segments_in_and_gives_no_seq_twice(
    folder, tick, by, seqs_seen, tmp_path
):
    from store.upkeep.sealing import seal

    with Ledger(folder, host="spark-1") as ledger:
        ledger.append(tick(0))
        seal(folder)
        ledger.append(tick(1))  # in the backup's tail, and sealed afterwards
    shutil.copy(folder / HEAD_NAME, tmp_path / "older.sqlite")
    with Ledger(folder, host="spark-1") as ledger:
        ledger.append(tick(2))
        seal(folder)
    lose_head(folder)
    shutil.copy(tmp_path / "older.sqlite", folder / HEAD_NAME)
    assert seqs_seen(folder) == Counter(range(1, 5))
    done = repair(folder, by)
    assert (done.head, len(done.uncatalogued)) == ("sound", 2)
    assert next_seq(folder) > 6
    assert {one.verdict for one in adopt(folder, by)} == {"taken in"}
    assert seqs_seen(folder) == Counter(range(1, 7))


def test_foreign_files_are_left_alone_and_named(sealed, by):
    (sealed / "thesis.tex").write_text("mine")
    (sealed / "events/README").write_text("mine, too")
    lose_head(sealed)
    done = repair(sealed, by)
    assert done.foreign == ("thesis.tex", "events/README")
    adopt(sealed, by)
    assert (sealed / "thesis.tex").read_text() == "mine"
    assert (sealed / "events/README").read_text() == "mine, too"
    assert done.sentences()[-1] == "not the ledger's own and left alone: thesis.tex, events/README"


def test_another_programs_folder_is_refused_and_left_as_it_is(tmp_path, by):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(NotALedgerError):
        repair(tmp_path, by)
    assert content_of(tmp_path) == {"thesis.tex": b"mine"}
