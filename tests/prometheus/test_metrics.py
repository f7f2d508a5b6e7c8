"""The exposition under the eyes of Prometheus' own tools."""

import subprocess

import pytest

from collector.clock import Now
from collector.demo import DemoProbe
from collector.exposition import LedgerFigures, LiveCollector, UpkeepFigures, expose
from collector.probe import Condition
from collector.sampler import Latest
from store.derivations import prometheus_families
from store.events import DEVICE_SAMPLE, GPU_SAMPLE, SYSTEM_SAMPLE, Event

NOW = Now(monotonic_s=10.0, boottime_s=20.0, wall_us=1_795_435_200_000_000)


def every_family():
    """A tick in which every column of every exposed kind has a value, and the demo's inventory."""
    labels = {"gpu_uuid": "GPU-a", "gpu_index": 0, "device_type": "disk", "device": "sda"}
    rows = []
    for kind in (GPU_SAMPLE, SYSTEM_SAMPLE, DEVICE_SAMPLE):
        exposed = {column.name: 1 for family in prometheus_families(kind) for column, _ in family.members}
        rows.append(Event(kind.name, NOW.wall_us, labels | exposed))
    described = [event for event in DemoProbe(interval_s=1.0).read(NOW) if event.kind == "inventory"]
    inventory = {event.values["gpu_uuid"]: event.values for event in described}
    conditions = {"gpu": Condition.ANSWERS}
    latest = Latest(now=NOW, events=rows[:2], devices=rows[2:], inventory=inventory, conditions=conditions)
    figures = LedgerFigures(lambda: 0, lambda: 1, lambda: 1, UpkeepFigures)
    return LiveCollector(lambda: latest, lambda: True, "1.2.3", figures)


@pytest.fixture
def promtool(pytestconfig):
    return pytestconfig.pluginmanager.get_plugin("prometheus").tool("promtool")


def test_promtool_finds_nothing_to_say_of_all_our_families(promtool):
    body, _ = expose(every_family(), accept="")
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")
