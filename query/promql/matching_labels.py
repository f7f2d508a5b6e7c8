"""Which labels a matcher means."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from query.promql.errors import ExpressionError
from query.promql.tree import Matcher


def matches(matcher: Matcher, values: Sequence[str]) -> list[bool]:
    """Of each value whether the matcher's condition holds.

    A regular expression is RE2's, as in Prometheus, and means the whole value: it takes no time beyond its length.

    Raises:
        ExpressionError: It is no regular expression.
    """
    if matcher.operator in ("=", "!="):
        return [(value == matcher.value) == (matcher.operator == "=") for value in values]
    try:
        found = pc.match_substring_regex(pa.array(values, pa.string()), pattern=f"^(?:{matcher.value})$")
    except pa.ArrowInvalid as error:
        reason = str(error).removeprefix("Invalid regular expression: ")
        raise ExpressionError(f"error parsing regexp {matcher.value!r}: {reason}") from None
    return [is_it == (matcher.operator == "=~") for is_it in found.to_pylist()]


def check_regex(pattern: str) -> None:
    """Raises ExpressionError where RE2 cannot read it, whatever it is to be matched with."""
    matches(Matcher("", "=~", pattern), [""])
