"""Verifying: every bit of a segment counts, and a repair leaves a ledger that is sound."""

import errno
import os
import random
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest

from store.errors import LedgerHeldError, NoLedgerError
from store.files import sha256_of
from store.head import HEAD_NAME, open_head
from store.ledger import CollectorLock
from store.repair.quarantine import quarantined
from store.repair.verification import verify
from store.upkeep.scrub import ScrubResult, scrub

GPU_FILE = "events/gpu_sample/v=1/date=2026-11-23/spark-1-5-7-0.parquet"
DAY_US = 86_400_000_000


def damage(path, at=700, length=20):
    content = bytearray(path.read_bytes())
    content[at : at + length] = bytes(255 - byte for byte in content[at : at + length])
    path.write_bytes(content)


def findings(found):
    return [(one.kind, one.path, one.repaired) for one in found.findings]


def test_a_sound_ledger_has_no_finding_and_its_segments_are_counted(sealed, by):
    found = verify(sealed, by)
    assert (found.segment_count, found.event_count, found.findings, found.is_sound) == (6, 12, (), True)
    assert found.size_bytes == sum(path.stat().st_size for path in (sealed / "events").rglob("*.parquet"))


def test_every_byte_of_a_segment_is_under_a_checksum(sealed, by):
    path = sealed / GPU_FILE
    content = path.read_bytes()
    chance = random.Random(20261123)
    for at in [0, 4, len(content) - 1, *(chance.randrange(len(content)) for _ in range(24))]:
        changed = bytearray(content)
        changed[at] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        assert [(one.kind, one.path) for one in verify(sealed, by).findings] == [("damaged", GPU_FILE)], at
    path.write_bytes(content)
    assert verify(sealed, by).is_sound


def test_a_damaged_segment_is_found_left_alone_and_with_repair_set_aside(sealed, by, seqs_seen, told):
    damage(sealed / GPU_FILE)
    assert findings(verify(sealed, by)) == [("damaged", GPU_FILE, "")]
    assert (sealed / GPU_FILE).exists()
    found = verify(sealed, by, repair=True)
    (aside,) = quarantined(sealed)
    assert findings(found) == [("damaged", GPU_FILE, f"set aside as quarantine/{aside.name}")]
    assert [event for event, _ in told(sealed)] == ["quarantine", "gap"]
    assert set(seqs_seen(sealed)) == {*range(1, 17)} - {5, 7}
    again = verify(sealed, by)
    assert (again.is_sound, again.set_aside) == (True, (aside,))


def test_a_catalogue_that_says_something_else_than_the_file_is_corrected(sealed, by):
    with open_head(sealed) as head:
        head.execute("update segment set event_count = 99, last_seq = 6 where path = ?", (GPU_FILE,))
    (found,) = verify(sealed, by).findings
    assert (found.kind, found.problem) == (
        "disagrees",
        "the catalogue says last_seq 6 where the file has 7; event_count 99 where the file has 2",
    )
    verify(sealed, by, repair=True)
    assert verify(sealed, by).findings == ()


def test_a_segment_whose_checksum_was_never_taken_is_no_problem_and_gets_one(sealed, by):
    with open_head(sealed) as head:
        head.execute("delete from checksum where segment_path = ?", (GPU_FILE,))
    found = verify(sealed, by)
    assert (findings(found), found.is_sound) == ([("unchecked", GPU_FILE, "")], True)
    verify(sealed, by, repair=True)
    assert verify(sealed, by).findings == ()


def test_a_ledger_that_lost_its_head_is_repaired_whole(sealed, by, seqs_seen):
    for path in sealed.glob(f"{HEAD_NAME}*"):
        path.unlink()
    assert findings(verify(sealed, by)) == [("head", HEAD_NAME, "")]
    found = verify(sealed, by, repair=True)
    assert found.findings[0].repaired == "begun anew; 0 events of its tail were kept"
    assert [seqs_seen(sealed)[seq] for seq in range(1, 13)] == [1] * 12
    assert verify(sealed, by).is_sound


def test_a_head_is_not_begun_anew_beside_a_collector_that_has_it(sealed, by):
    (sealed / HEAD_NAME).write_bytes(b"\x00garbage" * 1000)
    lock = CollectorLock(sealed)
    with pytest.raises(LedgerHeldError):
        verify(sealed, by, repair=True)
    lock.close()
    assert quarantined(sealed) == ()


def test_where_there_is_no_ledger_there_is_nothing_to_verify(tmp_path, by):
    with pytest.raises(NoLedgerError):
        verify(tmp_path / "nowhere", by)


def test_a_damaged_index_of_the_head_is_damage(sealed, by):
    with open_head(sealed) as head:
        head.execute("pragma writable_schema = on")
        head.execute("delete from sqlite_schema where name = 'segment_by_time'")
    assert [one.kind for one in verify(sealed, by).findings] == ["head"]


def test_scrubbing_finds_what_no_reader_would_and_reads_nothing_twice_a_day(sealed, by, seqs_seen, told):
    tomorrow = replace(by, now_us=by.now_us + 400 * DAY_US)
    damage(sealed / GPU_FILE)
    with closing(open_head(sealed)) as head:
        (aside,) = scrub(sealed, head, tomorrow).set_aside
        assert (aside.origin, aside.reason) == (
            GPU_FILE,
            "its bytes are not those that were sealed: the SHA-256 differs",
        )
        other = sealed / GPU_FILE.replace("5-7", "1-3")
        damage(other)
        assert scrub(sealed, head, replace(tomorrow, now_us=tomorrow.now_us + DAY_US // 2)) == ScrubResult()
        assert len(scrub(sealed, head, replace(tomorrow, now_us=tomorrow.now_us + DAY_US)).set_aside) == 1
    assert [event for event, _ in told(sealed)] == ["quarantine", "gap"] * 2
    assert set(seqs_seen(sealed)) == {*range(1, 19)} - {1, 3, 5, 7}


def test_scrubbing_goes_on_where_it_left_off_until_all_was_read(sealed, by):
    tomorrow = replace(by, now_us=by.now_us + 400 * DAY_US)
    with closing(open_head(sealed)) as head:
        for turn in range(6):
            scrub(sealed, head, replace(tomorrow, now_us=tomorrow.now_us + turn), bytes_at_once=1)
        times = [row[0] - tomorrow.now_us for row in head.execute("select verified_at_us from checksum order by 1")]
    assert times == list(range(6))


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_segment_that_cannot_be_read_now_stays_and_is_checked_the_next_time(sealed, by, told, monkeypatch, number):
    tomorrow = replace(by, now_us=by.now_us + 400 * DAY_US)
    refusing = OSError(number, os.strerror(number))
    with closing(open_head(sealed)) as head:
        with monkeypatch.context() as patch:
            patch.setattr(
                "store.upkeep.scrub.sha256_of",
                lambda path: sha256_of(path) if GPU_FILE not in str(path) else fail(refusing),
            )
            done = scrub(sealed, head, tomorrow)
        assert done.set_aside == ()
        assert done.problems == (
            f"{GPU_FILE} could not be checked: it cannot be read now ({os.strerror(number).lower()})",
        )
        unchecked = "select segment_path from checksum where verified_at_us < ?"
        assert head.execute(unchecked, (tomorrow.now_us,)).fetchall() == [(GPU_FILE,)]
        assert scrub(sealed, head, tomorrow) == ScrubResult()
        assert head.execute(unchecked, (tomorrow.now_us,)).fetchall() == []
    assert told(sealed) == []


def fail(error):
    raise error


def test_verify_leaves_what_cannot_be_read_now_where_it_is(sealed, by, out_of_reach):
    with out_of_reach(sealed / GPU_FILE):
        found = verify(sealed, by, repair=True)
        assert findings(found) == [("unreadable", GPU_FILE, "")]
        assert found.findings[0].problem == "it cannot be read now (too many levels of symbolic links)"
        assert (found.is_sound, found.set_aside) == (False, ())
    assert verify(sealed, by).is_sound


def test_the_checksum_goes_with_its_segment(sealed):
    with open_head(sealed) as head:
        head.execute("delete from segment where kind = 'gpu_sample'")
        paths = [path for (path,) in head.execute("select segment_path from checksum")]
    assert Counter("gpu_sample" in path for path in paths) == {False: 3}
