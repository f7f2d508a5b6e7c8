"""What one tick of the GPU probe costs: inside NVIDIA's library, and in gpuledger's own Python.

Started by footprint.py with the stand-in in its environment; on a machine with a GPU it measures that.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from collector.clock import Now
from collector.gpu import nvml
from collector.gpu.probe import GpuProbe

TICKS = 300
in_library_s = 0.0


def timed(code: Callable[[nvml.Call], int]) -> Callable[[nvml.Call], int]:
    """`Call.code` that adds up how long the calls took."""

    def measured(call: nvml.Call) -> int:
        global in_library_s
        began_s = time.perf_counter()
        try:
            return code(call)
        finally:
            in_library_s += time.perf_counter() - began_s

    return measured


def main() -> None:
    nvml.Call.code = timed(nvml.Call.code)
    probe = GpuProbe(interval_s=1.0, kernel_log=Path("/nonexistent"))
    ticks: dict[str, list[tuple[float, float]]] = {"hot (each second)": [], "with the warm tier (every 5 s)": []}
    for number in range(TICKS):
        now = Now(1000.0 + number, 1000.0 + number, time.time_ns() // 1000)
        library_s, began_s = in_library_s, time.thread_time()
        probe.read(now)
        spent_s = time.thread_time() - began_s
        if number % 60:  # the cold tier, once a minute, is left out
            name = "hot (each second)" if number % 5 else "with the warm tier (every 5 s)"
            ticks[name].append((spent_s, in_library_s - library_s))
        time.sleep(0.01)
    print(f"{'':32}{'all':>10}{'library':>10}{'own':>10}")
    for name, spent in ticks.items():
        whole_ms = 1000 * statistics.median(one for one, _ in spent)
        library_ms = 1000 * statistics.median(one for _, one in spent)
        print(f"{name:32}{whole_ms:7.2f} ms{library_ms:7.2f} ms{whole_ms - library_ms:7.2f} ms")
    print(probe.status())


if __name__ == "__main__":
    main()
