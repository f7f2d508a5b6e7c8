"""Ad-hoc SQL over the views named after the kinds of events.

`query.sql_guard` decides what may run. It runs in a DuckDB of its own that can open the ledger's sealed files and
nothing else, whose settings are locked, and which is interrupted at a deadline. Its memory limit bounds joins, sorts
and aggregates; one call that builds a huge string or list is neither bounded nor interrupted.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import duckdb
import pyarrow as pa

from query.damage import READ_ERRORS
from query.duck_engine import create_view
from query.errors import SqlFailedError, first_words
from query.local_source import LocalSource
from query.sql_guard import referenced_kinds
from query.windows import zone_info
from store.snapshot import END_OF_TIME_US, KindSnapshot

MEMORY_LIMIT = "1GB"
BATCH_ROWS_MAX = 100_000
INTERRUPT_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class SqlResult:
    """The answer to a query.

    Args:
        table: Its rows, at most the asked number; columns of one name are told apart as `x`, `x_1`.
        is_truncated: Whether there were more.
        elapsed_s: Time it took.
    """

    table: pa.Table
    is_truncated: bool
    elapsed_s: float


def run_sql(
    source: LocalSource,
    sql: str,
    *,
    rows_max: int,
    time_limit_s: float,
    start_us: int = 0,
    end_us: int = END_OF_TIME_US,
    time_zone: str = "UTC",
) -> SqlResult:
    """Run one SELECT over the ledger.

    Args:
        source: Where the events are.
        sql: One SELECT; it sees the views named after the kinds.
        rows_max: At most so many rows.
        time_limit_s: After so long it is interrupted.
        start_us: Files wholly before are not looked at; rows at the edge may still lie before.
        end_us: The same for files wholly after.
        time_zone: In which times are shown and cut into days.

    Raises:
        SqlRefusedError: It is not one SELECT over the published views.
        SqlFailedError: DuckDB could not run it, or it took too long.
        WindowError: There is no such time zone.
    """
    kinds = referenced_kinds(sql)
    zone = zone_info(time_zone).key
    started_s = time.monotonic()
    reading = source.reading(kinds, start_us=start_us, end_us=end_us)

    def ask(snapshot: Mapping[str, KindSnapshot]) -> pa.Table:
        with duckdb.connect(":memory:") as connection, _deadline(connection, time_limit_s) as is_late:
            try:
                _prepare(connection, source, zone, snapshot)
                return _rows(connection, sql, rows_max + 1)
            except READ_ERRORS as error:  # OSError: DuckDB's, met while Arrow reads on
                if is_late.is_set():
                    raise _failure(str(error), source, time_limit_s) from None
                raise

    try:
        table = reading.answer(ask)
    except READ_ERRORS as error:
        raise _failure(str(error), source, None) from None
    names = _distinct(table.column_names)
    answer = table.slice(0, rows_max).rename_columns(names)
    return SqlResult(answer, table.num_rows > rows_max, time.monotonic() - started_s)


@contextmanager
def _deadline(connection: duckdb.DuckDBPyConnection, time_limit_s: float) -> Iterator[threading.Event]:
    """Interrupt what runs on `connection` once it has run for too long; the event given says that it has.

    It is interrupted again and again, because DuckDB forgets an interruption that falls between two steps.
    """
    is_over, is_late = threading.Event(), threading.Event()

    def watch() -> None:
        if is_over.wait(time_limit_s):
            return
        is_late.set()
        connection.interrupt()
        while not is_over.wait(INTERRUPT_EVERY_S):
            connection.interrupt()

    watcher = threading.Thread(target=watch, name="sql deadline")
    watcher.start()
    try:
        yield is_late
    finally:
        is_over.set()
        watcher.join()


def _prepare(
    connection: duckdb.DuckDBPyConnection, source: LocalSource, zone: str, snapshot: Mapping[str, KindSnapshot]
) -> None:
    """Publish the views, and shut everything else."""
    settings = {
        "TimeZone": zone,
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": "",  # otherwise ./.tmp is silently added to the allowed folders
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "allowed_directories": [str((source.folder / "events").absolute())],
        "enable_external_access": False,
    }
    for setting, value in settings.items():
        connection.execute(f"set {setting} = $1", [value])
    for kind, events in snapshot.items():
        create_view(connection, kind, events)
    connection.execute("set lock_configuration = true")


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, rows_max: int) -> pa.Table:
    """The first rows of the answer, in batches until there are at least so many."""
    reader = connection.sql(sql).to_arrow_reader(min(rows_max, BATCH_ROWS_MAX))
    batches, rows = [], 0
    for batch in reader:
        batches.append(batch)
        rows += batch.num_rows
        if rows >= rows_max:
            break
    return pa.Table.from_batches(batches, reader.schema)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, each once: a record of the answer would otherwise lose all columns of one name but the last."""
    taken: list[str] = []
    for name in names:
        others = (f"{name}_{number}" for number in count(1))
        taken.append(name if name not in taken else next(other for other in others if other not in {*names, *taken}))
    return taken


def _failure(message: str, source: LocalSource, exceeded_s: float | None) -> SqlFailedError:
    less = "narrow its time range, or aggregate more"
    if exceeded_s is not None:
        return SqlFailedError(f"The query took longer than {exceeded_s:g} s and was stopped", less)
    if message.startswith("Out of Memory"):
        return SqlFailedError(f"The query needs more than {MEMORY_LIMIT} of memory", less)
    for folder in {source.folder.absolute(), source.folder.resolve()}:
        message = message.replace(str(folder), "<ledger>")
    return SqlFailedError("The query cannot be run", first_words(message))
