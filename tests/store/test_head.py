"""Opening a ledger: what is none, what is newer, what is damaged, what may not be written."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from store.errors import LedgerUnusableError, NoLedgerError, NotALedgerError
from store.head import _migrations, open_head, open_head_for_reading
from store.ledger import Ledger
from store.snapshot import LedgerReader

OPENERS = pytest.mark.parametrize("opener", [open_head, open_head_for_reading])


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file but SQLite's shared memory and the empty log that a reader leaves beside it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.endswith("-shm")
        and not (path.name.endswith("-wal") and not path.stat().st_size)
    }


def obeying_permissions(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as this user, but without root's power to ignore the permissions of its own files."""
    without_power = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    command = [*without_power, sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@OPENERS
def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(tmp_path, opener):
    (tmp_path / "thesis.tex").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(NotALedgerError) as refusal:
        opener(tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path} is not a ledger: it holds 'thesis.tex' and no head.sqlite: name an empty or new folder with --data"
    )
    assert contents(tmp_path) == before


@OPENERS
def test_a_file_in_place_of_the_folder_is_refused(tmp_path, opener):
    path = tmp_path / "ledger"
    path.write_text("mine")
    with pytest.raises(NotALedgerError, match="is not a folder: name the ledger's folder with --data"):
        opener(path)
    assert path.read_text() == "mine"


@OPENERS
def test_another_programs_sqlite_file_is_refused_and_left_as_it_is(tmp_path, opener):
    connection = sqlite3.connect(tmp_path / "head.sqlite")
    connection.execute("create table theirs (x)")
    connection.commit()
    connection.close()
    before = contents(tmp_path)
    with pytest.raises(NotALedgerError, match=r"head\.sqlite is not a ledger's head"):
        opener(tmp_path)
    assert contents(tmp_path) == before


@OPENERS
def test_a_ledger_of_a_newer_program_is_refused_with_the_versions_and_left_as_it_is(ledger, folder, opener):
    ledger._head.pragma("user_version", 99)
    ledger.close()
    before = contents(folder)
    with pytest.raises(LedgerUnusableError) as refusal:
        opener(folder)
    assert str(refusal.value) == (
        f"The ledger {folder} was written by a newer gpuledger (head version 99, known here: {len(_migrations())}): "
        "upgrade gpuledger: 'pip install --upgrade gpuledger'"
    )
    assert contents(folder) == before


@OPENERS
def test_a_head_of_random_bytes_is_called_damaged_and_left_as_it_is(tmp_path, opener):
    (tmp_path / "head.sqlite").write_bytes(b"\x00garbage" * 1000)
    before = contents(tmp_path)
    with pytest.raises(
        LedgerUnusableError, match=r"head\.sqlite is damaged .*: the sealed files under events/ are unharmed"
    ):
        opener(tmp_path)
    assert contents(tmp_path) == before


@OPENERS
def test_a_ledger_that_lost_its_head_is_not_begun_anew_over_its_events(tmp_path, opener):
    day = tmp_path / "events/gpu_sample/v=1/date=2026-11-23"
    day.mkdir(parents=True)
    (day / "spark-1-1-9-0.parquet").write_bytes(b"sealed")
    with pytest.raises(LedgerUnusableError, match=r"has lost its head\.sqlite"):
        opener(tmp_path)
    assert not (tmp_path / "head.sqlite").exists()


def test_reading_where_there_is_no_ledger_says_how_to_begin_one_and_creates_nothing(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(NoLedgerError) as refusal:
        LedgerReader(missing)
    assert str(refusal.value) == (
        f"There is no ledger in {missing}: start one with 'gpuledger up', or name its folder with --data"
    )
    assert not missing.exists()


def test_an_empty_folder_becomes_a_ledger(tmp_path):
    Ledger(tmp_path).close()
    LedgerReader(tmp_path).close()


def test_opening_twice_migrates_once(folder):
    Ledger(folder).close()
    with LedgerReader(folder) as reader:
        identity = reader.ledger_id
    Ledger(folder).close()
    with LedgerReader(folder) as reader:
        assert reader.ledger_id == identity


def test_a_head_that_was_only_begun_is_finished(folder):
    folder.mkdir()
    connection = apsw.Connection(str(folder / "head.sqlite"))
    connection.pragma("journal_mode", "wal")
    connection.close()
    with pytest.raises(NoLedgerError, match="has not been begun"):
        LedgerReader(folder)
    Ledger(folder).close()
    LedgerReader(folder).close()


def test_a_folder_that_may_not_be_written_is_refused_for_appending_and_read_all_the_same(tmp_path, tick):
    folder = tmp_path / "ledger"
    with Ledger(folder) as ledger:
        ledger.append(tick(0))
    for part in (*folder.rglob("*"), folder):
        part.chmod(0o555 if part.is_dir() else 0o444)
    before = contents(folder)
    script = (
        "import sys; from pathlib import Path; from store.ledger import Ledger; from store.snapshot import LedgerReader\n"
        "print(LedgerReader(Path(sys.argv[1])).extents()['gpu_sample'].event_count)\n"
        "Ledger(Path(sys.argv[1]))\n"
    )
    done = obeying_permissions(script, str(folder))
    assert done.stdout == "1\n", done.stderr
    assert f"LedgerUnusableError: The ledger {folder} cannot be written" in done.stderr
    assert "make it writable for this user, or name another folder with --data" in done.stderr
    assert contents(folder) == before
    folder.chmod(0o755)


def test_a_reader_waits_while_the_last_one_who_had_it_open_puts_it_away(folder, tick):
    with Ledger(folder) as ledger:
        ledger.append(tick(0))
    holder = apsw.Connection(str(folder / "head.sqlite"))
    holder.pragma("locking_mode", "exclusive")
    holder.execute("begin exclusive; commit")
    counts = []

    def read():
        with LedgerReader(folder) as reader:
            counts.append(reader.extents()["gpu_sample"].event_count)

    reading = threading.Thread(target=read)
    reading.start()
    reading.join(0.2)
    assert reading.is_alive()
    holder.close()
    reading.join()
    assert counts == [1]


def test_a_folder_that_may_not_be_entered_is_refused(tmp_path):
    folder = tmp_path / "ledger"
    Ledger(folder).close()
    folder.chmod(0o000)
    script = (
        "import sys; from pathlib import Path; from store.snapshot import LedgerReader; LedgerReader(Path(sys.argv[1]))"
    )
    done = obeying_permissions(script, str(folder))
    assert "LedgerUnusableError" in done.stderr
    assert "cannot be read (permission denied): run as a user who may read it" in done.stderr
    folder.chmod(0o755)
