"""A backup is one picture of one moment, whatever goes on beside it; a restore is that ledger again."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from store.errors import LedgerUnusableError, NotALedgerError, UsageError
from store.head import HEAD_NAME
from store.ledger import Ledger
from store.repair import backup as backup_module
from store.repair.backup import read_backup, restore_backup, take_backup
from store.repair.verification import verify
from store.snapshot import LedgerReader
from store.upkeep.sealing import seal


def ledger_id(folder):
    with LedgerReader(folder) as reader:
        return reader.ledger_id


def test_a_restored_ledger_has_every_event_its_identity_and_says_where_it_is_from(
    sealed, tmp_path, by, seqs_seen, told
):
    done = take_backup(sealed, tmp_path / "backup", by)
    assert (done.backup.event_count, len(done.backup.segments), done.new_segment_count) == (14, 6, 6)
    restore_backup(tmp_path / "backup", tmp_path / "new", by)
    assert ledger_id(tmp_path / "new") == ledger_id(sealed)
    assert seqs_seen(tmp_path / "new") == Counter(range(1, 16))
    assert told(tmp_path / "new") == [
        ("restored", "restored on spark-1 from a backup that spark-1 took at 2026-11-23T13:00:00.000000+00:00")
    ]
    assert verify(tmp_path / "new", by).is_sound
    with Ledger(tmp_path / "new") as ledger:
        assert ledger.append([]).start == 16


def test_a_second_backup_takes_only_what_is_new_and_forgets_what_is_gone(sealed, tick, tmp_path, by, seqs_seen):
    take_backup(sealed, tmp_path / "backup", by)
    with Ledger(sealed, host="spark-1") as ledger:
        ledger.append(tick(7))
        seal(sealed)
        ledger._head.execute("delete from segment where first_seq = 1")
    done = take_backup(sealed, tmp_path / "backup", replace(by, now_us=by.now_us + 1))
    assert (len(done.backup.segments), done.new_segment_count) == (7, 2)
    assert len(list((tmp_path / "backup").glob("head-*.sqlite"))) == 1
    assert len(list((tmp_path / "backup/events").rglob("*.parquet"))) == 7
    restore_backup(tmp_path / "backup", tmp_path / "new", by)
    assert set(seqs_seen(tmp_path / "new")) == {*range(2, 18)} - {3}


def test_on_one_file_system_the_segments_are_links_and_a_restore_shares_nothing(sealed, tmp_path, by):
    take_backup(sealed, tmp_path / "backup", by)
    path = next((sealed / "events").rglob("*.parquet")).relative_to(sealed)
    assert (tmp_path / "backup" / path).samefile(sealed / path)
    restore_backup(tmp_path / "backup", tmp_path / "new", by)
    assert not (tmp_path / "new" / path).samefile(sealed / path)


def test_a_backup_that_was_interrupted_leaves_the_one_before(sealed, tick, tmp_path, by, seqs_seen, monkeypatch):
    take_backup(sealed, tmp_path / "backup", by)
    with Ledger(sealed, host="spark-1") as ledger:
        ledger.append(tick(7))
    seal(sealed)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "_write_marker", dies)
        with pytest.raises(KeyboardInterrupt):
            take_backup(sealed, tmp_path / "backup", replace(by, now_us=by.now_us + 1))
    restore_backup(tmp_path / "backup", tmp_path / "before", by)
    assert seqs_seen(tmp_path / "before") == Counter(range(1, 16))
    take_backup(sealed, tmp_path / "backup", replace(by, now_us=by.now_us + 2))
    restore_backup(tmp_path / "backup", tmp_path / "after", by)
    assert seqs_seen(tmp_path / "after") == Counter(range(1, 18))


def test_a_damaged_segment_is_named_and_not_copied(sealed, tmp_path, by):
    path = next((sealed / "events/gpu_sample").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = take_backup(sealed, tmp_path / "backup", by)
    assert done.backup.damaged == (f"{path.relative_to(sealed)}: its bytes are not those that were sealed",)
    assert len(done.backup.segments) == 5


def test_a_segment_that_goes_while_it_is_copied_is_looked_for_in_a_new_picture(sealed, tmp_path, by, monkeypatch):
    copy_head = backup_module._copy_head
    pictures = []

    def then_it_goes(*arguments):
        pictures.append(copy_head(*arguments))
        if len(pictures) == 1:
            with Ledger(sealed) as ledger:
                path = ledger._head.execute("select path from segment order by first_seq limit 1").get
                ledger._head.execute("delete from segment where path = ?", (path,))
            (sealed / path).unlink()
        return pictures[-1]

    monkeypatch.setattr(backup_module, "_copy_head", then_it_goes)
    done = take_backup(sealed, tmp_path / "backup", by)
    assert (len(pictures), len(done.backup.segments)) == (2, 5)


WRITER = """
import sys
from pathlib import Path
from store.events import Event
from store.ledger import Ledger
from store.upkeep.sealing import seal
folder = Path(sys.argv[1])
with Ledger(folder) as ledger:
    for number in range(10_000):
        ledger.append([Event("annotation", number, {"text": "a"}), Event("ledger_event", number, {"event": "gap"})])
        if number % 3 == 0:
            seal(folder)
        if number % 10 == 0:
            print(number, flush=True)
"""


def test_backups_beside_a_writer_that_seals_are_each_one_moment_without_a_hole(tmp_path, by, seqs_seen):
    folder = tmp_path / "ledger"
    Ledger(folder).close()
    counts = []
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE) as writer:
        for turn in range(5):
            for _ in range(2):
                writer.stdout.readline()
            moment = replace(by, now_us=by.now_us + turn)
            done = take_backup(folder, tmp_path / "backup", moment)
            restore_backup(tmp_path / "backup", tmp_path / f"restored-{turn}", moment)
            seen = seqs_seen(tmp_path / f"restored-{turn}")
            counts.append(done.backup.event_count)
            assert seen == Counter(range(1, done.backup.next_seq + 1))  # and one that tells of the restore
        writer.kill()
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_restore_that_was_interrupted_is_no_ledger_and_goes_on(sealed, tmp_path, by, seqs_seen, monkeypatch):
    take_backup(sealed, tmp_path / "backup", by)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "_restore_head", dies)
        with pytest.raises(KeyboardInterrupt):
            restore_backup(tmp_path / "backup", tmp_path / "new", by)
    for opener in (Ledger, LedgerReader):
        with pytest.raises(LedgerUnusableError, match="is half restored"):
            opener(tmp_path / "new")
    restore_backup(tmp_path / "backup", tmp_path / "new", by)
    assert seqs_seen(tmp_path / "new") == Counter(range(1, 16))


def test_a_damaged_backup_is_not_restored(sealed, tmp_path, by):
    done = take_backup(sealed, tmp_path / "backup", by)
    path = tmp_path / "backup" / done.backup.segments[0].path
    content = path.read_bytes()
    path.unlink()  # a link: the ledger's own file stays as it is
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(LedgerUnusableError, match="is damaged: its SHA-256 differs"):
        restore_backup(tmp_path / "backup", tmp_path / "new", by)
    path.unlink()
    with pytest.raises(LedgerUnusableError, match="is gone: take another backup"):
        restore_backup(tmp_path / "backup", tmp_path / "new", by)


def test_what_cannot_be_a_backups_place_is_refused_and_left_as_it_is(sealed, tmp_path, tick, by):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'thesis\.tex' and no backup\.json"):
        take_backup(sealed, tmp_path / "mine", by)
    with pytest.raises(UsageError, match="would lie in the ledger itself"):
        take_backup(sealed, sealed / "backup", by)
    with pytest.raises(UsageError, match="is not a folder"):
        take_backup(sealed, tmp_path / "mine/thesis.tex", by)
    with Ledger(tmp_path / "other") as other:
        other.append(tick(0))
    take_backup(tmp_path / "other", tmp_path / "backup", by)
    with pytest.raises(UsageError, match="holds the backup of another ledger"):
        take_backup(sealed, tmp_path / "backup", by)
    assert (tmp_path / "mine/thesis.tex").read_text() == "mine"


def test_what_cannot_be_restored_is_refused(sealed, tmp_path, by):
    with pytest.raises(UsageError, match="There is no finished backup in"):
        restore_backup(tmp_path, tmp_path / "new", by)
    take_backup(sealed, tmp_path / "backup", by)
    with pytest.raises(UsageError, match="is not empty: it holds 'events'"):
        restore_backup(tmp_path / "backup", sealed, by)
    marker = tmp_path / "backup/backup.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 9}))
    with pytest.raises(UsageError, match="newer gpuledger"):
        read_backup(tmp_path / "backup")
    marker.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        read_backup(tmp_path / "backup")


def test_a_backups_folder_is_not_taken_for_a_ledger(sealed, tmp_path, by):
    take_backup(sealed, tmp_path / "backup", by)
    assert not (tmp_path / "backup" / HEAD_NAME).exists()
    with pytest.raises((NotALedgerError, LedgerUnusableError)):
        LedgerReader(tmp_path / "backup")
