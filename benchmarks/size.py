"""Bytes per value of the same telemetry in our ledger and in other stores, in one run.

    python benchmarks/size.py                           # a day in all of them: some minutes
    python benchmarks/size.py --days 7                  # the week that the mark is for; Prometheus takes its time
    python benchmarks/size.py --days 7 --peers victoria clickhouse
    python benchmarks/size.py --csv nvidia-smi.csv      # a log of a real machine

A value is one of the 20 fields of `benchmarks/telemetry.py`, eight GPUs once a second. Ours is the ledger as compaction
leaves it, with everything that the others do not keep: seq, host, boot, UUIDs, why a value is absent. The others are
described in `benchmarks/peers.py`; their size is taken once they have merged what they wanted to merge.

The log is what `nvidia-smi --query-gpu=timestamp,index,... --format=csv -l 1 > nvidia-smi.csv` wrote.
"""

import argparse
import csv
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import telemetry
from compaction import make_ledger
from peers import fields_of, installed

from store.head import open_head
from store.repair.quarantine import here_and_now
from store.segments import catalogued, total_bytes, unlink_removable
from store.times import DAY_US
from store.upkeep.run import compact

PIECE_S = 1200  # sealed, then merged to hours, then to days
SIZE_MARK = 0.60


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What is stored: the same days for everyone."""

    shape: telemetry.Shape
    days: Callable[[], Iterator[telemetry.Columns]]
    values: int


def generated(shape: telemetry.Shape) -> Telemetry:
    return Telemetry(shape, lambda: telemetry.days(shape), shape.values)


def compacted_ledger(folder: Path, data: Telemetry) -> None:
    """A ledger of these days, all of them closed, as compaction leaves them."""
    make_ledger(folder, _tables(data))
    head = open_head(folder)
    by = here_and_now()
    done = compact(folder, head, by, grace_s=0, time_limit_s=math.inf)
    assert not done.problems, done.problems
    unlink_removable(folder, head, now_us=by.now_us + 1)
    head.close()


def _tables(data: Telemetry) -> Iterator[pa.Table]:
    first_tick = 0
    for day in data.days():
        for first in range(0, day["observed_at"].size, PIECE_S):
            piece = {name: values[first : first + PIECE_S] for name, values in day.items()}
            ticks = piece["observed_at"].size
            yield pa.Table.from_batches([telemetry.record_batch(data.shape, first_tick, piece)])
            first_tick += ticks


# A log of nvidia-smi ----------------------------------------------------------------------------------------------

_MIB, _MHZ = 2**20, 1_000_000
SMI_FIELDS: Mapping[str, tuple[str, int]] = {
    "utilization.gpu": ("utilization_percent", 1),
    "utilization.memory": ("memory_utilization_percent", 1),
    "utilization.encoder": ("encoder_utilization_percent", 1),
    "memory.used": ("memory_used_bytes", _MIB),
    "memory.free": ("memory_free_bytes", _MIB),
    "temperature.gpu": ("temperature_celsius", 1),
    "temperature.memory": ("memory_temperature_celsius", 1),
    "power.draw": ("power_watts", 1),
    "power.limit": ("power_limit_watts", 1),
    "fan.speed": ("fan_speed_percent", 1),
    "clocks.current.sm": ("clock_sm_hertz", _MHZ),
    "clocks.sm": ("clock_sm_hertz", _MHZ),
    "clocks.current.memory": ("clock_memory_hertz", _MHZ),
    "clocks.mem": ("clock_memory_hertz", _MHZ),
    "pstate": ("performance_state", 1),
}
"""What nvidia-smi calls a field: our name, and what its value is to be multiplied by."""


def from_log(path: Path) -> Telemetry:
    """What a log has of the fields that we know; one that is absent in some row is left out and named."""
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines, skipinitialspace=True))
    names = {header: header.split(" [")[0] for header in rows[0]} if rows else {}
    if "timestamp" not in names.values():
        raise SystemExit(f"{path} has no column 'timestamp': log with --query-gpu=timestamp,index,... --format=csv")
    by_gpu: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        named = {name: row[header] for header, name in names.items()}
        by_gpu.setdefault(named.get("index", "0"), []).append(named)
    ticks = min(map(len, by_gpu.values()))
    columns = {}
    for name, (ours, scale) in SMI_FIELDS.items():
        if name in names.values():
            values = [[_number(of_gpu[tick][name]) for of_gpu in by_gpu.values()] for tick in range(ticks)]
            if np.isnan(values).any():
                print(f"{name}: absent in some row, left out")
            else:
                columns[ours] = np.array(values) * scale
    if not columns:
        raise SystemExit(f"{path} has none of the fields {', '.join(SMI_FIELDS)}")
    first = next(iter(by_gpu.values()))[:ticks]
    times_us = np.array([_time_us(row["timestamp"]) for row in first])
    shape = telemetry.Shape(len(set(times_us // DAY_US)), len(by_gpu))
    return Telemetry(shape, lambda: _by_day(times_us, columns), ticks * len(by_gpu) * len(columns))


def _number(text: str | None) -> float:
    try:
        return float((text or "").split()[0].removeprefix("P"))
    except (IndexError, ValueError):
        return math.nan  # [N/A], [Not Supported], a line that was cut off


def _time_us(text: str) -> int:
    read = datetime.strptime(text, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC)
    return int(read.timestamp() * 1000) * 1000


def _by_day(times_us: np.ndarray, columns: telemetry.Columns) -> Iterator[telemetry.Columns]:
    for day in np.unique(times_us // DAY_US):
        of_day = times_us // DAY_US == day
        yield {name: values[of_day] for name, values in columns.items()} | {"observed_at": times_us[of_day]}


# The comparison ---------------------------------------------------------------------------------------------------


def compare(data: Telemetry, peers: Sequence[str]) -> None:
    fields = len(fields_of(next(data.days())))
    print(f"{data.shape.days} days, {data.shape.gpus} GPUs, {fields} fields: {data.values:,} values")
    print(f"{'':24}{'bytes a value':>14}{'MB':>10}{'of ours':>10}{'loaded in s':>13}", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True)))
        began_s = time.monotonic()
        compacted_ledger(folder / "ledger", data)
        head = open_head(folder / "ledger")
        ours_bytes = total_bytes(catalogued(head))
        head.close()
        _row("gpuledger", ours_bytes, ours_bytes, data, time.monotonic() - began_s)
        for peer in installed(peers):
            began_s = time.monotonic()
            with ExitStack() as running:
                other = peer(folder / peer.__name__, running)
                other.load(data.days())
                _row(peer.name, other.size_bytes(), ours_bytes, data, time.monotonic() - began_s)
    print(f"mark: at most {SIZE_MARK} bytes a value on the generator's week, and smaller than each of the others")


def _row(name: str, size_bytes: int, ours_bytes: int, data: Telemetry, taken_s: float) -> None:
    each = size_bytes / data.values
    print(f"{name:24}{each:14.4f}{size_bytes / 1e6:10.1f}{size_bytes / ours_bytes:10.2f}{taken_s:13.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="a log of nvidia-smi instead of the generator")
    parser.add_argument("--peers", nargs="+", default=[], metavar="NAME", help="only these, by a part of their names")
    arguments = parser.parse_args()
    shape = replace(telemetry.Shape(), days=arguments.days, seed=arguments.seed)
    compare(from_log(arguments.csv) if arguments.csv else generated(shape), arguments.peers)


if __name__ == "__main__":
    main()
