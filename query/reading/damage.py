"""A damaged segment costs its own events and not the answer.

When DuckDB fails on a file, the question is which one. Of 400 segments with some bytes changed at random, 41 failed
with a message that names the file and 197 with words such as `don't know what type`; so the files that come into
question are read by Arrow, with the checksum of every page, and those that Arrow cannot read either are left out. The
answer says so. The reader moves nothing: `gpuledger verify --repair` and the collector do. (121 of the 400 were read
without a complaint as other values: DuckDB looks at no checksum. `store.upkeep.scrub` and `gpuledger verify` do.)
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from store.snapshot import KindSnapshot

Answer = TypeVar("Answer")

READ_ERRORS = (duckdb.Error, pa.ArrowException, OSError, RuntimeError)
"""What a damaged file shows itself as. RuntimeError: DuckDB's message held the file's own bytes and was no text."""

_STORAGE_WORDS = ("parquet", "bitpacked", "corrupt", "delta_binary", "snappy", "zstd")
_SQL_ERRORS = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.InterruptException,
    duckdb.InvalidTypeException,
    duckdb.NotImplementedException,
    duckdb.OutOfMemoryException,
    duckdb.OutOfRangeException,
    duckdb.ParserException,
    duckdb.PermissionException,
    duckdb.SyntaxException,
    duckdb.TypeMismatchException,
)


class Reading:
    """One question's view of a ledger, that leaves out the files it cannot be answered from.

    Args:
        take: Takes the snapshot.
        left_out: The damaged files that are known, path to reason; what is found is added.
    """

    def __init__(self, take: Callable[[], Mapping[str, KindSnapshot]], left_out: dict[Path, str]) -> None:
        self._take = take
        self._left_out = left_out
        self._snapshot = without(take(), left_out)

    def answer(
        self,
        ask: Callable[[Mapping[str, KindSnapshot]], Answer],
        *,
        again: Callable[[Mapping[str, KindSnapshot]], None] = lambda _: None,
    ) -> Answer:
        """What `ask` gives for the snapshot; tried again without the files that it failed on.

        Args:
            ask: Asks; whatever it raises is looked at.
            again: Called before each further try, with the snapshot that it is about.
        """
        while True:
            try:
                return ask(self._snapshot)
            except READ_ERRORS as error:
                damaged = damaged_files(error, files_of(self._snapshot))
                if not damaged:
                    raise
                # Those that are merely gone may have been merged meanwhile: a new snapshot no longer names them.
                snapshot = without(self._take(), self._left_out)
                self._left_out.update((path, damaged[path]) for path in files_of(snapshot) if path in damaged)
                self._snapshot = without(snapshot, damaged)
                self.answer(again)


def damaged_files(error: Exception, files: Iterable[Path]) -> dict[Path, str]:
    """Those of the files that a failed question cannot have been answered from, and why."""
    if isinstance(error, _SQL_ERRORS):
        return {}
    files = list(files)
    message = str(error)
    named = [path for path in files if str(path) in message]
    if not named and isinstance(error, duckdb.InvalidInputException) and not _speaks_of_storage(message):
        return {}  # as often somebody's own SQL
    from store.repair.soundness import why_unreadable  # noqa: PLC0415 - only who meets damage pays for it

    reasons = {path: why_unreadable(path) for path in named or files}
    return {path: reason for path, reason in reasons.items() if reason}


def _speaks_of_storage(message: str) -> bool:
    return any(word in message.lower() for word in _STORAGE_WORDS)


def files_of(snapshot: Mapping[str, KindSnapshot]) -> list[Path]:
    """Every file of a snapshot, of older versions too."""
    return [
        path
        for events in snapshot.values()
        for files in (events.files, *(older.files for older in events.older))
        for path in files
    ]


def without(snapshot: Mapping[str, KindSnapshot], paths: Iterable[Path]) -> dict[str, KindSnapshot]:
    """The snapshot without some of its files."""
    gone = set(paths)

    def kept(files: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path for path in files if path not in gone)

    return {
        kind: replace(
            events,
            files=kept(events.files),
            older=tuple(replace(older, files=kept(older.files)) for older in events.older),
        )
        for kind, events in snapshot.items()
    }
