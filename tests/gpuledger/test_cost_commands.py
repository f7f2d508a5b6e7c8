"""The commands about costs and losses, as a user runs them."""

import csv
import io
import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from gpuledger.cli import app
from store.errors import NoDataError
from store.events import Event
from store.ledger import Ledger

SECONDS = 2400
COMMANDS = ("energy", "waste", "throttling", "leaks", "stragglers", "activity")


@pytest.fixture(scope="module")
def events():
    """Forty minutes until now of four GPUs at 250 W, and one request of 100 s on the first.

    0 works under a power cap, for ana, whose process leaks; 1 works; 2 is busy but empty; 3 idles and ben holds it.
    """
    now_us = int(datetime.now(UTC).timestamp()) * 1_000_000
    common = {"interval_seconds": 5.0, "counter_epoch": 0}
    found = []
    for s in range(0, SECONDS + 1, 5):
        time_us = now_us - (SECONDS - s) * 1_000_000
        for index in range(4):
            sample = {
                "gpu_uuid": f"GPU-{index}",
                "gpu_index": index,
                "utilization_percent": 0 if index == 3 else 99,
                "sm_active_ratio": 0.02 if index > 1 else 0.8,
                "power_watts": 250.0,
                "energy_joules": 1000.0 + 250 * s,
                "clock_sm_hertz": 1_500_000_000 if index == 0 and s % 20 == 0 else 2_000_000_000,
                "clock_event_reasons_bitmask": 4 if index == 0 and s % 20 == 0 else 0,
                "memory_free_bytes": 2**34,
            }
            found.append(Event("gpu_sample", time_us, common | sample))
        found.append(Event("system_sample", time_us, common | {"cpu_utilization_percent": 9.0}))
        for index, user, used in ((0, "ana", 2**33 + s * 2**20), (3, "ben", 2**33)):
            held = {"gpu_uuid": f"GPU-{index}", "gpu_index": index, "pid": 70 + index, "user": user}
            found.append(Event("process_sample", time_us, common | held | {"memory_used_bytes": used}))
    request = {
        "operation": "chat",
        "response_model": "llama",
        "status": "ok",
        "duration_seconds": 100.0,
        "input_tokens": 500,
        "output_tokens": 1000,
        "gpu_uuids": ["GPU-0"],
    }
    found.append(Event("request", now_us - 600_000_000, request))
    return sorted(found, key=lambda one: one.observed_at_us)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, events):
    """Runs a command on that ledger in this process: to start one for each takes most of the time."""
    home = tmp_path_factory.mktemp("home")
    with Ledger(home / "ledger", host="node-1") as ledger:
        ledger.append(events)

    def run(command: str, *arguments: str, **environment: str):
        places = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "COLUMNS": "200"}
        return CliRunner().invoke(app, [command, "--data", str(home / "ledger"), *arguments], env=places | environment)

    return run


def test_energy_is_told_per_request_and_per_thousand_tokens_with_what_it_costs_here(ran):
    prices = {"GPULEDGER_COSTS__PRICE_PER_KWH": "0.36", "GPULEDGER_COSTS__CURRENCY": "EUR"}
    shown = ran("energy", **prices).stdout
    for words in ("J/1k out", "25 kJ", "EUR", "while none did", "energy counters"):
        assert words in shown
    assert "CO2" not in shown
    found = json.loads(ran("energy", "--json", **prices).stdout)
    [group] = found["groups"]
    assert group["joules_per_request"] == pytest.approx(25_000)
    assert group["joules_per_1000_output_tokens"] == pytest.approx(25_000)
    assert group["cost"]["price"] == pytest.approx(25_000 / 3.6e6 * 0.36)
    assert found["attributed_joules"] + found["unattributed_joules"] == pytest.approx(found["joules"])


def test_waste_names_who_held_what_did_nothing(ran):
    shown = ran("waste", "--window", "1h").stdout
    assert "0.668 of 1.34 GPU-hours held were idle (50 %)" in shown  # 40 minutes each, and the 5 s of the first sample
    rows = list(csv.DictReader(io.StringIO(ran("waste", "--window", "1h", "--csv").stdout)))
    idle = {(row["sum_of"], row["holder"] or row["gpu_index"]): float(row["idle_hours"]) for row in rows}
    assert idle == pytest.approx(
        {("gpu", "0"): 0, ("gpu", "3"): 2 / 3, ("user", "ana"): 0, ("user", "ben"): 2 / 3}, rel=0.01
    )
    assert {row["cost_price"] for row in rows} == {""}
    assert "did you mean 'user'" in str(ran("waste", "--by", "usr").exception)


def test_throttling_tells_the_reason_and_what_it_cost(ran):
    shown = ran("throttling").stdout
    assert "sw_power_cap" in shown
    assert "Nothing held GPU 1, 2, 3." in shown
    found = json.loads(ran("throttling", "--json").stdout)["gpus"][0]
    assert found["reasons"][0]["lost_seconds"] == pytest.approx(found["held_seconds"] / 4)


def test_leaks_tells_whose_memory_grows_and_until_when(ran):
    shown = ran("leaks").stdout
    assert "1 of 2 leaks." in shown
    assert "4.6 h" in shown  # 16 GiB at 1 MiB a second
    assert [one["verdict"] for one in json.loads(ran("leaks", "--json").stdout)["processes"]] == ["leak", "none"]


def test_activity_tells_which_gpu_is_busy_but_empty(ran):
    found = json.loads(ran("activity", "--json").stdout)["gpus"]
    assert {one["gpu_index"]: one["empty_ratio"] for one in found} == {0: 0, 1: 0, 2: 1, 3: None}
    assert "busy but empty" in ran("activity").stdout


def test_stragglers_says_why_gpus_were_not_compared(ran):
    shown = ran("stragglers").stdout
    assert "No GPUs could be compared." in shown
    assert "node-1: not compared: they were busy together for 0 minutes, and it takes 10" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_each_comes_as_parquet_and_says_when_there_is_nothing(ran, tmp_path, command):
    found = tmp_path / "found.parquet"
    assert ran(command, "--parquet", str(found)).exit_code == 0
    assert (pq.read_table(found).num_rows > 0) == (command != "stragglers")
    assert isinstance(ran(command, "--window", "2020-01-01").exception, NoDataError)
