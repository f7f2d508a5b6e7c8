"""Recordings of a driver: what a replay gives, what is in the file, what a damaged one says."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from collector.recordings import recording
from collector.recordings.recording import RecordingError, read_recording, write_recording

FIXTURES = Path(__file__).parents[2] / "fixtures/recordings"
UUIDS = ("GPU-6e2f8a10-52d1-7c3b-9f04-1d2c3b4a5968", "GPU-b7d91c44-0a3e-4f52-8c6d-77e19f2a0b31")
SERIALS = ("1654922006536", "1654922006537")
PIDS = (3141592, 2718281)
PAIR = f"""
gpu 0 uuid={UUIDS[0]} serial={SERIALS[0]} name="NVIDIA H100 80GB HBM3" energy_mj=9000000000 energy_step_mj=612345
gpu 1 uuid={UUIDS[1]} serial={SERIALS[1]} name="NVIDIA H100 80GB HBM3" pcie_tx_step=1000
samples gpu=0 type=0 period_us=100000 depth=120 values=610000,612000,615500
samples gpu=1 type=0 period_us=100000 depth=120 values=78000
samples gpu=0 type=1 period_us=20000 depth=120 values=80,90,100
gpm gpu=0 1=87.5 2=80 3=45.25 4=5 5=60 10=33 11=1 12=20 13=55
gpm gpu=1 1=0 2=0
process gpu=0 pid={PIDS[0]} memory=1073741824 type=compute
process gpu=0 pid={PIDS[1]} memory=none type=graphics
process gpu=1 pid={PIDS[1]} memory=1048576 type=mps gi=3 ci=1
"""
MIG = f"""
gpu 0 uuid={UUIDS[0]} util=none
mig gpu=0 gi=1 ci=0 uuid=MIG-4f6dbe50-a172-5e9c-b054-92c3b16f8ea5 profile=3g.40gb memory_total=42416996352 sms=60
process gpu=0 pid={PIDS[0]} memory=5 type=compute gi=1 ci=0
"""


def moving(scenario):
    """A machine whose driver's clock and readings go with the ticks."""

    def at(tick):
        now_us = 1_795_435_200_000_000 + tick * 1_000_137
        process = f"process gpu=0 pid={PIDS[0]} memory=5 type=compute sm={tick % 100} mem=10 t_us={now_us}\n"
        return f"{scenario}gpu 0 temp={30 + tick}\n{process}clock_us {now_us}\n"

    return at


def failing(tick):
    """A GPU is lost and returns, an Xid before; another one joins; calls begin to fail."""
    lost = "gpu 1 lost_after=0\n" if 4 <= tick < 9 else ""
    joined = "gpu 2 uuid=GPU-c1\n" if tick > 14 else ""
    refused = "fail nvmlDeviceGetUtilizationRates 4\nmissing nvmlDeviceGetTemperatureV\n" if tick > 5 else ""
    return moving(PAIR + lost + joined + refused)(tick) + ("xid gpu=1 code=79\n" if tick >= 3 else "")


def driver_gone(tick):
    return PAIR + ("fail * 9\n" if 5 <= tick < 8 else "")


MACHINES = {
    "two GPUs": moving(PAIR),
    "MIG": lambda _: MIG,
    "unified memory": moving(f"gpu 0 uuid={UUIDS[0]} unified=1 mem_temp=none power_limit_mw=none\n"),
    "what fails": failing,
    "a driver that goes": driver_gone,
}


@pytest.fixture
def proc(tmp_path):
    """A /proc with one of the processes in it."""
    folder = tmp_path / f"proc/{PIDS[0]}"
    folder.mkdir(parents=True)
    (folder.parent / "stat").write_text("cpu 1 2 3\nbtime 1795000000\n")
    (folder.parent / "meminfo").write_text("MemTotal: 125450204 kB\nMemAvailable: 27140336 kB\n")
    fields = " ".join(str(number) for number in range(4, 53))
    (folder / "stat").write_text(f"{PIDS[0]} (whisperer) S {fields}\n")
    (folder / "cmdline").write_bytes(b"whisperer\0--secretly\0")
    return folder.parent


@pytest.fixture
def record(gpu_machine, fake_nvml, tmp_path, proc):
    """Record a machine that is another one at each tick; what the probe saw, and the file."""

    def record(scenario, ticks=20, **options):
        fake_nvml.write(scenario(0))
        machine = gpu_machine(fake_nvml, kind="record", proc=str(proc), **options)
        seen = []
        for tick in range(ticks):
            fake_nvml.write(scenario(tick))
            seen.append(machine.read())
        path = tmp_path / "a.recording"
        machine.save(path)
        return seen, path

    return record


@pytest.fixture
def replay(gpu_machine, fake_nvml, clock):
    """Replay a recording in a process that has no driver's library, at the times when it was made."""

    def replay(path, ticks, **options):
        without = type(fake_nvml)(path.parent / "nowhere", path.parent / "no.scenario")
        machine = gpu_machine(without, kind="replay", path=str(path), **options)
        clock.step(-float(ticks))
        return [machine.read() for _ in range(ticks)]

    return replay


def of_the_tick(seen):
    """What one look gave, but for what the driver told by itself: a thread brings that, and it has no time of its own."""
    return [
        (event.kind, event.observed_at_us, dict(event.values))
        for event in seen.events
        if event.values.get("source") != "nvml" or event.kind != "gpu_event"
    ]


def told(looks):
    return [values for seen in looks for values in seen.of("gpu_event") if values["source"] == "nvml"]


def unlabelled(kind, observed_at_us, values):
    if kind == "inventory":
        assert values["source"] == "replay"
        assert values["attributes"].pop("recording")["machine"] == "stand-in"
        values = {**values, "source": "nvml"}
        if not values["attributes"]:
            del values["attributes"]
    return kind, observed_at_us, values


@pytest.mark.parametrize("machine", MACHINES)
def test_a_replay_gives_event_for_event_what_the_recorded_collector_saw(record, replay, proc, machine):
    # What the driver tells by itself comes when it comes: enough ticks for it.
    seen, path = record(MACHINES[machine], ticks=60 if machine == "what fails" else 20, keep_identities=True)
    again = replay(path, len(seen), proc=str(proc))
    assert [[unlabelled(*event) for event in of_the_tick(one)] for one in again] == list(map(of_the_tick, seen))
    assert told(again) == told(seen)
    assert len(told(seen)) == (1 if machine == "what fails" else 0)


def test_a_replay_needs_no_library(record, gpu_machine, fake_nvml):
    _, path = record(moving(PAIR), ticks=1)
    machine = gpu_machine(fake_nvml, kind="replay", path=str(path))
    assert len(machine.read().rows) == 2
    assert "libnvidia-ml" not in Path(f"/proc/{machine.pid}/maps").read_text()


def test_a_replay_has_the_recorded_hosts_memory_and_none_of_the_processes_here(record, replay):
    seen, path = record(MACHINES["unified memory"], ticks=2)
    again = replay(path, 2)
    memory = ("memory_kind", "memory_total_bytes", "memory_available_bytes", "memory_used_bytes")
    assert [one.row[column] for one in again for column in memory] == [
        one.row[column] for one in seen for column in memory
    ]
    assert again[0].row["memory_available_bytes"] == 27140336 * 1024
    (process,) = again[0].of("process_sample")
    assert (process["process_visible"], "command" in process) == (False, False)


def test_a_recording_says_what_it_is_of(record):
    _, path = record(moving(PAIR), ticks=3)
    label = read_recording(path).label
    assert (label.machine, label.gpus, label.driver_version, label.load, label.identities) == (
        "stand-in",
        ["NVIDIA H100 80GB HBM3"] * 2,
        "580.95.05",
        "made up",
        "replaced",
    )
    assert (label.duration_s, label.interval_s) == (3.0, 1.0)
    assert str(label) == (
        "3 s of 2 × NVIDIA H100 80GB HBM3 (the stand-in of the tests, no hardware), driver 580.95.05, made up"
    )


def test_a_minute_of_two_gpus_with_all_tiers_is_under_300_kb(record):
    seen, path = record(moving(PAIR), ticks=61)
    assert {"sm_active_ratio", "power_mean_watts", "encoder_utilization_percent", "shutdown_temperature_celsius"} <= {
        *seen[60].whole_rows[0]
    }
    assert path.stat().st_size < 300_000


# --- identities


def identities():
    """What identifies the machine, as it would stand in memory."""
    return [
        *(text.encode() for text in (*UUIDS, *SERIALS, "whisperer", "MIG-4f6dbe50")),
        *(uuid[4:].replace("-", "").encode() for uuid in UUIDS),
        *(pid.to_bytes(4, "little") for pid in PIDS),
        *(pid.to_bytes(4, "big") for pid in PIDS),
        *(str(pid).encode() for pid in PIDS),
    ]


def test_a_recording_holds_nothing_that_identifies_the_machine(record):
    _, path = record(moving(PAIR + MIG.replace(f"gpu 0 uuid={UUIDS[0]} util=none\n", "")))
    body = gzip.decompress(path.read_bytes())
    assert b"NVIDIA H100 80GB HBM3" in body
    assert [identity for identity in identities() if identity in body] == []


def test_identities_are_kept_where_that_is_asked_for(record):
    _, path = record(moving(PAIR), keep_identities=True)
    body = gzip.decompress(path.read_bytes())
    kept = [*UUIDS, *SERIALS, *(pid.to_bytes(4, "little") for pid in PIDS)]
    assert all((text.encode() if isinstance(text, str) else text) in body for text in kept)
    assert b"whisperer" not in body  # names come from /proc, which is not recorded
    assert read_recording(path).label.identities == "kept"


def test_each_identity_has_one_other_throughout_a_recording(record, replay):
    seen, path = record(moving(PAIR))
    again = replay(path, len(seen))
    pairs = {
        (column, before.values[column], after.values[column])
        for one, other in zip(seen, again, strict=True)
        for before, after in zip(one.events, other.events, strict=True)
        for column in ("gpu_uuid", "serial", "pid")
        if column in before.values
    }
    assert sorted((column, original) for column, original, _ in pairs) == sorted(
        [
            *(("gpu_uuid", uuid) for uuid in UUIDS),
            *(("pid", pid) for pid in PIDS),
            *(("serial", one) for one in SERIALS),
        ]
    )
    assert len({replaced for _, _, replaced in pairs}) == 6


# --- files that cannot be replayed


@pytest.fixture
def good():
    return (FIXTURES / "stand-in-mig.recording").read_bytes()


def repacked(body, **changes):
    return gzip.compress(msgspec.msgpack.encode({**msgspec.msgpack.decode(gzip.decompress(body)), **changes}))


def flipped(body):
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]


BYTES_MAX = 1_000_000  # in place of the real limit, which takes seconds to reach
ANSWER = {"question": "nvmlInitWithFlags(0)", "ticks": [0], "content": [[]]}
BAD = {
    "text": (lambda _: b"# a readme\n", "is no NVML recording"),
    "nothing": (lambda _: b"", "is no NVML recording"),
    "another gzip": (lambda _: gzip.compress(b"something else"), "is no NVML recording"),
    "other msgpack": (lambda _: gzip.compress(msgspec.msgpack.encode({"format": "x", "version": 1})), "is no NVML rec"),
    "truncated": (lambda body: body[:-100], r"is damaged \(its end is missing\)"),
    "flipped": (flipped, "is damaged"),
    "later": (lambda body: repacked(body, version=2), "was made by a later gpuledger"),
    "without label": (lambda body: repacked(body, label=None), "is damaged"),
    "without ticks": (lambda body: repacked(body, ticks=[]), r"is damaged \(it has no ticks\)"),
    "backwards": (lambda body: repacked(body, ticks=[[5, 0, None], [4, 0, None]]), "its time goes backwards"),
    "an answer too few": (lambda body: repacked(body, answers=[{**ANSWER, "ticks": [0, 0]}]), "do not belong together"),
    "an answer after the end": (lambda body: repacked(body, answers=[{**ANSWER, "ticks": [999]}]), "is of no tick"),
    "an answer that is missing": (
        lambda body: repacked(body, answers=[{**ANSWER, "content": [[99999]]}]),
        r"is damaged \(an answer to nvmlInitWithFlags\(0\) is missing\)",
    ),
    "a bomb": (lambda _: gzip.compress(bytes(BYTES_MAX + 1)), "it is too large"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_whole_recording_says_so(tmp_path, monkeypatch, good, kind):
    monkeypatch.setattr(recording, "DECODED_BYTES_MAX", BYTES_MAX)
    spoilt, words = BAD[kind]
    path = tmp_path / "bad.recording"
    path.write_bytes(spoilt(good))
    with pytest.raises(RecordingError, match=words) as raised:
        read_recording(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_recording_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(RecordingError, match="make one with 'gpuledger record-nvml'"):
        read_recording(tmp_path / "none")
    with pytest.raises(RecordingError, match="cannot be read"):
        read_recording(tmp_path)


def test_a_recording_is_written_whole_or_says_why_not(tmp_path, good):
    (tmp_path / "a").write_bytes(good)
    first = read_recording(tmp_path / "a")
    write_recording(tmp_path / "b", first)
    assert msgspec.to_builtins(read_recording(tmp_path / "b")) == msgspec.to_builtins(first)
    with pytest.raises(RecordingError, match="cannot be written"):
        write_recording(tmp_path / "a/b", first)


@pytest.mark.parametrize(("body", "words"), [(b"x", "is no NVML recording"), (None, "There is no recording")])
def test_a_collector_that_cannot_replay_ends_with_one_sentence_and_code_2(tmp_path, body, words):
    path = tmp_path / "bad.recording"
    if body:
        path.write_bytes(body)
    settings = {
        "ledger_folder": str(tmp_path / "ledger"),
        "host": "127.0.0.1",
        "port": 0,
        "sample_interval_s": 1.0,
        "seal_interval_s": 60.0,
        "source": f"replay:{path}",
        "demo_seed": 0,
        "log_level": "info",
        "version": "0",
    }
    command = [sys.executable, "-P", "-m", "collector", json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert words in line


# --- the recordings in the repository


@pytest.mark.parametrize(
    ("name", "gpus", "seen"),
    [
        (
            "h100-pair",
            2,
            {"up": True, "memory_kind": "dedicated", "sm_active_ratio": 0.9425, "temperature_celsius": 61},
        ),
        ("unified", 1, {"up": True, "memory_kind": "unified", "memory_total_bytes": 125450204 * 1024}),
        ("mig", 3, {"up": True, "memory_kind": "dedicated"}),
    ],
)
def test_the_recordings_of_the_stand_in_are_labelled_small_and_replay(replay, tmp_path, name, gpus, seen):
    path = tmp_path / "copy.recording"
    path.write_bytes((FIXTURES / f"stand-in-{name}.recording").read_bytes())
    assert read_recording(path).label.machine == "stand-in"
    assert path.stat().st_size < 50_000
    looks = replay(path, 61)
    assert [len(one.rows) for one in looks] == [gpus] * 61
    assert {column: looks[1].whole_rows[0].get(column) for column in seen} == seen
    assert {row["attributes"]["recording"]["machine"] for row in looks[0].of("inventory")} == {"stand-in"}
    assert [event["xid"] for event in told(looks)] == ([31] if name == "h100-pair" else [])
    instances = {row.get("mig_gpu_instance_id") for row in looks[0].of("process_sample")}
    assert instances == ({1, 2} if name == "mig" else {None})


def test_every_recording_in_the_repository_says_in_its_name_whether_it_is_of_hardware():
    recordings = sorted(FIXTURES.glob("*.recording"))
    assert len(recordings) >= 3
    assert [path.name for path in recordings if path.name.startswith("stand-in-")] == [
        path.name for path in recordings if read_recording(path).label.machine == "stand-in"
    ]
