"""The view of one kind: segments of any age, the tail, folders of any name, and readers beside a writer."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from query.ad_hoc import run_sql
from query.export import export_events
from query.history.trends import trend
from query.present.live import live_state
from query.present.status import ledger_status
from query.reading.duck_engine import create_view
from store.derivations import arrow_schema
from store.errors import NoLedgerError
from store.events import GPU_SAMPLE, KINDS
from store.snapshot import KindSnapshot


def watts(book, start_s: float = 0, end_s: float = 60):
    found = trend(book.source, "gpu.power_watts", book.window(start_s, end_s), now=book.at(end_s))
    return [(one.n, one.min, one.max) for one in found.series]


def count(book, kind: str = "gpu_sample") -> int:
    sql = f"select count(*) as n from {kind}"
    return run_sql(book.source, sql, rows_max=1, time_limit_s=30).table["n"][0].as_py()


def rewrite(book, change) -> None:
    """Let every sealed file be as another release might have written it."""
    for path in book.folder.glob("events/**/*.parquet"):
        pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def test_a_column_that_older_files_lack_is_null_in_them(book):
    book.record(book.gpu(s, power_watts=float(s), fan_speed_percent=50) for s in range(10))
    rewrite(book, lambda table: table.drop_columns(["power_watts", "absence"]))
    assert watts(book) == [(5, 5.0, 9.0)]
    found = run_sql(book.source, "select seq, power_watts from gpu_sample order by 1", rows_max=99, time_limit_s=30)
    assert found.table["power_watts"].to_pylist() == [None] * 5 + [5.0, 6.0, 7.0, 8.0, 9.0]
    out = book.folder.parent / "out.parquet"
    export_events(book.source, "gpu_sample", book.window(0, 60), format="parquet", path=out)
    assert pq.read_schema(out).names == [column.name for column in GPU_SAMPLE.columns]


def test_files_that_lack_different_columns_are_read_together(book):
    for second in range(3):
        book.append([book.gpu(second, power_watts=1.0, utilization_percent=second)])
        book.seal()
    dropped = iter(["power_watts", "utilization_percent", "fan_speed_percent"])
    rewrite(book, lambda table: table.drop_columns([next(dropped)]))
    assert watts(book) == [(2, 1.0, 1.0)]
    assert count(book) == 3


def test_a_column_that_only_a_newer_program_declares_is_left_out(book):
    book.record(book.gpu(s, power_watts=1.0) for s in range(4))
    rewrite(book, lambda table: table.append_column("moonlight_percent", pa.array([1] * table.num_rows)))
    found = run_sql(book.source, "select * from gpu_sample", rows_max=99, time_limit_s=30).table
    assert found.column_names == [column.name for column in GPU_SAMPLE.columns]
    assert watts(book) == [(4, 1.0, 1.0)]


def test_a_column_that_was_narrower_once_is_read_as_wide_as_it_is(book):
    book.record(book.gpu(s, memory_used_bytes=2**40 if s > 1 else s) for s in range(4))

    def narrowed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("memory_used_bytes")
        return table.set_column(place, "memory_used_bytes", table["memory_used_bytes"].cast(pa.int32()))

    rewrite(book, narrowed)
    found = trend(book.source, "gpu.memory_used_bytes", book.window(0, 4), now=book.at(4))
    assert [(one.min, one.max, one.n) for one in found.series] == [(0.0, 2.0**40, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_view_of_a_kind_of_which_there_is_nothing_has_its_types(kind):
    with duckdb.connect(":memory:") as connection:
        create_view(connection, kind, KindSnapshot((), arrow_schema(KINDS[kind]).empty_table()))
        assert connection.sql(f"select * from {kind}").to_arrow_table().num_rows == 0
        types = {name: str(kind) for name, kind, *_ in connection.sql(f"describe {kind}").fetchall()}
    assert types == {column.name: types_of[column.type] for column in KINDS[kind].columns}


types_of = {
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "decimal": "DECIMAL(18,3)",
    "string": "VARCHAR",
    "strings": "VARCHAR[]",
    "json": "VARCHAR",
    "time": "TIMESTAMP WITH TIME ZONE",
}


@pytest.mark.parametrize("where", ["tail", "segments"])
def test_events_are_found_wherever_they_all_are(book, where):
    book.append(book.gpu(s, power_watts=1.0) for s in range(4))
    if where == "segments":
        book.seal()
    assert (watts(book), count(book)) == ([(4, 1.0, 1.0)], 4)


@pytest.mark.parametrize(
    "name",
    [
        "with a blank",
        "it's",
        'a "quote"',
        "glob [a-z]*?",
        "{braces}",
        "back\\slash",
        "größe 🔥",
        "-dash",
        "semi;colon",
        "$x",
        "a%20b",
    ],
)
def test_a_ledger_may_lie_in_a_folder_of_any_name(tmp_path: Path, open_book, name):
    book = open_book(tmp_path / name / "ledger of 'it'")
    book.record([book.host(0), *(book.gpu(s, power_watts=float(s)) for s in range(6)), book.host(1)])
    assert watts(book) == [(6, 0.0, 5.0)]
    assert count(book) == 6
    assert len(live_state(book.source, now=book.at(6)).gpus) == 1
    assert ledger_status(book.source, now=book.at(6)).folder == book.folder
    out = tmp_path / name / "out.csv"
    assert export_events(book.source, "gpu_sample", book.window(0, 6), format="csv", path=out).event_count == 6


def test_a_folder_without_a_ledger_is_no_source(tmp_path: Path, open_book):
    book = open_book(tmp_path / "ledger")
    (book.folder / "head.sqlite").unlink()
    with pytest.raises(NoLedgerError):
        watts(book)
    with pytest.raises(NoLedgerError):
        count(book)


WRITER = """
import sys
from pathlib import Path
from store.events import Event
from store.ledger import Ledger
from store.upkeep.sealing import seal

folder, beginning_us = Path(sys.argv[1]), int(sys.argv[2])
total = 0
with Ledger(folder, host="node", boot_id="boot-1") as ledger:
    for turn in range(200):
        for batch in (3, 1, 2):
            rows = range(total + 1, total + 1 + batch)
            values = {"gpu_uuid": "GPU-0", "gpu_index": 0, "interval_seconds": 1.0}
            ledger.append([Event("gpu_sample", beginning_us + row, values | {"memory_used_bytes": row}) for row in rows])
            total += batch
            if batch == 1:
                seal(folder)
        if turn % 6 == 0:
            print(turn, flush=True)
"""


def test_readers_beside_a_writer_count_no_event_twice_and_miss_none(book):
    answers: list[tuple[int, float]] = []
    problems: list[Exception] = []
    turns = threading.Semaphore(0)
    is_written = threading.Event()

    def ask_trend() -> None:
        found = trend(book.source, "gpu.memory_used_bytes", book.window(0, 60), now=book.at(60))
        answers.extend((one.n, one.max) for one in found.series)

    def ask_sql() -> None:
        sql = "select count(*) as n, coalesce(max(memory_used_bytes), 0) as highest from gpu_sample"
        [row] = run_sql(book.source, sql, rows_max=1, time_limit_s=60).table.to_pylist()
        answers.append((row["n"], row["highest"]))

    def read(ask: Callable[[], None]) -> None:
        try:
            while not is_written.is_set():
                turns.acquire()
                ask()
        except Exception as error:  # noqa: BLE001 - a thread's error is the test's
            problems.append(error)

    readers = [threading.Thread(target=read, args=(ask,)) for ask in (ask_trend, ask_sql) * 4]
    for reader in readers:
        reader.start()
    beginning_us = round(book.at(0).timestamp() * 1e6)
    command = [sys.executable, "-c", WRITER, str(book.folder), str(beginning_us)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        for _ in writer.stdout:
            turns.release()  # for one more question, while the writer goes on
    is_written.set()
    turns.release(len(readers))
    for reader in readers:
        reader.join()
    ask_trend()
    ask_sql()
    assert (writer.returncode, problems) == (0, [])
    assert [(n, highest) for n, highest in answers if n != highest] == []
    assert answers[-2:] == [(1_200, 1_200), (1_200, 1_200)]
    assert len(set(answers)) > 8  # they did read while it wrote
