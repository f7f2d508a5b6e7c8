"""Expressions that cannot be answered. Both come to a client in Prometheus' own shape of an error."""

from store.errors import UsageError


class ExpressionError(UsageError):
    """It is no PromQL, or one whose types do not fit: Prometheus' `bad_data`."""


class EvaluationError(UsageError):
    """It is PromQL and cannot be evaluated, or not here: Prometheus' `execution`."""


def unsupported(what: str) -> EvaluationError:
    return EvaluationError(f"{what} is not supported over the ledger", "docs/operating/grafana.md lists what is")


SAMPLES_MAX = 50_000_000
"""Of one selector, read or answered: Prometheus' own default, 400 MB as numbers."""


def too_many() -> EvaluationError:
    return EvaluationError(
        "query processing would load too many samples into memory in query execution",
        "name the metric and its labels more closely, or ask for a shorter time",
    )
