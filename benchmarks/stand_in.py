"""A machine for benchmarks: the tests' stand-in for NVIDIA's library with busy GPUs, and processes that hold memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORKED_SLEEPERS = """
import os, sys, time
pids = []
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        time.sleep(86400)
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.read()
for pid in pids:
    os.kill(pid, 15)
"""


def scenario(gpus: int, pids: list[int]) -> str:
    """What the stand-in is to be: every tier has something to say, the processes are spread over the GPUs."""
    lines = ["driver 580.95.05"]
    for gpu in range(gpus):
        lines += [
            f'gpu {gpu} uuid=GPU-{gpu:08x} name="NVIDIA H200" util={30 + gpu} mem_util=12 power_mw=412345',
            f"gpu {gpu} energy_mj=1000 energy_step_mj=250 reasons=0x4 pcie_tx_step=1000 nvlink_tx_step=1000",
            f"samples gpu={gpu} type=0 period_us=20000 depth=120 values=400000,410000,420000",
            f"samples gpu={gpu} type=1 period_us=166000 depth=120 values=80,90,100",
            f"gpm gpu={gpu} 1=87 2=80 3=40 4=3 5=50 6=1 7=50 9=1 10=33 11=0 12=20 13=1 20=100 21=200 60=500 61=600",
        ]
    for number, pid in enumerate(pids):
        lines.append(f"process gpu={number % gpus} pid={pid} type=compute memory=1048576000 sm=40 mem=5 enc=0 dec=0")
    return "\n".join(lines) + "\n"


@contextmanager
def machine(folder: Path, gpus: int, processes: int) -> Iterator[dict[str, str]]:
    """The environment of a process that is to find that machine, for as long as its processes live."""
    sys.path.insert(0, str(ROOT))
    from tests.fakenvml.plugin import build

    library = build(folder)
    sleepers = subprocess.Popen(
        [sys.executable, "-S", "-c", FORKED_SLEEPERS, str(processes)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert sleepers.stdout is not None
        pids = [int(word) for word in sleepers.stdout.readline().split()]
        path = folder / "machine.scenario"
        path.write_text(scenario(gpus, pids))
        stand_in = {
            "LD_LIBRARY_PATH": str(library.parent),
            "FAKE_NVML_SCENARIO": str(path),
            "FAKE_NVML_POLL_MS": "500",  # a driver does not poll while it is waited for
        }
        yield {**os.environ, **stand_in}
    finally:
        sleepers.communicate()
