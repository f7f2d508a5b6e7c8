"""What the collector costs: CPU, memory and ticks of a real `gpuledger up`, measured from outside by /proc.

    python benchmarks/footprint.py                      # ten minutes, as installed
    python benchmarks/footprint.py --minutes 1 --source demo

Prints, for the collector process, the sealing children it started and the other processes of `up`: share of one core
over the run, greatest resident memory, ticks taken and missed; beside them the cost of a bare Python that wakes once
a second and writes and syncs 4 KiB, which is the least that any recorder in this language can cost. Ends with the
coverage that `gpuledger trend` reports for those minutes.
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
BARE_LOOP = """
import os, sys, time
file = open(sys.argv[1], "wb")
while True:
    time.sleep(1); file.seek(0); file.write(bytes(4096)); file.flush(); os.fdatasync(file.fileno())
"""


@dataclass
class Watched:
    """One process and what was seen of it. Seconds of CPU, bytes of memory."""

    name: str
    pid: int
    cpu_s: float = 0.0
    children_cpu_s: float = 0.0
    resident_bytes_max: int = 0

    def look(self) -> None:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system, child_user, child_system = (int(field) / CLOCK_TICKS_PER_S for field in fields[11:15])
        self.cpu_s, self.children_cpu_s = user + system, child_user + child_system
        resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES
        self.resident_bytes_max = max(self.resident_bytes_max, resident)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def processes_of(supervisor: int) -> list[Watched]:
    """The supervisor and its children, named by their command lines."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    found = [Watched("supervisor", supervisor)]
    for pid in map(int, children):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        found.append(Watched("collector" if b"collector" in command else "MCP server", pid))
    return found


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the collector did not become ready within a minute")


def measure(minutes: float, source: str, interval_s: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        port, mcp_port = free_port(), free_port()
        settings = {
            "GPULEDGER_DATA": f"{folder}/ledger",
            "GPULEDGER_COLLECTOR__PORT": str(port),
            "GPULEDGER_COLLECTOR__SAMPLE_INTERVAL_S": str(interval_s),
            "GPULEDGER_MCP__PORT": str(mcp_port),
            "GPULEDGER_LOG_LEVEL": "warning",
        }
        environment = {**os.environ, **settings}
        gpuledger = [sys.executable, "-P", "-m", "gpuledger"]
        bare = subprocess.Popen([sys.executable, "-c", BARE_LOOP, f"{folder}/bare"])
        up = subprocess.Popen([*gpuledger, "up", "--source", source], env=environment)
        try:
            wait_until_ready(port)
            watched = [*processes_of(up.pid), Watched("bare loop", bare.pid)]
            for one in watched:
                one.look()
            before = {one.name: (one.cpu_s, one.children_cpu_s) for one in watched}
            began = time.monotonic()
            while time.monotonic() - began < minutes * 60:
                time.sleep(1)
                for one in watched:
                    one.look()
            elapsed_s = time.monotonic() - began
            health = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz"))
            trend = subprocess.run(
                [*gpuledger, "trend", "cpu.utilization_percent", "--window", f"{int(elapsed_s)}s", "--json"],
                env=environment, capture_output=True, check=True,
            )  # fmt: skip
        finally:
            up.terminate()
            up.wait()
            bare.kill()
            bare.wait()
        report(watched, before, elapsed_s, health, json.loads(trend.stdout))


def report(watched: list[Watched], before: dict, elapsed_s: float, health: dict, trend: dict) -> None:
    def share(seconds: float) -> str:
        return f"{100 * seconds / elapsed_s:8.2f} %"

    print(f"{elapsed_s:.0f} s, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    print(f"{'process':24}{'one core':>10}{'resident, max':>16}")
    for one in watched:
        cpu_s, children_s = before[one.name]
        print(f"{one.name:24}{share(one.cpu_s - cpu_s)}{one.resident_bytes_max / 2**20:12.1f} MiB")
        if one.name == "collector":
            print(f"{'  its sealing children':24}{share(one.children_cpu_s - children_s)}")
    by_name = {one.name: one for one in watched}
    ratio = (by_name["collector"].cpu_s - before["collector"][0]) / (
        by_name["bare loop"].cpu_s - before["bare loop"][0]
    )
    print(f"collector / bare loop: {ratio:.1f} times the CPU")
    print(f"ticks {health['ticks']}, missed {health['missed_ticks']}")
    print(f"coverage of gpuledger trend over these {elapsed_s:.0f} s: {trend['coverage']:.4f}")
    print(f"this benchmark itself: {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.1f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--source", choices=("nvml", "demo"), default="nvml")
    parser.add_argument("--interval-s", type=float, default=1.0)
    arguments = parser.parse_args()
    measure(arguments.minutes, arguments.source, arguments.interval_s)


if __name__ == "__main__":
    main()
