"""What the way of ad-hoc SQL costs over DuckDB itself: the guard, the process of its own, the pipe between.

    python benchmarks/sql_overhead.py                  # 2 hours of 8 GPUs at 1 Hz
    python benchmarks/sql_overhead.py --hours 24

Makes a ledger of sealed segments and an unsealed tail, and asks each question by turns: as `run_sql` answers it, and
bare: the same views and the same query in this process, on a database that is open already, with the rows as Arrow.
What is `more` is what is left of ours without the bare one and without taking the snapshot of the ledger, which is
timed by itself: whoever reads a ledger takes one. Medians, and the spread of the middle half.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
from trend_speed import hour_of_samples

from query.ad_hoc import BYTES_MAX, _question, run_sql
from query.reading.local_source import LocalSource
from query.sandbox.guard import judged
from store.events import Event
from store.ledger import Ledger
from store.upkeep.sealing import seal

BEGINNING = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
ROWS_MAX = 100_000
TAIL_S = 120
QUESTIONS = {
    "one": "select 1",
    "the newest row of each GPU": (
        "select gpu_index, max_by(power_watts, observed_at) from gpu_sample group by all order by all"
    ),
    "a mean per GPU": "select gpu_index, avg(power_watts), max(temperature_celsius) from gpu_sample group by all",
    "a mean per minute": (
        "select date_trunc('minute', observed_at), avg(utilization_percent) from gpu_sample group by all order by all"
    ),
    "rows": "select seq, observed_at, gpu_index, power_watts from gpu_sample order by seq limit 10000",
    "all columns": "select * from gpu_sample order by seq limit 100",
}


def made(folder: Path, hours: int) -> None:
    """Sealed hours, and a minute of tail."""
    with Ledger(folder, host="node", boot_id="boot-1") as ledger:
        for hour in range(hours):
            ledger.append(_events(BEGINNING + timedelta(hours=hour), 3600))
            seal(folder)
        ledger.append(_events(BEGINNING + timedelta(hours=hours), TAIL_S))


def _events(begins: datetime, seconds: int) -> list[Event]:
    common = ("seq", "observed_at", "host", "boot_id")
    table = hour_of_samples(begins, seconds, 1)
    columns = [name for name in table.column_names if name not in common and table[name].null_count < table.num_rows]
    times = table["observed_at"].cast(pa.int64()).to_pylist()
    exact = [name for name in columns if pa.types.is_decimal(table.schema.field(name).type)]
    for name in exact:
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.float64()))
    rows = table.select(columns).to_pylist()
    return [Event("gpu_sample", time_us, row) for time_us, row in zip(times, rows, strict=True)]


def bare(source: LocalSource, database: duckdb.DuckDBPyConnection, sql: str) -> Callable[[], pa.Table]:
    """What DuckDB alone does for the same rows: the views over the files and the tail, and the query."""
    reads = judged(sql)
    with source.reader() as reader:
        snapshot = reader.snapshot(reads.kinds)
    question = _question(sql, reads, snapshot, "UTC", opens_files=True)(ROWS_MAX, BYTES_MAX, 60.0)

    def ask() -> pa.Table:
        with database.cursor() as connection:
            for name, table in question.tables.items():
                connection.register(name, table)
            for statement in question.statements:
                connection.execute(statement)
            return connection.sql(sql).to_arrow_table()

    return ask


def timed(asks: dict[str, Callable[[], object]], times: int) -> dict[str, list[float]]:
    """Milliseconds of each, asked by turns, after five turns that do not count."""
    found: dict[str, list[float]] = {name: [] for name in asks}
    for turn in range(times + 5):
        for name, ask in asks.items():
            started_s = time.perf_counter()
            ask()
            if turn >= 5:
                found[name].append(1e3 * (time.perf_counter() - started_s))
    return found


def in_words(times_ms: list[float]) -> str:
    low, middle, high = statistics.quantiles(times_ms, n=4)
    return f"{middle:7.1f} ({low:.1f}-{high:.1f})"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--hours", type=int, default=2)
    arguments.add_argument("--times", type=int, default=40)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder), asked.hours)
        source = LocalSource(Path(folder))
        started_s = time.perf_counter()
        run_sql(source, "select 1", rows_max=1, time_limit_s=60)
        first_ms = 1e3 * (time.perf_counter() - started_s)
        print(f"{'milliseconds: median (middle half)':34} {'bare':>20} {'ours':>20} {'more':>6}   snapshot")
        with duckdb.connect(":memory:") as database:
            database.execute("set TimeZone = 'UTC'")
            for name, sql in QUESTIONS.items():
                _print_one(source, database, name, sql, asked.times)
        print(f"from no process to its first answer: {first_ms:.0f} ms")
        source.close()


def _print_one(source: LocalSource, database: duckdb.DuckDBPyConnection, name: str, sql: str, times: int) -> None:
    kinds = judged(sql).kinds
    found = timed(
        {
            "bare": bare(source, database, sql),
            "ours": lambda: run_sql(source, sql, rows_max=ROWS_MAX, time_limit_s=60),
            "snapshot": lambda: source.reading(kinds),
        },
        times,
    )
    middle = {one: statistics.median(times_ms) for one, times_ms in found.items()}
    more_ms = middle["ours"] - middle["snapshot"] - middle["bare"]
    ours_and_bare = f"{in_words(found['bare']):>20} {in_words(found['ours']):>20}"
    print(f"{name:34} {ours_and_bare} {more_ms:6.1f} {middle['snapshot']:10.1f}")


if __name__ == "__main__":
    main()
