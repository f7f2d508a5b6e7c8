"""What a service manager is told, over a real socket."""

import os
import signal
import socket
import threading

import msgspec
import pytest

from collector import service
from collector.notifying import ServiceManager
from collector.probe import Condition
from collector.service import CollectorSettings

FIRST, LATER = "READY=1\nWATCHDOG=1", "WATCHDOG=1"


@pytest.fixture
def manager(tmp_path):
    """A socket as a service manager has it, named by a path."""
    with bound(str(tmp_path / "notify")) as wire:
        yield wire


def bound(name: str) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    wire.bind(name)
    return wire


def told(wire: socket.socket) -> list[str]:
    heard = []
    try:
        while True:
            heard.append(wire.recv(4096).decode())
    except BlockingIOError:
        return heard


class CountedProbe:
    """Gives nothing, and calls `at_tick` with the number of each tick."""

    name = "counted"
    condition = Condition.ANSWERS

    def __init__(self, at_tick):
        self._at_tick = at_tick
        self._ticks = 0

    def read(self, now):
        self._ticks += 1
        self._at_tick(self._ticks)
        return []

    def status(self):
        return "well"

    def close(self):
        pass


@pytest.fixture
def collect(tmp_path, manager, monkeypatch):
    """Run a collector under the manager until `at_tick` ends it by SIGTERM."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())

    def run(at_tick):
        monkeypatch.setattr(service, "_probes", lambda *_: [CountedProbe(at_tick)])
        record = {
            "ledger_folder": str(tmp_path / "ledger"),
            "host": "127.0.0.1",
            "port": 0,
            "sample_interval_s": 0.02,
            "seal_interval_s": 3600.0,
            "source": "nvml",
            "demo_seed": 0,
            "log_level": "info",
            "version": "1.2.3",
        }
        assert service.run(msgspec.convert(record, CollectorSettings)) == 0
        return told(manager)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_collector_is_ready_after_its_first_tick_and_feeds_the_watchdog_with_each(collect, manager):
    before_the_end = []

    def at_tick(number):
        before_the_end.append(told(manager))
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    rest = collect(at_tick)
    assert before_the_end[:3] == [[], [FIRST], [LATER]]
    assert rest == [LATER]


def test_a_collector_whose_tick_does_not_end_neither_becomes_ready_nor_feeds_the_watchdog(collect, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(service, "LAST_TICK_TIME_LIMIT_S", 0.05)

    def at_tick(number):
        os.kill(os.getpid(), signal.SIGTERM)
        gate.wait()

    try:
        assert collect(at_tick) == []
    finally:
        gate.set()


def test_a_socket_in_the_abstract_namespace_is_found(tmp_path):
    name = f"gpuledger-test-{os.getpid()}"
    with bound(f"\0{name}") as wire:
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ticked()
        assert told(wire) == [FIRST]


def test_a_manager_that_has_gone_or_does_not_listen_is_no_trouble(tmp_path, manager):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ticked()
    here = ServiceManager({"NOTIFY_SOCKET": manager.getsockname()})
    for _ in range(2000):  # more than its queue takes
        here.ticked()
    assert 1 <= len(told(manager)) < 2000
    ServiceManager({}).ticked()
