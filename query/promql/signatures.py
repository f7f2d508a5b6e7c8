"""The functions and aggregations there are, and what they take."""

from dataclasses import dataclass

from query.promql.tree import ValueType

AGGREGATIONS = frozenset(
    ("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile")
)
PARAMETERS = frozenset(("topk", "bottomk", "quantile"))


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and gives; the first `least` arguments are not left out."""

    arguments: tuple[ValueType, ...]
    least: int
    result: ValueType


def _signature(*arguments: ValueType, least: int | None = None, result: ValueType = "instant vector") -> Signature:
    return Signature(arguments, len(arguments) if least is None else least, result)


_OF_RANGES = (
    "rate", "increase", "irate", "delta", "idelta", "deriv", "changes", "resets", "avg_over_time", "min_over_time",
    "max_over_time", "sum_over_time", "count_over_time", "last_over_time", "present_over_time", "stddev_over_time",
    "stdvar_over_time",
)  # fmt: skip
_OF_VALUES = ("abs", "ceil", "floor", "sqrt", "exp", "ln", "log2", "log10", "sgn", "timestamp", "sort", "sort_desc")

FUNCTIONS = {
    **dict.fromkeys(_OF_RANGES, _signature("range vector")),
    **dict.fromkeys(_OF_VALUES, _signature("instant vector")),
    "quantile_over_time": _signature("scalar", "range vector"),
    "predict_linear": _signature("range vector", "scalar"),
    "round": _signature("instant vector", "scalar", least=1),
    "clamp": _signature("instant vector", "scalar", "scalar"),
    "clamp_min": _signature("instant vector", "scalar"),
    "clamp_max": _signature("instant vector", "scalar"),
    "absent": _signature("instant vector"),
    "scalar": _signature("instant vector", result="scalar"),
    "vector": _signature("scalar"),
    "time": _signature(result="scalar"),
}

UNSUPPORTED_FUNCTIONS = frozenset(
    (
        "absent_over_time", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "day_of_month",
        "day_of_week", "day_of_year", "days_in_month", "deg", "histogram_avg", "histogram_count", "histogram_fraction",
        "histogram_quantile",
        "histogram_stddev", "histogram_stdvar", "histogram_sum", "holt_winters", "hour", "label_join", "label_replace",
        "mad_over_time", "minute", "month", "pi", "rad", "sin", "sinh", "sort_by_label", "sort_by_label_desc", "tan",
        "tanh", "year",
    )
)  # fmt: skip
"""Those of Prometheus that are not here, so that an expression with one of them is told from a misspelt one."""
