"""What the doctor says of the ledger's files."""

from datetime import UTC, datetime

import pytest

from gpuledger.doctor.checks_recording import ledger_checks
from gpuledger.doctor.findings import State
from store.events import Event
from store.ledger import Ledger
from store.upkeep.sealing import seal

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path):
    """A ledger with one sealed file and an event in the tail."""
    event = Event("annotation", round(NOW.timestamp() * 1e6), {"text": "here"})
    with Ledger(tmp_path / "ledger", host="node") as ledger:
        ledger.append([event])
        seal(tmp_path / "ledger")
        ledger.append([event])
    return tmp_path / "ledger"


def findings(folder):
    checks, _ = ledger_checks(folder, NOW)
    return {check.name: (check.state, check.finding) for check in checks if check.name in ("integrity", "quarantine")}


def test_a_sound_ledger_is_whole(folder):
    assert findings(folder) == {"integrity": (State.OK, "every file is there, 'gpuledger verify' reads them")}


def test_a_folder_without_a_ledger_has_nothing_to_be_whole(tmp_path):
    assert findings(tmp_path / "none") == {}


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"torn"), lambda file: file.unlink()])
def test_a_file_that_is_torn_or_gone_is_a_problem_that_names_it_and_the_way_out(folder, spoil):
    (file,) = folder.glob("events/**/*.parquet")
    spoil(file)
    checks, _ = ledger_checks(folder, NOW)
    (check,) = [one for one in checks if one.name == "integrity"]
    assert (check.state, check.finding) == (State.PROBLEM, "gone or torn: 1 file")
    assert check.next_step == "gpuledger verify --repair, or start the recorder, which does it too"
    assert str(file.relative_to(folder)) in check.details[0]


def test_a_lost_head_is_told_beside_the_files_that_are_left(folder):
    for head in folder.glob("head.sqlite*"):
        head.unlink()
    assert findings(folder) == {"integrity": (State.PROBLEM, "the head is lost, in no catalogue: 1 file")}


def test_what_was_set_aside_is_told(folder):
    (folder / "quarantine").mkdir()
    (folder / "quarantine/20261123T120000Z-node-1-1-0.parquet").write_bytes(b"torn")
    (folder / "quarantine/20261123T120000Z-node-1-1-0.parquet.reason").write_text("{}")
    assert findings(folder) == {"quarantine": (State.WARNING, "set aside: 1 file")}
