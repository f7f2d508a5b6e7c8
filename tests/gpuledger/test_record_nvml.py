"""`gpuledger record-nvml` and what comes of it, on the stand-in driver."""

import re

import pytest

from collector.recordings.recording import read_recording


@pytest.fixture
def on_the_stand_in(gpuledger, fake_nvml):
    names = ("LD_LIBRARY_PATH", "FAKE_NVML_SCENARIO")
    gpuledger.environment = {name: fake_nvml.environment[name] for name in names}
    return gpuledger


def test_a_recording_is_made_and_says_what_it_is_of(on_the_stand_in):
    done = on_the_stand_in("record-nvml", "--seconds", "1", "--out", "mine.recording", "--load", "idle")
    assert re.fullmatch(
        r"mine\.recording: 1 s of 2 × NVIDIA H200 \(the stand-in of the tests, no hardware\), driver 580\.95\.05, idle; "
        r"\d+ calls, [\d.]+ KiB\nUUIDs, serial numbers and pids are replaced by others\n",
        done.stdout,
    )
    label = read_recording(on_the_stand_in.home / "mine.recording").label
    assert (label.machine, label.load, label.identities) == ("stand-in", "idle", "replaced")


def test_identities_are_kept_only_where_that_is_asked_for_and_said(on_the_stand_in):
    done = on_the_stand_in("record-nvml", "--seconds", "1", "--keep-identities")
    assert done.stdout.endswith("UUIDs, serial numbers and pids are as they are\n")
    assert read_recording(on_the_stand_in.home / "nvml.recording").label.identities == "kept"


def test_a_file_that_is_there_is_not_replaced_unless_that_is_asked_for(on_the_stand_in):
    path = on_the_stand_in.home / "nvml.recording"
    path.write_text("precious")
    said = on_the_stand_in.error("record-nvml", code=2)
    assert said == "nvml.recording is there already: name another file with --out, or give --overwrite"
    assert path.read_text() == "precious"
    on_the_stand_in("record-nvml", "--seconds", "1", "--overwrite")
    assert read_recording(path).ticks


def test_a_machine_without_a_driver_has_nothing_to_record(gpuledger, tmp_path):
    (tmp_path / "no driver").mkdir()
    done = gpuledger("record-nvml", "--seconds", "1", code=3)
    assert re.search(
        r"gpuledger: There is nothing to record \(no GPU: .*\): run it where 'nvidia-smi' lists", done.stderr
    )
    assert not (tmp_path / "nvml.recording").exists()


@pytest.mark.parametrize("command", ["up", "collect"])
def test_a_recording_that_is_not_there_ends_what_would_replay_it(gpuledger, command):
    gpuledger.environment = {"GPULEDGER_COLLECTOR__PORT": "0", "GPULEDGER_MCP__PORT": "0"}
    done = gpuledger(command, "--source", "replay:nowhere.recording", code=2)
    assert "gpuledger: There is no recording nowhere.recording: make one with 'gpuledger record-nvml'" in done.stderr
