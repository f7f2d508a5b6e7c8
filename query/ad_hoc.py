"""Ad-hoc SQL over the views named after the kinds of events."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from query.engine import LocalSource, create_view
from query.errors import SqlFailedError
from query.sql_guard import referenced_kinds
from store.snapshot import END_OF_TIME_US

MEMORY_LIMIT = "1GB"


@dataclass(frozen=True, slots=True)
class SqlResult:
    """The answer to a query.

    Args:
        table: Its rows, at most the asked number.
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
    """
    kinds = referenced_kinds(sql)
    started_s = time.monotonic()
    with source.reader() as reader:
        snapshot = reader.snapshot(kinds, start_us=start_us, end_us=end_us)
    with _locked_connection(source, time_zone) as connection:
        for kind, events in snapshot.items():
            create_view(connection, kind, events)
        connection.execute("set lock_configuration = true")
        table, is_truncated = _limited(connection, sql, rows_max, time_limit_s, source)
    return SqlResult(table, is_truncated, time.monotonic() - started_s)


@contextmanager
def _locked_connection(source: LocalSource, time_zone: str) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(":memory:")
    try:
        for setting, value in (
            ("TimeZone", time_zone),
            ("memory_limit", MEMORY_LIMIT),
            ("temp_directory", ""),  # otherwise ./.tmp is silently added to the allowed folders
            ("autoinstall_known_extensions", False),
            ("autoload_known_extensions", False),
            ("python_enable_replacements", False),
            ("allowed_directories", [str((source.folder / "events").absolute())]),
            ("enable_external_access", False),
        ):
            literal = str(value).lower() if isinstance(value, bool) else repr(value)
            connection.execute(f"set {setting} = {literal}")
        yield connection
    finally:
        connection.close()


def _limited(
    connection: duckdb.DuckDBPyConnection, sql: str, rows_max: int, time_limit_s: float, source: LocalSource
) -> tuple[pa.Table, bool]:
    timer = threading.Timer(time_limit_s, connection.interrupt)
    timer.start()
    try:
        reader = connection.sql(sql).to_arrow_reader(min(rows_max + 1, 100_000))
        batches, rows = [], 0
        for batch in reader:
            batches.append(batch)
            rows += batch.num_rows
            if rows > rows_max:
                break
        table = pa.Table.from_batches(batches, reader.schema)
    except duckdb.InterruptException:
        raise SqlFailedError(
            f"The query took longer than {time_limit_s:g} s and was stopped",
            "narrow its time range, or aggregate more",
        ) from None
    except (duckdb.Error, pa.ArrowException) as error:
        raise SqlFailedError("The query cannot be run", _reason(error, source)) from None
    finally:
        timer.cancel()
    return table.slice(0, rows_max), table.num_rows > rows_max


def _reason(error: Exception, source: LocalSource) -> str:
    words = str(error).replace(str(source.folder.absolute()), "<ledger>")
    return " ".join(words.split("\n\nLINE", 1)[0].split())
