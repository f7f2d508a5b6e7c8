"""The head database: opening it, creating it, bringing its shape up to date.

SQLite through apsw, in WAL mode with synchronous=FULL: a transaction that has committed survives a power cut.
The shape is the numbered files in `migrations/head`, each applied in one transaction with its record, which is
`user_version`. `application_id` tells a ledger's head from any other SQLite file.
"""

import os
import time
import uuid
from contextlib import closing, suppress
from functools import cache
from importlib.resources import files
from pathlib import Path

import apsw

from store.errors import LedgerUnusableError, NoLedgerError, NotALedgerError
from store.files import make_folder
from store.space import check_file_system, full_disk, is_full

APPLICATION_ID = 0x67706C64  # "gpld"
BUSY_TIMEOUT_MS = 10_000
HEAD_NAME = "head.sqlite"
RESTORING_NAME = "restoring"
OWN_NAMES = frozenset(
    {
        HEAD_NAME,
        f"{HEAD_NAME}-wal",
        f"{HEAD_NAME}-shm",
        "events",
        "rollups",
        "quarantine",
        "collector.lock",
        "seal.lock",
        "mcp.token",
        "ingest.token",
        "pause.json",
        "lost+found",  # of a file system that is the ledger's alone
    }
)


_REBUILD_HINT = (
    "the sealed files under events/ are unharmed: start the recorder, or run 'gpuledger verify --repair', "
    "and it is built anew from them"
)


@cache
def _migrations() -> tuple[str, ...]:
    folder = files("migrations").joinpath("head")
    return tuple(
        entry.read_text()
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    )


def open_head(folder: Path, *, is_restoring: bool = False) -> apsw.Connection:
    """Open the head for appending; create the ledger where `folder` is missing or empty.

    Args:
        folder: The ledger's folder.
        is_restoring: Whether the caller is the restore that the folder is marked for.

    Raises:
        NotALedgerError: The folder holds something that is no ledger.
        NetworkFolderError: It lies on a network file system.
        LedgerFullError: Its disk is full.
        LedgerUnusableError: It cannot be written, is damaged, or was written by a newer gpuledger.
    """
    if not is_restoring:
        check_folder(folder)
    check_file_system(folder)
    try:
        if not (folder / HEAD_NAME).exists():
            make_folder(folder, found_too=os.access(folder.parent, os.R_OK))
        connection = _configured(apsw.Connection(str(folder / HEAD_NAME)))
        check_identity(connection, folder)  # before the first change
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        _migrate(connection)
    except (apsw.FullError, apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError, OSError) as error:
        if is_full(folder):
            raise full_disk(folder) from error
        raise not_writable(folder, error) from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise _damaged(folder, error) from error
    return connection


def begin_head(folder: Path, *, ledger_id: str, next_seq: int) -> None:
    """Make a head for a ledger that has lost its own; `head.sqlite` must not be there.

    One transaction: killed before its end, it leaves a head that was never begun, which counts as lost again.
    """
    connection = _configured(apsw.Connection(str(folder / HEAD_NAME)))
    try:
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        _migrate(connection, ledger_id=ledger_id, next_seq=next_seq)
    finally:
        connection.close()


def open_head_for_reading(folder: Path) -> apsw.Connection:
    """Open the head read-only, beside any number of other readers and appenders.

    Raises:
        NoLedgerError: There is no ledger in the folder.
        NotALedgerError: The folder holds something that is no ledger.
        LedgerUnusableError: It cannot be read, is damaged, or was written by a newer gpuledger.
    """
    check_folder(folder)
    path = folder / HEAD_NAME
    if not _exists(path):
        raise NoLedgerError(
            f"There is no ledger in {folder}", "start one with 'gpuledger up', or name its folder with --data"
        )
    try:
        connection = connect_read_only(path)
        check_identity(connection, folder)
        if not connection.pragma("user_version"):
            raise NoLedgerError(f"The ledger in {folder} has not been begun", "start it with 'gpuledger up'")
    except (apsw.CantOpenError, apsw.PermissionsError, apsw.AuthError) as error:
        raise LedgerUnusableError(
            f"The ledger {folder} cannot be read ({reason_words(error)})", "run as a user who may read it"
        ) from error
    except (apsw.IOError, apsw.FullError) as error:  # what readers and writers share in memory is a file, too
        raise LedgerUnusableError(
            f"The ledger {folder} cannot be read ({reason_words(error)})", "see that its disk has space and works"
        ) from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise _damaged(folder, error) from error
    return connection


def connect_read_only(path: Path) -> apsw.Connection:
    # Configured before the first question: whoever closes last holds the head for a moment, and this waits for it.
    connection = _configured(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY))
    try:
        connection.pragma("application_id")  # waits while the last one who had it open puts it away
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        # A folder that may not be written, and nobody has the ledger open: without its -shm file SQLite reads
        # a WAL database only when told that nobody changes it, which is then true.
        if path.with_name(f"{HEAD_NAME}-wal").exists():
            raise
        connection.close()
        uri = f"{path.resolve().as_uri()}?immutable=1"
        connection = _configured(apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI))
    return connection


def has_table(head: apsw.Connection, name: str) -> bool:
    """Whether the head's shape has a table: a reader may meet a head that no newer recorder has migrated yet."""
    exists: int = head.execute(
        "select exists (select 1 from sqlite_schema where type = 'table' and name = ?)", (name,)
    ).get
    return bool(exists)


def _configured(connection: apsw.Connection) -> apsw.Connection:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else, or a ledger that has lost its head.

    Raises:
        NotALedgerError, LedgerUnusableError: As said.
    """
    names = check_folder_is_ours(folder)
    if HEAD_NAME not in names and _has_segments(folder):
        raise LedgerUnusableError(f"The ledger {folder} has lost its {HEAD_NAME}", _REBUILD_HINT)


def check_folder_is_ours(folder: Path) -> set[str]:
    """The names in a folder that is a ledger or may become one.

    Raises:
        NotALedgerError: It holds something that is no ledger.
        LedgerUnusableError: It cannot be read.
    """
    try:
        if not _exists(folder):
            return set()
        if not folder.is_dir():
            raise NotALedgerError(f"{folder} is not a folder", "name the ledger's folder with --data")
        names = {entry.name for entry in folder.iterdir()}
    except PermissionError as error:
        raise LedgerUnusableError(
            f"The folder {folder} cannot be read ({reason_words(error)})", "run as a user who may read it"
        ) from error
    if RESTORING_NAME in names:
        raise LedgerUnusableError(
            f"The ledger {folder} is half restored: a restore into it was interrupted",
            "run the same 'gpuledger restore' again",
        )
    foreign = names - OWN_NAMES
    if HEAD_NAME not in names and foreign and not _has_segments(folder):
        raise NotALedgerError(
            f"{folder} is not a ledger: it holds {min(foreign)!r} and no {HEAD_NAME}",
            "name an empty or new folder with --data",
        )
    return names


def _has_segments(folder: Path) -> bool:
    return any((folder / "events").glob("*/v=*/*/*.parquet"))


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return False
    return True


def check_identity(connection: apsw.Connection, folder: Path) -> None:
    # In this order: both come in one transaction, and whoever asks while a head is begun sees neither or both.
    has_tables = connection.execute("select exists (select 1 from sqlite_schema)").get
    application_id = connection.pragma("application_id")
    if application_id != APPLICATION_ID and (application_id or has_tables):
        raise NotALedgerError(f"{folder / HEAD_NAME} is not a ledger's head", "name the ledger's folder with --data")
    version, known = connection.pragma("user_version"), len(_migrations())
    if version > known:
        raise LedgerUnusableError(
            f"The ledger {folder} was written by a newer gpuledger (head version {version}, known here: {known})",
            "upgrade gpuledger: 'pip install --upgrade gpuledger'",
        )


def refuse_newer(folder: Path) -> None:
    """Refuse a ledger of a newer gpuledger without a trace in it; whatever else is wrong is no business of this.

    Raises:
        LedgerUnusableError: As said.
    """
    path = folder / HEAD_NAME
    with suppress(apsw.Error, NotALedgerError):
        if path.exists():
            with closing(connect_read_only(path)) as head:
                check_identity(head, folder)


def _migrate(connection: apsw.Connection, *, ledger_id: str | None = None, next_seq: int = 1) -> None:
    if connection.pragma("user_version") == len(_migrations()):
        return
    connection.execute("begin immediate")
    try:
        # Read again inside the transaction: another process may have migrated it meanwhile.
        begun = connection.pragma("user_version")
        for number, script in enumerate(_migrations()[begun:], start=begun + 1):
            connection.execute(script)
            connection.pragma("user_version", number)
        if not begun:
            connection.pragma("application_id", APPLICATION_ID)
            identity = (ledger_id or str(uuid.uuid4()), time.time_ns() // 1000, next_seq)
            connection.execute("insert into ledger values (?, ?, ?)", identity)
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def _damaged(folder: Path, error: Exception) -> LedgerUnusableError:
    return LedgerUnusableError(
        f"The ledger's {folder / HEAD_NAME} is damaged ({reason_words(error)})",
        _REBUILD_HINT,
    )


def not_writable(folder: Path, error: Exception) -> LedgerUnusableError:
    return LedgerUnusableError(
        f"The ledger {folder} cannot be written ({reason_words(error)})",
        "make it writable for this user, or name another folder with --data",
    )


def reason_words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).lower()
