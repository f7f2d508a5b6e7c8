"""Beginning to record: what is put right, what is waited for, and what is refused."""

import pytest

from collector import beginning as beginning_module
from collector.beginning import PatientLedger, adoption_command, begin_recording
from store.errors import LedgerFullError, LedgerHeldError, LedgerUnusableError, NetworkFolderError, NotALedgerError
from store.events import Event
from store.head import HEAD_NAME
from store.ledger import Ledger, lock_holder
from store.repair.quarantine import Repairer
from store.upkeep.sealing import seal

BY = Repairer(1_795_438_800_000_000, "spark-1", "boot")
NOTE = Event("annotation", 1, {"text": "a"})


def end(beginning):
    beginning.ledger.close()
    beginning.lock.close()


def test_a_new_folder_becomes_a_ledger_that_is_held(tmp_path):
    beginning = begin_recording(tmp_path / "ledger", BY)
    assert beginning.ledger.append([NOTE]) == range(1, 2)
    assert beginning.has_strays is False
    assert lock_holder(tmp_path / "ledger") is not None
    end(beginning)


def test_a_lost_head_is_begun_anew_and_said_and_its_files_wait_to_be_judged(tmp_path, caplog):
    folder = tmp_path / "ledger"
    with Ledger(folder) as ledger:
        ledger.append([NOTE])
    seal(folder)
    (folder / HEAD_NAME).unlink()
    beginning = begin_recording(folder, BY)
    assert beginning.has_strays is True
    assert beginning.ledger.append([NOTE]).start > 1_000_000
    end(beginning)
    assert [record.getMessage() for record in caplog.records] == [
        "the head was lost and is begun anew; 0 events of its tail were kept",
        "1 files under events/ are not in the catalogue and are looked at now",
    ]
    assert adoption_command(folder)[-3:] == ["-m", "store.repair.adoption", str(folder)]


def test_a_full_disk_is_waited_for(tmp_path):
    tries = iter([LedgerFullError("The disk is full"), LedgerFullError("The disk is full"), None])

    def opens():
        if problem := next(tries):
            raise problem
        return Ledger(tmp_path / "ledger")

    ledger = PatientLedger(opens)
    for _ in range(2):
        with pytest.raises(LedgerUnusableError):
            ledger.append([NOTE])
    assert ledger.append([NOTE]) == range(1, 2)
    ledger.close()


def test_a_ledger_that_cannot_be_looked_through_for_a_failing_disk_is_recorded_into_all_the_same(
    tmp_path, monkeypatch, caplog
):
    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(beginning_module, "repair", fails)
    beginning = begin_recording(tmp_path / "ledger", BY)
    assert beginning.ledger.append([NOTE]) == range(1, 2)
    end(beginning)
    assert "could not be looked through ([Errno 5] Input/output error)" in caplog.text


def test_what_a_person_must_decide_is_refused_and_nothing_is_held(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("mine")
    with pytest.raises(NotALedgerError):
        begin_recording(tmp_path / "mine", BY)
    first = begin_recording(tmp_path / "ledger", BY)
    with pytest.raises(LedgerHeldError):
        begin_recording(tmp_path / "ledger", BY)
    end(first)
    with Ledger(tmp_path / "ledger") as ledger:
        ledger._head.pragma("user_version", 99)
    with pytest.raises(LedgerUnusableError, match="newer gpuledger"):
        begin_recording(tmp_path / "ledger", BY)
    assert lock_holder(tmp_path / "ledger") is None
    monkeypatch.setattr("store.space.file_system_of", lambda *_: "nfs4")
    with pytest.raises(NetworkFolderError):
        begin_recording(tmp_path / "far", BY)
    assert not (tmp_path / "far").exists()
