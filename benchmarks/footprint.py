"""What the collector costs: CPU, memory and ticks of a real `gpuledger up`, measured from outside by /proc.

    python benchmarks/footprint.py                      # ten minutes, as installed
    python benchmarks/footprint.py --minutes 1 --source demo
    python benchmarks/footprint.py --minutes 5 --gpus 8 --processes 64 --peers

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
import venv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from stand_in import machine

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
BARE_LOOP = """
import os, sys, time
file = open(sys.argv[1], "wb")
while True:
    time.sleep(1); file.seek(0); file.write(bytes(4096)); file.flush(); os.fdatasync(file.fileno())
"""

GPUSTAT_LOOP = """
import sys, time, gpustat
while True:
    gpustat.new_query(); time.sleep(float(sys.argv[1]))
"""
SPLIT_TICK = Path(__file__).with_name("split_tick.py")


@dataclass(frozen=True)
class Peer:
    """Another recorder: what pip calls it, and how it is started."""

    name: str
    packages: Sequence[str]
    command: Sequence[str]


PEERS = (
    Peer("nvitop-exporter", ["nvitop-exporter"], ["{bin}/nvitop-exporter", "--interval", "{interval}",
         "--bind-address", "127.0.0.1", "--port", "{port}"]),
    Peer("glances", ["glances", "nvidia-ml-py"], ["{bin}/glances", "--stdout", "gpu,cpu,mem", "--time", "{interval}"]),
    Peer("gpustat in a loop", ["gpustat"], ["{bin}/python", "-c", GPUSTAT_LOOP, "{interval}"]),
)  # fmt: skip


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


def start_peers(folder: Path, interval_s: float, environment: Mapping[str, str]) -> dict[str, subprocess.Popen[bytes]]:
    """The peers that can be installed, running."""
    running = {}
    for peer in PEERS:
        home = folder / peer.name.split()[0]
        venv.create(home, with_pip=True)
        installing = subprocess.run(
            [home / "bin/pip", "install", "--quiet", *peer.packages], capture_output=True, check=False
        )
        if installing.returncode:
            print(f"{peer.name}: cannot be installed here, left out")
            continue
        words = {"bin": home / "bin", "interval": f"{interval_s:g}", "port": free_port()}
        command = [word if word == GPUSTAT_LOOP else word.format(**words) for word in peer.command]
        running[peer.name] = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    return running


@dataclass(frozen=True)
class Options:
    minutes: float
    source: str
    interval_s: float
    gpus: int
    processes: int
    peers: bool


def measure(options: Options) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {**os.environ}
        if options.gpus:
            environment = stack.enter_context(machine(folder, options.gpus, options.processes))
        others = start_peers(folder, options.interval_s, environment) if options.peers else {}
        others["bare loop"] = subprocess.Popen([sys.executable, "-c", BARE_LOOP, folder / "bare"])
        for process in others.values():
            stack.callback(process.wait)
            stack.callback(process.kill)
        run(options, folder, environment, others)
        if options.gpus:
            print("\none tick, in a process that does nothing else:", flush=True)
            subprocess.run([sys.executable, SPLIT_TICK], env=environment, check=True)


def run(
    options: Options, folder: Path, environment: Mapping[str, str], others: Mapping[str, subprocess.Popen[bytes]]
) -> None:
    """Record for those minutes with the others beside it, and report."""
    port, mcp_port = free_port(), free_port()
    settings = {
        "GPULEDGER_DATA": f"{folder}/ledger",
        "GPULEDGER_COLLECTOR__PORT": str(port),
        "GPULEDGER_COLLECTOR__SAMPLE_INTERVAL_S": str(options.interval_s),
        "GPULEDGER_MCP__PORT": str(mcp_port),
        "GPULEDGER_LOG_LEVEL": "warning",
    }
    environment = {**environment, **settings}
    gpuledger = [sys.executable, "-P", "-m", "gpuledger"]
    up = subprocess.Popen([*gpuledger, "up", "--source", options.source], env=environment)
    try:
        wait_until_ready(port)
        watched = [*processes_of(up.pid), *(Watched(name, process.pid) for name, process in others.items())]
        for one in watched:
            one.look()
        before = {one.name: (one.cpu_s, one.children_cpu_s) for one in watched}
        began = time.monotonic()
        while time.monotonic() - began < options.minutes * 60:
            time.sleep(1)
            for one in watched:
                one.look()
        elapsed_s = time.monotonic() - began
        health = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz"))
        metric = "gpu.utilization_percent" if options.gpus else "cpu.utilization_percent"
        trend = subprocess.run(
            [*gpuledger, "trend", metric, "--window", f"{int(elapsed_s)}s", "--json"],
            env=environment, capture_output=True, check=True,
        )  # fmt: skip
    finally:
        up.terminate()
        up.wait()
    report(watched, before, elapsed_s, health, json.loads(trend.stdout))


def report(watched: list[Watched], before: dict, elapsed_s: float, health: dict, trend: dict) -> None:
    def share(seconds: float) -> str:
        return f"{100 * seconds / elapsed_s:8.2f} %"

    spent_s = {one.name: one.cpu_s - before[one.name][0] for one in watched}
    print(f"{elapsed_s:.0f} s, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    print(f"{'process':24}{'one core':>10}{'resident, max':>16}{'/ collector':>13}")
    for one in watched:
        ratio = spent_s[one.name] / spent_s["collector"]
        print(f"{one.name:24}{share(spent_s[one.name])}{one.resident_bytes_max / 2**20:12.1f} MiB{ratio:11.1f} x")
        if one.name == "collector":
            print(f"{'  its sealing children':24}{share(one.children_cpu_s - before[one.name][1])}")
    print(f"ticks {health['ticks']}, missed {health['missed_ticks']}")
    print(f"coverage of gpuledger trend over these {elapsed_s:.0f} s: {trend['coverage']:.4f}")
    print(f"this benchmark itself: {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.1f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--source", choices=("nvml", "demo"), default="nvml")
    parser.add_argument("--interval-s", type=float, default=1.0)
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of the stand-in; 0 for the machine's own")
    parser.add_argument("--processes", type=int, default=64, help="processes on them")
    parser.add_argument("--peers", action="store_true", help="run other recorders beside it")
    measure(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
