"""One series, as it was recorded or as it is answered."""

from dataclasses import dataclass

from query.promql.families import Labels
from query.promql.vectors import Floats, Ints

LOOKBACK_MS = 300_000


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one series.

    Args:
        labels: Of it, its name included.
        time_ms: When, in their order.
        values: NaN where it became stale: from there on it has no value until the next.
        lookback_ms: How long a sample stands for the moments after it.
    """

    labels: Labels
    time_ms: Ints
    values: Floats
    lookback_ms: int = LOOKBACK_MS
