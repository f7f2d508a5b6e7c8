"""verify, backup and restore as a user has them; and what status, answers and a start say of damage."""

import json
import shutil
from pathlib import Path

import pytest

from store.ledger import Ledger
from store.upkeep.sealing import seal


@pytest.fixture
def sealed(recorded):
    seal(recorded.data)
    return recorded


def gpu_file(gpuledger) -> Path:
    return next((gpuledger.data / "events/gpu_sample").rglob("*.parquet"))


def test_verify_says_what_it_read_and_ends_with_0(sealed):
    out = sealed("verify").stdout
    assert out.startswith("2 segments, 180 events, ")
    assert out.endswith(" read: all sound\n")
    answer = json.loads(sealed("verify", "--json").stdout)
    assert (answer["segment_count"], answer["event_count"], answer["findings"]) == (2, 180, [])


def test_a_damaged_segment_is_found_left_out_of_answers_repaired_and_shown_in_status(sealed):
    path = gpu_file(sealed)
    name = str(path.relative_to(sealed.data))
    path.write_bytes(path.read_bytes()[:-10])
    out = sealed("verify", code=1).stdout
    assert out.startswith(f"{name}: it has ")
    assert "run 'gpuledger verify --repair' to set aside what is damaged" in out
    done = sealed("sql", "select count(*) as n from gpu_sample", "--csv")
    assert done.stdout == "n\n0\n"
    assert done.stderr.startswith(f"gpuledger: {name} is left out of answers: it cannot be read (")
    repaired = sealed("verify", "--repair", "--csv", code=1).stdout
    assert ",set aside as quarantine/" in repaired
    assert sealed("verify").stdout.startswith("1 segments, 60 events, ")
    status = sealed("status", code=5).stdout
    assert "set aside, 1 in quarantine/:" in status
    assert f"  {name}: it has " in status
    (aside,) = json.loads(sealed("status", "--json", code=5).stdout)["set_aside"]
    assert (aside["origin"], aside["details"]["event_count"]) == (name, 120)


def test_a_lost_head_is_said_with_the_command_that_builds_it_anew(sealed):
    for path in sealed.data.glob("head.sqlite*"):
        path.unlink()
    sentence = (
        f"The ledger {sealed.data} has lost its head.sqlite: the sealed files under events/ are unharmed: start the "
        "recorder, or run 'gpuledger verify --repair', and it is built anew from them"
    )
    assert sealed.error("status", code=1) == sentence
    sealed("verify", "--repair", code=1)
    assert sealed("sql", "select count(*) as n from gpu_sample", "--csv").stdout == "n\n120\n"
    assert sealed("verify").stdout.startswith("2 segments, 180 events, ")


def test_a_backup_is_taken_taken_again_and_restored_elsewhere(sealed, tmp_path):
    first = sealed("backup", str(tmp_path / "backup")).stdout
    assert first.startswith(f"{tmp_path}/backup: 180 events in 2 segments and the head, ")
    assert "; new: 2 segments, " in first
    with Ledger(sealed.data) as ledger:
        ledger.append([])
    assert sealed("backup", str(tmp_path / "backup")).stdout.endswith("; new: 0 segments, 0 B\n")
    out = sealed("restore", str(tmp_path / "backup"), "--data", str(tmp_path / "new")).stdout
    assert out.startswith(f"{tmp_path}/new: ledger ")
    assert "180 events; look at it with 'gpuledger status" in out
    count = sealed("sql", "select count(*) as n from gpu_sample", "--csv", "--data", str(tmp_path / "new")).stdout
    assert count == "n\n120\n"
    sealed("verify", "--data", str(tmp_path / "new"))


def test_a_backup_without_a_damaged_segment_ends_with_1_and_names_it(sealed, tmp_path):
    path = gpu_file(sealed)
    path.write_bytes(path.read_bytes()[:-10])
    done = sealed("backup", str(tmp_path / "backup"), code=1)
    assert done.stderr == (
        f"gpuledger: not in the backup: {path.relative_to(sealed.data)}: its bytes are not those that were sealed\n"
    )


def test_what_cannot_be_backed_up_or_restored_is_one_sentence(sealed, tmp_path):
    assert sealed.error("restore", str(tmp_path), "--data", str(tmp_path / "new"), code=2) == (
        f"There is no finished backup in {tmp_path}: name a folder that 'gpuledger backup' wrote"
    )
    sealed("backup", str(tmp_path / "backup"))
    assert sealed.error("restore", str(tmp_path / "backup"), code=2).startswith(
        f"{sealed.data} is not empty: it holds "
    )
    assert sealed.error("backup", str(sealed.data / "backup"), code=2) == (
        f"The backup {sealed.data}/backup would lie in the ledger itself: name a folder elsewhere"
    )
    assert sealed.error("verify", "--data", str(tmp_path / "nowhere"), code=3) == (
        f"There is no ledger in {tmp_path}/nowhere: name its folder with --data"
    )


# --- ledgers of earlier releases

LEDGERS = sorted((Path(__file__).parents[1] / "fixtures/ledgers").iterdir())


@pytest.mark.parametrize("release", LEDGERS, ids=lambda path: path.name)
def test_a_ledger_of_an_earlier_release_is_read_verified_backed_up_and_gone_on_with(gpuledger, release, tmp_path):
    expected = json.loads((release / "expected.json").read_text())
    shutil.copytree(release / "ledger", gpuledger.data)
    window = expected["window"]

    def counts():
        return {
            kind: int(gpuledger("sql", f"select count(*) as n from {kind}", "--csv").stdout.split()[1])
            for kind in expected["events"]
        }

    assert counts() == expected["events"]
    trend = json.loads(gpuledger("trend", "gpu.power_watts", "-w", window, "--json").stdout)
    found = {one["label"]: [one["n"], round(one["avg"], 3)] for one in trend["series"]}
    assert found == expected["power_watts"]
    gpuledger("verify")
    gpuledger("retain", "--dry-run")
    gpuledger("hold")
    with Ledger(gpuledger.data) as ledger:
        assert ledger.append([]).start == expected["next_seq"]
    assert counts() == expected["events"]
    gpuledger("seal")
    gpuledger("verify", "--repair")
    assert counts() == expected["events"]
    gpuledger("compact", "--all")
    assert counts() == expected["events"]
    gpuledger("backup", str(tmp_path / "backup"))
    gpuledger("restore", str(tmp_path / "backup"), "--data", str(tmp_path / "new"))
    gpuledger("verify", "--data", str(tmp_path / "new"))
