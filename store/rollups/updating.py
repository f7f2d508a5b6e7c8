"""Rollups: what the samples were per minute and per hour, as projections of the events.

```
rollups/<kind>/minute/2026-11-22T13-r7.parquet     an hour of today; closed days become one file: 2026-11-21-r6.parquet
rollups/<kind>/hour/2026-11-22-r7.parquet          today so far; closed days become one file a month: 2026-11-r6.parquet
```

How far they reach is two numbers per kind (`Reach`): they hold every event observed before `before_us` with a seq up
to `upto_seq`, and no other. seq only grows, sealing takes the oldest first, and compaction keeps seq; so whatever comes
late (a clock that went back, an import) has a greater seq than what is held, and a reader finds it among the events
with no more than `observed_at >= before_us or seq > upto_seq`. The next update makes its hours anew.

An update runs in the short-lived child after a sealing: it makes the cells of the hours that have closed, and of those
that got late events; then ONE transaction puts its files in force and moves the reach. Whoever is killed before has
changed nothing. Files that were replaced stay until no reader can hold them. Events that retention has taken stay in
the rollups: an hour of which events are gone is added to, not made anew.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.derivations import arrow_schema
from store.events import Kind
from store.head import open_head
from store.ledger import transaction
from store.repair.soundness import READ_ERRORS, is_damage
from store.rollups.cells import ROLLED_KINDS, STEPS_S, cells_of, needed_columns
from store.rollups.due import CLOSED_AFTER_US, note_rolled
from store.rollups.files import Footer, Part, Reach, RollupFile, read_footer, with_schema, write_cells
from store.segments import (
    ROLLUPS_FOLDER,
    Segment,
    announce,
    catalogued,
    let_go,
    remove_unfinished,
    unlink_removable,
    withdraw,
)
from store.times import DAY_US, HOUR_US
from store.upkeep.sealing import seal_lock

REPLACED_KEPT_US = 900_000_000  # longer than any question may take
HOURS_MAX = 48  # of a kind in one update: half a minute of work; the next update goes on


@dataclass(slots=True)
class RollupResult:
    """What an update did.

    Args:
        hours_made: Hours of a kind whose cells were made, new or anew.
        hours_added_to: Hours that got late events and whose own events are no longer all there.
        hours_kept: With a rebuild, hours that stay as they are because their events are no longer all there.
        event_count: Events read.
        unreadable: Segments and rollups that could not be read, with the reason.
        is_ours: Whether it was done; False where another process is at it.
    """

    hours_made: int = 0
    hours_added_to: int = 0
    hours_kept: int = 0
    event_count: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    is_ours: bool = True


def update_rollups(folder: Path, *, now_us: int | None = None, until_done: bool = False) -> RollupResult:
    """Bring the rollups up to the last closed hour, by at most `HOURS_MAX` of a kind unless `until_done`.

    Does nothing where another process is at it.

    Raises:
        NotALedgerError, LedgerUnusableError: As `store.head.open_head`.
    """
    return _with_lock(folder, now_us, until_done=until_done)


def rebuild_rollups(folder: Path, *, now_us: int | None = None) -> RollupResult:
    """Drop the rollups and make them again from the events; hours whose events are gone are kept as they are.

    Raises:
        NotALedgerError, LedgerUnusableError: As `store.head.open_head`.
    """
    return _with_lock(folder, now_us, until_done=True, is_rebuild=True)


def _with_lock(folder: Path, now_us: int | None, *, until_done: bool, is_rebuild: bool = False) -> RollupResult:
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    with closing(open_head(folder)) as head, seal_lock(folder) as is_ours:
        if not is_ours:
            return RollupResult(is_ours=False)
        remove_unfinished(folder, head)
        unlink_removable(folder, head, now_us=now_us)
        return roll_up(folder, head, now_us=now_us, until_done=until_done, is_rebuild=is_rebuild)


def roll_up(
    folder: Path, head: apsw.Connection, *, now_us: int, until_done: bool = False, is_rebuild: bool = False
) -> RollupResult:
    """Update or rebuild, for the holder of the seal lock."""
    result = RollupResult()
    is_done = True
    for kind in ROLLED_KINDS.values():
        update = _Update(folder, head, kind, now_us, result)
        if is_rebuild:
            update.rebuild()
        while (may_be_more := update.run()) and until_done:
            pass
        is_done = is_done and not may_be_more
    if is_done:
        note_rolled(head, now_us=now_us)
    return result


class _Update:
    """One update of the rollups of one kind.

    Args:
        folder: The ledger's folder.
        head: Its head, open for writing.
        kind: What is rolled up.
        now_us: The time now, UTC.
        result: Where it is written down what was done.
    """

    def __init__(self, folder: Path, head: apsw.Connection, kind: Kind, now_us: int, result: RollupResult) -> None:
        self._folder = folder
        self._head = head
        self._kind = kind
        self._now_us = now_us
        self._result = result

    def run(self) -> bool:
        """Make the cells of the hours that have closed, of those that got late events, of those that were lost.

        Returns whether there may be more closed hours to do.
        """
        reach = self._reach()
        with self._head:  # one picture
            sealed_upto = self._sealed_upto()
            sealed = [one for one in self._sealed() if reach is None or _is_beyond(one, reach)]
        if not sealed and reach is None:
            return False
        before = reach or Reach(_hour_of(min(one.first_observed_at_us for one in sealed)), 0, 0)
        upto_seq = max(before.upto_seq, sealed_upto)  # what was held stays held where its segments are gone
        closed_us = _hour_of(self._now_us - CLOSED_AFTER_US)
        new = self._new_hours(sealed, before, closed_us)
        before_us = min(closed_us, max([before.before_us, *(hour + HOUR_US for hour in new)]))
        late, lost = self._late_hours(sealed, before, upto_seq), self._lost_hours()
        if new or late or lost or before_us < before.before_us:
            after = Reach(before_us, upto_seq, before.revision + 1)
            self._replace({*new, *lost}, late - {*new, *lost}, before, after)
        return len(new) == HOURS_MAX

    def rebuild(self) -> None:
        """Make what is held again, a day at a time, of the same events; what is new since is left to `run`."""
        before = self._reach()
        if before is None:
            return
        hours = self._known_hours(before)
        for place in range(0, len(hours), 24):
            after = Reach(before.before_us, before.upto_seq, before.revision + 1)
            self._replace(set(), set(hours[place : place + 24]), before, after, is_rebuild=True)
            before = after

    def _reach(self) -> Reach | None:
        row = self._head.execute(
            "select before_us, upto_seq, revision from rolled where kind = ?", (self._kind.name,)
        ).fetchone()
        return Reach(*row) if row else self._adopt()

    def _sealed(self) -> list[Segment]:
        """The segments of today's version of the kind: where there are others, readers ask the events."""
        wanted = (self._kind.name, self._kind.version)
        return [one for one in catalogued(self._head) if (one.kind, one.version) == wanted]

    def _sealed_upto(self) -> int:
        """Every event of the kind with a seq up to this one is in a segment."""
        upto: int = self._head.execute(
            "select coalesce((select min(first_seq) - 1 from frame where kind = :kind), "
            "(select max(last_seq) from segment where kind = :kind), 0)",
            {"kind": self._kind.name},
        ).get
        return upto

    # Which hours

    def _new_hours(self, sealed: Sequence[Segment], before: Reach, closed_us: int) -> list[int]:
        """The closed hours that are not held yet and that a segment meets, the oldest first."""
        hours: list[int] = []
        hour = before.before_us
        while len(hours) < HOURS_MAX:
            later = [max(one.first_observed_at_us, hour) for one in sealed if one.last_observed_at_us >= hour]
            hour = _hour_of(min(later, default=closed_us))
            if hour >= closed_us:
                break
            hours.append(hour)
            hour += HOUR_US
        return hours

    def _late_hours(self, sealed: Sequence[Segment], before: Reach, upto_seq: int) -> set[int]:
        """The hours that are held and got events since."""
        hours: set[int] = set()
        for one in sealed:
            if one.last_seq > before.upto_seq and one.first_observed_at_us < before.before_us:
                for batch in self._batches(one, ("seq", "observed_at")):
                    seq, time_us = batch["seq"].to_numpy(), batch["observed_at"].cast(pa.int64()).to_numpy()
                    is_late = (seq > before.upto_seq) & (seq <= upto_seq) & (time_us < before.before_us)
                    hours.update((time_us[is_late] // HOUR_US * HOUR_US).tolist())
        return hours

    def _lost_hours(self) -> set[int]:
        """The hours of which a file is not there as it was written."""
        lost = [one for one in self._in_force() if not self._is_there(one)]
        return {hour for one in lost for hour in range(_hour_of(one.first_begins_at_us), one.last_ends_at_us, HOUR_US)}

    def _is_there(self, file: RollupFile) -> bool:
        size_bytes: int = self._head.execute("select size_bytes from rollup where path = ?", (file.path,)).get
        try:
            return (self._folder / file.path).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def _known_hours(self, before: Reach) -> list[int]:
        rows = self._head.execute(
            "select begins_at_us from rolled_hour where kind = ? and begins_at_us < ? order by 1",
            (self._kind.name, before.before_us),
        )
        return [hour for (hour,) in rows]

    # Their cells

    def _replace(
        self, new: Collection[int], held: Collection[int], before: Reach, after: Reach, *, is_rebuild: bool = False
    ) -> None:
        """Make the cells of these hours and put them in the place of what there is of them.

        Args:
            new: Hours of which there is nothing, or nothing any more.
            held: Hours of which all events up to `before.upto_seq` have gone into cells.
            before: What the rollups reach now.
            after: What they are to reach.
            is_rebuild: Leave a held hour as it is whose events are no longer all there; else what came late is added.
        """
        anew = set(new)
        made: dict[int, int] = {}  # hour to the number of its events
        pieces: list[RollupFile] = []
        for hour in sorted({*new, *held}):
            events = self._events(hour, after.upto_seq)
            held_count = self._held_count(hour) if hour in held else 0
            is_late = pc.greater(events["seq"], before.upto_seq)
            is_whole = events.num_rows - (pc.sum(is_late).as_py() or 0) >= held_count
            if not is_whole and is_rebuild:
                self._result.hours_kept += 1
                continue
            if is_whole:
                anew.add(hour)
                self._result.hours_made += 1
                made[hour] = events.num_rows
            else:
                events = events.filter(is_late)
                self._result.hours_added_to += 1
                made[hour] = held_count + events.num_rows
            self._result.event_count += events.num_rows
            pieces += self._pieces(hour, events, after)
        in_force = self._arrange(pieces, anew, self._counts(made), after)
        self._commit(in_force, made, after)
        remove_unfinished(self._folder, self._head)  # the pieces that were joined

    def _pieces(self, hour: int, events: pa.Table, after: Reach) -> list[RollupFile]:
        """The cells of one hour in files of their own, per step; none where nothing was measured."""
        pieces = []
        for step, step_s in STEPS_S.items():
            cells = cells_of(self._kind, events, step_s)
            if cells.num_rows:
                file = self._file(step, f"{datetime.fromtimestamp(hour / 1e6, UTC):%Y-%m-%dT%H}", after)
                pieces.append(self._written(file, [Part(cells)], {hour: events.num_rows}, after))
        return pieces

    def _written(self, file: RollupFile, parts: Sequence[Part], counts: Mapping[int, int], after: Reach) -> RollupFile:
        announce(self._head, [file.path])
        return write_cells(self._folder, file, self._kind, parts, Footer(self._ledger_id(), after, counts))

    def _file(self, step: str, name: str, reach: Reach) -> RollupFile:
        path = f"{ROLLUPS_FOLDER}/{self._kind.name}/{step}/{name}-r{reach.revision}.parquet"
        return RollupFile(path, self._kind.name, step, 0, 0, 0)

    def _events(self, hour: int, upto_seq: int) -> pa.Table:
        names = needed_columns(self._kind)
        schema = pa.schema([arrow_schema(self._kind).field(name) for name in names])
        tables = [schema.empty_table()]
        span = (hour, hour + HOUR_US)
        for one in self._sealed():
            if one.last_observed_at_us < span[0] or one.first_observed_at_us >= span[1]:
                continue
            for batch in self._batches(one, names, span):
                time_us = batch["observed_at"].cast(pa.int64())
                is_of_hour = pc.and_(pc.greater_equal(time_us, hour), pc.less(time_us, hour + HOUR_US))
                is_wanted = pc.and_(is_of_hour, pc.less_equal(batch["seq"], upto_seq))
                tables.append(with_schema(batch.filter(is_wanted), schema))
        return pa.concat_tables(tables).combine_chunks()

    def _batches(
        self, sealed: Segment, names: Sequence[str], span: tuple[int, int] = (-(2**62), 2**62)
    ) -> Iterator[pa.RecordBatch]:
        """The columns of a segment, a bounded number of rows at a time, at least those observed in `span`.

        Nothing of a segment that cannot be read: it is damaged or was set aside, which costs its own events.
        """
        try:
            with pq.ParquetFile(self._folder / sealed.path, pre_buffer=False) as file:
                present = [name for name in names if name in file.schema_arrow.names]
                groups = [number for number in range(file.num_row_groups) if _may_meet(file.metadata, number, span)]
                yield from file.iter_batches(8_192, row_groups=groups, columns=present, use_threads=False)
        except READ_ERRORS as error:
            if not is_damage(error):
                raise  # or its events would be missing from the cells for ever
            self._result.unreadable[sealed.path] = str(error)

    def _held_count(self, hour: int) -> int:
        row = self._head.execute(
            "select event_count from rolled_hour where kind = ? and begins_at_us = ?", (self._kind.name, hour)
        ).fetchone()
        return int(row[0]) if row else 0

    def _counts(self, made: Mapping[int, int]) -> dict[int, int]:
        rows = self._head.execute(
            "select begins_at_us, event_count from rolled_hour where kind = ?", (self._kind.name,)
        )
        return {int(hour): int(count) for hour, count in rows} | dict(made)

    # Their files

    def _arrange(
        self, pieces: Sequence[RollupFile], anew: Collection[int], counts: Mapping[int, int], after: Reach
    ) -> list[RollupFile]:
        """Join files where a day or a month has closed, and leave the hours made anew out of those that had them.

        Returns all files that are to be in force.
        """
        groups: dict[tuple[str, str], list[tuple[RollupFile, Collection[int]]]] = {}
        old = [(one, anew) for one in self._in_force() if self._is_there(one)]
        for file, without in [*old, *((piece, ()) for piece in pieces)]:
            name = _span_name(file.step, file.first_begins_at_us, after.before_us)
            groups.setdefault((file.step, name), []).append((file, without))
        in_force = []
        for (step, name), members in groups.items():
            if len(members) == 1 and not _meets(*members[0]):
                in_force.append(members[0][0])
                continue
            parts = [
                Part(self._folder / file.path, without) for file, without in members if not _is_covered(file, without)
            ]
            begins_us = min(file.first_begins_at_us for file, _ in members)
            ends_us = max(file.last_ends_at_us for file, _ in members)
            of_file = {hour: count for hour, count in counts.items() if begins_us <= hour < ends_us}
            written = self._written(self._file(step, name, after), parts, of_file, after)
            if written.row_count:
                in_force.append(written)
        return in_force

    def _in_force(self) -> list[RollupFile]:
        rows = self._head.execute(
            "select path, kind, step, first_begins_at_us, last_ends_at_us, row_count from rollup "
            "where kind = ? order by path",
            (self._kind.name,),
        )
        return [RollupFile(*row) for row in rows]

    def _commit(self, in_force: Sequence[RollupFile], made: Mapping[int, int], after: Reach) -> None:
        kind, head = self._kind.name, self._head
        known = {one.path for one in self._in_force()}
        gone = known - {one.path for one in in_force}
        with transaction(head):  # for writing at once: one that reads first is broken off by an append in between
            let_go(head, self._sizes(gone), removable_at_us=self._now_us + REPLACED_KEPT_US)
            head.executemany("delete from rollup where path = ?", [(path,) for path in gone])
            head.executemany(
                "insert into rollup values (?, ?, ?, ?, ?, ?, ?)",
                [self._row(one) for one in in_force if one.path not in known],
            )
            head.executemany(
                "insert or replace into rolled_hour values (?, ?, ?)", [(kind, hour, n) for hour, n in made.items()]
            )
            head.execute("insert or replace into rolled values (?, ?, ?, ?)", (kind, *_values(after)))
            withdraw(head, [one.path for one in in_force])

    def _sizes(self, paths: Collection[str]) -> dict[str, int]:
        rows = self._head.execute("select path, size_bytes from rollup where kind = ?", (self._kind.name,))
        return {str(path): int(size_bytes) for path, size_bytes in rows if path in paths}

    def _row(self, file: RollupFile) -> tuple[str | int, ...]:
        size_bytes = (self._folder / file.path).stat().st_size
        edges = (file.first_begins_at_us, file.last_ends_at_us)
        return (file.path, file.kind, file.step, *edges, file.row_count, size_bytes)

    def _ledger_id(self) -> str:
        identity: str = self._head.execute("select id from ledger").get
        return identity

    # A head that knows nothing of them

    def _adopt(self) -> Reach | None:
        """Enter the files that are there into a head that has none: it was lost and made again from the segments.

        Of files that overlap the one with the higher revision counts: the others had been replaced by it.
        """
        found = []
        for path in sorted((self._folder / ROLLUPS_FOLDER / self._kind.name).glob("*/*.parquet")):
            try:
                found.append(read_footer(self._folder, path))
            except READ_ERRORS as error:
                if not is_damage(error):
                    raise
                self._result.unreadable[str(path.relative_to(self._folder))] = str(error)
        if not found:
            return None
        found.sort(key=lambda one: -one[1].reach.revision)
        adopted: list[RollupFile] = []
        made: dict[int, int] = {}
        for file, footer in found:
            if not any(_overlap(file, other) for other in adopted):
                adopted.append(file)
                made = {**footer.events_by_hour, **made}
        reach = found[0][1].reach
        self._commit(adopted, made, reach)
        return reach


def _hour_of(time_us: int) -> int:
    return time_us // HOUR_US * HOUR_US


def _may_meet(metadata: pq.FileMetaData, row_group: int, span: tuple[int, int]) -> bool:
    """Whether a row group may hold events observed in [from, to): by its statistics, where it has them."""
    group = metadata.row_group(row_group)
    column = metadata.schema.names.index("observed_at")
    extremes = group.column(column).statistics
    if extremes is None or not extremes.has_min_max:
        return True
    first_us, last_us = (round(extreme.timestamp() * 1e6) for extreme in (extremes.min, extremes.max))
    return bool(first_us < span[1] and last_us >= span[0])


def _is_beyond(one: Segment, reach: Reach) -> bool:
    """Whether a segment has something that is not held."""
    return one.last_observed_at_us >= reach.before_us or one.last_seq > reach.upto_seq


def _values(reach: Reach) -> tuple[int, int, int]:
    return reach.before_us, reach.upto_seq, reach.revision


def _span_name(step: str, begins_at_us: int, before_us: int) -> str:
    """What the file that holds these cells is of: an hour, a day, a month. A closed day's cells lie in wider files."""
    is_closed = begins_at_us // DAY_US * DAY_US + DAY_US <= before_us
    form = {"minute": ("%Y-%m-%dT%H", "%Y-%m-%d"), "hour": ("%Y-%m-%d", "%Y-%m")}[step][is_closed]
    return f"{datetime.fromtimestamp(begins_at_us / 1e6, UTC):{form}}"


def _meets(file: RollupFile, hours: Collection[int]) -> bool:
    return any(file.first_begins_at_us < hour + HOUR_US and hour < file.last_ends_at_us for hour in hours)


def _is_covered(file: RollupFile, hours: Collection[int]) -> bool:
    """Whether all hours of the file are among these: then nothing of it is wanted, and it need not be readable."""
    return all(hour in hours for hour in range(_hour_of(file.first_begins_at_us), file.last_ends_at_us, HOUR_US))


def _overlap(one: RollupFile, other: RollupFile) -> bool:
    edges = (max(one.first_begins_at_us, other.first_begins_at_us), min(one.last_ends_at_us, other.last_ends_at_us))
    return one.step == other.step and edges[0] < edges[1]
