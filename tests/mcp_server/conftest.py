"""A recorded ledger for the MCP server to answer from."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import anyio
import pytest
from mcp import Client

from mcp_server.server import make_server
from mcp_server.tools import ServerSettings
from store.events import Event
from store.ledger import Ledger
from store.sealing import seal

GPUS = ("GPU-aaaa0000-0000-4000-8000-000000000000", "GPU-bbbb0000-0000-4000-8000-000000000001")
SECONDS = 600


def tick(time_us: int, number: int) -> list[Event]:
    """Two GPUs and the host: GPU 0 at 40 %, GPU 1 a wave around 80 % held by the power cap."""
    events = []
    for index, uuid in enumerate(GPUS):
        values = {
            "gpu_uuid": uuid,
            "gpu_index": index,
            "interval_seconds": 1.0,
            "counter_epoch": 0,
            "up": True,
            "utilization_percent": 40 if index == 0 else round(80 + 10 * math.sin(number / 30)),
            "memory_used_bytes": 10 * 2**30,
            "memory_total_bytes": 140 * 2**30,
            "power_watts": 300.0 + 100 * index,
            "energy_joules": (300.0 + 100 * index) * number,
            "clock_sm_hertz": 1_980_000_000,
            "clock_event_reasons_bitmask": 0x4 if index else 0,
            "temperature_celsius": 50.0,
            "absence": {"fan_speed_percent": "not_supported"},
        }
        events.append(Event("gpu_sample", time_us, values))
    host = {
        "interval_seconds": 1.0,
        "counter_epoch": 0,
        "cpu_utilization_percent": 12.5,
        "load_1m_count": 0.5,
        "memory_used_bytes": 2**30,
        "memory_total_bytes": 2**34,
    }
    return [*events, Event("system_sample", time_us, host)]


def descriptions(time_us: int) -> list[Event]:
    calls = {"nvmlDeviceGetUtilizationRates": "ok", "nvmlDeviceGetFanSpeed_v2": "not_supported"}
    described = {"subject": "gpu", "name": "NVIDIA H200", "capabilities": calls}
    return [
        Event("inventory", time_us, {**described, "gpu_uuid": uuid, "gpu_index": index})
        for index, uuid in enumerate(GPUS)
    ]


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """Ten minutes until now, half sealed and half in the tail; copied by tests that write."""
    folder = tmp_path_factory.mktemp("mcp") / "ledger"
    end_us = int(datetime.now(UTC).timestamp()) * 1_000_000
    with Ledger(folder, host="spark-1") as ledger:
        ledger.append(descriptions(end_us))
        for number in range(SECONDS):
            ledger.append(tick(end_us - (SECONDS - 1 - number) * 1_000_000, number))
            if number == SECONDS // 2:
                seal(folder)
    return folder


@pytest.fixture
def recording_now(settings, tmp_path) -> ServerSettings:
    """A ledger whose newest sample is of this moment."""
    return _with_one_tick(settings, tmp_path, age_s=0)


@pytest.fixture
def recording_that_stopped(settings, tmp_path) -> ServerSettings:
    """A ledger whose newest sample is five minutes old."""
    return _with_one_tick(settings, tmp_path, age_s=300)


def _with_one_tick(settings: ServerSettings, folder: Path, age_s: int) -> ServerSettings:
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    with Ledger(folder / "own", host="spark-1") as ledger:
        ledger.append([*descriptions(now_us), *tick(now_us - age_s * 1_000_000, 0)])
    return replace(settings, folder=folder / "own")


@pytest.fixture
def settings(recorded) -> ServerSettings:
    return ServerSettings(
        folder=recorded, time_zone="Europe/Berlin", version="0.1.0", sql_rows_max=1000, sql_time_limit_s=10.0
    )


@pytest.fixture(scope="session")
def ask():
    """One call through the in-process client."""
    server_of = cache(make_server)  # making one takes 0.1 s

    def asked(settings, name, arguments=None, era="auto"):
        async def call():
            async with Client(server_of(settings), mode=era) as client:
                return await client.call_tool(name, arguments or {})

        return anyio.run(call)

    return asked
