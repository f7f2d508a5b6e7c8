"""Reading what a trend is made of from the ledger of this host: the events and the cells of one picture."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from query.catalogue import Metric
from query.reading.column_cache import ColumnCache
from query.reading.columns import Cells, Rows, Values
from query.reading.resolutions import Range, RollupPlan
from query.reading.tail_columns import TailColumns, TailPicture, tail_picture
from query.reading.trend_parts import Block, TrendParts, parts_of_events, parts_of_plan
from query.windows import Window
from store.snapshot import LedgerReader, NotRolled, RollupExtent

Found = TypeVar("Found")

EVENTS_MAX = 2_000_000  # 70 MB of them as arrays: a window with more of them is the engine's

Choice = Callable[[RollupExtent | None], RollupPlan | None]
"""How to answer, by what the rollups hold."""


class TrendReading(NamedTuple):
    """What a trend is made of, and how it was chosen; `plan` is None where it is events alone."""

    made: TrendParts
    plan: RollupPlan | None


class _DamagedError(Exception):
    """Some files could not be read."""

    def __init__(self, files: Mapping[Path, str]) -> None:
        super().__init__()
        self.files = files


@dataclass(frozen=True, slots=True)
class TrendQuestion:
    """One metric in one window.

    Args:
        metric: Which.
        window: When.
        gpus: Only these GPU indexes; all where empty.
        choose: How to answer.
    """

    metric: Metric
    window: Window
    gpus: Sequence[int]
    choose: Choice

    @property
    def span(self) -> Range:
        return self.window.start_us, self.window.end_us


@dataclass(frozen=True, slots=True)
class TrendPieces:
    """The events and the cells of one picture, as they were read.

    Args:
        plan: How it was chosen; None where it is events alone.
        blocks: The events.
        cells: Of each step, what its files hold: cells beyond the plan's ranges, too.
    """

    plan: RollupPlan | None
    blocks: Sequence[Block]
    cells: Mapping[str, Sequence[Cells]]


def read_trend(
    folder: Path, cache: ColumnCache, left_out: dict[Path, str], question: TrendQuestion
) -> TrendReading | None:
    """What a trend is made of; None where it is more than is held in memory, or of an earlier version of the kind.

    Args:
        folder: The ledger's folder.
        cache: What was read before.
        left_out: The damaged files that are known, path to reason; what is found is added. Without one of cells the
            events answer.
        question: What is asked.
    """
    pieces = read_pieces(folder, cache, left_out, question)
    if pieces is None:
        return None
    if pieces.plan is None:
        return TrendReading(parts_of_events(question.metric, question.gpus, pieces.blocks), None)
    parts = parts_of_plan(question.metric, question.gpus, pieces.blocks, pieces.cells, pieces.plan)
    return TrendReading(parts, pieces.plan)


def read_pieces(
    folder: Path, cache: ColumnCache, left_out: dict[Path, str], question: TrendQuestion
) -> TrendPieces | None:
    """The events and cells of which a trend is made. What it takes and when it is None is as above."""
    while True:
        picture = _picture(folder, cache, left_out, question)
        if picture is None:
            return None
        try:
            return picture.read(cache, left_out)
        except _DamagedError as error:
            left_out.update(error.files)  # one that was only merged or replaced meanwhile is in no picture again


@dataclass(frozen=True, slots=True)
class _Picture:
    """The files and the tail of one moment."""

    question: TrendQuestion
    plan: RollupPlan | None
    events: NotRolled
    tail: TailPicture | None
    cells: Mapping[str, Sequence[Path]]

    def read(self, cache: ColumnCache, left_out: Collection[Path]) -> TrendPieces:
        blocks = list(self._blocks(cache, left_out))
        cells = {step: [self._cells(cache, path, step) for path in paths] for step, paths in self.cells.items()}
        return TrendPieces(self.plan, blocks, cells)

    def _cells(self, cache: ColumnCache, path: Path, step: str) -> Cells:
        kind, field = self.question.metric.kind, self.question.metric.column
        return _read(path, lambda: cache.cells(path, kind, field, with_sketch=step == "hour"))

    def _blocks(self, cache: ColumnCache, left_out: Collection[Path]) -> Iterator[Block]:
        """Each event once: those of the ranges, and what came late to the rest."""
        kind, field = self.question.metric.kind, self.question.metric.column
        ranges = [edges for edges, _ in self.events.ranges]

        def events(paths: Iterable[Path], span: Range) -> Iterator[tuple[Rows, Values]]:
            for path in paths:
                if path not in left_out:
                    yield from _read(path, partial(cache.events, path, kind, field, span))

        for edges, paths in self.events.ranges:
            yield from (Block(rows, values, _within(rows, edges)) for rows, values in events(paths, edges))
        late = events(self.events.late, self.question.span)
        yield from (Block(rows, values, self._is_late(rows, ranges)) for rows, values in late)
        if self.tail:
            tail = self.tail.columns(kind, field)
            cache.keep_tail(kind, field, tail)
            yield Block(tail.rows, tail.values, self._is_wanted_of_tail(tail.rows, ranges))

    def _is_late(self, rows: Rows, ranges: Iterable[Range]) -> NDArray[np.bool_]:
        is_late = self._is_in_window(rows) & (rows.seq > _upto_seq(self.plan))
        return is_late & ~_is_in_any(rows, ranges)

    def _is_wanted_of_tail(self, rows: Rows, ranges: Iterable[Range]) -> NDArray[np.bool_]:
        return self._is_in_window(rows) & (_is_in_any(rows, ranges) | (rows.seq > _upto_seq(self.plan)))

    def _is_in_window(self, rows: Rows) -> NDArray[np.bool_]:
        return _is_in_any(rows, [self.question.span])


def _read(path: Path, read: Callable[[], Found]) -> Found:
    """What is read of a file; where that fails for damage, the damage."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        from store.repair.soundness import why_unreadable  # noqa: PLC0415 - only who meets damage pays for it

        if reason := why_unreadable(path):
            raise _DamagedError({path: reason}) from error
        raise


def _within(rows: Rows, edges: Range) -> NDArray[np.bool_] | None:
    """Which rows lie in [from, to); None for all."""
    if edges[0] <= rows.first_us and rows.last_us < edges[1]:
        return None
    return _is_in_any(rows, [edges])


def _is_in_any(rows: Rows, ranges: Iterable[Range]) -> NDArray[np.bool_]:
    is_in = np.zeros(len(rows.time_us), bool)
    for first_us, after_us in ranges:
        is_in |= (rows.time_us >= first_us) & (rows.time_us < after_us)
    return is_in


def _picture(folder: Path, cache: ColumnCache, left_out: Collection[Path], question: TrendQuestion) -> _Picture | None:
    tail = cache.tail(question.metric.kind, question.metric.column)  # before the picture, so that it is no newer
    with LedgerReader(folder) as reader, reader.one_picture():
        return _taken(reader, left_out, question, tail)


def _taken(
    reader: LedgerReader, left_out: Collection[Path], question: TrendQuestion, before: TailColumns | None
) -> _Picture | None:
    kind = question.metric.kind.name
    plan = question.choose(reader.rollup_extent(kind))
    cells = {step: _files(reader, kind, step, ranges) for step, ranges in plan.cells.items()} if plan else {}
    if any(path in left_out for paths in cells.values() for path in paths):
        plan, cells = None, {}
    ranges = list(plan.event_ranges(question.window)) if plan else [question.span]
    is_older = plan is None and reader.has_older(kind)  # cells are made of today's version alone
    if is_older or sum(reader.event_count(kind, *one) for one in ranges) > EVENTS_MAX:
        return None
    events = reader.not_rolled(kind, ranges, question.span, _upto_seq(plan))
    return _Picture(question, plan, events, tail_picture(reader, kind, before), cells)


def _upto_seq(plan: RollupPlan | None) -> int:
    """What came later than this seq is in no cell; nothing is late where there are none."""
    return plan.upto_seq if plan else 2**63 - 1


def _files(reader: LedgerReader, kind: str, step: str, ranges: Iterable[Range]) -> list[Path]:
    found = (reader.rollup_files(kind, step, *one) for one in ranges if one[0] < one[1])
    return list(dict.fromkeys(path for paths in found for path in paths))
