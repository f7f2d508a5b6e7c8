"""What an append costs, how soon it is in an answer, and what reading the tail costs.

    python benchmarks/append.py                         # a minute; the marks are printed beside the figures
    python benchmarks/append.py --all-columns           # every column has a value: the most that a tick can be
    python benchmarks/append.py --folder /var/tmp       # on another disk

A tick is the rows of 8 GPUs of `benchmarks/telemetry.py`. Each durable append alternates with the least that this
machine can do for the same bytes: write them at the end of a file and fdatasync. The appender is a process of its own
that imports no more than the collector does for it; its memory is what the kernel says of it. For freshness it stamps
a tick before it appends it, and a reader in another process asks as soon as it hears that the append returned.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from store.events import KINDS, Event
from store.frames import encode_frames
from store.ledger import Ledger

GPUS = 8
WARM_UP_TICKS = 20
BATCH_EVENTS = 1000
SEALING_INTERVAL_S = 120

Rows = list[tuple[int, dict[str, Any]]]


def ticks_of(path: Path) -> Iterator[list[Event]]:
    """One by one: the appender's memory is measured."""
    decode = msgspec.json.Decoder(Rows).decode
    with path.open("rb") as lines:
        for line in lines:
            yield [Event("gpu_sample", time_us, values) for time_us, values in decode(line)]


def make_ticks(path: Path, count: int, *, all_columns: bool) -> None:
    """`count` ticks as the collector hands them over, in a file that the appender reads without Arrow."""
    import compaction
    import telemetry

    days = compaction.pieces(telemetry.Shape(1), count, all_columns=all_columns)
    table = next(days).drop_columns(["seq", "host", "boot_id"])
    times = table["observed_at"].cast("int64").to_pylist()
    rows = [
        (time_us, {name: _plain(value) for name, value in row.items() if value is not None and name != "observed_at"})
        for time_us, row in zip(times, table.to_pylist(), strict=True)
    ]
    ticks = (rows[first : first + GPUS] for first in range(0, len(rows), GPUS))
    path.write_bytes(b"".join(msgspec.json.encode(tick) + b"\n" for tick in ticks))


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    return value.timestamp() * 1e6 // 1 if hasattr(value, "timestamp") else value


# The appender, in a process of its own ----------------------------------------------------------------------------


def tell(name: str, value: float) -> None:
    print(name, value, flush=True)


def append_ticks(folder: Path, ticks: Iterator[list[Event]]) -> None:
    """Each tick appended, and the same bytes written and synced by hand, in turn."""
    appended_s, encoded_s, synced_s, cpu_s = [], [], [], 0.0
    with Ledger(folder / "ledger") as ledger, (folder / "plain").open("wb", buffering=0) as plain:
        for tick in ticks:
            began_s, cpu_began_s = time.perf_counter(), time.process_time()
            seqs = ledger.append(tick)
            appended_s.append(time.perf_counter() - began_s)
            cpu_s += time.process_time() - cpu_began_s
            began_s = time.perf_counter()
            (frame,) = encode_frames(tick, first_seq=seqs.start, host=ledger.host, boot_id=ledger.boot_id)
            encoded_s.append(time.perf_counter() - began_s)
            began_s = time.perf_counter()
            plain.write(frame.columns)
            os.fdatasync(plain.fileno())
            synced_s.append(time.perf_counter() - began_s)
    tell("tick_bytes", len(frame.columns))
    tell("tick_ms", 1000 * statistics.median(appended_s[WARM_UP_TICKS:]))
    tell("encoded_ms", 1000 * statistics.median(encoded_s[WARM_UP_TICKS:]))
    tell("synced_ms", 1000 * statistics.median(synced_s[WARM_UP_TICKS:]))
    tell("tick_cpu_ms", 1000 * cpu_s / len(appended_s))


def append_batches(folder: Path, events: list[Event]) -> None:
    rates, cpu_rates = [], []
    with Ledger(folder / "batches") as ledger:
        for _ in range(40):
            began_s, cpu_began_s = time.perf_counter(), time.process_time()
            ledger.append(events)
            rates.append(BATCH_EVENTS / (time.perf_counter() - began_s))
            cpu_rates.append(BATCH_EVENTS / (time.process_time() - cpu_began_s))
    tell("events_per_s", statistics.median(rates))
    tell("events_per_cpu_s", statistics.median(cpu_rates))


def append_for_readers(folder: Path, ticks: list[list[Event]]) -> None:
    """A full tail, then one tick whenever the reader asks for it: says when it began and which seq it got."""
    with Ledger(folder / "fresh") as ledger:
        for tick in ticks:
            ledger.append(tick)
        print("ready", flush=True)
        for _ in sys.stdin:
            began_s = time.monotonic()
            seqs = ledger.append(ticks[-1])
            print(began_s, seqs.stop - 1, flush=True)


def appender(what: str, folder: Path) -> None:
    if what == "ticks":
        append_ticks(folder, ticks_of(folder / "ticks"))
    elif what == "batches":
        of_all_ticks = (event for tick in ticks_of(folder / "ticks") for event in tick)
        append_batches(folder, list(islice(of_all_ticks, BATCH_EVENTS)))
    else:
        append_for_readers(folder, list(ticks_of(folder / "ticks"))[-SEALING_INTERVAL_S:])
    if what != "fresh":
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        tell("resident_mib", int(peak.split()[1]) / 1024)


def run_appender(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--appender", what, "--folder", str(folder)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {name: float(value) for name, value in (line.split() for line in told.splitlines())}


# The reader -------------------------------------------------------------------------------------------------------


def freshness(folder: Path, times: int) -> None:
    from query.reading.local_source import LocalSource
    from store.snapshot import LedgerReader

    command = [sys.executable, __file__, "--appender", "fresh", "--folder", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        process.stdout.readline()
        source = LocalSource(folder / "fresh")
        fresh_s, tail_s, answer_s = [], [], []
        for _ in range(times):
            process.stdin.write("\n")
            appended_s, seq = process.stdout.readline().split()
            while True:
                began_s = time.perf_counter()
                with source.engine(["gpu_sample"]) as engine:
                    answer = engine.query("select max(seq) as newest, avg(power_watts) as power from gpu_sample")
                answer_s.append(time.perf_counter() - began_s)
                if answer["newest"][0].as_py() >= int(seq):
                    break
            fresh_s.append(time.monotonic() - float(appended_s))
            began_s = time.perf_counter()
            with LedgerReader(folder / "fresh") as reader:
                reader.snapshot(["gpu_sample"])
            tail_s.append(time.perf_counter() - began_s)
        process.stdin.close()
    row("from before the append to the answer, median", 1000 * statistics.median(fresh_s), "ms", "")
    row("the same, longest", 1000 * max(fresh_s), "ms", "1,000 ms", is_met=max(fresh_s) < 1)
    tail_ms = 1000 * statistics.median(tail_s)
    row(f"reading a tail of {SEALING_INTERVAL_S} s as Arrow", tail_ms, "ms", "15 ms", is_met=tail_ms < 15)
    row("an average over that tail, answered", 1000 * statistics.median(answer_s), "ms", "")


def row(what: str, figure: float, unit: str, mark: str, *, is_met: bool | None = None) -> None:
    verdict = "" if is_met is None else "met" if is_met else "MISSED"
    print(f"{what:52}{figure:12,.2f} {unit:10}{mark:>14}  {verdict}".rstrip(), flush=True)


def measure(folder: Path, ticks: int, *, all_columns: bool) -> None:
    make_ticks(folder / "ticks", ticks, all_columns=all_columns)
    columns = len(next(ticks_of(folder / "ticks"))[0].values)
    file_system = subprocess.run(
        ["stat", "--file-system", "--format=%T", folder], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    print(f"a tick is {GPUS} rows of {columns} of {len(KINDS['gpu_sample'].columns)} columns; on {file_system}")
    print(f"{'':52}{'':12} {'':10}{'mark':>14}")
    told = run_appender("ticks", folder)
    ratio = told["tick_ms"] / told["synced_ms"]
    row("a tick, durable", told["tick_ms"], "ms", "")
    row("of that, to encode it", told["encoded_ms"], "ms", "")
    row(f"its {told['tick_bytes']:,.0f} bytes, written and fdatasynced", told["synced_ms"], "ms", "")
    row("ratio", ratio, "times", "2 times", is_met=ratio <= 2)
    row("CPU of a tick, mean", told["tick_cpu_ms"], "ms", "")
    row("resident memory of the appender", told["resident_mib"], "MiB", "60 MB", is_met=told["resident_mib"] < 57.2)
    told = run_appender("batches", folder)
    rate = told["events_per_s"]
    row(f"events in batches of {BATCH_EVENTS:,}, durable", rate, "per s", "100,000 per s", is_met=rate >= 100_000)
    row("the same by CPU time", told["events_per_cpu_s"], "per s", "")
    freshness(folder, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--ticks", type=int, default=600, help="at least 125, which are a batch")
    parser.add_argument("--all-columns", action="store_true")
    parser.add_argument("--folder", type=Path, help="on whose disk; a temporary folder is made in it")
    parser.add_argument("--appender", choices=["ticks", "batches", "fresh"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.appender:
        appender(arguments.appender, arguments.folder)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        measure(Path(name), arguments.ticks, all_columns=arguments.all_columns)


if __name__ == "__main__":
    main()
