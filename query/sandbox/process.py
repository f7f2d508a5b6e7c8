"""The parent's side of the process that runs ad-hoc SQL: one process, one query at a time, and never a hung one.

A query that takes too long is interrupted; DuckDB cannot be interrupted within one call of a function, so a second
later the process is killed. Whatever way it ends, the next one is started at once and takes the next query.
"""

import json
import os
import subprocess
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

import query
from query.errors import SqlFailedError
from query.sandbox.confinement import ENFORCED_FROM
from query.sandbox.start import START
from query.sandbox.worker import DATA, END, STOP

MEMORY_LIMIT = "1GB"
MEMORY_MAX_BYTES = 2 << 30
"""The address space of the process. 0.6 GiB of it are libraries and threads, 1 GB DuckDB's own bound."""

WAITING_MAX = 8
_GRACE_S = 1.0
_START_LIMIT_S = 60.0
_POLL_S = 0.05
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # its own reserves 1 GiB of the address space
    "MALLOC_ARENA_MAX": "2",  # each thread would reserve 64 MiB
}
_PACKAGES = (duckdb, pa, msgspec)
_LESS = "narrow its time range, or aggregate more"


@dataclass(frozen=True, slots=True)
class Question:
    """What the process is asked.

    Args:
        sql: The query.
        time_zone: In which times are shown and cut into days.
        statements: Run before, such as those that make its views.
        tables: Arrow tables that they name.
        datasets: Where the process does not open files by itself: name to table of the same columns, and Parquet files.
        rows_max: At most so many rows are wanted.
        bytes_max: At most so many bytes of Arrow.
        time_limit_s: After so long it is stopped.
        cancelled: Set when nobody wants the answer any more.
    """

    sql: str
    time_zone: str
    statements: tuple[str, ...]
    tables: Mapping[str, pa.Table]
    datasets: Mapping[str, tuple[str, list[str]]]
    rows_max: int
    bytes_max: int
    time_limit_s: float
    cancelled: threading.Event = field(default_factory=threading.Event)


class StoppedError(Exception):
    """The query was stopped, because it was late or no longer wanted."""


class SqlProcess:
    """Asks a process of its own, started by `warm` or the first question.

    Args:
        folder: Of the sealed files: all that the process may read of a ledger.
        landlock: The version of Landlock to hold it by. Before `ENFORCED_FROM` DuckDB gets no file system, and Arrow
            opens the files of a question for it.
    """

    def __init__(self, folder: Path, *, landlock: int) -> None:
        self.opens_files = landlock >= ENFORCED_FROM
        self._landlock = landlock
        self._folder = folder
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(WAITING_MAX + 1)
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._child.process.pid if self._child else None

    def warm(self) -> None:
        """Start the process, without waiting for it."""
        with self._turn:
            self._current()

    def ask(self, question: Question) -> tuple[pa.Table, bool]:
        """The rows, and whether there were more.

        Raises:
            SqlFailedError: Too many wait already, or the process ended.
            StoppedError: It took too long, or was cancelled.
            duckdb.Error: DuckDB could not run it; `pa.ArrowException`, `OSError` and `RuntimeError` likewise.
        """
        with self._place(question.cancelled):
            child = self._current()
            try:
                return child.answer(question)
            except _EndedError as error:
                raise SqlFailedError(str(error), _LESS) from None
            finally:
                if not child.is_idle:
                    self._replace()

    def close(self) -> None:
        """End the process; a later question starts another."""
        with self._turn:
            if self._child is not None:
                self._child.end()
                self._child = None

    @contextmanager
    def _place(self, cancelled: threading.Event) -> Iterator[None]:
        """One's turn, after those who came before."""
        if not self._places.acquire(blocking=False):
            raise SqlFailedError(f"{WAITING_MAX} queries wait already", "ask again when some are answered")
        try:
            while not self._turn.acquire(timeout=_POLL_S):
                if cancelled.is_set():
                    raise StoppedError
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._places.release()

    def _current(self) -> "_Child":
        """The process; another where it ended meanwhile, or where its folder was made anew: it sees the one it knew."""
        identity = _identity(self._folder)
        if self._child is None or self._child.process.poll() is not None or self._child.identity != identity:
            self._replace()
        assert self._child is not None  # noqa: S101 - for the types
        return self._child

    def _replace(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = _Child(self._folder, self._landlock)


class _EndedError(Exception):
    """The process ended by itself."""


class _Child:
    """One life of the process; idle, when it has answered and may be asked again."""

    def __init__(self, folder: Path, landlock: int) -> None:
        self.identity = _identity(folder)
        self.is_idle = True
        self._is_ready = False
        ours, theirs = socketpair()
        with theirs:
            command = [sys.executable, "-I", "-S", "-B", "-c", START, str(theirs.fileno()), *_import_paths()]
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                env=_ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # Ctrl-C at the terminal is the parent's
            )
        self._wire: Connection[bytes, bytes] = Connection(ours.detach())
        self.end = weakref.finalize(self, _end, self.process, self._wire)
        setup = {
            "memory_max_bytes": MEMORY_MAX_BYTES,
            "uses_landlock": landlock > 0,
            "readable": [*_readable(), str(folder.absolute())],
            "settings": _settings(folder, opens_files=landlock >= ENFORCED_FROM),
        }
        self._wire.send_bytes(json.dumps(setup).encode())

    def answer(self, question: Question) -> tuple[pa.Table, bool]:
        self.is_idle = False
        self._wait_until_ready()
        try:
            self._send(question)
            stream, end = self._received(question)
        except (EOFError, OSError):
            raise _EndedError(self._last_words()) from None
        if "error" in end:
            raise _error(*end["error"])
        table = pa.ipc.open_stream(stream).read_all()
        table.validate(full=True)  # it comes from where foreign SQL ran
        return table, end["is_cut"]

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        try:
            words = self._wire.recv_bytes() if self._wire.poll(_START_LIMIT_S) else b"it does not begin"
        except (EOFError, OSError):
            words = b"it ended"
        if words:
            raise _EndedError(f"The process for SQL cannot start ({words.decode(errors='replace')})")
        self._is_ready = True

    def _send(self, question: Question) -> None:
        words = {
            "sql": question.sql,
            "time_zone": question.time_zone,
            "statements": question.statements,
            "tables": list(question.tables),
            "datasets": question.datasets,
            "rows_max": question.rows_max,
            "bytes_max": question.bytes_max,
        }
        self._wire.send_bytes(json.dumps(words).encode())
        for table in question.tables.values():
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
            self._wire.send_bytes(sink.getvalue())

    def _received(self, question: Question) -> tuple[bytes, Mapping[str, Any]]:
        """The Arrow stream, and how it ended."""
        late_at_s = time.monotonic() + question.time_limit_s
        kill_at_s = float("inf")
        parts: list[bytes] = []
        size_bytes = 0
        while True:
            if self._wire.poll(max(0.0, min(_POLL_S, late_at_s - time.monotonic()))):
                message = self._wire.recv_bytes()
                if message.startswith(END):
                    break
                parts.append(message.removeprefix(DATA))
                size_bytes += len(message)
            now_s = time.monotonic()
            if kill_at_s == float("inf") and (now_s >= late_at_s or question.cancelled.is_set()):
                self._wire.send_bytes(STOP)
                late_at_s, kill_at_s = float("inf"), now_s + _GRACE_S
            if now_s >= kill_at_s or size_bytes > 2 * question.bytes_max + (1 << 20):
                raise StoppedError
        end: Mapping[str, Any] = json.loads(message.removeprefix(END))
        self.is_idle = "OutOfMemoryException" not in end.get("error", ())  # its memory is in pieces now
        if "error" in end and kill_at_s < float("inf"):
            raise StoppedError
        return b"".join(parts), end

    def _last_words(self) -> str:
        try:
            code = self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return "The query's process no longer answers"
        return f"The query's process was ended by signal {-code}" if code < 0 else "The query's process ended"


def _end(process: "subprocess.Popen[bytes]", wire: "Connection[bytes, bytes]") -> None:
    process.kill()
    process.wait()
    wire.close()


def _error(name: str, words: str) -> Exception:
    """The error that the process met, as if it had been met here."""
    kinds = (getattr(module, name, None) for module in (duckdb, pa, pa.lib))
    known = next((one for one in kinds if isinstance(one, type) and issubclass(one, Exception)), None)
    if known is None:
        known = OSError if name in ("FileNotFoundError", "PermissionError", "OSError") else RuntimeError
    return known(words)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _import_paths() -> list[str]:
    """Where the process finds Python's library, the packages it needs, and this one."""
    folders = [one for one in sys.path if "python" in one and one.endswith((".zip", "lib-dynload"))]
    return [sysconfig.get_path("stdlib"), *folders, *_package_folders(), str(Path(query.__file__).parent.parent)]


def _readable() -> list[str]:
    """The same as files: of this package's folder nothing but `query`."""
    own = [str(Path(query.__file__).parent), f"{sys.base_prefix}/lib"]
    return [*_import_paths()[:-1], *own]


def _package_folders() -> list[str]:
    return list(dict.fromkeys(str(Path(module.__file__ or "").parent.parent) for module in _PACKAGES))


def _settings(folder: Path, *, opens_files: bool) -> dict[str, Any]:
    """DuckDB's settings: its own bounds within those of the process."""
    shut = {
        "threads": min(4, os.cpu_count() or 1),  # each takes 70 MB of address space
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": "",  # otherwise ./.tmp is silently added to the allowed folders
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    if opens_files:
        return {**shut, "allowed_directories": [str(folder.absolute())], "enable_external_access": False}
    return {**shut, "disabled_filesystems": "LocalFileSystem"}
