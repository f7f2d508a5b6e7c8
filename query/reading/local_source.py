"""Where the events of this host are: the ledger in a folder."""

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from query.engine import ALL_COLUMNS
from query.reading.asker import asker
from query.reading.column_cache import ColumnCache
from query.reading.newest_rows import END_US, NewestQuestion, NewestRows, Row
from query.reading.trend_reading import TrendPieces, TrendQuestion, TrendReading, read_pieces, read_trend
from query.sandbox.confinement import landlock_version
from store.snapshot import END_OF_TIME_US, KindSnapshot, LedgerReader

if TYPE_CHECKING:
    from query.reading.damage import Reading
    from query.reading.duck_engine import DuckDatabase, DuckEngine
    from query.sandbox.process import SqlProcess


class LocalSource:
    """The ledger of this host: trends and newest rows from what stays at hand, all else through one in-memory DuckDB.

    Each question gets a connection and a snapshot of its own, so questions of several threads do not meet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._left_out: dict[Path, str] = {}
        self._columns = ColumnCache()
        self._newest = NewestRows()
        self._lock = threading.Lock()
        self._database: DuckDatabase | None = None
        self._sql: SqlProcess | None = None

    @contextmanager
    def engine(
        self,
        kinds: Iterable[str],
        *,
        start_us: int = 0,
        end_us: int = END_OF_TIME_US,
        columns: Mapping[str, Collection[str]] = ALL_COLUMNS,
    ) -> Iterator["DuckEngine"]:
        with self._duckdb().engine(self.reading(kinds, start_us=start_us, end_us=end_us), columns) as engine:
            yield engine

    def _duckdb(self) -> "DuckDatabase":
        from query.reading.duck_engine import DuckDatabase  # noqa: PLC0415 - trends, asked most often, need no DuckDB

        with self._lock:
            self._database = self._database or DuckDatabase()
            return self._database

    def times_of(self, kind: str, seq: int) -> tuple[int, int] | None:
        with self.reader() as reader:
            return reader.times_of(kind, seq)

    def sql_process(self) -> "SqlProcess":
        """The process that runs ad-hoc SQL, one for all questions; it starts when it is first named."""
        from query.sandbox.process import SqlProcess  # noqa: PLC0415 - as above

        with self._lock:
            if self._sql is None:
                self._sql = SqlProcess(self.folder / "events", landlock=landlock_version())
                self._sql.warm()
            return self._sql

    def trend(self, question: TrendQuestion) -> TrendReading | None:
        asker().check()
        return read_trend(self.folder, self._columns, self._left_out, question)

    def newest(self, question: NewestQuestion) -> Sequence[Row]:
        with self.reader() as reader, reader.one_picture():
            rows = self._newest.rows(reader, question)
            ledger_id, last_seq = ("", 0) if rows is not None else (reader.ledger_id, reader.last_seq(question.kind))
        if rows is None:
            with self.engine((question.kind,), start_us=question.start_us) as engine:
                whole = replace(question, end_us=END_US)
                rows = self._newest.keep(question, ledger_id, last_seq, whole.ask(engine))
        if any(question.is_after(row) for row in rows):
            with self.engine((question.kind,), start_us=question.start_us) as engine:
                return question.ask(engine)
        return [row for row in rows if row["observed_at"].timestamp() * 1e6 >= question.start_us]

    def pieces(self, question: TrendQuestion) -> TrendPieces | None:
        """The events and the cells of one field themselves; None where they are more than is held in memory."""
        return read_pieces(self.folder, self._columns, self._left_out, question)

    def reading(self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US) -> "Reading":
        """What one question sees of some kinds."""
        from query.reading.damage import Reading  # noqa: PLC0415 - as above

        asker().check()
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
        if self._database is not None:
            self._database.close()
        if self._sql is not None:
            self._sql.close()
