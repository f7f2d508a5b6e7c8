"""What is different between two windows, the most certain difference first.

Each window is cut into up to `STEPS_MAX` steps, and the steps' means of each series are compared by
`query.statistics.effect_size`: ranks say how far the two lie apart whatever their distribution, medians by how much.
Every series of every metric that both windows have is compared, so of a hundred that did not change a few look as if
they had: the interval of each is told, and the order is by its end that is nearer to nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from query.analysis import Analysis
from query.catalogue import Metric, find_metric, metrics
from query.engine import Source, in_window, sql_text
from query.history.steps import History, SeriesHistory, read_history
from query.history.trends import STEPS_S
from query.statistics.effect_size import EffectSize, Strength, effect_size
from query.windows import Window

STEPS_MAX = 288
STEPS_MIN = 8  # known ones on each side: ranks of fewer can be anything
STEP_LEAST_S = 5  # what is read at the warm pace has a value in each
COVERAGE_APART = 0.1  # two windows of which so much more of one was recorded are not quite the same thing
NOT_COMPARED = ("uptime.seconds",)  # grows by itself


@dataclass(frozen=True, slots=True)
class Difference:
    """How one series of one metric differs.

    Args:
        metric, unit: Of what.
        label, series: Which; as in `query.history.trends.TrendSeries`.
        coverage_before, coverage_after: Share of each window that was recorded; None for what is not sampled.
        effect: By how much, with its interval.
        strength: The same in a word.
    """

    metric: str
    unit: str
    label: str
    series: str
    coverage_before: float | None
    coverage_after: float | None
    effect: EffectSize
    strength: Strength


@dataclass(frozen=True, slots=True)
class Comparison(Analysis):
    """What is different between two windows.

    Args:
        window: The window that was asked about: `after`.
        reference: The one it is compared with: `before`.
        coverage: The less of the two shares that were recorded, the mean over the series.
        n: Series that were compared.
        step_s: Width of the steps whose means were compared.
        differences: The most certain first; one for each series that was compared.
        only_before, only_after: Series that one window alone has, as `metric label`.
    """

    reference: Window
    step_s: int
    differences: tuple[Difference, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def changed(self) -> tuple[Difference, ...]:
        """Those that are certain and matter."""
        return tuple(one for one in self.differences if one.effect.is_certain and one.strength != "negligible")


def compare_windows(
    source: Source, before: Window, after: Window, names: Sequence[str] = (), *, gpus: Sequence[int] = ()
) -> Comparison:
    """What is different in `after` from `before`.

    Args:
        source: Where the events are.
        before: The window to compare with.
        after: The window that is asked about.
        names: The metrics; every one that both windows have where empty.
        gpus: Only these GPU indexes, and only metrics of GPUs; all where empty.

    Raises:
        UnknownMetricError: There is no such metric.
        UnknownGpuError: A window has no such GPU.
    """
    step_s = step_of(min(before.seconds, after.seconds))
    wanted = [find_metric(name) for name in names] or shared_metrics(source, before, after, gpus)
    compared = Gathered()
    for metric in wanted:
        first, second = (read_history(source, metric, window, step_s, gpus=gpus) for window in (before, after))
        compared.add(first, second)
    return compared.comparison(before, after, step_s)


def step_of(seconds: float) -> int:
    """The step for windows of so many seconds: the least round one that gives at most `STEPS_MAX`."""
    return next((one for one in STEPS_S if one >= max(STEP_LEAST_S, seconds / STEPS_MAX)), STEPS_S[-1])


def shared_metrics(source: Source, before: Window, after: Window, gpus: Sequence[int]) -> list[Metric]:
    """The metrics that have values in both windows."""
    present = [_present(source, window) for window in (before, after)]
    return [
        metric
        for metric in metrics().values()
        if all(metric.column.name in one.get(metric.kind.name, ()) for one in present)
        and metric.name not in NOT_COMPARED
        and not (gpus and "gpu_index" not in metric.kind.by_name)
    ]


def _present(source: Source, window: Window) -> Mapping[str, set[str]]:
    """The measured columns of each kind that are not NULL throughout the window."""
    columns: dict[str, list[str]] = {}
    for metric in metrics().values():
        columns.setdefault(metric.kind.name, []).append(metric.column.name)
    found = {}
    with source.engine(columns, start_us=window.start_us, end_us=window.end_us) as engine:
        for kind, names in columns.items():
            text = sql_text("present_columns").format(
                counts=", ".join(f"count({name}) as {name}" for name in names),
                relation=engine.relation(kind),
                in_window=in_window(engine),
            )
            rows = engine.query(text, start=window.start_us, end=window.end_us).to_pylist()
            found[kind] = {name for row in rows for name in names if row[name]}
    return found


class Gathered:
    """Gathers the differences of metric after metric."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.only: tuple[list[str], list[str]] = ([], [])
        self._too_short = 0

    def add(
        self,
        before: History,
        after: History,
        chosen: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
    ) -> None:
        """The series of one metric in both windows; `chosen` says which steps of each count, all where None."""
        counted = chosen or tuple(np.ones(len(one.starts_us), bool) for one in (before, after))
        of_before, of_after = ({one.series: one for one in history.series} for history in (before, after))
        for series, one in of_before.items():
            other = of_after.pop(series, None)
            if other is None:
                self.only[0].append(f"{before.metric.name} {one.label or series}")
            else:
                self._add(before.metric, one, other, counted[0], counted[1])
        self.only[1].extend(f"{after.metric.name} {one.label or one.series}" for one in of_after.values())

    def _add(
        self,
        metric: Metric,
        before: SeriesHistory,
        after: SeriesHistory,
        is_before: NDArray[np.bool_],
        is_after: NDArray[np.bool_],
    ) -> None:
        values = [
            one.values[counts & ~np.isnan(one.values)] for one, counts in ((before, is_before), (after, is_after))
        ]
        if min(map(len, values)) < STEPS_MIN:
            self._too_short += 1
            return
        effect = effect_size(*values)
        self.differences.append(
            Difference(
                metric.name, metric.unit, after.label, after.series, before.coverage, after.coverage,
                effect, effect.strength,
            )
        )  # fmt: skip

    def comparison(self, before: Window, after: Window, step_s: int) -> Comparison:
        ranked = sorted(self.differences, key=_rank)
        return Comparison(
            window=after,
            reference=before,
            coverage=min((self._coverage("coverage_before"), self._coverage("coverage_after"))),
            n=len(ranked),
            step_s=step_s,
            method=f"Cliff's delta of the means of {step_s} s, with a 95 % interval for neighbours that are alike",
            limits=tuple(self._limits()),
            differences=tuple(ranked),
            only_before=tuple(self.only[0]),
            only_after=tuple(self.only[1]),
        )

    def _coverage(self, name: str) -> float:
        told = [value for one in self.differences if (value := getattr(one, name)) is not None]
        return float(np.mean(told)) if told else 0.0

    def _limits(self) -> Iterator[str]:
        yield "says what is different, not why; of many series a few differ by chance"
        apart = [
            one
            for one in self.differences
            if abs((one.coverage_before or 0.0) - (one.coverage_after or 0.0)) > COVERAGE_APART
        ]
        if apart:
            yield f"of {len(apart)} series clearly more was recorded in one window than in the other"
        if self._too_short:
            yield f"{self._too_short} series have fewer than {STEPS_MIN} recorded steps in a window"


def _rank(one: Difference) -> tuple[Any, ...]:
    is_small = one.strength == "negligible"
    return is_small, -one.effect.certain_delta, -abs(one.effect.standardised), one.metric, one.label
