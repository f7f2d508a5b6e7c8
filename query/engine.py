"""The seam between an analysis and what runs it.

An analysis is one SQL text with a few named fragments; an `Engine` fills them in and runs it. The text keeps to what
DuckDB and ClickHouse both understand. `DuckEngine` is the engine of one host: the sealed Parquet files of a window
and the tail of the head, as one relation.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import duckdb
import pyarrow as pa

from query.resolutions import Range, RollupPlan
from query.windows import Window
from store.derivations import duckdb_columns
from store.events import KINDS
from store.rollup_cells import cell_schema
from store.sketch import GAMMA, LAST_BUCKET, LOG_GAMMA, OFFSET
from store.snapshot import END_OF_TIME_US, KindSnapshot, LedgerReader, RollupExtent

ParameterKind = Literal["time", "int", "ints", "text"]


class Engine(Protocol):
    """One question's access to the events of some kinds in one window.

    Args:
        name: Of what runs it.
        plan: How its one kind is answered from rollups; None where the events answer alone.
    """

    name: str
    plan: RollupPlan | None

    def relation(self, kind: str) -> str:
        """What to select the events of `kind` from."""

    def cells(self, kind: str, step: str) -> str:
        """What to select the cells of a `minute` or an `hour` from, where there is a plan."""

    def sketch_bucket(self, value: str) -> str:
        """The bucket of a sketch (`store.sketch`) that a value falls into."""

    def sketch_value(self, bucket: str) -> str:
        """The value that stands for a bucket of a sketch."""

    def quantile(self, value: str, share: float) -> str:
        """The exact quantile of an expression, interpolated between neighbours."""

    def bucket(self, time: str, seconds: str) -> str:
        """The number of the bucket of so many seconds, counted from the epoch, that a time falls into."""

    def epoch_us(self, time: str) -> str:
        """A time as microseconds since the epoch."""

    def parameter(self, name: str, kind: ParameterKind) -> str:
        """The place of a bound value; a `time` is bound as microseconds since the epoch."""

    def query(self, sql: str, **parameters: Any) -> pa.Table: ...


Choice = Callable[[RollupExtent | None], RollupPlan | None]
"""How to answer, by what the rollups hold."""


class Source(Protocol):
    """Where the events are."""

    def engine(
        self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US
    ) -> contextlib.AbstractContextManager[Engine]:
        """An engine that sees at least the events of `kinds` in [start_us, end_us), in one consistent picture."""

    def rolled_engine(
        self, kind: str, window: Window, choose: Choice, columns: Collection[str]
    ) -> contextlib.AbstractContextManager[Engine]:
        """The same for these columns of one kind, and its cells where the plan that `choose` gives has any."""


class DuckEngine:
    """DuckDB over one snapshot of a local ledger.

    Args:
        connection: A connection of its own; its temporary views are this question's.
        snapshot: What it sees.
        plan: How its one kind is answered from rollups, if it is.
        columns: The columns of it that are asked for; all where left out.
    """

    name = "duckdb"

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        snapshot: Mapping[str, KindSnapshot],
        plan: RollupPlan | None = None,
        columns: Collection[str] | None = None,
    ) -> None:
        self._connection = connection
        self.plan = plan
        for kind, events in snapshot.items():
            create_view(connection, kind, events, columns)

    def relation(self, kind: str) -> str:
        return kind

    def cells(self, kind: str, step: str) -> str:
        return f"_{kind}_{step}"

    def add_cells(self, kind: str, step: str, files: Sequence[Path]) -> None:
        """Publish the cells of these files as `cells(kind, step)`."""
        name = self.cells(kind, step)
        if files:
            self._connection.execute(f"create temp view {name} as select * from {_parquet_scan(files)}")
        else:
            self._connection.register(name, cell_schema(KINDS[kind]).empty_table())

    def sketch_bucket(self, value: str) -> str:
        rank = f"least({LAST_BUCKET}, greatest(1, {OFFSET} + ceil(ln(abs({value})) / {LOG_GAMMA!r})))"
        return f"(case when {value} = 0 then 0 else cast(sign({value}) * {rank} as integer) end)"

    def sketch_value(self, bucket: str) -> str:
        value = f"sign({bucket}) * exp((abs({bucket}) - {OFFSET}) * {LOG_GAMMA!r}) * {2 / (GAMMA + 1)!r}"
        return f"(case when {bucket} = 0 then 0.0 else {value} end)"

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
        return self._connection.sql(sql, params=parameters).to_arrow_table()


def create_view(
    connection: duckdb.DuckDBPyConnection, kind: str, events: KindSnapshot, wanted: Collection[str] | None = None
) -> None:
    """Publish one kind as a temporary view with its declared columns, or the `wanted` of them, whatever the files have.

    A column that a file lacks is NULL in its rows; one that only a newer program declares is left out.
    """
    tail_name = f"_{kind}_tail"
    connection.register(tail_name, events.tail)
    sources = [f"select * from {tail_name}"]
    if events.files:
        sources.append(f"select * from {_parquet_scan(events.files)}")
    columns = ", ".join(name for name in duckdb_columns(KINDS[kind]) if wanted is None or name in wanted)
    connection.execute(f"create temp view {kind} as select {columns} from ({' union all by name '.join(sources)})")


def _parquet_scan(paths: Iterable[Path]) -> str:
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


class LocalSource:
    """The ledger of this host, read through one in-memory DuckDB.

    Each question gets a connection and a snapshot of its own, so questions of several threads do not meet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database = duckdb.connect(":memory:")
        self._database.execute("set global TimeZone = 'UTC'")  # global, or the questions' cursors have the host's

    @contextlib.contextmanager
    def engine(self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US) -> Iterator[DuckEngine]:
        with LedgerReader(self.folder) as reader:
            snapshot = reader.snapshot(kinds, start_us=start_us, end_us=end_us)
        connection = self._database.cursor()
        try:
            yield DuckEngine(connection, snapshot)
        finally:
            connection.close()

    @contextlib.contextmanager
    def rolled_engine(
        self, kind: str, window: Window, choose: Choice, columns: Collection[str]
    ) -> Iterator[DuckEngine]:
        span = (window.start_us, window.end_us)
        with LedgerReader(self.folder) as reader, reader.one_picture():
            plan = choose(reader.rollup_extent(kind))
            if plan is None:
                events = reader.snapshot([kind], start_us=span[0], end_us=span[1], columns=columns)[kind]
            else:
                events = reader.not_rolled(kind, plan.event_ranges(window), span, plan.upto_seq, columns)
            files = {step: _files(reader, kind, step, ranges) for step, ranges in (plan.cells if plan else {}).items()}
        connection = self._database.cursor()
        try:
            engine = DuckEngine(connection, {kind: events}, plan, columns)
            for step, paths in files.items():
                engine.add_cells(kind, step, paths)
            yield engine
        finally:
            connection.close()

    def reader(self) -> LedgerReader:
        return LedgerReader(self.folder)

    def close(self) -> None:
        self._database.close()


def _files(reader: LedgerReader, kind: str, step: str, ranges: Iterable[Range]) -> list[Path]:
    found = (reader.rollup_files(kind, step, *one) for one in ranges if one[0] < one[1])
    return list(dict.fromkeys(path for paths in found for path in paths))


@cache
def sql_text(name: str) -> str:
    """The text of `query/sql/NAME.sql`, with its fragments still to be filled in as `{fragment}`."""
    return files("query").joinpath("sql").joinpath(f"{name}.sql").read_text()


def in_window(engine: Engine) -> str:
    """The condition that an event lies in [start, end), for the parameters of these names."""
    return f"observed_at >= {engine.parameter('start', 'time')} and observed_at < {engine.parameter('end', 'time')}"
