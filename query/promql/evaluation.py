"""An expression's value at each moment of a question."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from query.promql import functions
from query.promql.aggregation import aggregate
from query.promql.errors import SAMPLES_MAX, too_many
from query.promql.families import Labels
from query.promql.matching import Value, binary
from query.promql.ranges import RANGE_FUNCTIONS, RangeFunction, Windows, line_of, quantile, windows_of
from query.promql.series import LOOKBACK_MS, Series
from query.promql.tree import Aggregate, Binary, Call, Matcher, Negative, Node, Number, Selector
from query.promql.vectors import Bools, Floats, Ints, Vector, empty

_ONE = Number(1.0)


class Recorded(Protocol):
    """Where series come from."""

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, range_ms: int | None, function: str
    ) -> Sequence[Series]:
        """The series that all matchers mean, with at least their samples of [start, end].

        Args:
            matchers: Which.
            start_ms: When, from …
            end_ms: … to, both included.
            range_ms: The length of the windows that are asked for; None for single moments.
            function: What is asked of the windows.
        """


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One question: the moments it asks for, and where its series come from."""

    recorded: Recorded
    moment_ms: Ints

    def value(self, node: Node) -> Value:
        """What a scalar or an instant vector is at each moment.

        Raises:
            EvaluationError: It cannot be told.
        """
        match node:
            case Number(value=number):
                return np.full(len(self.moment_ms), number)
            case Selector():
                return self._instant(node)
            case Negative(operand=operand):
                value = self.value(operand)
                return value.mapped(np.negative) if isinstance(value, Vector) else -value
            case Aggregate():
                parameter = None if node.parameter is None else self._scalar(node.parameter)
                return aggregate(node, self._vector(node.argument), parameter)
            case Binary(left=left, right=right):
                return binary(node, self.value(left), self.value(right))
            case Call():
                return self._call(node)
        raise TypeError(node)  # a text, which no function takes

    def samples(self, selector: Selector) -> list[Series]:
        """A range vector at the only moment of an instant question, without stale markers."""
        found = []
        for series in self._select(selector, ""):
            windows = self._windows(selector, series)
            part = slice(int(windows.first[0]), int(windows.after[0]))
            if windows.count[0]:
                found.append(Series(series.labels, windows.time_ms[part], windows.values[part]))
        return found

    def _scalar(self, node: Node) -> Floats:
        return cast("Floats", self.value(node))  # as the parser saw to

    def _vector(self, node: Node) -> Vector:
        return cast("Vector", self.value(node))  # likewise

    def _select(self, selector: Selector, function: str) -> Sequence[Series]:
        back_ms = LOOKBACK_MS if selector.range_ms is None else selector.range_ms
        start_ms, end_ms = int(self.moment_ms[0]), int(self.moment_ms[-1])
        first_ms, last_ms = start_ms - selector.offset_ms - back_ms, end_ms - selector.offset_ms
        found = self.recorded.select(selector.matchers, first_ms, last_ms, selector.range_ms, function)
        if len(found) * len(self.moment_ms) > SAMPLES_MAX:
            raise too_many()
        return found

    def _instant(self, selector: Selector) -> Vector:
        """The newest sample of each series, where it is not stale and no older than the lookback."""
        rows = [self._newest(selector, series) for series in self._select(selector, "")]
        return _stacked([(labels, values) for labels, _, values in rows], len(self.moment_ms))

    def _newest(self, selector: Selector, series: Series) -> tuple[Labels, Ints, Floats]:
        """Of each moment the time and the value of the sample that stands for it; NaN where there is none."""
        wanted_ms = self.moment_ms - selector.offset_ms
        at = np.searchsorted(series.time_ms, wanted_ms, "right") - 1
        time_ms = series.time_ms[at]
        is_there = (at >= 0) & (time_ms >= wanted_ms - series.lookback_ms)
        return series.labels, time_ms, np.where(is_there, series.values[at], np.nan)

    def _windows(self, selector: Selector, series: Series) -> Windows:
        is_value = ~np.isnan(series.values)
        time_ms, values = series.time_ms[is_value], series.values[is_value]
        return windows_of(time_ms, values, self.moment_ms, selector.range_ms or 0, selector.offset_ms)

    def _call(self, node: Call) -> Value:
        name, arguments = node.function, node.arguments
        if name in RANGE_FUNCTIONS:
            return self._over_time(name, RANGE_FUNCTIONS[name], arguments[0])
        if name in functions.OF_VALUES:
            return self._vector(arguments[0]).mapped(functions.OF_VALUES[name])
        if name in ("clamp", "clamp_min", "clamp_max"):
            return self._clamped(name, node)
        return _FUNCTIONS[name](self, *arguments)

    def predict_linear(self, node: Node, ahead: Node) -> Vector:
        ahead_s = self._scalar(ahead)
        return self._over_time("predict_linear", RangeFunction(lambda one: line_of(one, ahead_s), 2), node)

    def round(self, node: Node, nearest: Node = _ONE) -> Vector:
        to_nearest = self._scalar(nearest)
        return self._vector(node).mapped(lambda values: functions.rounded(values, to_nearest))

    def scalar_of(self, node: Node) -> Floats:
        return functions.scalar_of(self._vector(node))

    def vector_of(self, node: Node) -> Vector:
        return functions.vector_of(self._scalar(node))

    def time(self) -> Floats:
        return self.moment_ms / 1000

    def absent(self, node: Node) -> Vector:
        return _absent(node, self._vector(node))

    def sort(self, node: Node) -> Vector:
        return _sorted(self._vector(node), is_descending=False)

    def sort_desc(self, node: Node) -> Vector:
        return _sorted(self._vector(node), is_descending=True)

    def _clamped(self, name: str, node: Call) -> Vector:
        vector, *bounds = node.arguments
        infinite = np.full(len(self.moment_ms), np.inf)
        given = [self._scalar(bound) for bound in bounds]
        least, most = {"clamp_min": (given[0], infinite), "clamp_max": (-infinite, given[0])}.get(name, given)
        return functions.clamped(self._vector(vector), least, most)

    def timestamp(self, node: Node) -> Vector:
        """Of a selector the times of its samples; of all else the moments themselves."""
        if isinstance(node, Selector):
            rows = [self._newest(node, series) for series in self._select(node, "")]
            found = [(labels, np.where(np.isnan(values), np.nan, at / 1000)) for labels, at, values in rows]
            return _stacked(found, len(self.moment_ms)).unnamed()
        return self._vector(node).mapped(lambda values: np.broadcast_to(self.moment_ms / 1000, values.shape))

    def _over_time(self, name: str, function: RangeFunction, node: Node) -> Vector:
        selector, found = cast("Selector", node), []
        for series in self._select(selector, name):
            windows = self._windows(selector, series)
            filled = windows.count >= function.samples_min
            if filled.any():
                found.append((series.labels, _of_filled(function, windows, filled), filled))
        vector = Vector(
            tuple(labels for labels, _, _ in found),
            np.array([values for _, values, _ in found]).reshape(-1, len(self.moment_ms)),
            np.array([filled for _, _, filled in found], bool).reshape(-1, len(self.moment_ms)),
        )
        return vector if function.keeps_name else vector.unnamed()

    def quantile_over_time(self, of_what: Node, node: Node) -> Vector:
        share = self._scalar(of_what)

        def of(windows: Windows) -> Floats:
            found = np.full(len(share), np.nan)
            for at in np.flatnonzero(windows.count):
                found[at] = quantile(share[at], windows.values[windows.first[at] : windows.after[at]])
            return found

        return self._over_time("quantile_over_time", RangeFunction(of), node)


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "predict_linear": Evaluation.predict_linear,
    "quantile_over_time": Evaluation.quantile_over_time,
    "round": Evaluation.round,
    "scalar": Evaluation.scalar_of,
    "vector": Evaluation.vector_of,
    "time": Evaluation.time,
    "timestamp": Evaluation.timestamp,
    "absent": Evaluation.absent,
    "sort": Evaluation.sort,
    "sort_desc": Evaluation.sort_desc,
}


def _of_filled(function: RangeFunction, windows: Windows, filled: Bools) -> Floats:
    """What the function gives; the windows that have too little are computed too, of whatever is there."""
    most = len(windows.values) - 1
    safe = Windows(
        windows.time_ms,
        windows.values,
        windows.start_ms,
        windows.end_ms,
        windows.moment_ms,
        np.where(filled, windows.first, 0),
        np.where(filled, windows.after, min(function.samples_min, most + 1)),
    )
    with np.errstate(all="ignore"):
        return function.of(safe)


def _stacked(rows: Sequence[tuple[Labels, Floats]], moments: int) -> Vector:
    kept = [(labels, values) for labels, values in rows if not np.isnan(values).all()]
    if not kept:
        return empty(moments)
    values = np.array([values for _, values in kept])
    return Vector(tuple(labels for labels, _ in kept), values, ~np.isnan(values))


def _absent(node: Node, vector: Vector) -> Vector:
    """1 where the vector has nothing, with the labels that were asked for by =."""
    is_absent: Bools = np.logical_not(vector.present.any(axis=0))
    if not is_absent.any():
        return empty(len(is_absent))
    matchers = node.matchers if isinstance(node, Selector) else ()
    names = [matcher.label for matcher in matchers]
    labels = tuple(
        sorted(
            (matcher.label, matcher.value)
            for matcher in matchers
            if matcher.operator == "=" and matcher.label != "__name__" and names.count(matcher.label) == 1
        )
    )
    return Vector((labels,), np.ones((1, len(is_absent))), is_absent[None, :])


def _sorted(vector: Vector, *, is_descending: bool) -> Vector:
    """In the order of the values at the last moment, NaN last."""
    if not vector.labels:
        return vector
    last = vector.values[:, -1]
    order = np.lexsort((-last if is_descending else last, np.isnan(last)))
    return vector.taken(order)
