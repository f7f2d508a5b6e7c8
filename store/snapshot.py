"""Reading a ledger: one consistent picture of catalogue and tail."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.events import KINDS
from store.frames import Frame, frames_to_arrow
from store.head import HEAD_NAME, has_table, open_head_for_reading
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
class NotRolled:
    """The sealed events of one kind that no rollup holds.

    Args:
        ranges: Each range of time that is wanted, [from, to) in microseconds, with the files that may hold some of it.
        late: Files that may hold events which came later than the rollups' `upto_seq`, from whatever time.
    """

    ranges: tuple[tuple[tuple[int, int], tuple[Path, ...]], ...]
    late: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class RollupExtent:
    """What the rollups of one kind hold beside its events. Times are microseconds UTC.

    Args:
        first_us: Beginning of their earliest cell.
        before_us: They hold the events observed before this …
        upto_seq: … with a seq up to this one, and no others.
        first_event_us: Earliest observation among the events that are still there.
    """

    first_us: int
    before_us: int
    upto_seq: int
    first_event_us: int


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
        self._has_rollups = has_table(self._head, "rolled")

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

    def _paths(self, kind: str, window: tuple[int, int]) -> tuple[Path, ...]:
        return tuple(path for _, path in self._files(kind, window))

    def _frames(self, kind: str, window: tuple[int, int]) -> list[tuple[Any, ...]]:
        return self._head.execute(
            "select * from frame where kind = ? and last_observed_at_us >= ? and first_observed_at_us < ? "
            "order by first_seq",
            (kind, *window),
        ).fetchall()

    def rollup_extent(self, kind: str) -> RollupExtent | None:
        """What the rollups of a kind hold; None where there are none, or events in an earlier version of the kind.

        Cells are made of today's version alone.
        """
        if not self._has_rollups or self.has_older(kind):
            return None
        row = self._head.execute(
            """
            select (select min(first_begins_at_us) from rollup where kind = :kind),
                   before_us, upto_seq,
                   min((select coalesce(min(first_observed_at_us), :end) from segment where kind = :kind),
                       (select coalesce(min(first_observed_at_us), :end) from frame where kind = :kind))
            from rolled where kind = :kind
            """,
            {"kind": kind, "end": END_OF_TIME_US},
        ).fetchone()
        return RollupExtent(*row) if row and row[0] is not None else None

    def event_count(self, kind: str, start_us: int, end_us: int) -> int:
        """About how many sealed events of a kind lie in [start_us, end_us): as if each segment were filled evenly."""
        count: float = self._head.execute(
            """
            select coalesce(sum(event_count * 1.0 * (min(last_observed_at_us, :end) - max(first_observed_at_us, :start))
                                / max(1, last_observed_at_us - first_observed_at_us)), 0)
            from segment where kind = :kind and last_observed_at_us >= :start and first_observed_at_us < :end
            """,
            {"kind": kind, "start": start_us, "end": end_us},
        ).get
        return round(count)

    def times_of(self, kind: str, seq: int) -> tuple[int, int] | None:
        """Between which times, [from, to), an event with that seq was observed, as catalogue and tail say."""
        first_us, last_us = self._head.execute(
            """
            select min(first_us), max(last_us)
            from (
                select first_observed_at_us as first_us, last_observed_at_us as last_us
                from segment where kind = :kind and first_seq <= :seq and last_seq >= :seq
                union all
                select first_observed_at_us, last_observed_at_us
                from frame where kind = :kind and first_seq <= :seq and first_seq + event_count > :seq
            )
            """,
            {"kind": kind, "seq": seq},
        ).get
        return None if first_us is None else (first_us, last_us + 1)

    def has_older(self, kind: str) -> bool:
        """Whether there are events that an earlier release wrote in an earlier version of the kind."""
        has_older: int = self._head.execute(
            "select exists (select 1 from segment where kind = :kind and version <> :today) "
            "or exists (select 1 from frame where kind = :kind and version <> :today)",
            {"kind": kind, "today": KINDS[kind].version},
        ).get
        return bool(has_older)

    def rollup_files(self, kind: str, step: str, start_us: int, end_us: int) -> tuple[Path, ...]:
        """The files with cells of a minute or an hour that may begin in [start_us, end_us)."""
        rows = self._head.execute(
            "select path from rollup where kind = ? and step = ? "
            "and last_ends_at_us > ? and first_begins_at_us < ? order by path",
            (kind, step, start_us, end_us),
        )
        return tuple(self.folder / path for (path,) in rows)

    def not_rolled(
        self, kind: str, ranges: Iterable[tuple[int, int]], window: tuple[int, int], upto_seq: int
    ) -> NotRolled:
        """What may hold events of any of the ranges, or of the window with a seq beyond `upto_seq`."""
        rows = self._head.execute(
            "select path from segment where kind = ? and last_observed_at_us >= ? and first_observed_at_us < ? "
            "and last_seq > ?",
            (kind, *window, upto_seq),
        )
        return NotRolled(
            tuple((one, self._paths(kind, one)) for one in ranges), tuple(self.folder / path for (path,) in rows)
        )

    def tail_edges(self, kind: str) -> tuple[int, int] | None:
        """First and last seq of the tail of a kind; None where it is empty."""
        first, last = self._head.execute(
            "select min(first_seq), max(first_seq + event_count) - 1 from frame where kind = ?", (kind,)
        ).get
        return None if first is None else (first, last)

    def tail_frames(self, kind: str, after_seq: int = 0) -> list[Frame]:
        """The frames of a kind that begin after a seq."""
        rows = self._head.execute(
            "select * from frame where kind = ? and first_seq > ? order by first_seq", (kind, after_seq)
        )
        return frames_of_rows(rows.fetchall())

    def last_seq(self, kind: str) -> int:
        """Number of the newest event of a kind; 0 where there is none."""
        newest: int = self._head.execute(
            "select max((select coalesce(max(last_seq), 0) from segment where kind = :kind), "
            "(select coalesce(max(first_seq + event_count - 1), 0) from frame where kind = :kind))",
            {"kind": kind},
        ).get
        return newest

    def has_sealed_since(self, kind: str, seq: int) -> bool:
        """Whether events of a kind with a seq beyond this one are in segments."""
        has_sealed: int = self._head.execute(
            "select exists (select 1 from segment where kind = ? and last_seq > ?)", (kind, seq)
        ).get
        return bool(has_sealed)

    @contextmanager
    def one_picture(self) -> Iterator[None]:
        """All that is asked meanwhile is of one moment: a read transaction."""
        with self._head:
            yield

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
        """Whether the catalogue names a segment or a rollup of that path, relative to the ledger's folder."""
        tables = ("segment", "rollup") if self._has_rollups else ("segment",)
        texts = (f"select exists (select 1 from {table} where path = ?)" for table in tables)
        return any(self._head.execute(text, (path,)).get for text in texts)

    @property
    def ledger_id(self) -> str:
        identity: str = self._head.execute("select id from ledger").get
        return identity

    @property
    def size_bytes(self) -> int:
        """Bytes on disk: sealed segments, rollups, and the head with its log."""
        tables = ("segment", "rollup") if self._has_rollups else ("segment",)
        sealed: int = sum(self._head.execute(f"select coalesce(sum(size_bytes), 0) from {one}").get for one in tables)
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
    older = (_of_version(kind, version, files, frames) for version in sorted(versions - {today}))
    newest = _of_version(kind, today, files, frames)
    return KindSnapshot(newest.files, newest.tail, tuple(older))


def _of_version(kind: str, version: int, files: Sequence[tuple[int, Path]], frames: Sequence[Frame]) -> OlderEvents:
    tail = frames_to_arrow(shape(kind, version), [frame for frame in frames if frame.version == version])
    return OlderEvents(version, tuple(path for written, path in files if written == version), tail)
