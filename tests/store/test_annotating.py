"""A note is pinned where it belongs, or refused in one sentence with nothing written."""

import pytest

from store.annotating import TEXT_MAX, Annotation, annotate
from store.errors import NoLedgerError, UsageError
from store.snapshot import LedgerReader

NOW_US = 1_795_435_200_000_000


def notes(folder):
    with LedgerReader(folder) as reader:
        return reader.snapshot(["annotation"])["annotation"].tail.to_pylist()


def microseconds(instant):
    return round(instant.timestamp() * 1e6)


def test_a_note_is_observed_when_what_it_is_about_began(folder, ledger):
    note = Annotation("new fans", NOW_US - 60_000_000, NOW_US - 1_000_000, ("cooling", "rack 3"), "Ada", "GPU-0")
    seq = annotate(folder, note, now_us=NOW_US)
    [row] = notes(folder)
    told = {name: row[name] for name in ("seq", "text", "tags", "author", "gpu_uuid")}
    assert told == {"seq": seq, "text": "new fans", "tags": ["cooling", "rack 3"], "author": "Ada", "gpu_uuid": "GPU-0"}
    times = [microseconds(row[name]) for name in ("observed_at", "started_at", "ended_at")]
    assert times == [NOW_US - 60_000_000, NOW_US - 60_000_000, NOW_US - 1_000_000]


def test_a_note_without_a_time_is_about_now(folder, ledger):
    annotate(folder, Annotation("here"), now_us=NOW_US)
    [row] = notes(folder)
    assert {microseconds(row[name]) for name in ("observed_at", "started_at", "ended_at")} == {NOW_US}


def test_what_cannot_be_seen_is_left_out_of_a_note(folder, ledger):
    annotate(folder, Annotation("\x1b[31mred\u202e\x00 of\ntwo lines  "), now_us=NOW_US)
    assert notes(folder)[0]["text"] == "[31mred of\ntwo lines"


@pytest.mark.parametrize(
    ("note", "sentence"),
    [
        (Annotation(" \x00 "), "The note is empty: give it some words"),
        (Annotation("x" * (TEXT_MAX + 1)), "The note has 2,001 characters: give at most 2,000"),
        (Annotation("x", tags=["y"] * 21), "The note has 21 tags: give at most 20"),
        (Annotation("x", tags=["y" * 101]), "The tag has 101 characters: give at most 100"),
        (
            Annotation("x", NOW_US + 1),
            "A note is about a time that begins before it ends and is over: give another time",
        ),
        (Annotation("x", 2, 1), "A note is about a time that begins before it ends and is over: give another time"),
    ],
)
def test_a_note_that_will_not_do_is_refused(folder, ledger, note, sentence):
    with pytest.raises(UsageError) as refused:
        annotate(folder, note, now_us=NOW_US)
    assert str(refused.value) == sentence
    assert notes(folder) == []


def test_a_note_alone_makes_no_ledger(folder):
    with pytest.raises(NoLedgerError):
        annotate(folder, Annotation("x"), now_us=NOW_US)
    assert not folder.exists()
