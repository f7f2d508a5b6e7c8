"""Taking data out as a file: one kind over one window, or the answer to a query."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import pyarrow as pa

from query.catalogue import find_kind
from query.engine import Source, in_window, sql_text
from query.reading.local_source import LocalSource
from query.windows import Window
from store.derivations import arrow_schema
from store.errors import UsageError
from store.events import Kind
from store.files import publish_file
from store.snapshot import END_OF_TIME_US

ExportFormat = Literal["parquet", "arrow", "csv", "json"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
QUERY_ROWS_MAX = 10_000_000
SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow", "csv": ".csv", "json": ".ndjson"}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written where."""

    path: Path
    format: ExportFormat
    event_count: int
    size_bytes: int


def export_events(
    source: Source,
    kind: str,
    window: Window,
    *,
    format: ExportFormat,  # noqa: A002 - the word that users know, also as --format
    path: Path,
    overwrite: bool = False,
) -> ExportResult:
    """Write the events of `kind` in `window`, in order of seq, to `path`, whole or not at all.

    Raises:
        UnknownKindError: There is no such kind.
        UsageError: The file is there already, or cannot be written.
    """
    declared = find_kind(kind)
    return _written(lambda: events_table(source, declared, window), path, format, overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """The one folder that an agent's exports go to.

    Args:
        path: The folder; made where it is not there.
        bytes_max: Most bytes that all its files take together.
    """

    path: Path
    bytes_max: int


def export_query(
    source: LocalSource,
    sql: str,
    *,
    format: ExportFormat,  # noqa: A002 - as above
    path: Path,
    time_limit_s: float,
    time_zone: str = "UTC",
    overwrite: bool = False,
) -> ExportResult:
    """Write the answer to one SELECT to `path`, whole or not at all.

    Raises:
        SqlRefusedError: It is not one SELECT over the published views.
        SqlFailedError: DuckDB could not run it, or it took too long.
        UsageError: The answer is too large or does not fit the format, or the file cannot be written.
    """
    table = _answer(source, sql, time_limit_s, time_zone)
    return _written(lambda: table, path, format, overwrite=overwrite)


def export_into(
    source: LocalSource,
    asked: Kind | str,
    window: Window,
    *,
    format: ExportFormat,  # noqa: A002 - as above
    name: str,
    folder: ExportFolder,
    time_limit_s: float,
) -> ExportResult:
    """Write a kind's events in `window`, or the answer to a query, to a new file of the export folder.

    Args:
        source: Where the events are.
        asked: The kind, or one SELECT.
        window: Of the events; of a query, whose files are looked at.
        format: Of the file.
        name: Of the file, without the format's ending: letters, digits, `-` and `_`.
        folder: Where it goes.
        time_limit_s: After so long a query is stopped.

    Raises:
        SqlRefusedError: It is not one SELECT over the published views.
        SqlFailedError: DuckDB could not run it, or it took too long.
        UsageError: The name, the folder or the size will not do; nothing was written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        raise UsageError(f"{name[:120]!r} cannot be the name of an export", "give letters, digits, - and _ alone")
    target, ledger = folder.path.resolve(), source.folder.resolve()
    if target == ledger or ledger in target.parents:
        raise UsageError(f"The export folder {target} lies in the ledger", "set mcp.export_folder to one outside")
    left_bytes = folder.bytes_max - sum(one.stat().st_size for one in target.glob("*") if one.is_file())

    def take() -> pa.Table:
        if isinstance(asked, Kind):
            return events_table(source, asked, window)
        return _answer(source, asked, time_limit_s, window.time_zone, window)

    return _written(take, target / f"{name}{SUFFIXES[format]}", format, bytes_max=left_bytes)


def _answer(
    source: LocalSource, sql: str, time_limit_s: float, time_zone: str, window: Window | None = None
) -> pa.Table:
    from query.ad_hoc import run_sql  # noqa: PLC0415 - only who exports a query pays for it

    found = run_sql(
        source,
        sql,
        rows_max=QUERY_ROWS_MAX,
        time_limit_s=time_limit_s,
        time_zone=time_zone,
        start_us=window.start_us if window else 0,
        end_us=window.end_us if window else END_OF_TIME_US,
    )
    if found.is_truncated:
        raise UsageError(f"The query gives more than {found.table.num_rows:,} rows", "narrow its time range")
    return found.table


def _written(
    take: Callable[[], pa.Table],
    path: Path,
    format: ExportFormat,  # noqa: A002 - as above
    *,
    overwrite: bool = False,
    bytes_max: int | None = None,
) -> ExportResult:
    def write(temporary: Path) -> None:
        write_table(table, temporary, format)
        if bytes_max is not None and (size_bytes := temporary.stat().st_size) > bytes_max:
            raise UsageError(
                f"{path.name} would take {size_bytes:,} bytes, {max(0, bytes_max):,} are left in the export folder",
                "narrow the window, or remove older exports",
            )

    try:
        if path.exists() and not overwrite:
            raise UsageError(f"{path} is there already", "name another file with --output, or give --overwrite")
        table = take()
        publish_file(path, write)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written ({reason})", "name another file with --output") from error
    return ExportResult(path, format, table.num_rows, path.stat().st_size)


def events_table(source: Source, kind: Kind, window: Window) -> pa.Table:
    """The events of a kind in a window, in order of seq, with the kind's whole schema."""
    with source.engine([kind.name], start_us=window.start_us, end_us=window.end_us) as engine:
        sql = sql_text("events").format(relation=engine.relation(kind.name), in_window=in_window(engine))
        return engine.query(sql, start=window.start_us, end=window.end_us).cast(arrow_schema(kind))


def write_table(table: pa.Table, path: Path, format: ExportFormat) -> None:  # noqa: A002 - as above
    """Write an Arrow table to `path` in one of the export formats."""
    with path.open("wb") as file:
        _WRITERS[format](table, file)


def _write_parquet(table: pa.Table, file: BinaryIO) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - only who exports pays for it

    pq.write_table(table, file, compression="zstd")


def _write_arrow(table: pa.Table, file: BinaryIO) -> None:
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _write_csv(table: pa.Table, file: BinaryIO) -> None:
    import polars as pl  # noqa: PLC0415 - as below

    frame = _frame(_flat(table))
    lists = [name for name, kind in frame.schema.items() if kind.is_nested()]
    told = pl.element().fill_null("null")  # left out, the others would seem to stand in its place
    frame = frame.with_columns(frame[name].list.eval(told).list.join(" ") for name in lists)  # CSV has no lists
    frame.write_csv(file, datetime_format="%Y-%m-%dT%H:%M:%S%.6f%:z")


def _flat(table: pa.Table) -> pa.Table:
    """The table with all its lists as lists of text."""
    for place, column in enumerate(table.schema):
        if not pa.types.is_nested(column.type):
            continue
        if not pa.types.is_list(column.type) or pa.types.is_nested(column.type.value_type):
            raise UsageError(f"The column {column.name} fits no cell of CSV", "take json or parquet")
        table = table.set_column(place, column.name, table.column(place).cast(pa.list_(pa.string())))
    return table


def _write_json(table: pa.Table, file: BinaryIO) -> None:
    frame = _frame(table)
    decimals = [name for name, kind in frame.schema.items() if kind.is_decimal()]
    frame = frame.cast(dict.fromkeys(decimals, float))  # or they become strings
    frame.write_ndjson(file)


def _frame(table: pa.Table) -> Any:
    import polars as pl  # noqa: PLC0415 - as above; Arrow's own writer of CSV takes no lists, and it has none of JSON

    return pl.from_arrow(table)


_WRITERS: dict[str, Callable[[pa.Table, BinaryIO], None]] = {
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "csv": _write_csv,
    "json": _write_json,
}
