"""How fast trends are answered, from events and from rollups, on a ledger that is made for it.

    python benchmarks/trend_speed.py                    # 30 days of 8 GPUs at 1 Hz, 20 fields; a few minutes, 1 GB
    python benchmarks/trend_speed.py --days 3
    python benchmarks/trend_speed.py --folder /var/tmp/made --keep    # made once, asked again

Makes a ledger of sealed segments as compaction leaves them (a file a day, in blocks of four hours sorted by GPU and
time; today in minutes), and an unsealed tail; rolls it up as the collector's child does, hour by hour, in a process of
its own; and prints what that cost, the sizes, and the median time of each question: warm, in a process that has asked
before, and cold, as a process of its own from start to answer.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from query.history.trends import trend
from query.reading.local_source import LocalSource
from query.windows import Window
from store.derivations import arrow_schema
from store.events import GPU_SAMPLE, Event
from store.ledger import Ledger
from store.snapshot import LedgerReader

NOW = datetime(2026, 11, 23, 12, 47, tzinfo=UTC)
GPUS = 8
HZ_S = 3600
ROWS_OF_BLOCK = 4 * HZ_S * GPUS
QUESTIONS = (
    ("gpu.utilization_percent", timedelta(hours=1), 60),
    ("gpu.utilization_percent", timedelta(days=1), 288),
    ("gpu.utilization_percent", timedelta(days=7), 168),
    ("gpu.utilization_percent", timedelta(days=30), 24),
    ("gpu.utilization_percent", timedelta(days=30), 500),
    ("gpu.power_watts", timedelta(days=30), 24),
    ("gpu.energy_joules", timedelta(days=30), 24),
)
CHILD = "from pathlib import Path; import sys; from store.rollups.updating import update_rollups; "


def hour_of_samples(begins: datetime, seconds: int, first_seq: int) -> pa.Table:
    """`seconds` of eight GPUs from a seed: jobs that come and go, noise, idle, counters that grow; 20 fields."""
    random = np.random.default_rng(round(begins.timestamp()))
    start_s = round(begins.timestamp())
    second = np.arange(start_s, start_s + seconds)
    tables = []
    for gpu in range(GPUS):
        slot = (second + 977 * gpu) // 1200
        intensity = np.where((slot * 2654435761 + gpu) % 100 < 70, 0.55 + ((slot * 40503) % 45) / 100, 0.0)
        load = np.clip(intensity + (intensity > 0) * random.normal(0, 0.04, seconds), 0, 1)
        tables.append(_of_gpu(gpu, second, load, random, first_seq + gpu * seconds))
    return pa.concat_tables(tables)


def _of_gpu(gpu: int, second: np.ndarray, load: np.ndarray, random: np.random.Generator, first_seq: int) -> pa.Table:
    rows = len(second)
    power = np.round(78 + 560 * load + random.normal(0, 2, rows), 2)
    heat = 28 + np.round(28 * np.convolve(load, np.ones(120) / 120, "same"))
    total = (second - 1_790_000_000).astype(np.float64)
    made: dict[str, object] = {
        "seq": np.arange(first_seq, first_seq + rows),
        "observed_at": second * 1_000_000 + random.integers(100, 900, rows),
        "host": pa.array(["node"]).take(pa.array(np.zeros(rows, np.int64))),
        "boot_id": pa.array(["boot-1"]).take(pa.array(np.zeros(rows, np.int64))),
        "gpu_uuid": pa.array([f"GPU-{gpu:08d}-0000-4000"]).take(pa.array(np.zeros(rows, np.int64))),
        "gpu_index": np.full(rows, gpu),
        "interval_seconds": np.ones(rows),
        "counter_epoch": np.zeros(rows, np.int64),
        "utilization_percent": np.round(100 * load),
        "memory_utilization_percent": np.round(60 * load),
        "sm_active_ratio": np.round(0.9 * load, 3),
        "dram_active_ratio": np.round(0.5 * load, 3),
        "tensor_active_ratio": np.round(0.4 * load, 3),
        "memory_used_bytes": np.where(load > 0, 90_000_000_000, 600_000_000),
        "memory_free_bytes": np.where(load > 0, 60_000_000_000, 149_400_000_000),
        "memory_total_bytes": np.full(rows, 150_000_000_000),
        "temperature_celsius": heat,
        "memory_temperature_celsius": heat + 4,
        "power_watts": power,
        "power_instant_watts": np.round(power + random.normal(0, 6, rows), 2),
        "power_limit_watts": np.full(rows, 700.0),
        "energy_joules": np.round(total * 300 + np.cumsum(power) / 1000, 3),
        "clock_sm_hertz": np.where(load > 0, 1_980_000_000, 345_000_000),
        "clock_memory_hertz": np.full(rows, 3_201_000_000),
        "throttle_sw_power_cap_seconds": np.round(total * 0.01 + np.cumsum(power > 600) / 1000, 3),
        "pcie_tx_bytes": (total * 4e6).astype(np.int64) + np.cumsum(random.integers(0, 9_999, rows)),
        "pcie_rx_bytes": (total * 3e6).astype(np.int64) + np.cumsum(random.integers(0, 9_999, rows)),
        "nvlink_tx_bytes": (total * 9e6).astype(np.int64) + np.cumsum(random.integers(0, 9_999, rows)),
    }
    columns = [
        _array(made[field.name], field.type) if field.name in made else pa.nulls(rows, field.type)
        for field in arrow_schema(GPU_SAMPLE)
    ]
    return pa.table(columns, schema=arrow_schema(GPU_SAMPLE))


def _array(values: object, wanted: pa.DataType) -> pa.Array:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    if pa.types.is_timestamp(wanted):
        return array.cast(pa.int64()).cast(wanted)
    return array.cast(wanted, safe=False)


def make_ledger(folder: Path, days: int) -> None:
    """A file for each closed day, hour of today and two minutes of this hour; two minutes of tail."""
    with Ledger(folder, host="node", boot_id="boot-1") as ledger:
        ledger.append([])
    today = NOW.replace(hour=0, minute=0)
    seq = 1
    for begins, blocks in _spans(today - timedelta(days=days), today):
        path = folder / f"events/gpu_sample/v=1/date={begins:%Y-%m-%d}/node-{seq}-x-{blocks[-1][1]}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        first_seq, rows, edges = seq, 0, []
        with pq.ParquetWriter(path, arrow_schema(GPU_SAMPLE), store_schema=False, **_writing()) as writer:
            for at, seconds in blocks:
                table = hour_of_samples(at, seconds, seq)
                writer.write_table(table, row_group_size=ROWS_OF_BLOCK)
                seq += table.num_rows
                rows += table.num_rows
                times = table["observed_at"].cast(pa.int64()).to_numpy()
                edges += [int(times.min()), int(times.max())]
        with closing(apsw.Connection(str(folder / "head.sqlite"))) as head:
            values = (
                str(path.relative_to(folder)),
                first_seq,
                seq - 1,
                rows,
                min(edges),
                max(edges),
                path.stat().st_size,
            )
            head.execute(
                "insert into segment (path, kind, version, level, host, first_seq, last_seq, event_count, "
                "first_observed_at_us, last_observed_at_us, size_bytes) "
                "values (?1, 'gpu_sample', 1, 0, 'node', ?2, ?3, ?4, ?5, ?6, ?7)",
                values,
            )
            head.execute("update ledger set next_seq = ?", (seq,))
    with Ledger(folder, host="node", boot_id="boot-1") as ledger:
        for tick in _ticks(NOW - timedelta(minutes=2), 120):
            ledger.append(tick)


def _spans(first: datetime, today: datetime) -> Iterator[tuple[datetime, list[tuple[datetime, int]]]]:
    """Each file's beginning, and the blocks in it: when they begin and how many seconds they hold."""
    at = first
    while at < today:
        yield at, [(at + timedelta(hours=4 * block), 4 * HZ_S) for block in range(6)]
        at += timedelta(days=1)
    while at + timedelta(hours=1) <= NOW:
        yield at, [(at, HZ_S)]
        at += timedelta(hours=1)
    while at + timedelta(minutes=2) < NOW:
        yield at, [(at, 120)]
        at += timedelta(minutes=2)


def _writing() -> dict[str, object]:
    fields = arrow_schema(GPU_SAMPLE)
    integers = [one.name for one in fields if pa.types.is_integer(one.type) or pa.types.is_timestamp(one.type)]
    integers += [one.name for one in fields if pa.types.is_decimal(one.type)]
    floats = [one.name for one in fields if pa.types.is_floating(one.type)]
    encodings = dict.fromkeys(integers, "DELTA_BINARY_PACKED") | dict.fromkeys(floats, "BYTE_STREAM_SPLIT")
    return {
        "compression": "zstd",
        "use_dictionary": [one.name for one in fields if one.name not in encodings],
        "column_encoding": encodings,
        "store_decimal_as_integer": True,
    }


def _ticks(begins: datetime, seconds: int) -> Iterator[list[Event]]:
    table = hour_of_samples(begins, seconds, 1)
    present = [name for name in table.column_names if name not in ("seq", "host", "boot_id", "observed_at")]
    rows = table.select([*present]).to_pylist()
    times = table["observed_at"].cast(pa.int64()).to_pylist()
    events = [
        Event("gpu_sample", time_us, {name: _plain(value) for name, value in row.items() if value is not None})
        for time_us, row in zip(times, rows, strict=True)
    ]
    for second in range(seconds):
        yield events[second::seconds]


def _plain(value: object) -> object:
    return value if isinstance(value, (int, float, str, bool)) else float(str(value))


def window_of(length: timedelta) -> Window:
    return Window(NOW - length, NOW, "UTC", str(length))


def median_ms(ask: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - begun)
    return 1000 * statistics.median(taken)


def roll_up(folder: Path) -> None:
    """All hours but the newest at once, then that one as the child does it each hour."""
    for what, now in (
        ("all but the newest hour", NOW - timedelta(hours=1)),
        ("the newest hour", NOW),
        ("nothing", NOW),
    ):
        now_us = round(now.timestamp() * 1e6)
        command = f"{CHILD}print(update_rollups(Path(sys.argv[1]), now_us={now_us}, until_done=True).hours_made)"
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        measured = f"{command}; print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
        done = subprocess.run([sys.executable, "-c", measured, str(folder)], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        hours, resident_kib = map(int, done.stdout.split())
        print(
            f"roll up {what}: {hours} hours, {cpu_s:.2f} s of CPU, {time.perf_counter() - begun:.1f} s,"
            f" {resident_kib / 1024:.0f} MiB resident at most"
        )


def show_sizes(folder: Path) -> None:
    raw = sum(path.stat().st_size for path in folder.glob("events/**/*.parquet"))
    print(f"events: {raw / 1e6:,.1f} MB")
    with LedgerReader(folder) as reader:
        files = {step: reader.rollup_files("gpu_sample", step, 0, 2**62) for step in ("minute", "hour")}
    for step, paths in files.items():
        size = sum(path.stat().st_size for path in paths)
        print(f"rollups per {step}: {size / 1e6:,.1f} MB in {len(paths)} files, {100 * size / raw:.1f} % of the events")


def ask(folder: Path, times: int) -> None:
    source = LocalSource(folder)
    print(f"{'question':48}{'from':>8}{'ms':>8}")
    for metric, length, points in QUESTIONS:
        window = window_of(length)
        found = trend(source, metric, window, now=NOW, points=points)
        asked = f"{metric}, {length}, a point each {found.step_s} s"
        taken_ms = median_ms(lambda m=metric, w=window, p=points: trend(source, m, w, now=NOW, points=p), times)
        print(f"{asked:56}{found.resolution:>8}{taken_ms:8.1f}")
    source.close()


def ask_cold(folder: Path, times: int) -> None:
    window = f"{(NOW - timedelta(days=30)).isoformat()}..{NOW.isoformat()}".replace("+00:00", "Z")
    command = [sys.executable, "-m", "gpuledger", "trend", "gpu.utilization_percent", "--window", window, "--json"]
    answer = json.loads(subprocess.run([*command, "--data", str(folder)], capture_output=True, check=True).stdout)
    taken_ms = median_ms(
        lambda: subprocess.run([*command, "--data", str(folder)], capture_output=True, check=True), times
    )
    print(f"cold, 30 days, a process from start to answer ({answer['resolution']}): {taken_ms:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="where to make the ledger; a temporary folder where left out")
    parser.add_argument("--keep", action="store_true", help="ask the ledger that is there, and leave it there")
    parser.add_argument("--times", type=int, default=15)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="trend-speed-")) / "ledger"
    if not (arguments.keep and folder.exists()):
        make_ledger(folder, arguments.days)
        roll_up(folder)
    show_sizes(folder)
    ask(folder, arguments.times)
    ask_cold(folder, 5)
    if not arguments.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
