"""An expression asked of a ledger, at one moment or at many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from query.promql.errors import ExpressionError
from query.promql.evaluation import Evaluation
from query.promql.history import History
from query.promql.parser import parse, type_of
from query.promql.series import Series
from query.promql.tree import Call, Node, Selector, Text
from query.promql.vectors import Ints, Vector
from query.reading.local_source import LocalSource

MOMENTS_MAX = 11_000  # of one range, as in Prometheus

ResultType = Literal["scalar", "string", "vector", "matrix"]


@dataclass(frozen=True, slots=True)
class PromAnswer:
    """What an expression came to.

    Args:
        type: As Prometheus names it.
        series: The values; of a scalar and a string one series without labels.
        text: Of a string.
        warnings: What whoever asked should know.
    """

    type: ResultType
    series: Sequence[Series]
    text: str = ""
    warnings: Sequence[str] = ()


def ask_at(source: LocalSource, expression: str, at_ms: int) -> PromAnswer:
    """An expression at one moment, milliseconds since the epoch.

    Raises:
        ExpressionError, EvaluationError: It cannot be answered.
        NoLedgerError, LedgerUnusableError: There is nothing to answer from.
    """
    node, history = parse(expression), History(source)
    moments = np.array([at_ms])
    evaluation = Evaluation(history, moments)
    if isinstance(node, Text):
        return PromAnswer("string", [Series((), moments, np.array([np.nan]))], node.value)
    if isinstance(node, Selector) and node.range_ms is not None:
        return PromAnswer("matrix", _ordered(evaluation.samples(node)), warnings=history.warnings)
    value = evaluation.value(node)
    if not isinstance(value, Vector):
        return PromAnswer("scalar", [Series((), moments, value)])
    series = _series(value, moments)
    return PromAnswer("vector", series if _is_ordered(node) else _ordered(series), warnings=history.warnings)


def ask_between(source: LocalSource, expression: str, start_ms: int, end_ms: int, step_ms: int) -> PromAnswer:
    """An expression at each moment from `start_ms` on, `step_ms` apart, up to `end_ms`. Raises as `ask_at`."""
    if end_ms < start_ms:
        raise ExpressionError('invalid parameter "end": end timestamp must not be before start time')
    if step_ms <= 0:
        raise ExpressionError(
            'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
            "Try a positive integer"
        )
    if (end_ms - start_ms) // step_ms > MOMENTS_MAX:
        raise ExpressionError(
            "exceeded maximum resolution of 11,000 points per timeseries. "
            "Try decreasing the query resolution (?step=XX)"
        )
    node = parse(expression)
    if (kind := type_of(node)) not in ("scalar", "instant vector"):
        raise ExpressionError(f'invalid expression type "{kind}" for range query, must be Scalar or instant Vector')
    moments = np.arange(start_ms, end_ms + 1, step_ms, dtype=np.int64)
    history = History(source, step_ms)
    value = Evaluation(history, moments).value(node)
    if not isinstance(value, Vector):
        return PromAnswer("matrix", [Series((), moments, value)])
    return PromAnswer("matrix", _ordered(_series(value, moments)), warnings=history.warnings)


def _series(vector: Vector, moments: Ints) -> list[Series]:
    rows = zip(vector.labels, vector.values, vector.present, strict=True)
    return [Series(labels, moments[here], values[here]) for labels, values, here in rows if here.any()]


def _ordered(series: Sequence[Series]) -> list[Series]:
    return sorted(series, key=lambda one: one.labels)


def _is_ordered(node: Node) -> bool:
    """Whether the order of the result is part of it."""
    if isinstance(node, Call):
        return node.function in ("sort", "sort_desc")
    return getattr(node, "operation", "") in ("topk", "bottomk")
