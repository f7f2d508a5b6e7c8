"""The seam between an analysis and what runs it.

An analysis is one SQL text with a few named fragments; an `Engine` fills them in and runs it. The text keeps to what
DuckDB and ClickHouse both understand. `DuckEngine` is the engine of one host: the sealed Parquet files of a window
and the tail of the head, as one relation.
"""

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import duckdb
import pyarrow as pa

from query.damage import READ_ERRORS, Reading, damaged_files
from query.resolutions import Range, RollupPlan
from query.windows import Window
from store.derivations import duckdb_columns
from store.events import KINDS
from store.rollup_cells import cell_columns, cell_schema, series_name
from store.shapes import upcasts
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
        reading: What it sees.
        publish: How that becomes relations of the connection.
        plan: How its one kind is answered from rollups, if it is.
    """

    name = "duckdb"

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        reading: Reading,
        publish: "Publish | None" = None,
        plan: RollupPlan | None = None,
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._publish = partial(publish or create_views, connection)
        self.plan = plan
        self._reading.answer(self._publish)

    def relation(self, kind: str) -> str:
        return kind

    def cells(self, kind: str, step: str) -> str:
        return _cells_name(kind, step)

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
        def ask(_: Mapping[str, KindSnapshot]) -> pa.Table:
            return self._connection.sql(sql, params=parameters).to_arrow_table()

        return self._reading.answer(ask, again=self._publish)

    def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        # Not by `sql`: the relation it makes is planned twice, which takes longer than to run it.
        def ask(_: Mapping[str, KindSnapshot]) -> list[dict[str, Any]]:
            found = self._connection.execute(sql, parameters)
            names = [str(column[0]) for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

        return self._reading.answer(ask, again=self._publish)

    def used(self, sql: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        named = set(re.findall(r"\$(\w+)", sql))
        return {name: value for name, value in parameters.items() if name in named}


Publish = Callable[[duckdb.DuckDBPyConnection, Mapping[str, KindSnapshot]], None]
"""Makes what was read into relations of a connection; once more where a file had to be left out."""


def create_views(connection: duckdb.DuckDBPyConnection, snapshot: Mapping[str, KindSnapshot]) -> None:
    """Publish each kind as `create_view` does."""
    for kind, events in snapshot.items():
        create_view(connection, kind, events)


def create_view(
    connection: duckdb.DuckDBPyConnection, kind: str, events: KindSnapshot, names: Iterable[str] | None = None
) -> None:
    """Publish one kind as a temporary view with its declared columns, or those named, whatever the files at hand have.

    A column that a file lacks is NULL in its rows; one that only a newer program declares is left out. What was
    written in an earlier version of the kind comes through the SELECTs that lead from there to today's.
    """
    sources = [_relation(connection, f"_{kind}_tail", events.tail, events.files)]
    for older in events.older:
        source = _relation(connection, f"_{kind}_tail_v{older.version}", older.tail, older.files)
        for upcast in upcasts(kind, older.version):
            source = upcast.replace("{relation}", f"({source})").strip().rstrip(";")
        sources.append(source)
    columns = ", ".join(duckdb_columns(KINDS[kind]) if names is None else names)
    connection.execute(
        f"create or replace temp view {kind} as select {columns} from ({' union all by name '.join(sources)})"
    )


def _relation(connection: duckdb.DuckDBPyConnection, tail_name: str, tail: pa.Table, files: Sequence[Path]) -> str:
    """A SELECT of the tail and the files of one version."""
    connection.register(tail_name, tail)
    from_tail = f"select * from {tail_name}"
    return f"{from_tail} union all by name select * from {_parquet_scan(files, by_name=True)}" if files else from_tail


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
        connection.execute(f"create or replace temp table {kind} as select {names} from ({sources})")

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
        f"create or replace temp table {name} as select {columns} from {scan} where field = $field", {"field": field}
    )


def _parquet_scan(paths: Iterable[Path], *, by_name: bool) -> str:
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{names}], union_by_name = {by_name}, hive_partitioning = false)"


@dataclass(frozen=True, slots=True)
class _Picture:
    """What a trend is answered from where rollups take part, all of one moment."""

    plan: RollupPlan
    columns: Sequence[str]
    rest: NotRolled
    cells: Mapping[str, Sequence[Path]]

    @property
    def cell_files(self) -> list[Path]:
        return [path for paths in self.cells.values() for path in paths]

    @property
    def all_files(self) -> list[Path]:
        events = (path for _, paths in self.rest.ranges for path in paths)
        return list(dict.fromkeys([*self.cell_files, *events, *self.rest.late]))

    def without(self, gone: Collection[Path]) -> "_Picture":
        """The same, without the events of some files."""

        def kept(paths: Iterable[Path]) -> tuple[Path, ...]:
            return tuple(path for path in paths if path not in gone)

        ranges = tuple((edges, kept(paths)) for edges, paths in self.rest.ranges)
        return replace(self, rest=replace(self.rest, ranges=ranges, late=kept(self.rest.late)))

    def publish(self, connection: duckdb.DuckDBPyConnection, kind: str, field: str) -> None:
        _create_table(connection, kind, self.columns, self.rest.tail, _not_rolled_files(self.plan, self.rest))
        for step, paths in self.cells.items():
            _create_cells(connection, _cells_name(kind, step), kind, field, paths)


def _cells_name(kind: str, step: str) -> str:
    return f"_{kind}_{step}"


class LocalSource:
    """The ledger of this host, read through one in-memory DuckDB.

    Each question gets a connection and a snapshot of its own, so questions of several threads do not meet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._left_out: dict[Path, str] = {}
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

    @contextlib.contextmanager
    def trend_engine(self, kind: str, field: str, window: Window, choose: Choice) -> Iterator[DuckEngine]:
        connection = self._database.cursor()
        try:
            rolled = self._rolled(connection, kind, field, window, choose)
            yield rolled or self._not_rolled(connection, kind, field, window)
        finally:
            connection.close()

    def _not_rolled(self, connection: duckdb.DuckDBPyConnection, kind: str, field: str, window: Window) -> DuckEngine:
        """An engine that answers from the events alone."""
        span, columns = (window.start_us, window.end_us), _trend_columns(kind, field)

        def publish(connection: duckdb.DuckDBPyConnection, snapshot: Mapping[str, KindSnapshot]) -> None:
            events = snapshot[kind]
            if window.seconds > EVENTS_AT_ONCE_S or events.older:
                create_view(connection, kind, events, columns)
            else:
                _create_table(connection, kind, columns, events.tail, [(_between(span), events.files)])

        reading = self.reading([kind], start_us=span[0], end_us=span[1], columns=columns)
        return DuckEngine(connection, reading, publish)

    def _rolled(
        self, connection: duckdb.DuckDBPyConnection, kind: str, field: str, window: Window, choose: Choice
    ) -> DuckEngine | None:
        """An engine that answers from cells where `choose` says so, and no file of cells is damaged.

        All files are read here, into tables; a damaged one with events is left out, as `Reading` does.
        """
        while True:
            picture = self._picture(kind, field, window, choose)
            if picture is None or any(path in self._left_out for path in picture.cell_files):
                return None
            try:
                picture.without(self._left_out).publish(connection, kind, field)
            except READ_ERRORS as error:
                damaged = damaged_files(error, picture.without(self._left_out).all_files)
                if not damaged:
                    raise
                # One that was only merged or replaced meanwhile is in no picture again.
                self._left_out.update(damaged)
            else:
                return DuckEngine(connection, Reading(dict, {}), plan=picture.plan)

    def _picture(self, kind: str, field: str, window: Window, choose: Choice) -> "_Picture | None":
        columns = _trend_columns(kind, field)
        with LedgerReader(self.folder) as reader, reader.one_picture():
            plan = choose(reader.rollup_extent(kind))
            if plan is not None:
                span = (window.start_us, window.end_us)
                rest = reader.not_rolled(kind, plan.event_ranges(window), span, plan.upto_seq, columns)
                cells = {step: _files(reader, kind, step, ranges) for step, ranges in plan.cells.items()}
                return _Picture(plan, columns, rest, cells)
        return None

    def reading(
        self,
        kinds: Iterable[str],
        *,
        start_us: int = 0,
        end_us: int = END_OF_TIME_US,
        columns: Collection[str] | None = None,
    ) -> Reading:
        """What one question sees of some kinds."""
        wanted = tuple(kinds)

        def take() -> Mapping[str, KindSnapshot]:
            with LedgerReader(self.folder) as reader:
                return reader.snapshot(wanted, start_us=start_us, end_us=end_us, columns=columns)

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
