"""The seam between an analysis and what runs it.

An analysis is one SQL text with a few named fragments; an `Engine` fills them in and runs it. The text keeps to what
DuckDB and ClickHouse both understand. `DuckEngine` is the engine of one host: the sealed Parquet files of a window
and the tail of the head, as one relation.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import duckdb
import pyarrow as pa

from query.columns import ColumnCache
from query.damage import Reading
from query.trend_reading import TrendQuestion, TrendReading, read_trend
from store.derivations import duckdb_columns
from store.events import KINDS
from store.shapes import upcasts
from store.snapshot import END_OF_TIME_US, KindSnapshot, LedgerReader

ParameterKind = Literal["time", "int", "ints", "text"]


class Engine(Protocol):
    """One question's access to the events of some kinds in one window.

    Args:
        name: Of what runs it.
    """

    name: str

    def relation(self, kind: str) -> str:
        """What to select the events of `kind` from."""

    def quantile(self, value: str, share: float) -> str:
        """The exact quantile of an expression, interpolated between neighbours."""

    def bucket(self, time: str, seconds: str) -> str:
        """The number of the bucket of so many seconds, counted from the epoch, that a time falls into."""

    def epoch_us(self, time: str) -> str:
        """A time as microseconds since the epoch."""

    def parameter(self, name: str, kind: ParameterKind) -> str:
        """The place of a bound value; a `time` is bound as microseconds since the epoch."""

    def query(self, sql: str, **parameters: Any) -> pa.Table: ...


class Source(Protocol):
    """Where the events are."""

    def engine(
        self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US
    ) -> contextlib.AbstractContextManager[Engine]:
        """An engine that sees at least the events of `kinds` in [start_us, end_us), in one consistent picture."""

    def trend(self, question: TrendQuestion) -> TrendReading | None:
        """What a trend is made of, for whom that is at hand; None where an engine is to be asked."""


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
        return {"time": f"make_timestamptz(${name})", "int": f"${name}::bigint"}.get(kind, f"${name}")

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


class LocalSource:
    """The ledger of this host: trends from columns that stay at hand, all else through one in-memory DuckDB.

    Each question gets a connection and a snapshot of its own, so questions of several threads do not meet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._left_out: dict[Path, str] = {}
        self._columns = ColumnCache()
        self._database = duckdb.connect(":memory:")
        self._database.execute("set global TimeZone = 'UTC'")  # global, or the questions' cursors have the host's
        self._database.execute("set global parquet_metadata_cache = true")  # a file under its name never changes

    @contextlib.contextmanager
    def engine(self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US) -> Iterator[DuckEngine]:
        reading = self.reading(kinds, start_us=start_us, end_us=end_us)
        connection = self._database.cursor()
        try:
            yield DuckEngine(connection, reading)
        finally:
            connection.close()

    def trend(self, question: TrendQuestion) -> TrendReading | None:
        return read_trend(self.folder, self._columns, self._left_out, question)

    def reading(self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US) -> Reading:
        """What one question sees of some kinds."""
        wanted = tuple(kinds)

        def take() -> Mapping[str, KindSnapshot]:
            with LedgerReader(self.folder) as reader:
                return reader.snapshot(wanted, start_us=start_us, end_us=end_us)

        return Reading(take, self._left_out)

    def notes(self) -> list[str]:
        """What whoever reads an answer should know of the files that it could not be made from."""
        if not self._left_out:
            return []
        with self.reader() as reader:
            left_out = {str(path.relative_to(self.folder)): reason for path, reason in self._left_out.items()}
            return [
                f"{path} is left out of answers: {reason}; see 'gpuledger verify'"
                for path, reason in left_out.items()
                if reader.names(path)
            ]

    def reader(self) -> LedgerReader:
        return LedgerReader(self.folder)

    def close(self) -> None:
        self._database.close()


@cache
def sql_text(name: str) -> str:
    """The text of `query/sql/NAME.sql`, with its fragments still to be filled in as `{fragment}`."""
    return files("query").joinpath("sql").joinpath(f"{name}.sql").read_text()


def in_window(engine: Engine) -> str:
    """The condition that an event lies in [start, end), for the parameters of these names."""
    return f"observed_at >= {engine.parameter('start', 'time')} and observed_at < {engine.parameter('end', 'time')}"
