"""Histograms as `server_sample` holds them: what was added, by bucket, with percentiles estimated from that."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float:
    """Estimated: by even spread within the bucket that has it, as Prometheus' histogram_quantile.

    Args:
        bounds: Upper bounds; the last bucket, beyond them, has none.
        counts: Observations in each bucket, one more than there are bounds.
        share: Which quantile, from 0 to 1; of no observations it is the lowest bound.
    """
    reached = list(accumulate(counts))
    wanted = share * reached[-1]
    place = bisect_left(reached, wanted)
    if place >= len(bounds):  # beyond the last bound nothing is known but that
        return float(bounds[-1]) if bounds else 0.0
    below, low = (reached[place - 1], bounds[place - 1]) if place else (0.0, min(0.0, bounds[0]))
    inside = reached[place] - below
    return low + (bounds[place] - low) * ((wanted - below) / inside if inside else 1.0)


def counted(bounds: Sequence[float], counts: Sequence[int], total: float | None) -> dict[str, Any]:
    """The value of a histogram's column; `total` is the sum of what was observed, None where that is not told."""
    count = sum(counts)
    estimated = {name: quantile(bounds, counts, share) for name, share in QUANTILES.items()} if count else {}
    return {
        "bounds": list(bounds),
        "counts": list(counts),
        **({} if total is None else {"sum": total}),
        "count": count,
        **({"estimated": estimated} if estimated else {}),
    }


def together(one: dict[str, Any] | None, other: dict[str, Any] | None) -> dict[str, Any] | None:
    """Two histograms as one, such as those of two routes; a count stays below the bound that it was below."""
    if one is None or other is None:
        return one or other
    bounds = sorted({*one["bounds"], *other["bounds"]})
    counts = [0] * (len(bounds) + 1)
    for part in (one, other):
        for place, count in zip((*map(bounds.index, part["bounds"]), len(bounds)), part["counts"], strict=True):
            counts[place] += count
    is_told = "sum" in one and "sum" in other
    return counted(bounds, counts, one["sum"] + other["sum"] if is_told else None)
