"""The engine of one host: DuckDB over the sealed Parquet files of a window and the tail, as one relation."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from query.engine import ALL_COLUMNS, ParameterKind
from query.reading.asker import asker
from query.reading.damage import Reading
from store.derivations import duckdb_columns
from store.events import KINDS
from store.shapes import upcasts
from store.snapshot import KindSnapshot

Scan = Callable[[str, Sequence[Path]], str]


def parquet_scan(_: str, files: Sequence[Path]) -> str:
    """DuckDB's own reading of Parquet files, whatever columns each has."""
    names = ", ".join("'" + str(path.absolute()).replace("'", "''") + "'" for path in files)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


class DuckDatabase:
    """One in-memory DuckDB for all questions; each gets a connection of its own.

    Its `parquet_metadata_cache` stays off: it never forgets a file, and of a recorder's, which are merged and gone
    after two minutes, it keeps 250 KB each.
    """

    def __init__(self) -> None:
        self._database = duckdb.connect(":memory:")
        self._database.execute("set global TimeZone = 'UTC'")  # global, or the questions' cursors have the host's

    @contextmanager
    def engine(self, reading: Reading, columns: Mapping[str, Collection[str]] = ALL_COLUMNS) -> Iterator["DuckEngine"]:
        """An engine that sees what `reading` does, of a kind in `columns` only these."""
        connection = self._database.cursor()
        try:
            yield DuckEngine(connection, reading, columns)
        finally:
            connection.close()

    def close(self) -> None:
        self._database.close()


class DuckEngine:
    """DuckDB over one snapshot of a local ledger.

    Args:
        connection: A connection of its own; its temporary views and tables are this question's.
        reading: What it sees.
        columns: Of these kinds it sees only these columns.
    """

    name = "duckdb"

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        reading: Reading,
        columns: Mapping[str, Collection[str]] = ALL_COLUMNS,
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._publish = partial(create_views, connection, columns=columns)
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
            with asker().stopping(self._connection.interrupt):
                relation = self._connection.sql(sql, params=parameters)
                asker().check()  # DuckDB forgets an interruption that falls between two steps
                return relation.to_arrow_table()

        return self._reading.answer(ask, again=self._publish)


def create_views(
    connection: duckdb.DuckDBPyConnection,
    snapshot: Mapping[str, KindSnapshot],
    columns: Mapping[str, Collection[str]] = ALL_COLUMNS,
) -> None:
    """Publish each kind as `create_view` does."""
    for kind, events in snapshot.items():
        create_view(connection, kind, events, columns.get(kind))


def create_view(
    connection: duckdb.DuckDBPyConnection, kind: str, events: KindSnapshot, columns: Collection[str] | None = None
) -> None:
    """Publish one kind as a temporary view with its declared columns, or some, whatever the files at hand have."""
    for name, tail in view_tails(kind, events, columns).items():
        connection.register(name, tail)
    connection.execute(view_statement(kind, events, columns))


def view_tails(kind: str, events: KindSnapshot, columns: Collection[str] | None = None) -> dict[str, pa.Table]:
    """The Arrow tables that the view of a kind names, with all columns or some of them."""
    newest = events.tail if columns is None or events.older else events.tail.select(list(columns))
    return {tail_name(kind): newest} | {tail_name(kind, older.version): older.tail for older in events.older}


def view_statement(
    kind: str, events: KindSnapshot, columns: Collection[str] | None = None, scan: Scan = parquet_scan
) -> str:
    """What makes the view of a kind out of its tails and its files.

    A column that a file lacks is NULL in its rows; one that only a newer program declares is left out. What was
    written in an earlier version of the kind comes through the SELECTs that lead from there to today's, which may
    need any of its columns.

    Args:
        kind: The kind.
        events: Its files and tails.
        columns: Only these; of a kind with 160 columns it takes 20 ms to bind all.
        scan: What to select the rows of files from, given the name of the tail they belong to.
    """
    narrowed = None if events.older else columns
    sources = [_relation(tail_name(kind), events.files, narrowed, scan)]
    for older in events.older:
        source = _relation(tail_name(kind, older.version), older.files, None, scan)
        for upcast in upcasts(kind, older.version):
            source = upcast.replace("{relation}", f"({source})").strip().rstrip(";")
        sources.append(source)
    shown = ", ".join(one for one in duckdb_columns(KINDS[kind]) if columns is None or one in columns)
    return f"create or replace temp view {kind} as select {shown} from ({' union all by name '.join(sources)})"


def tail_name(kind: str, version: int | None = None) -> str:
    """What the tail of a kind is registered as, today's or that of an older version."""
    return f"_{kind}_tail" if version is None else f"_{kind}_tail_v{version}"


def _relation(tail: str, files: Sequence[Path], columns: Collection[str] | None, scan: Scan) -> str:
    """A SELECT of the tail and the files of one version."""
    if not files:
        return f"select * from {tail}"
    wanted = "*" if columns is None else f"columns(lambda c: c in ({', '.join(repr(one) for one in columns)}))"
    return f"select * from {tail} union all by name select {wanted} from {scan(tail, files)}"
