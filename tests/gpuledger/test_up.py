"""`gpuledger up`: from a running recorder to answers, and how it lives and dies."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def eventually(condition, seconds: float = 60.0):
    """The first true value of `condition`; it is asked until then."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def children(pid: int) -> dict[str, int]:
    """Name to pid of the processes that `up` watches."""
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        lines = {int(one): Path(f"/proc/{one}/cmdline").read_bytes() for one in pids}
    except FileNotFoundError:
        return {}
    names = {"collector": b"\0collector\0", "mcp": b"\0mcp\0"}
    return {name: pid for name, word in names.items() for pid, line in lines.items() if word in line}


@contextmanager
def running(gpuledger, *arguments: str):
    """`gpuledger up` on free ports, ready; gives the process and the collector's address."""
    port, mcp_port = free_port(), free_port()
    gpuledger.environment = {"GPULEDGER_COLLECTOR__PORT": str(port), "GPULEDGER_MCP__PORT": str(mcp_port)}
    log = (gpuledger.home / "up.log").open("w")
    command = gpuledger.command("up", *arguments)
    with subprocess.Popen(command, env=gpuledger.variables, cwd=gpuledger.home, stderr=log) as up:
        try:
            eventually(lambda: fetch(f"http://127.0.0.1:{port}/readyz")[0] == 200)
            eventually(lambda: fetch(f"http://127.0.0.1:{mcp_port}/healthz")[0] == 200)
            yield up, f"http://127.0.0.1:{port}"
        finally:
            if up.poll() is None:
                up.terminate()
            up.wait(timeout=60)
            log.close()


def test_what_a_running_recorder_answers(gpuledger):
    with running(gpuledger, "--source", "demo") as (up, url):
        eventually(lambda: json.loads(fetch(f"{url}/healthz")[1])["ticks"] >= 4)

        greeting = (gpuledger.home / "up.log").read_text()
        assert f"records to {gpuledger.data}" in greeting
        assert f"{url}/metrics" in greeting
        assert str(gpuledger.data / "mcp.token") in greeting

        status = gpuledger("status").stdout
        assert "recording by pid" in status
        assert "probe    gpu: 3 demo GPUs (made up, seed 0)" in status

        trend = json.loads(gpuledger("trend", "gpu.utilization_percent", "--window", "last hour", "--json").stdout)
        assert [series["label"] for series in trend["series"]] == ["0", "1", "2"]
        assert trend["newest_age_s"] < 2 + 5  # one interval, and as long as a loaded machine takes to answer

        (row,) = json.loads(
            gpuledger(
                "sql",
                "select count(distinct source) as n, min(source) as source from inventory where subject = 'gpu'",
                "--json",
            ).stdout
        )
        assert row == {"n": 1, "source": "demo"}

        parameters = StdioServerParameters(
            command=sys.executable, args=gpuledger.command("mcp")[1:], env=gpuledger.variables
        )

        async def ask():
            async with Client(stdio_client(parameters)) as client:
                return (await client.call_tool("live_state", {})).structured_content

        # a loaded machine may hold the recorder up for a moment, never for long
        live = eventually(lambda: (now := anyio.run(ask))["window"]["age_s"] < 2 and now)
        assert live["stale"] is False
        assert [line[1] for line in live["gpus"]["rows"]] == [
            "NVIDIA H200 (demo)",
            "NVIDIA H200 (demo)",
            "NVIDIA GB10 (demo)",
        ]

        metrics = fetch(f"{url}/metrics")[1]
        assert len(re.findall(r"^dgx_gpu_power_usage_watts\{", metrics, re.MULTILINE)) == 3
    assert up.returncode == 0


def test_what_is_replayed_is_labelled_so_in_the_ledger(gpuledger):
    recording = Path(__file__).parents[1] / "fixtures/recordings/stand-in-h100-pair.recording"
    with running(gpuledger, "--source", f"replay:{recording}"):
        eventually(lambda: "the stand-in of the tests, no hardware" in gpuledger("status").stdout)
        asked = "select source, name, attributes from inventory where subject = 'gpu'"
        rows = json.loads(gpuledger("sql", asked, "--json").stdout)
    assert [(row["source"], row["name"]) for row in rows] == [("replay", "NVIDIA H100 80GB HBM3")] * 2
    assert {json.loads(row["attributes"])["recording"]["machine"] for row in rows} == {"stand-in"}


def test_a_machine_without_a_gpu_is_recorded_and_the_reason_is_told(gpuledger):
    with running(gpuledger):
        eventually(lambda: "no GPU" in gpuledger("status").stdout)
        status = gpuledger("status").stdout
        assert re.search(r"probe    gpu: no GPU: (no NVIDIA driver library|the NVIDIA kernel driver)", status)
        done = gpuledger("trend", "gpu.utilization_percent", code=3)
        assert "none was ever recorded (no GPU: " in done.stderr
        assert gpuledger("trend", "cpu.count", "-w", "1m").returncode == 0


def test_a_part_that_is_killed_is_started_again(gpuledger):
    with running(gpuledger, "--source", "demo") as (up, url):
        before = children(up.pid)
        assert set(before) == {"collector", "mcp"}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        eventually(  # a killed one has a name until it is buried
            lambda: set(now := children(up.pid)) == set(before) and not set(now.values()) & set(before.values())
        )
        eventually(lambda: fetch(f"{url}/readyz")[0] == 200)
        log = (gpuledger.home / "up.log").read_text()
        assert "the collector ended with exit code -9; it is started again in 1 s" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_in_order(gpuledger, number):
    with running(gpuledger, "--source", "demo") as (up, _):
        pids = children(up.pid).values()
        up.send_signal(number)
        assert up.wait(timeout=60) == 0
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    (last,) = json.loads(gpuledger("sql", "select event from ledger_event order by seq desc limit 1", "--json").stdout)
    assert last == {"event": "stop"}


def test_killing_up_itself_leaves_nobody_behind(gpuledger):
    with running(gpuledger, "--source", "demo") as (up, _):
        pids = list(children(up.pid).values())
        up.kill()
        up.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_port_in_use_ends_it_with_one_sentence(gpuledger):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gpuledger.environment = {"GPULEDGER_COLLECTOR__PORT": str(port), "GPULEDGER_MCP__PORT": str(free_port())}
        assert gpuledger.error("up", code=2) == (
            f"127.0.0.1 port {port} cannot be listened on (address already in use): "
            "stop what listens there, or set collector.port"
        )
