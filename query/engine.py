"""The seam between an analysis and what runs it.

An analysis is one SQL text with a few named fragments; an `Engine` fills them in and runs it. The text keeps to what
DuckDB and ClickHouse both understand. `DuckEngine` is the engine of one host: the sealed Parquet files of a window
and the tail of the head, as one relation.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from store.rollup_cells import cell_columns, cell_schema, series_name
from store.sketch import LAST_BUCKET, LOG_GAMMA, OFFSET
from store.snapshot import END_OF_TIME_US, KindSnapshot, LedgerReader, NotRolled, RollupExtent

EVENTS_AT_ONCE_S = 12 * 3600  # the events of a longer window are not held in memory

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
        """What to select the cells of a `minute` or an `hour` from, where there is a plan: those of its one field."""

    def sketch_bucket(self, value: str) -> str:
        """The bucket of a sketch (`store.sketch`) that a value falls into."""

    def quantile(self, value: str, share: float) -> str:
        """The exact quantile of an expression, interpolated between neighbours."""

    def bucket(self, time: str, seconds: str) -> str:
        """The number of the bucket of so many seconds, counted from the epoch, that a time falls into."""

    def epoch_us(self, time: str) -> str:
        """A time as microseconds since the epoch."""

    def parameter(self, name: str, kind: ParameterKind) -> str:
        """The place of a bound value; a `time` is bound as microseconds since the epoch."""

    def query(self, sql: str, **parameters: Any) -> pa.Table: ...

    def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The answer as rows: for a small one without times in it, which is faster so."""

    def used(self, sql: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the parameters that a text names."""


Choice = Callable[[RollupExtent | None], RollupPlan | None]
"""How to answer, by what the rollups hold."""


class Source(Protocol):
    """Where the events are."""

    def engine(
        self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US
    ) -> contextlib.AbstractContextManager[Engine]:
        """An engine that sees at least the events of `kinds` in [start_us, end_us), in one consistent picture."""

    def trend_engine(
        self, kind: str, field: str, window: Window, choose: Choice
    ) -> contextlib.AbstractContextManager[Engine]:
        """The same for one field of one kind, and for its cells where the plan that `choose` gives has any."""


class DuckEngine:
    """DuckDB over one snapshot of a local ledger.

    Args:
        connection: A connection of its own; its temporary views and tables are this question's.
        plan: How its one kind is answered from rollups, if it is.
    """

    name = "duckdb"

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan: RollupPlan | None = None) -> None:
        self._connection = connection
        self.plan = plan

    def relation(self, kind: str) -> str:
        return kind

    def cells(self, kind: str, step: str) -> str:
        return f"_{kind}_{step}"

    def sketch_bucket(self, value: str) -> str:
        rank = f"least({LAST_BUCKET}, greatest(1, {OFFSET} + ceil(ln(abs({value})) / {LOG_GAMMA!r})))"
        return f"(case when {value} = 0 then 0 else cast(sign({value}) * {rank} as integer) end)"

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

    def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        # Not by `sql`: the relation it makes is planned twice, which takes longer than to run it.
        found = self._connection.execute(sql, parameters)
        names = [str(column[0]) for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def used(self, sql: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        named = set(re.findall(r"\$(\w+)", sql))
        return {name: value for name, value in parameters.items() if name in named}


def create_view(
    connection: duckdb.DuckDBPyConnection, kind: str, events: KindSnapshot, names: Iterable[str] | None = None
) -> None:
    """Publish one kind as a temporary view with its declared columns, or those named, whatever the files at hand have.

    A column that a file lacks is NULL in its rows; one that only a newer program declares is left out.
    """
    columns = ", ".join(duckdb_columns(KINDS[kind]) if names is None else names)
    tail_name = f"_{kind}_tail"
    connection.register(tail_name, events.tail)
    sources = [f"select * from {tail_name}"]
    if events.files:
        sources.append(f"select * from {_parquet_scan(events.files, by_name=True)}")
    connection.execute(f"create temp view {kind} as select {columns} from ({' union all by name '.join(sources)})")


def _create_table(
    connection: duckdb.DuckDBPyConnection,
    kind: str,
    columns: Sequence[str],
    tail: pa.Table,
    files: Iterable[tuple[str, Sequence[Path]]],
) -> None:
    """Publish the tail, and the events of files that meet a condition each, as a temporary table of these columns.

    A file is opened once so. A view is opened anew wherever a question names it, and once more to be bound: with the 30
    files of an hour that is not compacted yet a trend took four times as long. Files that lack none of the columns need
    not be compared by name, which opens them a second time.
    """
    names = ", ".join(columns)
    connection.register(f"_{kind}_tail", tail)
    scans = [(condition, paths) for condition, paths in files if paths]

    def create(*, by_name: bool) -> None:
        from_files = [
            f"select * from {_parquet_scan(paths, by_name=by_name)} where {condition}" for condition, paths in scans
        ]
        sources = " union all by name ".join([f"select * from _{kind}_tail", *from_files])
        connection.execute(f"create temp table {kind} as select {names} from ({sources})")

    try:
        create(by_name=False)
    except duckdb.Error:  # a file lacks a column
        create(by_name=True)


def _between(edges: Range) -> str:
    return f"observed_at >= make_timestamptz({edges[0]}) and observed_at < make_timestamptz({edges[1]})"


def _not_rolled_files(plan: RollupPlan, events: NotRolled) -> Iterator[tuple[str, Sequence[Path]]]:
    """The files of the ranges, and what came late to the rest: each event once."""
    for edges, paths in events.ranges:
        yield _between(edges), paths
    elsewhere = " and ".join(f"not ({_between(edges)})" for edges, _ in events.ranges) or "true"
    yield f"seq > {plan.upto_seq} and {elsewhere}", events.late


def _create_cells(
    connection: duckdb.DuckDBPyConnection, name: str, kind: str, field: str, files: Sequence[Path]
) -> None:
    if not files:
        connection.register(name, cell_schema(KINDS[kind]).empty_table())
        return
    declared = KINDS[kind].by_name[field]
    columns = ", ".join(cell_columns(KINDS[kind], declared, with_sketch=name.endswith("_hour")))
    scan = _parquet_scan(files, by_name=True)
    connection.execute(
        f"create temp table {name} as select {columns} from {scan} where field = $field", {"field": field}
    )


def _parquet_scan(paths: Iterable[Path], *, by_name: bool) -> str:
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{names}], union_by_name = {by_name}, hive_partitioning = false)"


class LocalSource:
    """The ledger of this host, read through one in-memory DuckDB.

    Each question gets a connection and a snapshot of its own, so questions of several threads do not meet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database = duckdb.connect(":memory:")
        self._database.execute("set global TimeZone = 'UTC'")  # global, or the questions' cursors have the host's
        self._database.execute("set global parquet_metadata_cache = true")  # a file under its name never changes

    @contextlib.contextmanager
    def engine(self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US) -> Iterator[DuckEngine]:
        with LedgerReader(self.folder) as reader:
            snapshot = reader.snapshot(kinds, start_us=start_us, end_us=end_us)
        connection = self._database.cursor()
        try:
            for kind, events in snapshot.items():
                create_view(connection, kind, events)
            yield DuckEngine(connection)
        finally:
            connection.close()

    @contextlib.contextmanager
    def trend_engine(self, kind: str, field: str, window: Window, choose: Choice) -> Iterator[DuckEngine]:
        span, columns = (window.start_us, window.end_us), _trend_columns(kind, field)
        with LedgerReader(self.folder) as reader, reader.one_picture():
            plan = choose(reader.rollup_extent(kind))
            if plan is None:
                events = reader.snapshot([kind], start_us=span[0], end_us=span[1], columns=columns)[kind]
            else:
                rest = reader.not_rolled(kind, plan.event_ranges(window), span, plan.upto_seq, columns)
            files = {step: _files(reader, kind, step, ranges) for step, ranges in (plan.cells if plan else {}).items()}
        connection = self._database.cursor()
        try:
            engine = DuckEngine(connection, plan)
            if plan:
                _create_table(connection, kind, columns, rest.tail, _not_rolled_files(plan, rest))
            elif window.seconds > EVENTS_AT_ONCE_S:
                create_view(connection, kind, events, columns)
            else:
                _create_table(connection, kind, columns, events.tail, [(_between(span), events.files)])
            for step, paths in files.items():
                _create_cells(connection, engine.cells(kind, step), kind, field, paths)
            yield engine
        finally:
            connection.close()

    def reader(self) -> LedgerReader:
        return LedgerReader(self.folder)

    def close(self) -> None:
        self._database.close()


def _trend_columns(kind: str, field: str) -> tuple[str, ...]:
    """What a trend of one field asks of the events."""
    declared = KINDS[kind]
    common = ("seq", "observed_at", "host", "boot_id", "interval_seconds", "counter_epoch", "gpu_index", "absence")
    names = (*(name for name in common if name in declared.by_name), *declared.series, series_name(declared), field)
    return tuple(dict.fromkeys(names))


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
