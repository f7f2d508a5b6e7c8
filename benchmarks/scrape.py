"""How long one scrape of /metrics takes: text, OpenMetrics, and with DCGM's families, of a tick in which all is known.

    python benchmarks/scrape.py [--gpus 8]

The aim is 20 ms with 8 GPUs.
"""

import argparse
import statistics
import time

from collector.clock import Now
from collector.dcgm import DcgmCollector
from collector.exposition import LiveCollector
from collector.sampler import Latest
from collector.service import Exposed
from store.derivations import prometheus_families
from store.events import DEVICE_SAMPLE, GPU_SAMPLE, SYSTEM_SAMPLE, Event, Kind

NOW = Now(1000.0, 1000.0, 1_795_435_200_000_000)
SCRAPES = 100
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def full_row(kind: Kind, **identity: object) -> Event:
    values = {column.name: 1234 for family in prometheus_families(kind) for column, _ in family.members}
    return Event(kind.name, NOW.wall_us, values | identity)


def machine(gpus: int) -> Exposed:
    """A machine whose GPUs have every reading there is, and ten devices."""
    rows = [full_row(GPU_SAMPLE, gpu_index=index, gpu_uuid=f"GPU-{index:036d}") for index in range(gpus)]
    devices = [full_row(DEVICE_SAMPLE, device_type="disk", device=f"nvme{index}n1") for index in range(10)]
    latest = Latest(now=NOW, events=[*rows, full_row(SYSTEM_SAMPLE)], devices=devices)
    live = LiveCollector(lambda: latest, lambda: True, "0")
    return Exposed(live, DcgmCollector(lambda: latest, lambda: True, "box"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=8)
    exposed = machine(parser.parse_args().gpus)
    for name, accept, sets in (("text", "", []), ("OpenMetrics", OPENMETRICS, []), ("with DCGM's", "", ["dcgm"])):
        taken_ms, cpu_ms, body = [], [], b""
        for _ in range(SCRAPES):
            began_s, cpu_began_s = time.perf_counter(), time.process_time()
            body, _ = exposed.scraped(accept, sets)
            taken_ms.append(1000 * (time.perf_counter() - began_s))
            cpu_ms.append(1000 * (time.process_time() - cpu_began_s))
        p50, p95 = statistics.median(taken_ms), statistics.quantiles(taken_ms, n=20)[-1]
        lines, cpu = body.count(b"\n"), statistics.median(cpu_ms)
        taken = f"p50 {p50:5.1f} ms  p95 {p95:5.1f} ms  CPU {cpu:5.1f} ms"
        print(f"{name:12s} {taken}  {lines:6,} lines  {len(body) / 1000:6.1f} kB")


if __name__ == "__main__":
    main()
