"""Reading a ledger: one consistent picture of catalogue and tail."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from store.events import KINDS
from store.frames import frames_to_arrow
from store.head import HEAD_NAME, open_head_for_reading
from store.ledger import frames_of_rows

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
    """

    files: tuple[Path, ...]
    tail: "pa.Table"


@dataclass(frozen=True, slots=True)
class NotRolled:
    """The events of one kind that no rollup holds.

    Args:
        ranges: Each range of time that is wanted, [from, to) in microseconds, with the files that may hold some of it.
        late: Files that may hold events which came later than the rollups' `upto_seq`, from whatever time.
        tail: The events not sealed yet.
    """

    ranges: tuple[tuple[tuple[int, int], tuple[Path, ...]], ...]
    late: tuple[Path, ...]
    tail: "pa.Table"


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
        # A head that no newer program has written to yet has no table of them.
        self._has_rollups = bool(
            self._head.execute("select exists (select 1 from sqlite_schema where name = 'rolled')").get
        )

    def snapshot(
        self,
        kinds: Iterable[str],
        *,
        start_us: int = 0,
        end_us: int = END_OF_TIME_US,
        columns: Collection[str] | None = None,
    ) -> Mapping[str, KindSnapshot]:
        """The files and the tail of each kind that may hold events of [start_us, end_us).

        Catalogue and tail come from one read transaction: no event is in both, none is in neither. No file is
        opened. Files and frames are chosen by their time range, so both may hold events outside the window too.
        The tail is decoded to `columns` alone where they are given.
        """
        window = (start_us, end_us)
        with self._head:
            files = {kind: self._files(kind, window) for kind in kinds}
            frames = {kind: self._frames(kind, window) for kind in files}
        return {
            kind: KindSnapshot(files[kind], frames_to_arrow(KINDS[kind], frames_of_rows(frames[kind]), columns))
            for kind in files
        }

    def _files(self, kind: str, window: tuple[int, int]) -> tuple[Path, ...]:
        rows = self._head.execute(
            "select path from segment where kind = ? and last_observed_at_us >= ? and first_observed_at_us < ? "
            "order by first_seq",
            (kind, *window),
        )
        return tuple(self.folder / path for (path,) in rows)

    def _frames(self, kind: str, window: tuple[int, int]) -> list[tuple[Any, ...]]:
        return self._head.execute(
            "select * from frame where kind = ? and last_observed_at_us >= ? and first_observed_at_us < ? "
            "order by first_seq",
            (kind, *window),
        ).fetchall()

    def rollup_extent(self, kind: str) -> RollupExtent | None:
        """What the rollups of a kind hold; None where there are none."""
        if not self._has_rollups:
            return None
        row = self._head.execute(
            """
            select (select min(first_begins_at_us) from rollup where kind = :kind and replaced_at_us is null),
                   before_us, upto_seq,
                   min((select coalesce(min(first_observed_at_us), :end) from segment where kind = :kind),
                       (select coalesce(min(first_observed_at_us), :end) from frame where kind = :kind))
            from rolled where kind = :kind
            """,
            {"kind": kind, "end": END_OF_TIME_US},
        ).fetchone()
        return RollupExtent(*row) if row and row[0] is not None else None

    def rollup_files(self, kind: str, step: str, start_us: int, end_us: int) -> tuple[Path, ...]:
        """The files with cells of a minute or an hour that may begin in [start_us, end_us)."""
        rows = self._head.execute(
            "select path from rollup where kind = ? and step = ? and replaced_at_us is null "
            "and last_ends_at_us > ? and first_begins_at_us < ? order by path",
            (kind, step, start_us, end_us),
        )
        return tuple(self.folder / path for (path,) in rows)

    def not_rolled(
        self,
        kind: str,
        ranges: Iterable[tuple[int, int]],
        window: tuple[int, int],
        upto_seq: int,
        columns: Collection[str],
    ) -> NotRolled:
        """What may hold events of any of the ranges, or of the window with a seq beyond `upto_seq`."""
        rows = self._head.execute(
            "select path from segment where kind = ? and last_observed_at_us >= ? and first_observed_at_us < ? "
            "and last_seq > ?",
            (kind, *window, upto_seq),
        )
        tail = frames_to_arrow(KINDS[kind], frames_of_rows(self._frames(kind, window)), columns)
        return NotRolled(
            tuple((one, self._files(kind, one)) for one in ranges), tuple(self.folder / path for (path,) in rows), tail
        )

    def one_picture(self) -> apsw.Connection:
        """A read transaction, to be entered with `with`: all that is asked in it is of one moment."""
        return self._head

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
