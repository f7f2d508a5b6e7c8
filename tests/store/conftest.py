from pathlib import Path

import pytest

from store.events import Event
from store.ledger import Ledger

START_US = 1_795_435_200_000_000  # 2026-11-23 12:00:00 UTC


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(folder: Path):
    with Ledger(folder, host="spark-1", boot_id="boot-a") as opened:
        yield opened


@pytest.fixture
def tick():
    """The events of one tick: a GPU row and a host row, `number` seconds after 12:00."""

    def make(number: int) -> list[Event]:
        time_us = START_US + number * 1_000_000
        gpu = {
            "gpu_uuid": "GPU-1",
            "gpu_index": 0,
            "utilization_percent": number % 101,
            "power_watts": 100.5 + number,
            "energy_joules": 1000.125 + number,
            "absence": {"fan_speed_percent": "not_supported"},
        }
        return [Event("gpu_sample", time_us, gpu), Event("system_sample", time_us, {"cpu_utilization_percent": 1.5})]

    return make
