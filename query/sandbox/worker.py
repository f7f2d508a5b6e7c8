"""The process that runs ad-hoc SQL. `query.sandbox.process` starts it and speaks with it; it knows nothing of ledgers.

It is told what to do in JSON, gets the newest events as Arrow, and answers with an Arrow stream. One thread runs the
queries; another listens meanwhile, so that a query can be stopped, and so that the process ends when whoever started
it does. Making a database takes 12 ms, so one serves all queries of a time zone: each through a connection whose views
are its own, in a transaction that can leave nothing behind.
"""

import json
import os
import select
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import duckdb
import pyarrow as pa

STOP = b"stop"
DATA, END = b"d", b"e"
"""What a message to the parent begins with: a part of the Arrow stream, or the end as JSON."""

BATCH_ROWS_MAX = 100_000
_MESSAGE_BYTES_MAX = 1 << 20
_INTERRUPT_EVERY_S = 0.05
_OUT_OF_MEMORY = "OutOfMemoryException"


class Worker:
    """Answers one query after the other.

    Args:
        wire: To the parent.
        settings: DuckDB's, set in their order and locked.
    """

    def __init__(self, wire: "Connection[bytes, bytes]", settings: Mapping[str, Any]) -> None:
        self._wire = wire
        self._settings = settings
        self._asked: SimpleQueue[tuple[Mapping[str, Any], list[pa.Table]]] = SimpleQueue()
        self._running: duckdb.DuckDBPyConnection | None = None
        self._is_stopping = threading.Event()
        self._zone = "UTC"
        self._database = _database(settings, self._zone)

    def serve(self) -> None:
        """Answer until the parent is gone, which ends the process."""
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        while True:
            question, tables = self._asked.get()
            with self._of_zone(question["time_zone"]).cursor() as connection:
                self._running = connection
                end = self._answer(connection, question, tables)
                self._running = None
            self._wire.send_bytes(END + json.dumps(end).encode())

    def _of_zone(self, zone: str) -> duckdb.DuckDBPyConnection:
        if self._zone != zone:
            self._database.close()
            self._database, self._zone = _database(self._settings, zone), zone
        return self._database

    def _listen(self) -> None:
        """Take in what the parent says, and interrupt what it wants stopped.

        It is interrupted again and again, because DuckDB forgets an interruption that falls between two steps.
        """
        try:
            while True:
                while self._is_stopping.is_set() and not select.select([self._wire], [], [], _INTERRUPT_EVERY_S)[0]:
                    self._interrupt()
                message = self._wire.recv_bytes()
                if message == STOP:
                    self._is_stopping.set()
                    self._interrupt()
                else:
                    question = json.loads(message)
                    self._is_stopping.clear()
                    self._asked.put((question, [_table(self._wire.recv_bytes()) for _ in question["tables"]]))
        except (EOFError, OSError):
            os._exit(0)

    def _interrupt(self) -> None:
        connection = self._running
        if connection is not None:
            with suppress(duckdb.Error):  # closed in this moment
                connection.interrupt()

    def _answer(
        self, connection: duckdb.DuckDBPyConnection, question: Mapping[str, Any], tables: list[pa.Table]
    ) -> dict[str, Any]:
        """Send the rows; whether there were more, or what went wrong, as the error's name and words."""
        try:
            for name, table in zip(question["tables"], tables, strict=True):
                connection.register(name, table)
            for name, (like, files) in question["datasets"].items():
                schema = tables[question["tables"].index(like)].schema
                connection.register(name, _dataset(files, schema))
            for statement in question["statements"]:
                connection.execute(statement)
            connection.execute("begin transaction read only")
            return {"is_cut": self._send_rows(connection, question)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
            return {"error": _told(error)}

    def _send_rows(self, connection: duckdb.DuckDBPyConnection, question: Mapping[str, Any]) -> bool:
        """Send the first rows of the answer, as many as are asked for and fit; whether there were more."""
        rows_left, bytes_left = question["rows_max"], question["bytes_max"]
        (statement,) = connection.extract_statements(question["sql"])  # two could end the transaction
        reader = connection.sql(statement).to_arrow_reader(min(rows_left + 1, BATCH_ROWS_MAX))
        with (
            closing(_Sink(self._wire)) as sink,
            pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), reader.schema) as stream,
        ):
            for batch in reader:
                fitting = min(rows_left, batch.num_rows * bytes_left // max(bytes_left, batch.nbytes, 1))
                sent = batch.slice(0, fitting)
                stream.write_batch(sent)
                rows_left, bytes_left = rows_left - sent.num_rows, bytes_left - sent.nbytes
                if sent.num_rows < batch.num_rows:
                    connection.interrupt()  # or who drops the reader waits for threads that read on, for seconds
                    return True
        return False


class _Sink:
    """A file that is written to the parent, in long messages: Arrow writes each buffer of each column by itself."""

    def __init__(self, wire: "Connection[bytes, bytes]") -> None:
        self._wire = wire
        self._waiting = bytearray(DATA)
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _MESSAGE_BYTES_MAX):
            self._waiting += view[start : start + _MESSAGE_BYTES_MAX]
            if len(self._waiting) >= _MESSAGE_BYTES_MAX:
                self.flush()
        return len(view)

    def flush(self) -> None:
        if len(self._waiting) > len(DATA):
            self._wire.send_bytes(self._waiting)
            self._waiting = bytearray(DATA)

    def close(self) -> None:
        self.flush()
        self.closed = True


def _database(settings: Mapping[str, Any], zone: str) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(":memory:")
    for name, value in {**settings, "TimeZone": zone, "lock_configuration": True}.items():
        database.execute(f"set global {name} = $1", [value])
    return database


def _table(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()


def _dataset(files: list[str], schema: pa.Schema) -> Any:
    import pyarrow.dataset as ds  # noqa: PLC0415 - only where Landlock does not hold

    return ds.dataset(files, schema=schema, format="parquet")


def _told(error: Exception) -> list[str]:
    name = type(error).__name__
    words = str(error)
    is_memory = isinstance(error, MemoryError) or "bad_alloc" in words
    return [_OUT_OF_MEMORY if is_memory else name, words.encode(errors="replace").decode()]
