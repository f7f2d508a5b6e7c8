"""The engine of one host: DuckDB over the sealed Parquet files of a window and the tail, as one relation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from query.damage import Reading
from query.engine import ParameterKind
from store.derivations import duckdb_columns
from store.events import KINDS
from store.shapes import upcasts
from store.snapshot import KindSnapshot


class DuckDatabase:
    """One in-memory DuckDB for all questions; each gets a connection of its own.

    Its `parquet_metadata_cache` stays off: it never forgets a file, and of a recorder's, which are merged and gone
    after two minutes, it keeps 250 KB each.
    """

    def __init__(self) -> None:
        self._database = duckdb.connect(":memory:")
        self._database.execute("set global TimeZone = 'UTC'")  # global, or the questions' cursors have the host's

    @contextmanager
    def engine(self, reading: Reading) -> Iterator["DuckEngine"]:
        """An engine that sees what `reading` does."""
        connection = self._database.cursor()
        try:
            yield DuckEngine(connection, reading)
        finally:
            connection.close()

    def close(self) -> None:
        self._database.close()


class DuckEngine:
    """DuckDB over one snapshot of a local ledger.

    Args:
        connection: A connection of its own; its temporary views and tables are this question's.
        reading: What it sees.
    """

    name = "duckdb"

    def __init__(self, connection: duckdb.DuckDBPyConnection, reading: Reading) -> None:
        self._connection = connection
        self._reading = reading
        self._publish = partial(create_views, connection)
        self._reading.answer(self._publish)

    def relation(self, kind: str) -> str:
        return kind

    def quantile(self, value: str, share: float) -> str:
        return f"quantile_cont({value}, {share})"

    def bucket(self, time: str, seconds: str) -> str:
        # On integers: time_bucket on TIMESTAMPTZ takes twice as long.
        return f"(epoch_us({time}) // ({seconds} * 1000000::bigint))"

    def epoch_us(self, time: str) -> str:
        return f"epoch_us({time})"

    def parameter(self, name: str, kind: ParameterKind) -> str:
        return {"time": f"make_timestamptz(${name})", "int": f"${name}::bigint", "float": f"${name}::double"}.get(
            kind, f"${name}"
        )

    def query(self, sql: str, **parameters: Any) -> pa.Table:
        def ask(_: Mapping[str, KindSnapshot]) -> pa.Table:
            return self._connection.sql(sql, params=parameters).to_arrow_table()

        return self._reading.answer(ask, again=self._publish)


def create_views(connection: duckdb.DuckDBPyConnection, snapshot: Mapping[str, KindSnapshot]) -> None:
    """Publish each kind as `create_view` does."""
    for kind, events in snapshot.items():
        create_view(connection, kind, events)


def create_view(connection: duckdb.DuckDBPyConnection, kind: str, events: KindSnapshot) -> None:
    """Publish one kind as a temporary view with its declared columns, whatever the files at hand have.

    A column that a file lacks is NULL in its rows; one that only a newer program declares is left out. What was
    written in an earlier version of the kind comes through the SELECTs that lead from there to today's.
    """
    sources = [_relation(connection, f"_{kind}_tail", events.tail, events.files)]
    for older in events.older:
        source = _relation(connection, f"_{kind}_tail_v{older.version}", older.tail, older.files)
        for upcast in upcasts(kind, older.version):
            source = upcast.replace("{relation}", f"({source})").strip().rstrip(";")
        sources.append(source)
    columns = ", ".join(duckdb_columns(KINDS[kind]))
    connection.execute(
        f"create or replace temp view {kind} as select {columns} from ({' union all by name '.join(sources)})"
    )


def _relation(connection: duckdb.DuckDBPyConnection, tail_name: str, tail: pa.Table, files: Sequence[Path]) -> str:
    """A SELECT of the tail and the files of one version."""
    connection.register(tail_name, tail)
    from_tail = f"select * from {tail_name}"
    if not files:
        return from_tail
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    scan = f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"
    return f"{from_tail} union all by name select * from {scan}"
