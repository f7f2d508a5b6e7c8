"""What compaction makes of generated telemetry, and what it costs: bytes a value, CPU and memory of the child.

    python benchmarks/compaction.py                     # one day of 8 GPUs, sealed every two minutes
    python benchmarks/compaction.py --days 7 --seal-s 1200
    python benchmarks/compaction.py --all-columns       # every column full of noise: the worst case for memory
    python benchmarks/compaction.py --variants          # one day in other encodings, orders and levels

The ledger is made in a temporary folder, sealed as the collector would have, and given to `python -m store`, the child
that the collector starts; what it used is what the kernel says of it. A value is one of the 20 fields of
`benchmarks/telemetry.py`; seq, time, host, boot, labels and footers are in the bytes and not in the count.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import telemetry

from store.encodings import DATA_PAGE_ROWS, encoding
from store.events import KINDS
from store.head import open_head
from store.ledger import Ledger
from store.rollups.due import note_rolled
from store.segments import as_written, catalogued, enter_segments, total_bytes
from store.times import HOUR_US
from store.upkeep import sealing

GPU_SAMPLE = KINDS["gpu_sample"]


def make_ledger(folder: Path, tables: Iterator[pa.Table]) -> None:
    """A ledger whose `gpu_sample` was sealed in these pieces, none of which crosses midnight."""
    head = open_head(folder)
    ledger_id = head.execute("select id from ledger").get
    segments = []
    last_seq = 0
    for table in tables:
        day = datetime.fromtimestamp(table["observed_at"][0].value // 1_000_000, UTC).date()
        segment = sealing._describe(GPU_SAMPLE, telemetry.HOST, day, table)  # noqa: SLF001 - without the way through the tail
        path = folder / segment.path
        path.parent.mkdir(parents=True, exist_ok=True)
        sealing._write(segment, table, ledger_id, path)  # noqa: SLF001 - as above
        segments.append(as_written(folder, segment))
        last_seq = segment.last_seq
    with head:
        enter_segments(head, segments, now_us=time.time_ns() // 1000)
        head.execute("update ledger set next_seq = ?", (last_seq + 1,))
    head.close()


def pieces(shape: telemetry.Shape, seal_s: int, *, all_columns: bool) -> Iterator[pa.Table]:
    chance = np.random.default_rng(shape.seed)
    for batch in telemetry.batches(shape, batch_s=seal_s):
        table = pa.Table.from_batches([batch])
        yield _filled(table, chance) if all_columns else table


def _filled(table: pa.Table, chance: np.random.Generator) -> pa.Table:
    """The same with noise in every column that has no value."""
    for number, column in enumerate(GPU_SAMPLE.columns):
        if table.column(number).null_count == len(table):
            wanted = table.schema.field(number).type
            if column.type == "bool":
                values = pa.array(chance.random(len(table)) < 0.5)
            elif column.type == "time":
                values = table["observed_at"]
            else:
                values = pa.array(np.rint(chance.normal(1000, 50, len(table)))).cast(wanted, safe=False)
            table = table.set_column(number, table.schema.field(number), values)
    return table


CHILD = """
import atexit, os, pathlib, runpy, sys
def report():
    peak = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(sum(os.times()[:2]), int(peak.split()[1]) * 1024)
atexit.register(report)
runpy.run_module("store", run_name="__main__")
"""


def child(folder: Path) -> tuple[float, int]:
    """Seconds of CPU and greatest resident bytes of one upkeep, told by itself: rusage has its parent's memory, too."""
    done = subprocess.run([sys.executable, "-P", "-c", CHILD, str(folder)], stdout=subprocess.PIPE, check=True)
    cpu_s, resident_bytes = done.stdout.split()
    return float(cpu_s), int(resident_bytes)


def measure(shape: telemetry.Shape, seal_s: int, *, all_columns: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "ledger"
        make_ledger(folder, pieces(shape, seal_s, all_columns=all_columns))
        _print_files(folder, shape, "sealed")
        idle = Path(name) / "idle"
        open_head(idle).close()
        roll_s, roll_bytes = child(idle)
        print(f"the hourly upkeep, with numpy: {roll_s:.2f} s of CPU, {roll_bytes / 2**20:.0f} MiB resident")
        idle_s, idle_bytes = min(child(idle) for _ in range(5))
        print(f"upkeep with nothing to do, least of 5: {idle_s:.3f} s of CPU, {idle_bytes / 2**20:.0f} MiB resident")
        seal_s, seal_bytes = min(_sealing(Path(name), all_columns=all_columns))
        print(f"upkeep that seals a tail, least of 5: {seal_s:.3f} s of CPU, {seal_bytes / 2**20:.0f} MiB resident")
        _let_rollups_rest(folder)
        cpu_s, resident_bytes = 0.0, 0
        while True:  # an upkeep begins no merge after a minute
            one_s, one_bytes = child(folder)
            cpu_s, resident_bytes = cpu_s + one_s - idle_s, max(resident_bytes, one_bytes)
            if _print_files(folder, shape, "compacted") == shape.days:
                break
        share = cpu_s / (shape.days * telemetry.DAY_S)
        print(f"compaction: {cpu_s:.1f} s of CPU, {100 * share:.3f} % of a core, {resident_bytes / 2**20:.0f} MiB")


def _sealing(folder: Path, *, all_columns: bool) -> Iterator[tuple[float, int]]:
    """Five upkeeps, each with what was appended in two minutes."""
    from append import SEALING_INTERVAL_S, make_ticks, ticks_of  # which imports this

    make_ticks(folder / "ticks", SEALING_INTERVAL_S, all_columns=all_columns)
    for number in range(5):
        tail = folder / f"tail-{number}"  # a new one: two files of a day that is long over would be merged
        with Ledger(tail) as ledger:
            for tick in ticks_of(folder / "ticks"):
                ledger.append(tick)
        _let_rollups_rest(tail)
        yield child(tail)


def _let_rollups_rest(folder: Path) -> None:
    """Note them as up to date: what merging alone costs is asked for."""
    head = open_head(folder)
    note_rolled(head, now_us=time.time_ns() // 1000)
    head.close()


def _print_files(folder: Path, shape: telemetry.Shape, what: str) -> int:
    head = open_head(folder)
    segments = catalogued(head)
    head.close()
    size_bytes = total_bytes(segments)
    per_day = size_bytes / shape.days / 1e6
    print(f"{what}: {len(segments)} files, {size_bytes / shape.values:.4f} bytes a value, {per_day:.2f} MB a day")
    return len(segments)


def variants(shape: telemetry.Shape) -> None:
    day = pa.Table.from_batches(telemetry.batches(telemetry.Shape(1, shape.gpus, shape.seed)))
    over_all = day.sort_by([("gpu_uuid", "ascending"), ("observed_at", "ascending")])
    delta = {
        one.name: "DELTA_BINARY_PACKED"
        for one in GPU_SAMPLE.columns
        if one.type in ("int32", "int64", "decimal", "time")
    }
    split = {one.name: "BYTE_STREAM_SPLIT" for one in GPU_SAMPLE.columns if one.type in ("float32", "float64")}
    ours = {one.name: encoding(one) for one in GPU_SAMPLE.columns}
    entropy = sum(telemetry.entropy_bytes(telemetry.Shape(1, shape.gpus, shape.seed)).values()) / len(telemetry.FIELDS)
    print(f"entropy of the day: {entropy:.4f} bytes a value")
    for hours in (1, 2, 4, 6, 24):
        _variant(f"ours, row groups of {hours} h, zstd 9", _in_blocks(day, hours, 7168), ours, 9, hours)
    for instants in (3584, 3600, 8192, 10**6):
        _variant(f"ours, blocks of {instants} instants", _in_blocks(day, 4, instants), ours, 9, 4)
    by_gpu = _in_blocks(day, 4, 7168)
    for level in (1, 3, 6, 12, 19):
        _variant(f"ours, zstd {level}", by_gpu, ours, level, 4)
    _variant("ours, pages of 20,000 rows", by_gpu, ours, 9, 4, page_rows=20_000)
    values = [name for name in by_gpu.column_names if by_gpu[name].null_count < len(by_gpu)]
    _variant("ours, without the columns that have no value", by_gpu.select(values), ours, 9, 4)
    _variant("ours, the day by GPU then time, no blocks", over_all, ours, 9, 24)
    _variant("ours, as it arrived", day, ours, 9, 4)
    _variant("delta for every integer, split floats", by_gpu, delta | split, 9, 4)
    _variant("dictionary everywhere", by_gpu, {}, 9, 4)


def _in_blocks(day: pa.Table, hours: int, instants: int) -> pa.Table:
    """In the order of compaction: row groups of hours, in them blocks of instants, in them by GPU and time."""
    times = day["observed_at"].cast(pa.int64()).to_numpy()
    row_group = times // (hours * HOUR_US)
    block = np.zeros(len(day), np.int64)
    for one in np.unique(row_group):
        of_group = row_group == one
        block[of_group] = np.unique(times[of_group], return_inverse=True)[1] // instants
    keys = {"row_group": row_group, "block": block, "gpu": day["gpu_index"], "time": times}
    order = pc.sort_indices(pa.table(keys), [(name, "ascending") for name in keys])
    return day.take(order)


def _variant(
    name: str,
    table: pa.Table,
    encodings: dict[str, str | None],
    level: int,
    hours: int,
    page_rows: int = DATA_PAGE_ROWS,
) -> None:
    named = {column: one for column, one in encodings.items() if one and column in table.column_names}
    with tempfile.NamedTemporaryFile() as file:
        before_s = time.process_time()
        pq.write_table(
            table, file.name, row_group_size=hours * len(table) // 24, compression="zstd", compression_level=level,
            use_dictionary=[column for column in table.schema.names if column not in named], column_encoding=named,
            store_decimal_as_integer=True, store_schema=False, write_statistics=["seq", "observed_at"],
            max_rows_per_page=page_rows, write_page_checksum=True,
        )  # fmt: skip
        cpu_s = time.process_time() - before_s
        size_bytes = Path(file.name).stat().st_size
    print(
        f"{name:45}{size_bytes / len(table) / len(telemetry.FIELDS):8.4f} bytes a value{cpu_s:7.1f} s of CPU",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seal-s", type=int, default=120)
    parser.add_argument("--all-columns", action="store_true")
    parser.add_argument("--variants", action="store_true")
    arguments = parser.parse_args()
    shape = telemetry.Shape(arguments.days, arguments.gpus, arguments.seed)
    if arguments.variants:
        variants(shape)
    else:
        measure(shape, arguments.seal_s, all_columns=arguments.all_columns)


if __name__ == "__main__":
    main()
