"""Reading a ledger: one consistent picture of catalogue and tail."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.events import KINDS
from store.frames import Frame, frames_to_arrow
from store.head import HEAD_NAME, open_head_for_reading
from store.ledger import frames_of_rows
from store.shapes import shape

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import pyarrow as pa

END_OF_TIME_US = 2**63 - 1


@dataclass(frozen=True, slots=True)
class KindSnapshot:
    """The events of one kind at one moment.

    Args:
        files: The sealed Parquet files whose time range meets the window.
        tail: The events not sealed yet, with the kind's whole schema.
        older: What an earlier release wrote in an earlier version of the kind.
    """

    files: tuple[Path, ...]
    tail: "pa.Table"
    older: tuple["OlderEvents", ...] = ()


@dataclass(frozen=True, slots=True)
class OlderEvents:
    """Events of one kind in an earlier version of it, with that version's schema."""

    version: int
    files: tuple[Path, ...]
    tail: "pa.Table"


@dataclass(frozen=True, slots=True)
class KindExtent:
    """How much of one kind the ledger holds. Times are microseconds UTC, None where it holds nothing."""

    event_count: int
    first_observed_at_us: int | None
    last_observed_at_us: int | None
    segment_count: int
    sealed_bytes: int


class LedgerReader:
    """A ledger open for reading, beside any number of other readers and appenders.

    Raises:
        NoLedgerError: There is no ledger in the folder.
        NotALedgerError: The folder holds something that is no ledger.
        LedgerUnusableError: It cannot be read, is damaged, or was written by a newer gpuledger.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._head = open_head_for_reading(folder)

    def snapshot(
        self, kinds: Iterable[str], *, start_us: int = 0, end_us: int = END_OF_TIME_US
    ) -> Mapping[str, KindSnapshot]:
        """The files and the tail of each kind that may hold events of [start_us, end_us).

        Catalogue and tail come from one read transaction: no event is in both, none is in neither. No file is
        opened. Files and frames are chosen by their time range, so both may hold events outside the window too.
        """
        window = (start_us, end_us)
        with self._head:
            files = {kind: self._files(kind, window) for kind in kinds}
            frames = {kind: self._frames(kind, window) for kind in files}
        return {kind: _kind_snapshot(kind, files[kind], frames_of_rows(frames[kind])) for kind in files}

    def _files(self, kind: str, window: tuple[int, int]) -> list[tuple[int, Path]]:
        rows = self._head.execute(
            "select version, path from segment "
            "where kind = ? and last_observed_at_us >= ? and first_observed_at_us < ? order by first_seq",
            (kind, *window),
        )
        return [(version, self.folder / path) for version, path in rows]

    def _frames(self, kind: str, window: tuple[int, int]) -> list[tuple[Any, ...]]:
        return self._head.execute(
            "select * from frame where kind = ? and last_observed_at_us >= ? and first_observed_at_us < ? "
            "order by first_seq",
            (kind, *window),
        ).fetchall()

    def extents(self) -> Mapping[str, KindExtent]:
        """How much of every declared kind there is, from the catalogue and the tail alone."""
        return {kind: self._extent(kind) for kind in KINDS}

    def _extent(self, kind: str) -> KindExtent:
        row = self._head.execute(
            """
            select coalesce(sum(event_count), 0), min(first_us), max(last_us),
                   count(*) filter (where sealed), coalesce(sum(size_bytes), 0)
            from (
                select event_count, first_observed_at_us as first_us, last_observed_at_us as last_us,
                       true as sealed, size_bytes
                from segment where kind = :kind
                union all
                select event_count, first_observed_at_us, last_observed_at_us, false, 0
                from frame where kind = :kind
            )
            """,
            {"kind": kind},
        ).get
        return KindExtent(*row)

    def names(self, path: str) -> bool:
        """Whether the catalogue names a segment of that path, relative to the ledger's folder."""
        is_named: int = self._head.execute("select exists (select 1 from segment where path = ?)", (path,)).get
        return bool(is_named)

    @property
    def ledger_id(self) -> str:
        identity: str = self._head.execute("select id from ledger").get
        return identity

    @property
    def size_bytes(self) -> int:
        """Bytes on disk: sealed segments and the head with its log."""
        sealed: int = self._head.execute("select coalesce(sum(size_bytes), 0) from segment").get
        return sealed + sum(path.stat().st_size for path in self.folder.glob(f"{HEAD_NAME}*"))

    def close(self) -> None:
        self._head.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()


def _kind_snapshot(kind: str, files: Sequence[tuple[int, Path]], frames: Sequence[Frame]) -> KindSnapshot:
    today = KINDS[kind].version
    versions = {version for version, _ in files} | {frame.version for frame in frames}
    parts = {version: _of_version(kind, version, files, frames) for version in sorted(versions | {today})}
    older = tuple(part for version, part in parts.items() if version != today)
    return KindSnapshot(parts[today].files, parts[today].tail, older)


def _of_version(kind: str, version: int, files: Sequence[tuple[int, Path]], frames: Sequence[Frame]) -> OlderEvents:
    tail = frames_to_arrow(shape(kind, version), [frame for frame in frames if frame.version == version])
    return OlderEvents(version, tuple(path for written, path in files if written == version), tail)
