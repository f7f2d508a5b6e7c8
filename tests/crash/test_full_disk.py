"""A disk that is full or failing: a real full tmpfs, and single system calls that fail.

Whatever fails, what was acknowledged stays readable, nothing is counted twice, and it goes on by itself afterwards.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from store.events import Event
from store.ledger import Ledger
from store.repair.quarantine import Repairer
from store.repair.verification import verify
from store.upkeep.sealing import seal

BY = Repairer(1_795_438_800_000_000, "spark-1", "boot")

# Mounted in a mount namespace of its own, so that nothing is left mounted however the test ends.
ON_A_SMALL_DISK = """
import json, os, subprocess, sys
from collections import Counter
from pathlib import Path
from store.errors import GpuledgerError, LedgerUnusableError
from store.events import KINDS, Event
from store.ledger import Ledger
from store.upkeep.sealing import seal
from store.snapshot import LedgerReader
import pyarrow.parquet as pq

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
folder = disk / "ledger"

def seqs():
    with LedgerReader(folder) as reader:
        snapshot = reader.snapshot(KINDS)
    seen = Counter()
    for events in snapshot.values():
        seen.update(events.tail["seq"].to_pylist())
        for path in events.files:
            seen.update(pq.ParquetFile(path).read(columns=["seq"])["seq"].to_pylist())
    return seen

def fill(but=0):
    with (disk / "ballast").open("wb") as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
                ballast.flush()
        except OSError:
            pass
        try:
            ballast.close()
        except OSError:
            pass
    if but:
        os.truncate(disk / "ballast", max(0, (disk / "ballast").stat().st_size - but))

def note(number):
    return Event("annotation", number, {"text": "x" * 200})

"""


def on_a_small_disk(tmp_path: Path, script: str) -> dict:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "--mount", "--map-root-user", sys.executable, "-c", ON_A_SMALL_DISK + script, str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_appends_to_a_disk_that_fills_up_are_refused_whole_and_go_on_when_there_is_room(tmp_path):
    found = on_a_small_disk(
        tmp_path,
        """
acknowledged, refusals = [], []
with Ledger(folder) as ledger:
    for number in range(5000):
        try:
            acknowledged += ledger.append([note(number) for _ in range(10)])
        except LedgerUnusableError as error:
            refusals.append(str(error))
            if len(refusals) == 3:
                break
    full = seqs() == Counter(acknowledged)
    (folder / "events").mkdir(exist_ok=True)
    try:
        sealing = seal(folder).event_count
    except (OSError, GpuledgerError) as error:
        sealing = type(error).__name__
    after_sealing = seqs() == Counter(acknowledged)
with Ledger(folder) as ledger:
    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
    acknowledged += ledger.append([note(1)])
sealed = seal(folder).event_count
print(json.dumps([len(acknowledged) > 1000, refusals[0].split(str(folder))[1], full, after_sealing,
                  sealed >= 1, seqs() == Counter(acknowledged), len(list((folder / "events").rglob(".*.tmp")))]))
""",
    )
    assert found == [
        True,
        " took no events (database or disk is full): see that its disk has space and is writable",
        True,
        True,
        True,
        True,
        0,
    ]


def test_a_collector_starts_on_a_full_disk_and_records_what_it_saw_meanwhile_once_there_is_room(tmp_path):
    found = on_a_small_disk(
        tmp_path,
        """
import atexit, http.client, re, time
Ledger(folder).close()
(folder / "collector.lock").touch()
with Ledger(folder) as ledger:
    ledger.append([note(1)])
fill()
settings = {"ledger_folder": str(folder), "host": "127.0.0.1", "port": 0, "sample_interval_s": 0.05,
            "seal_interval_s": 3600.0, "source": "demo", "demo_seed": 1, "log_level": "info", "version": "test",
            "low_space_bytes": 0, "read_only_space_bytes": 0}
log = disk.parent / "log"
def until(look):
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline and process.poll() is None, log.read_text()
        time.sleep(0.02)
    return found
def get(path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()
with log.open("wb") as stderr:
    process = subprocess.Popen([sys.executable, "-P", "-m", "collector", json.dumps(settings)], stderr=stderr)
atexit.register(process.kill)
port = int(until(lambda: re.search(r"http://127[.]0[.]0[.]1:(\\\\d+)/metrics", log.read_text()))[1])
until(lambda: "dgx_collector_append_failures_total 5.0" in get("/metrics")[1])
ready, told = get("/readyz")
healthy = get("/healthz")[0]
metrics = get("/metrics")[1]
(disk / "ballast").unlink()
until(lambda: get("/readyz")[0] == 200)
process.terminate()
code = process.wait(60)
with LedgerReader(folder) as reader:
    rows = reader.snapshot(["ledger_event"])["ledger_event"].tail.to_pylist()
print(json.dumps([ready, "disk" in told, healthy, "dgx_ledger_free_bytes 0.0" in metrics, code,
                  [row["event"] for row in rows if row["event"] in ("start", "stop")], set(seqs().values()) == {1}]))
""".replace("\\\\d", "\\d"),
    )
    assert found == [503, True, 200, True, 0, ["start", "stop"], True]


def test_the_floor_is_kept_and_left_again_by_itself(tmp_path):
    found = on_a_small_disk(
        tmp_path,
        """
from collector.clock import SystemClock
from collector.probe import Condition
from collector.sampler import Sampler
from store.space import SpaceLimits, SpaceWatch, free_bytes

class Probe:
    name = "one"
    condition = Condition.ANSWERS
    def read(self, now):
        return [Event(kind, now.wall_us, {}) for kind in ("system_sample", "gpu_sample", "request")]
    def status(self):
        return "one"
    def close(self):
        pass

clock = SystemClock()
with Ledger(folder) as ledger:
    watch = SpaceWatch(SpaceLimits(2_500_000, 1_000_000), lambda: free_bytes(folder))
    sampler = Sampler(ledger=ledger, probes=[Probe()], clock=clock, interval_s=1.0, version="t", pid=1, space=watch)
    sampler.tick(clock.now())
    (disk / "ballast").write_bytes(bytes(2_000_000))
    sampler.tick(clock.now())
    before = free_bytes(folder)
    fill(but=700_000)
    problems = []
    for _ in range(3):
        sampler.tick(clock.now())
        problems.append(sampler.latest.problem)
    at_floor = free_bytes(folder)
    (disk / "ballast").unlink()
    sampler.tick(clock.now())
    problems.append(sampler.latest.problem)
with LedgerReader(folder) as reader:
    snapshot = reader.snapshot(["system_sample", "gpu_sample", "request", "ledger_event"])
counts = {kind: events.tail.num_rows for kind, events in snapshot.items() if kind != "ledger_event"}
told = [row["event"] for row in snapshot["ledger_event"].tail.to_pylist()]
print(json.dumps([counts, told, [bool(one) for one in problems], at_floor > 500_000, sampler.latest.dropped_events]))
""",
    )
    counts = {"system_sample": 2, "gpu_sample": 6, "request": 6}
    events = ["probe_status", "disk_low", "disk_full", "disk_ok"]
    assert found == [counts, events, [True, True, True, False], True, 4]


APPEND = """
import sys
from pathlib import Path
from store.errors import LedgerUnusableError
from store.events import Event
from store.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(4):
    try:
        print(*ledger.append([Event("annotation", number, {"text": "a" * 3000})]), flush=True)
    except LedgerUnusableError as error:
        print("refused", flush=True)
"""


@pytest.mark.parametrize("failure", ["error=ENOSPC", "error=EIO", "retval=100"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "fsync"])
def test_an_append_whose_system_call_fails_loses_and_doubles_nothing(tmp_path, count_of_each_seq, call, failure):
    if failure == "retval=100" and call != "pwrite64":
        failure = "error=EINTR"
    template = tmp_path / "template"
    with Ledger(template) as ledger:
        ledger.append([Event("annotation", 0, {"text": "before"})])
    for number in (1, 2, 4, 7):
        folder = tmp_path / f"ledger-{number}"
        subprocess.run(["cp", "-r", str(template), str(folder)], check=True)
        done = _with_failure(call, failure, number, ["-c", APPEND], folder)
        if "Traceback" in done.stderr:  # the ledger could not be opened at all: that says so
            assert "LedgerUnusableError: The ledger" in done.stderr
        acknowledged = {int(line) for line in done.stdout.split() if line.isdigit()}
        with Ledger(folder) as ledger:
            last = ledger.append([Event("annotation", 9, {"text": "after"})]).start
        seen = count_of_each_seq(folder)
        assert {1, *acknowledged, last} <= set(seen), number
        assert set(seen.values()) == {1}, number
        assert verify(folder, BY).is_sound


@pytest.mark.parametrize("failure", ["error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "pwrite64", "fdatasync"])
def test_a_sealing_whose_system_call_fails_loses_and_doubles_nothing(tmp_path, count_of_each_seq, call, failure):
    template = tmp_path / "template"
    with Ledger(template) as ledger:
        for number in range(3):
            ledger.append([Event("annotation", number, {"text": "a"}), Event("ledger_event", number, {"event": "gap"})])
    codes = set()
    for number in (1, 3, 6, 10):
        folder = tmp_path / f"ledger-{number}"
        subprocess.run(["cp", "-r", str(template), str(folder)], check=True)
        done = _with_failure(call, failure, number, ["-m", "store"], folder)
        codes.add(done.returncode)
        assert "Traceback" not in done.stderr, done.stderr
        assert count_of_each_seq(folder) == Counter(range(1, 7)), (number, done.stderr)
        seal(folder)
        assert count_of_each_seq(folder) == Counter(range(1, 7)), number
        assert verify(folder, BY).is_sound
    assert codes - {0}  # some of them did fail


def _with_failure(call, failure, number, command, folder) -> subprocess.CompletedProcess[str]:
    injection = ["-e", f"trace={call}", "-e", f"inject={call}:{failure}:when={number}"]
    return subprocess.run(
        ["strace", "-f", "-o", "/dev/null", *injection, sys.executable, "-P", *command, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
