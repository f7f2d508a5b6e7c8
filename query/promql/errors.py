"""Expressions that cannot be answered. Both come to a client in Prometheus' own shape of an error."""

from store.errors import UsageError


class ExpressionError(UsageError):
    """It is no PromQL, or one whose types do not fit: Prometheus' `bad_data`."""


class EvaluationError(UsageError):
    """It is PromQL and cannot be evaluated, or not here: Prometheus' `execution`."""


def unsupported(what: str) -> EvaluationError:
    return EvaluationError(f"{what} is not supported over the ledger", "docs/how-to/grafana.md lists what is")
