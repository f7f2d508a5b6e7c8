"""The collector as a process: what it answers, what it refuses, how it ends, and what it carries."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import msgspec
import pytest

from collector import service
from collector.clock import Now
from collector.exposition import UpkeepFigures
from collector.sampler import Latest
from collector.service import CollectorSettings, Health, Sealer
from store.events import Event
from store.ledger import lock_holder
from store.snapshot import LedgerReader
from store.upkeep.settings import UpkeepSettings

ALL_KINDS = ("gpu_sample", "system_sample", "device_sample", "inventory", "ledger_event")
WAIT_S = 20.0  # for something that takes a moment; a machine under load takes longer


def eventually(look):
    """What `look` gives, as soon as that is true."""
    deadline_s = time.monotonic() + WAIT_S
    while not (found := look()):
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.01)
    return found


def default_settings(folder):
    return {
        "ledger_folder": str(folder),
        "host": "127.0.0.1",
        "port": 0,
        "sample_interval_s": 0.05,
        "seal_interval_s": 3600.0,
        "source": "nvml",
        "demo_seed": 0,
        "log_level": "info",
        "version": "1.2.3",
    }


class Collector:
    """A running `python -m collector`."""

    def __init__(self, folder, log, environment, settings, program):
        self.folder = folder
        self._log = log
        record = {**default_settings(folder), **settings}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *program, json.dumps(record)], env=environment, stderr=stderr
            )

    @property
    def said(self):
        return self._log.read_text()

    @property
    def port(self):
        def found():
            assert self.process.poll() is None, self.said
            return re.search(r"recording to .*; http://127\.0\.0\.1:(\d+)/metrics", self.said)

        return int(eventually(found)[1])

    def get(self, path, accept="*/*"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("GET", path, headers={"accept": accept})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def health(self, path):
        status, body = self.get(path)
        return status, json.loads(body)

    def ready(self):
        """Wait until it is, and has looked at its GPUs, which may take longer than a tick waits."""

        def is_ready():
            status, body = self.health("/readyz")
            return status == 200 and body["probes"]["gpu"] != "not looked yet"

        eventually(is_ready)
        return self

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


@pytest.fixture
def start(tmp_path):
    """Start a collector on a folder; all of them end with the test."""
    running = []

    def start(folder="ledger", environment=None, program=("-m", "collector"), **settings):
        log = tmp_path / f"stderr-{len(running)}"
        running.append(Collector(tmp_path / folder, log, environment, settings, program))
        return running[-1]

    yield start
    for collector in running:
        collector.process.send_signal(signal.SIGCONT)
        collector.process.kill()
        collector.process.wait(WAIT_S)


def events_of(folder, kind):
    """All events of a kind: the sealed files', then the tail's."""
    import pyarrow.parquet as pq

    with LedgerReader(folder) as reader:
        found = reader.snapshot([kind])[kind]
    sealed = [row for path in found.files for row in pq.ParquetFile(path).read().to_pylist()]
    return sealed + found.tail.to_pylist()


def life_of(folder):
    return [row["event"] for row in events_of(folder, "ledger_event")]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# --- what it answers


def test_it_is_ready_after_the_first_tick_and_its_metrics_are_what_it_recorded(start, fake_nvml):
    fake_nvml.write("gpu 0 uuid=GPU-a util=37\n")
    collector = start(environment=fake_nvml.environment).ready()
    status, body = collector.health("/readyz")
    assert (status, body["status"], body["reason"]) == (200, "ok", None)
    assert (body["probes"].pop("host"), body["probes"].pop("gpu"), list(body["probes"])) == (
        "host",
        "1 GPU",
        ["devices"],
    )
    assert body["ticks"] > 0
    assert collector.health("/healthz")[0] == 200
    status, metrics = collector.get("/metrics")
    assert status == 200
    assert 'dgx_gpu_utilization_percent{gpu="0",uuid="GPU-a"} 37.0' in metrics.splitlines()
    assert "dgx_cpu_logical " in metrics
    assert 'dgx_collector_build_info{version="1.2.3"} 1.0' in metrics.splitlines()
    assert collector.end() == 0
    rows = events_of(collector.folder, "gpu_sample")
    assert {(row["gpu_uuid"], row["utilization_percent"]) for row in rows} == {("GPU-a", 37)}
    assert len(events_of(collector.folder, "system_sample")) >= body["ticks"]


def test_a_scraper_that_speaks_openmetrics_gets_it(start, fake_nvml):
    collector = start(environment=fake_nvml.environment).ready()
    status, body = collector.get("/metrics", accept="application/openmetrics-text;version=1.0.0")
    assert (status, body.endswith("# EOF\n")) == (200, True)


def test_a_machine_without_a_driver_is_recorded_and_says_so(start, fake_nvml):
    fake_nvml.write("fail nvmlInit 9\n")
    collector = start(environment=fake_nvml.environment).ready()
    assert collector.health("/healthz")[1]["probes"]["gpu"] == "no GPU: the NVIDIA kernel driver is not loaded"
    assert "dgx_gpu_up" not in collector.get("/metrics")[1]
    assert collector.end() == 0
    told = [row for row in events_of(collector.folder, "ledger_event") if row["probe"] == "gpu"]
    statuses = [row["message"] for row in told if row["event"] == "probe_status"]
    assert [words for words in statuses if words != "not looked yet"] == [
        "no GPU: the NVIDIA kernel driver is not loaded"
    ]


HANG = "hang nvmlDeviceGetUtilizationRates 600000\n"


def test_while_a_driver_call_hangs_the_host_is_recorded_and_the_truth_about_the_gpus_is_told(start, fake_nvml):
    fake_nvml.write("gpu 0 uuid=GPU-a util=10\n")
    collector = start(environment=fake_nvml.environment).ready()
    eventually(lambda: 'dgx_gpu_up{gpu="0"' in collector.get("/metrics")[1])
    fake_nvml.write(f"gpu 0 uuid=GPU-a util=10\n{HANG}")
    eventually(lambda: collector.health("/readyz")[0] == 503)
    fake_nvml.write(f"gpu 0 uuid=GPU-a util=90\n{HANG}")  # what the call that hangs will give in the end
    stalled = r"stalled since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC in nvmlDeviceGetUtilizationRates"
    status, body = collector.health("/healthz")
    assert (status, body["status"], body["probes"]["host"]) == (200, "ok", "host")
    assert re.fullmatch(stalled, body["probes"]["gpu"])
    assert re.fullmatch(f"the gpu probe is {stalled}", collector.health("/readyz")[1]["reason"])
    metrics = collector.get("/metrics")[1]
    assert "dgx_gpu_up" not in metrics
    assert "dgx_cpu_utilization_percent" in metrics
    assert 'dgx_collector_probe_up{probe="gpu"} 0.0' in metrics.splitlines()
    assert 'dgx_collector_probe_up{probe="host"} 1.0' in metrics.splitlines()
    ticks = collector.health("/healthz")[1]["ticks"]
    eventually(lambda: collector.health("/healthz")[1]["ticks"] > ticks + 20)
    fake_nvml.write("gpu 0 uuid=GPU-a util=90\n")
    eventually(lambda: collector.health("/readyz")[0] == 200)
    eventually(lambda: 'dgx_gpu_utilization_percent{gpu="0",uuid="GPU-a"} 90.0' in collector.get("/metrics")[1])
    assert collector.end() == 0

    told = {row["event"]: row for row in events_of(collector.folder, "ledger_event") if row["probe"] == "gpu"}
    begun, ended = told["probe_stalled"], told["probe_resumed"]
    assert begun["message"] == "the gpu probe does not answer: nvmlDeviceGetUtilizationRates does not return"
    assert (begun["pid"], begun["started_at"]) == (collector.process.pid, ended["started_at"])
    assert ended["missed_ticks_count"] > 20
    hosts = [row["observed_at"] for row in events_of(collector.folder, "system_sample")]
    gpus = events_of(collector.folder, "gpu_sample")
    during = [at for at in hosts if ended["started_at"] <= at < ended["ended_at"]]
    assert len(during) > 20
    used = {
        row["utilization_percent"]: [
            one["observed_at"] for one in gpus if one["utilization_percent"] == row["utilization_percent"]
        ]
        for row in gpus
    }
    assert set(used) == {10, 90}
    assert max(used[10]) < ended["started_at"]
    assert min(used[90]) >= ended["ended_at"]


IMPATIENT = """
import functools, sys
from collector import __main__, guarded, service
guarded.REPLACE_AFTER_S = 4.0
service.GpuProbe = functools.partial(service.GpuProbe, relist_s=0.2)
sys.exit(__main__.main())
"""


def test_a_gpu_on_which_a_call_hangs_for_long_costs_the_others_nothing_more(start, fake_nvml):
    fake_nvml.write("gpu 0 uuid=GPU-a\ngpu 1 uuid=GPU-b\n")
    collector = start(environment=fake_nvml.environment, program=("-c", IMPATIENT)).ready()
    eventually(lambda: 'dgx_gpu_up{gpu="0"' in collector.get("/metrics")[1])
    fake_nvml.write("gpu 0 uuid=GPU-a\ngpu 1 uuid=GPU-b util=77\nhang nvmlDeviceGetUtilizationRates 600000 gpu=0\n")
    busy = 'dgx_gpu_utilization_percent{gpu="1",uuid="GPU-b"} 77.0'
    metrics = eventually(lambda: busy in (now := collector.get("/metrics")[1]).splitlines() and now)
    assert 'dgx_gpu_up{gpu="0",uuid="GPU-a"} 0.0' in metrics.splitlines()
    assert 'dgx_gpu_utilization_percent{gpu="0"' not in metrics
    assert collector.health("/readyz")[1]["probes"]["gpu"] == "2 GPUs, 1 left alone: a call hangs"
    fake_nvml.write("gpu 0 uuid=GPU-a\ngpu 1 uuid=GPU-b\n")
    eventually(lambda: 'dgx_gpu_up{gpu="0",uuid="GPU-a"} 1.0' in collector.get("/metrics")[1].splitlines())
    assert collector.health("/readyz")[1]["probes"]["gpu"] == "2 GPUs"
    assert collector.end() == 0
    told = [row for row in events_of(collector.folder, "ledger_event") if row["probe"] == "gpu"]
    assert [row["event"] for row in told if row["event"] != "gap" and row["message"] != "not looked yet"] == [
        "probe_status",
        *("probe_stalled", "probe_status", "probe_replaced"),
        *("probe_resumed", "probe_status", "probe_status"),
    ]
    assert [row["message"] for row in events_of(collector.folder, "gpu_event")] == [
        "GPU 0 lost: a call on it hangs in the driver",
        "GPU 0 recovered: it answers again",
    ]


def test_told_to_end_while_a_driver_call_hangs_it_ends_with_its_stop_event(start, fake_nvml):
    fake_nvml.write("gpu 0 uuid=GPU-a\n")
    collector = start(environment=fake_nvml.environment).ready()
    fake_nvml.write(f"gpu 0 uuid=GPU-a\n{HANG}")
    eventually(lambda: collector.health("/readyz")[0] == 503)
    assert collector.end() == 0
    assert life_of(collector.folder)[-1] == "stop"
    assert "the gpu probe hangs in nvmlDeviceGetUtilizationRates and is left behind" in collector.said
    assert "without its stop event" not in collector.said
    assert lock_holder(collector.folder) is None


# --- how it begins and ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_stop_event_as_the_last(start, number):
    collector = start(source="demo").ready()
    collector.process.send_signal(number)
    assert collector.process.wait(WAIT_S) == 0
    life = life_of(collector.folder)
    assert (life[0], life[-1]) == ("start", "stop")
    rows = events_of(collector.folder, "ledger_event")
    assert {(row["pid"], row["gpuledger_version"]) for row in rows} == {(collector.process.pid, "1.2.3")}
    kinds = ("gpu_sample", "system_sample", "ledger_event")
    newest = {kind: max(row["seq"] for row in events_of(collector.folder, kind)) for kind in kinds}
    assert max(newest, key=newest.get) == "ledger_event"
    assert lock_holder(collector.folder) is None


def test_after_kill_9_the_next_one_begins_and_nothing_that_was_recorded_is_lost(start):
    first = start(source="demo").ready()
    ticks = first.health("/readyz")[1]["ticks"]
    first.process.kill()
    first.process.wait(WAIT_S)
    second = start(source="demo").ready()
    assert second.end() == 0
    rows = events_of(second.folder, "system_sample")
    before = [row for row in rows if row["seq"] < min_start_seq(second)]
    assert len(before) >= ticks
    assert life_of(second.folder).count("start") == 2
    seqs = sorted(row["seq"] for kind in ALL_KINDS for row in events_of(second.folder, kind))
    assert seqs == list(range(1, len(seqs) + 1))


def min_start_seq(collector):
    rows = events_of(collector.folder, "ledger_event")
    return min(row["seq"] for row in rows if row["pid"] == collector.process.pid)


def test_a_second_collector_of_the_same_ledger_is_refused_and_changes_nothing(start):
    first = start(source="demo").ready()
    holder = lock_holder(first.folder)
    assert holder["pid"] == first.process.pid
    first.process.send_signal(signal.SIGSTOP)
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    second = start(source="demo")
    assert second.process.wait(WAIT_S) == 4
    assert second.said == (
        f"gpuledger: The ledger {first.folder} is held by another collector "
        f"(pid {first.process.pid}, started {holder['started_at']}): "
        "stop that one first, or name another folder with --data\n"
    )
    after = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    assert {name for name in before | after if before.get(name) != after.get(name)} <= {"head.sqlite-shm"}
    first.process.send_signal(signal.SIGCONT)
    ticks = first.health("/healthz")[1]["ticks"]
    eventually(lambda: first.health("/healthz")[1]["ticks"] > ticks)
    assert first.end() == 0
    assert life_of(first.folder).count("start") == 1


@pytest.fixture
def signals():
    """Put the handlers of this process back."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_told_to_end_while_a_probe_hangs_it_ends_and_says_that_it_left_no_stop_event(
    tmp_path, probe, monkeypatch, signals, caplog
):
    gate = threading.Event()

    def be_told_and_hang():
        os.kill(os.getpid(), signal.SIGTERM)
        gate.wait()

    probe.trouble = be_told_and_hang
    monkeypatch.setattr(service, "_probes", lambda *_: [probe])
    monkeypatch.setattr(service, "LAST_TICK_TIME_LIMIT_S", 0.05)
    settings = msgspec.convert(default_settings(tmp_path / "ledger"), CollectorSettings)
    try:
        assert service.run(settings) == 0
        assert "a probe hangs: this recording ends without its stop event" in caplog.messages
        assert life_of(tmp_path / "ledger") == ["start"]
        assert lock_holder(tmp_path / "ledger") is None
    finally:
        gate.set()


@pytest.fixture
def renewed(tmp_path, probe, monkeypatch, signals):
    """Run a collector whose first tick finds that the process is to be replaced; what was held when it was."""
    held = []

    def run(also=lambda: None):
        renewals = []
        monkeypatch.setattr(service, "_probes", lambda *given: renewals.append(given[-1]) or [probe])
        monkeypatch.setattr(service, "become_anew", lambda: held.append(lock_holder(tmp_path / "ledger")))

        def read(now):
            renewals[0]._is_worth_it = lambda: True
            renewals[0]._environment = {}
            also()
            return renewals[0].consider(now)

        probe.read = read
        settings = msgspec.convert(default_settings(tmp_path / "ledger"), CollectorSettings)
        assert service.run(settings) == 0
        return held, life_of(tmp_path / "ledger")

    return run


def test_a_process_that_is_to_be_replaced_has_ended_its_recording_and_holds_nothing(renewed):
    held, life = renewed()
    assert held == [None]
    assert (life[0], life[-2:]) == ("start", ["probe_status", "stop"])
    assert life.count("renewed") == 1


def test_told_to_end_when_it_is_to_be_replaced_it_ends(renewed):
    held, life = renewed(also=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert held == []
    assert life[-1] == "stop"


def test_a_sampler_that_fails_ends_the_process_with_1(tmp_path, probe, monkeypatch, signals, caplog):
    monkeypatch.setattr(service, "_probes", lambda *_: [probe])
    probe.read = lambda now: [Event("no_such_kind", now.wall_us, {})]
    settings = msgspec.convert(default_settings(tmp_path / "ledger"), CollectorSettings)
    assert service.run(settings) == 1
    assert "sampling ended" in caplog.messages
    assert lock_holder(tmp_path / "ledger") is None


def test_a_port_in_use_is_one_sentence_and_makes_no_ledger(start):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        collector = start(port=port)
        assert collector.process.wait(WAIT_S) == 2
    assert collector.said == (
        f"gpuledger: 127.0.0.1 port {port} cannot be listened on (address already in use): "
        "stop what listens there, or set collector.port\n"
    )
    assert not collector.folder.exists()


def test_an_address_of_another_machine_is_one_sentence(start):
    collector = start(host="203.0.113.1", port=free_port())
    assert collector.process.wait(WAIT_S) == 2
    assert re.fullmatch(
        r"gpuledger: 203\.0\.113\.1 port \d+ cannot be listened on \(.*\): "
        r"stop what listens there, or set collector\.port\n",
        collector.said,
    )


def test_a_folder_that_is_something_else_is_one_sentence_and_left_alone(start, tmp_path):
    folder = tmp_path / "ledger"
    folder.mkdir()
    (folder / "thesis.tex").write_text("")
    collector = start()
    assert collector.process.wait(WAIT_S) == 2
    assert collector.said.startswith(f"gpuledger: {folder} is not a ledger")
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


# --- sealing


def test_what_is_recorded_is_sealed_by_a_child_and_every_event_stays(start):
    collector = start(source="demo", seal_interval_s=0.3).ready()

    def segments():
        with LedgerReader(collector.folder) as reader:
            return reader.extents()["gpu_sample"].segment_count

    eventually(lambda: segments() >= 2)
    assert collector.end() == 0
    seqs = sorted(row["seq"] for kind in ALL_KINDS for row in events_of(collector.folder, kind))
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.fixture
def sealer(tmp_path):
    """Return a sealer whose child is a shell command in place of the sealing."""
    sealers = []

    def make(command):
        sealer = Sealer(tmp_path, interval_s=60.0, upkeep=UpkeepSettings())
        sealer._command = ["/bin/sh", "-c", command]
        sealers.append(sealer)
        return sealer

    yield make
    for one in sealers:
        one.close()


def second(number):
    return Now(monotonic_s=float(number), boottime_s=0.0, wall_us=0)


def test_the_first_sealing_is_due_an_interval_after_the_start_and_one_runs_at_a_time(sealer, tmp_path):
    one = sealer(f"echo begun >> {tmp_path}/log; read line < {tmp_path}/fifo")
    os.mkfifo(tmp_path / "fifo")
    log = tmp_path / "log"
    for now in (0, 30, 59.9):
        one.look(second(now))
    assert one._child is None
    for now in (60, 61, 121, 500):
        one.look(second(now))
        eventually(log.exists)
    assert log.read_text() == "begun\n"
    (tmp_path / "fifo").write_text("go\n")
    eventually(lambda: one._child.poll() is not None)
    one.look(second(501))
    eventually(lambda: log.read_text() == "begun\nbegun\n")
    (tmp_path / "fifo").write_text("go\n")


def test_a_sealing_that_fails_is_told_and_tried_again(sealer, caplog):
    one = sealer("exit 3")
    one.look(second(0))
    one.look(second(60))
    eventually(lambda: one._child.poll() is not None)
    one.look(second(61))
    assert [record.getMessage() for record in caplog.records] == [
        "sealing failed with exit code 3; nothing is lost, and it is tried again"
    ]
    assert one._child is None
    assert one.figures == UpkeepFigures(runs=1, failures=1, seconds=1.0)
    one.look(second(120))
    assert one._child is not None


def test_a_sealing_that_takes_too_long_is_ended(sealer, caplog):
    one = sealer("exec sleep 600")
    one.look(second(0))
    one.look(second(60))
    one.look(second(660))
    assert one._child.poll() is None
    one.look(second(661))
    assert one._child.wait(WAIT_S) == -signal.SIGKILL
    assert caplog.records[-1].getMessage() == "sealing took more than 600 s and was ended"


def test_a_sealing_that_cannot_be_started_does_not_end_the_recording(sealer, caplog):
    one = sealer("")
    one._command = ["/nowhere/python"]
    one.look(second(0))
    one.look(second(60))
    assert caplog.records[-1].getMessage().startswith("sealing could not be started (")
    one._command = ["/bin/true"]
    one.look(second(120))
    assert one._child.wait(WAIT_S) == 0


# --- health, by the clock


class FakeSampler:
    interval_s = 2.0
    latest = Latest()
    probes = ()


def test_health_is_judged_by_the_age_of_the_newest_tick(clock):
    sampler = FakeSampler()
    health = Health(sampler, clock)
    assert (health.stopped_because(), health.not_ready_because()) == (None, "no tick has been taken yet")
    clock.advance(6.0)
    assert health.stopped_because() is None
    sampler.latest = Latest(now=clock.advance(0.5), ticks=1)
    assert (health.stopped_because(), health.not_ready_because()) == (None, None)
    clock.advance(6.0)
    assert health.stopped_because() is None
    clock.advance(0.5)
    reason = "sampling has stopped: the newest tick is 6 s old, one is due every 2 s"
    assert (health.stopped_because(), health.not_ready_because()) == (reason, reason)


def test_a_collector_that_never_ticked_is_unhealthy_after_a_while(clock):
    health = Health(FakeSampler(), clock)
    clock.advance(7.0)
    assert health.stopped_because() == "sampling has stopped: the newest tick is 7 s old, one is due every 2 s"


def test_a_ledger_that_takes_no_events_makes_it_not_ready_but_healthy(clock):
    sampler = FakeSampler()
    sampler.latest = Latest(now=clock.now(), ticks=1, problem="The ledger took no events (disk full)")
    health = Health(sampler, clock)
    assert health.stopped_because() is None
    assert health.not_ready_because() == "The ledger took no events (disk full)"


# --- what it carries


TICK_ONCE = """
import sys, threading
from pathlib import Path
import collector.__main__
from collector.clock import SystemClock
from collector.demo import DemoProbe
from collector.dcgm import DcgmCollector
from collector.exposition import LiveCollector
from collector.gpu.probe import GpuProbe
from collector.host.probe import HostProbe
from collector.sampler import Sampler
from collector.exposition import UpkeepFigures
from collector.service import Exposed, Health, http_face
from store.ledger import Ledger

folder = Path(sys.argv[1])
clock = SystemClock()
probes = [HostProbe(ledger_folder=folder, interval_s=1.0), GpuProbe(interval_s=1.0), DemoProbe(interval_s=1.0)]
sampler = Sampler(ledger=Ledger(folder), probes=probes, clock=clock, interval_s=1.0, version="0", pid=1)
sampler.tick(clock.now())
live = LiveCollector(lambda: sampler.latest, lambda: True, "0")
exposed = Exposed(live, DcgmCollector(lambda: sampler.latest, lambda: True, "box"))
http_face(Health(sampler, clock), exposed)
exposed.scraped("", ["dcgm"])
exposed.scraped("application/openmetrics-text", [])
assert sampler.latest.problem is None
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_a_collector_that_ticked_carries_no_heavy_library(tmp_path, fake_nvml):
    done = subprocess.run(
        [sys.executable, "-P", "-c", TICK_ONCE, tmp_path / "ledger"],
        env=fake_nvml.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert {"collector", "store", "pynvml", "prometheus_client"} <= loaded
    heavy = {
        "duckdb",
        "polars",
        "mcp",
        "pyarrow",
        "pandas",
        "numpy",
        "typer",
        "rich",
        "pydantic",
        "query",
        "mcp_server",
    }
    assert loaded & (heavy | {"gpuledger"}) == set()
