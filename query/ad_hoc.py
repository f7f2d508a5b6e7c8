"""Ad-hoc SQL over the views named after the kinds of events.

`query.sandbox.guard` decides what may run. It runs in a process of its own, `query.sandbox.process`, which can read the
sealed files and change nothing. The newest events, which lie in the head, are handed to it: the head cannot be read
without the right to write beside it.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import duckdb
import pyarrow as pa

from query.errors import SqlFailedError, first_words
from query.reading.damage import READ_ERRORS
from query.reading.duck_engine import parquet_scan, view_statement, view_tails
from query.reading.local_source import LocalSource
from query.sandbox.guard import Judged, judged
from query.sandbox.process import MEMORY_LIMIT, Question, StoppedError
from query.windows import zone_info
from store.events import COMMON_FIELDS, KINDS
from store.snapshot import END_OF_TIME_US, KindSnapshot

BYTES_MAX = 1 << 29
"""Most bytes of an answer, as Arrow has it."""

_LESS = "narrow its time range, or aggregate more"


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
    bytes_max: int = BYTES_MAX,
    cancelled: threading.Event | None = None,
) -> SqlResult:
    """Run one SELECT over the ledger.

    Args:
        source: Where the events are.
        sql: One SELECT; it sees the views named after the kinds.
        rows_max: At most so many rows.
        time_limit_s: After so long it is stopped.
        start_us: Files wholly before are not looked at; rows at the edge may still lie before.
        end_us: The same for files wholly after.
        time_zone: In which times are shown and cut into days.
        bytes_max: At most so many bytes of Arrow.
        cancelled: To be set when nobody wants the answer any more.

    Raises:
        SqlRefusedError: It is not one SELECT over the published views.
        SqlFailedError: DuckDB could not run it, or it took too long.
        WindowError: There is no such time zone.
    """
    started_s = time.monotonic()
    process = source.sql_process()  # before all else: it takes 0.3 s to start
    reads = judged(sql)
    zone = zone_info(time_zone).key
    cancelled = cancelled or threading.Event()
    reading = source.reading(reads.kinds, start_us=start_us, end_us=end_us)

    def ask(reads: Judged, snapshot: Mapping[str, KindSnapshot]) -> tuple[pa.Table, bool]:
        question = _question(sql, reads, snapshot, zone, opens_files=process.opens_files)
        return process.ask(question(rows_max, bytes_max, time_limit_s, cancelled))

    try:
        try:
            table, is_cut = reading.answer(partial(ask, reads))
        except duckdb.BinderException:  # it says what else is there only where that is there
            table, is_cut = reading.answer(partial(ask, Judged(reads.kinds, None)))
    except StoppedError:
        raise _stopped(time_limit_s, is_cancelled=cancelled.is_set()) from None
    except READ_ERRORS as error:
        raise _failure(str(error), source) from None
    return SqlResult(table.rename_columns(_distinct(table.column_names)), is_cut, time.monotonic() - started_s)


def _question(
    sql: str, reads: Judged, snapshot: Mapping[str, KindSnapshot], zone: str, *, opens_files: bool
) -> "partial[Question]":
    """What the process is asked, but for its bounds."""
    datasets: dict[str, tuple[str, list[str]]] = {}

    def dataset_scan(tail: str, files: Sequence[Path]) -> str:
        datasets[f"{tail}_files"] = (tail, [str(path.absolute()) for path in files])
        return f"{tail}_files"

    statements: list[str] = []
    tables: dict[str, pa.Table] = {}
    for kind, events in snapshot.items():
        columns = _columns(kind, reads)
        tables |= view_tails(kind, events, columns)
        statements.append(view_statement(kind, events, columns, parquet_scan if opens_files else dataset_scan))
    return partial(Question, sql, zone, tuple(statements), tables, datasets)


def _columns(kind: str, reads: Judged) -> Collection[str] | None:
    """The columns of a kind that a query can read; those that all kinds have in common are cheap and never empty."""
    if reads.names is None:
        return None
    common = {field.name for field in COMMON_FIELDS}
    return [one.name for one in KINDS[kind].columns if one.name in common or one.name in reads.names]


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, each once: a record of the answer would otherwise lose all columns of one name but the last."""
    taken: list[str] = []
    for name in names:
        others = (f"{name}_{number}" for number in count(1))
        taken.append(name if name not in taken else next(other for other in others if other not in {*names, *taken}))
    return taken


def _stopped(time_limit_s: float, *, is_cancelled: bool) -> SqlFailedError:
    if is_cancelled:
        return SqlFailedError("The query was cancelled and stopped", "ask again to have its answer")
    return SqlFailedError(f"The query took longer than {time_limit_s:g} s and was stopped", _LESS)


def _failure(message: str, source: LocalSource) -> SqlFailedError:
    if message.startswith("Out of Memory") or "bad_alloc" in message:
        return SqlFailedError(f"The query needs more than {MEMORY_LIMIT} of memory", _LESS)
    for folder in {source.folder.absolute(), source.folder.resolve()}:
        message = message.replace(str(folder), "<ledger>")
    return SqlFailedError("The query cannot be run", first_words(message))
