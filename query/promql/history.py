"""Series of the ledger: what a scrape of `/metrics` at every sample would have given.

A series goes stale, as in Prometheus, where a row of its source has no value for it, and where no sample came for as
long as a reading stands for now (`store.events.stale_after_s`): the last value is not given for what is not known.

Where more samples are asked for than are held in memory, rollups stand for them, if the windows of the question are
much longer than a cell: of a gauge each cell's mean, its least or greatest where that is asked for; of a counter its
first and last reading, so that rates are exact.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from query.catalogue import Metric
from query.promql import info
from query.promql.errors import SAMPLES_MAX, EvaluationError, too_many
from query.promql.families import HistoryFamily, Labels, Member, families, labels_of
from query.promql.matching_labels import matches
from query.promql.series import LOOKBACK_MS, Series
from query.promql.tree import Matcher
from query.promql.vectors import Bools, Floats, Ints
from query.reading.columns import Cells, Key, Rows, cell_key_names, key_names
from query.reading.local_source import LocalSource
from query.reading.resolutions import RollupPlan, plan_rollups
from query.reading.trend_parts import Block
from query.reading.trend_reading import TrendPieces, TrendQuestion
from query.windows import Window
from store.events import Field, Kind, stale_after_s
from store.rollups.cells import STEPS_S, series_name
from store.snapshot import RollupExtent

FAR_MS = 10**14  # the year 5138: there are no events beyond it, nor before the epoch
CELLS_A_WINDOW = 5  # windows of so many cells differ little from windows of their samples
HOURS_FROM_DAYS = 31  # beyond that, a minute's cells of 8 GPUs are as many as samples may be


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of several series in no order; `number` tells which is whose. NaN is a row without a value.

    Args:
        number: Of the series, by which of `labels` it is.
        time_us: When.
        seq: In which order they came.
        values: What.
        stands_s: How long each stands for what follows.
    """

    number: Ints
    time_us: Ints
    seq: Ints
    values: Floats
    stands_s: Floats


@dataclass(frozen=True, slots=True)
class History:
    """The series of one host's ledger.

    Args:
        source: The ledger.
        step_ms: The distance of the moments that are asked for; 0 for one alone.
        warnings: Told to whoever asked; what an answer was made from is added.
    """

    source: LocalSource
    step_ms: int = 0
    warnings: list[str] = field(default_factory=list)

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, range_ms: int | None, function: str
    ) -> Sequence[Series]:
        asked = _Asked(start_ms, end_ms, range_ms, self.step_ms, function)
        found = []
        for family in families_of(matchers):
            for member in _wanted_members(family, matchers):
                found += self._series(family, member, asked)
            if family is info.FAMILY:
                up = families()["dgx_gpu_up"]
                found += info.info_series(self.source, self._series(up, up.members[0], asked), end_ms)
            if sum(len(series.time_ms) for series in found) > SAMPLES_MAX:
                raise too_many()
        return [series for series in found if fits(dict(series.labels), matchers)]

    def _series(self, family: HistoryFamily, member: Member, asked: "_Asked") -> list[Series]:
        for choose in asked.choices(member.field):
            question = TrendQuestion(Metric(family.name, family.kind, member.field), asked.window, (), choose)
            pieces = self.source.pieces(question)
            if pieces is not None:
                self._tell(pieces.plan)
                return _assembled(family, member, pieces, asked)
        raise EvaluationError(
            f"{family.name} has more samples between {asked.window.start} and {asked.window.end} than are read at once",
            "ask for a shorter time, or for longer steps and ranges, which rollups can answer",
        )

    def _tell(self, plan: RollupPlan | None) -> None:
        told = plan and f"made from rollups per {plan.resolution}; ask for a shorter time to have every sample"
        if told and told not in self.warnings:
            self.warnings.append(told)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of one family, all in milliseconds."""

    start_ms: int
    end_ms: int
    range_ms: int | None
    step_ms: int
    function: str

    @property
    def window(self) -> Window:
        edges_ms = (min(max(ms, 0), FAR_MS) for ms in (self.start_ms, self.end_ms + 1))
        start, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in edges_ms)
        return Window(start, end, "UTC", "")

    def choices(self, column: Field) -> Iterator["_Choice"]:
        """From the exact to the coarse."""
        yield _Choice(self.window, 1)
        if not column.is_measured:
            return
        finest_ms = self.step_ms if self.range_ms is None else self.range_ms / CELLS_A_WINDOW
        is_hourly = finest_ms >= 1000 * STEPS_S["hour"]
        if finest_ms >= 1000 * STEPS_S["minute"] and not (is_hourly and self.window.seconds > HOURS_FROM_DAYS * 86_400):
            yield _Choice(self.window, STEPS_S["minute"])
        if is_hourly:
            yield _Choice(self.window, STEPS_S["hour"])


@dataclass(frozen=True, slots=True)
class _Choice:
    """Rollups of at most that width."""

    window: Window
    step_s: int

    def __call__(self, extent: RollupExtent | None) -> RollupPlan | None:
        return plan_rollups(self.window, self.step_s, extent)


def known_families() -> Mapping[str, HistoryFamily]:
    """All there are, by name."""
    return {info.FAMILY.name: info.FAMILY, **families()}


def families_of(matchers: Sequence[Matcher]) -> list[HistoryFamily]:
    """The families that the matchers of the name mean."""
    known = known_families()
    names = list(known)
    for matcher in matchers:
        if matcher.label == "__name__":
            names = [name for name, is_it in zip(names, matches(matcher, names), strict=True) if is_it]
    return [known[name] for name in names]


def _wanted_members(family: HistoryFamily, matchers: Sequence[Matcher]) -> list[Member]:
    """The fields that the matchers of their own labels mean: others need not be read."""
    return [member for member in family.members if fits(dict(member.labels), matchers, only_known=True)]


def fits(labels: dict[str, str], matchers: Iterable[Matcher], *, only_known: bool = False) -> bool:
    """Whether all matchers hold; `only_known` leaves out those of labels that are not there."""
    return all(
        matches(matcher, [labels.get(matcher.label, "")])[0]
        for matcher in matchers
        if not only_known or matcher.label in labels
    )


def _assembled(family: HistoryFamily, member: Member, pieces: TrendPieces, asked: _Asked) -> list[Series]:
    numbers: dict[Labels, int] = {}
    found = [_of_block(family, member, block, numbers) for block in pieces.blocks]
    lookback_ms = LOOKBACK_MS
    for step, several in pieces.cells.items():
        ranges = _ranges(pieces.plan, step)
        if several and any(first < after for first, after in ranges):
            lookback_ms = max(lookback_ms, 2000 * STEPS_S[step])
        found += [_of_cells(family, member, cells, step, ranges, asked.function, numbers) for cells in several]
    return list(_split(list(numbers), found, lookback_ms)) if numbers else []


def _ranges(plan: RollupPlan | None, step: str) -> Sequence[tuple[int, int]]:
    if plan is None:
        return ()
    return plan.minutes if step == "minute" else (plan.hours,)


def _of_block(family: HistoryFamily, member: Member, block: Block, numbers: dict[Labels, int]) -> Samples:
    rows, kind = block.rows, family.kind
    values = _row_values(rows, block, member)
    is_wanted = np.ones(len(values), bool) if block.is_wanted is None else block.is_wanted
    if member.field.every_seconds:
        is_wanted = is_wanted & ~np.isnan(values)  # not read with every row: that it is NULL says nothing
    number = _numbers(family, member, rows.keys, key_names(kind), numbers)[rows.code]
    stands_s = np.fmax(rows.interval_s, member.field.every_seconds or 0.0)
    stands_s = np.where(np.isnan(stands_s), kind.expected_every_seconds or 1.0, stands_s)
    stands_s = np.maximum(3 * stands_s, stale_after_s(0))
    return Samples(
        number[is_wanted], rows.time_us[is_wanted], rows.seq[is_wanted], values[is_wanted], stands_s[is_wanted]
    )


def _row_values(rows: Rows, block: Block, member: Member) -> Floats:
    """The value of every row, NaN where it has none."""
    values = np.full(len(rows.time_us), np.nan)
    there = block.values.values
    if member.bit is not None:
        there = (there.astype(np.int64) & member.bit) != 0
    elif member.field.instrument == "counter" and member.field.type == "decimal":
        there = there / 1000
    values[slice(None) if block.values.place is None else block.values.place] = there
    return values


def _numbers(
    family: HistoryFamily, member: Member, keys: Sequence[Key], names: Sequence[str], numbers: dict[Labels, int]
) -> Ints:
    """Of each key the number of its series; runs of one series have the same."""
    found = []
    for key in keys:
        values = dict(zip(names, key, strict=True))
        labels = labels_of(family, member, str(values["host"]), values)
        found.append(numbers.setdefault(labels, len(numbers)))
    return np.array(found, np.int64)


def _of_cells(
    family: HistoryFamily,
    member: Member,
    cells: Cells,
    step: str,
    ranges: Sequence[tuple[int, int]],
    function: str,
    numbers: dict[Labels, int],
) -> Samples:
    columns = cells.columns
    is_wanted = np.zeros(len(cells.code), bool)
    for first_us, after_us in ranges:
        is_wanted |= (columns["begins_at"] >= first_us) & (columns["begins_at"] < after_us)
    number = _numbers(family, member, cells.keys, _key_columns(family.kind, member.field), numbers)[cells.code]
    if member.field.instrument == "counter":
        return _of_counter_cells(member, number, columns, is_wanted, step)
    figure = {"min_over_time": "minimum", "max_over_time": "maximum", "last_over_time": "last"}.get(function, "")
    values = columns[figure] if figure else columns["total"] / columns["n"]
    return _made(number, columns["last_at"], columns["last_seq"], values, is_wanted, step)


def _of_counter_cells(member: Member, number: Ints, columns: Mapping[str, Any], wanted: Bools, step: str) -> Samples:
    """The first and the last reading of each cell."""
    unit = 1000 if member.field.type == "decimal" else 1
    parts = [
        _made(number, columns[f"{edge}_at"], columns[f"{edge}_seq"], columns[f"{edge}_reading"] / unit, wanted, step)
        for edge in ("first", "last")
    ]
    return _joined(parts)


def _made(number: Ints, time_us: Ints, seq: Ints, values: Floats, wanted: Bools, step: str) -> Samples:
    stands_s = np.full(int(wanted.sum()), 2.0 * STEPS_S[step])
    return Samples(number[wanted], time_us[wanted], seq[wanted], np.asarray(values[wanted], float), stands_s)


def _key_columns(kind: Kind, column: Field) -> list[str]:
    """The columns of a cell's key, each by the name that it has in events."""
    return [series_name(kind) if name == "name" else name for name in cell_key_names(kind, column)]


def _joined(parts: Sequence[Samples]) -> Samples:
    return Samples(
        np.concatenate([part.number for part in parts]),
        np.concatenate([part.time_us for part in parts]),
        np.concatenate([part.seq for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.stands_s for part in parts]),
    )


def _split(labels: Sequence[Labels], parts: Sequence[Samples], lookback_ms: int) -> Iterator[Series]:
    """Each series by itself, in order of time, of a millisecond the sample that came last."""
    samples = _joined(parts)
    time_ms = samples.time_us // 1000
    order = np.lexsort((samples.seq, time_ms, samples.number))
    number, time_ms = samples.number[order], time_ms[order]
    edges = np.searchsorted(number, np.arange(len(labels) + 1))
    for place, one in enumerate(labels):
        part = order[edges[place] : edges[place + 1]]
        if len(part):
            at_ms = time_ms[edges[place] : edges[place + 1]]
            is_last = np.append(at_ms[1:] != at_ms[:-1], True)
            found = _marked(at_ms[is_last], samples.values[part][is_last], samples.stands_s[part][is_last])
            yield Series(one, *found, lookback_ms)


def _marked(time_ms: Ints, values: Floats, stands_s: Floats) -> tuple[Ints, Floats]:
    """The samples with a stale marker behind each that none follows while it stands."""
    ends_ms = time_ms + np.round(stands_s * 1000).astype(np.int64)
    is_followed = np.append(time_ms[1:] <= ends_ms[:-1], False)
    behind = np.flatnonzero(~is_followed)
    return np.insert(time_ms, behind + 1, ends_ms[behind] + 1), np.insert(values, behind + 1, np.nan)
