"""A driver that was replaced while its old library stays mapped: the process replaces itself, once, where that helps."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from collector import renewing
from collector.gpu.driver_library import LIBRARY
from collector.renewing import RENEWED_VARIABLE, Renewal
from store.events import Event
from store.ledger import lock_holder
from store.snapshot import LedgerReader

WAIT_S = 40.0


def eventually(look):
    deadline_s = time.monotonic() + WAIT_S
    while not (found := look()):
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.02)
    return found


# --- whether


@pytest.fixture
def stop():
    return threading.Event()


@pytest.fixture
def environment():
    return {}


def test_where_a_fresh_process_has_the_driver_this_one_ends_and_says_why(clock, stop, environment):
    renewal = Renewal(stop, lambda: True, environment)
    now = clock.now()
    (event,) = renewal.consider(now)
    assert (renewal.is_wanted, stop.is_set()) == (False, False)  # until that is in the ledger
    renewal.look([Event("system_sample", 0, {}), Event("ledger_event", 0, {"event": "gap"})])
    assert (renewal.is_wanted, stop.is_set()) == (False, False)
    renewal.look([event])
    assert (renewal.is_wanted, stop.is_set()) == (True, True)
    assert (event.kind, event.observed_at_us) == ("ledger_event", now.wall_us)
    assert event.values == {
        "event": "renewed",
        "probe": "gpu",
        "message": "the collector replaces itself: the NVIDIA driver was replaced under it, "
        "and the old library stays mapped",
        "details": {"mapped": []},
    }
    assert renewal.consider(clock.advance(1)) == []


def test_where_a_fresh_process_has_no_driver_either_this_one_stays(clock, stop, environment):
    renewal = Renewal(stop, lambda: False, environment)
    assert renewal.consider(clock.now()) == []
    assert (renewal.is_wanted, stop.is_set(), environment) == (False, False, {})


def test_it_is_never_done_twice_within_an_hour(clock, stop, environment):
    Renewal(stop, lambda: True, environment).consider(clock.now())
    asked = []
    again = Renewal(threading.Event(), lambda: asked.append(1) or True, environment)  # the process that it became
    assert again.consider(clock.advance(3599)) == []
    assert asked == []
    assert len(again.consider(clock.advance(1))) == 1


@pytest.mark.parametrize("left", ["", "yesterday", "1e9"])
def test_a_time_that_cannot_be_is_no_time(clock, stop, left):
    assert Renewal(stop, lambda: True, {RENEWED_VARIABLE: left}).consider(clock.now())


def test_it_is_not_done_under_a_call_that_hangs(clock, stop, environment, monkeypatch):
    monkeypatch.setitem(LIBRARY.calls, 4711, print)
    assert Renewal(stop, lambda: True, environment).consider(clock.now()) == []
    assert environment == {}


@pytest.mark.parametrize(
    ("scenario", "has_driver"), [("gpu 0\n", True), ("fail nvmlInit 18\n", False), ("hang nvmlInit 600000\n", False)]
)
def test_a_fresh_process_is_asked(fake_nvml, scenario, has_driver):
    fake_nvml.write(scenario)
    code = (
        "from collector import renewing; renewing.CHECK_TIME_LIMIT_S = 5.0; print(renewing.fresh_process_has_driver())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=fake_nvml.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{has_driver}\n"


def test_a_process_that_cannot_be_started_is_no_driver(monkeypatch, caplog):
    monkeypatch.setattr(renewing.sys, "executable", "/nowhere/python")
    assert renewing.fresh_process_has_driver() is False
    assert "a process could not be started" in caplog.text


# --- how, as a process


SOON = """
import functools, sys
from collector import __main__, service
service.GpuProbe = functools.partial(service.GpuProbe, retry_driver_s=0.3)  # and not once a minute
sys.exit(__main__.main())
"""
SUPERVISED = """
import json, pathlib, sys
from gpuledger.up import Supervisor
command, folder = json.loads(sys.argv[1])
sys.exit(Supervisor({"collector": command}, pathlib.Path(folder)).run())
"""
OLD = "driver 570.12.34\nmismatch 1\ngpu 0 uuid=GPU-a util=10\n"
NEW = OLD.replace("570.12.34", "580.95.05").replace("util=10", "util=90")


class Recorder:
    """A collector in which something else, preloaded, keeps the driver's library mapped; supervised if asked for."""

    def __init__(self, folder, log, fake, *, is_supervised):
        self.folder = folder
        self.log = log
        settings = {
            "ledger_folder": str(folder),
            "host": "127.0.0.1",
            "port": 0,
            "sample_interval_s": 0.1,
            "seal_interval_s": 3600.0,
            "source": "nvml",
            "demo_seed": 0,
            "log_level": "info",
            "version": "1.2.3",
        }
        command = [sys.executable, "-P", "-c", SOON, json.dumps(settings)]
        if is_supervised:
            command = [sys.executable, "-P", "-c", SUPERVISED, json.dumps([command, str(folder)])]
        library = fake.library_folder / "libnvidia-ml.so.1"
        with log.open("wb") as stderr:
            environment = {**fake.environment, "LD_PRELOAD": str(library)}
            self.process = subprocess.Popen(command, env=environment, stderr=stderr)

    def events(self, kind):
        with LedgerReader(self.folder) as reader:
            return reader.snapshot([kind])[kind].tail.to_pylist()

    def life(self):
        return [row["event"] for row in self.events("ledger_event")]

    @property
    def starts(self):
        return self.log.read_text().count("recording to ")

    def shows(self, utilization):
        return any(row["utilization_percent"] == utilization for row in self.events("gpu_sample"))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


@pytest.fixture
def record(tmp_path, fake_nvml):
    running = []

    def record(*, is_supervised=False):
        fake_nvml.write(OLD)
        recorder = Recorder(tmp_path / "ledger", tmp_path / "log", fake_nvml, is_supervised=is_supervised)
        running.append(recorder)
        eventually((tmp_path / "ledger/head.sqlite").exists)
        eventually(lambda: recorder.starts == 1 and recorder.shows(10))
        return recorder

    yield record
    for recorder in running:
        if recorder.process.poll() is None:
            recorder.process.kill()
            recorder.process.wait(WAIT_S)


@pytest.mark.parametrize("is_supervised", [False, True])
def test_a_library_that_stays_mapped_is_left_by_becoming_a_new_process_in_order(record, fake_nvml, is_supervised):
    recorder = record(is_supervised=is_supervised)
    pid = lock_holder(recorder.folder)["pid"]
    fake_nvml.write(NEW)
    eventually(lambda: recorder.shows(90))
    assert recorder.starts == 2
    assert lock_holder(recorder.folder)["pid"] == pid  # whoever supervises it need not know
    life = [event for event in recorder.life() if event in ("start", "stop", "renewed")]
    assert life == ["start", "renewed", "stop", "start"]
    (renewed,) = (row for row in recorder.events("ledger_event") if row["event"] == "renewed")
    assert renewed["pid"] == pid
    assert any("libnvidia-ml.so.1" in path for path in json.loads(renewed["details"])["mapped"])
    drivers = [row["driver_version"] for row in recorder.events("inventory") if row["subject"] == "gpu"]
    assert drivers == ["570.12.34", "580.95.05"]
    assert recorder.end() == 0
    assert recorder.life()[-1] == "stop"
    if is_supervised:
        assert "it is started again" not in recorder.log.read_text()


def test_while_the_installed_library_does_not_match_the_module_it_stays_and_says_so(record, fake_nvml):
    recorder = record()
    fake_nvml.write(f"{OLD}fail * 18\n")

    def words():
        return [row["message"] for row in recorder.events("ledger_event") if row["event"] == "probe_status"][-1]

    eventually(lambda: words().startswith("no GPU: the NVIDIA library and kernel driver are of different versions"))
    ticks = len(recorder.events("system_sample"))
    eventually(lambda: len(recorder.events("system_sample")) > ticks + 30)
    assert (recorder.starts, "renewed" in recorder.life()) == (1, False)
    fake_nvml.write(OLD)
    eventually(lambda: words() == "1 GPU")
    assert recorder.end() == 0
