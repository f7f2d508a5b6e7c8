"""The functions of instant vectors."""

from collections.abc import Callable, Mapping

import numpy as np

from query.promql.families import Labels
from query.promql.vectors import Floats, Vector, empty, without

OF_VALUES: Mapping[str, Callable[[Floats], Floats]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sgn": np.sign,
}


def rounded(values: Floats, to_nearest: Floats) -> Floats:
    """To the nearest multiple; halves go up."""
    inverse = 1.0 / to_nearest  # as Prometheus does, so that 0.1 rounds alike
    return np.floor(values * inverse + 0.5) / inverse


def clamped(vector: Vector, least: Floats, most: Floats) -> Vector:
    """Values brought into [least, most]; none at moments where that is empty."""
    kept = Vector(vector.labels, vector.values, vector.present & ~(least > most))
    return kept.mapped(lambda values: np.maximum(least, np.minimum(most, values)))


def scalar_of(vector: Vector) -> Floats:
    """The value of the only series of each moment; NaN where there is none or more than one."""
    count = vector.present.sum(axis=0)
    total = np.where(vector.present, vector.values, 0.0).sum(axis=0)
    return np.where(count == 1, total, np.nan)


def vector_of(scalar: Floats) -> Vector:
    return Vector(((),), scalar[None, :], np.ones((1, len(scalar)), bool))


def histogram_quantile(share: Floats, buckets: Vector) -> Vector:
    """The quantile estimated from cumulative buckets, series with the label `le`, linear within a bucket.

    As Prometheus: from zero on in the lowest bucket where its bound is above it; of the infinite one the bound below;
    NaN where there is no infinite bucket, or nothing in it.
    """
    groups: dict[Labels, list[tuple[float, int]]] = {}
    for row, labels in enumerate(buckets.labels):
        bound = _bound(dict(labels).get("le", ""))
        if bound is not None:
            groups.setdefault(without(labels, ("__name__", "le")), []).append((bound, row))
    moments = len(share)
    values, present = np.full((len(groups), moments), np.nan), np.zeros((len(groups), moments), bool)
    for place, members in enumerate(groups.values()):
        members.sort()
        bounds, rows = np.array([bound for bound, _ in members]), [row for _, row in members]
        for at in np.flatnonzero(buckets.present[rows].any(axis=0)):
            here = buckets.present[rows, at]
            values[place, at] = _quantile_of_buckets(share[at], bounds[here], buckets.values[rows, at][here])
            present[place, at] = True
    return Vector(tuple(groups), values, present) if groups else empty(moments)


def _bound(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _quantile_of_buckets(share: float, bounds: Floats, counts: Floats) -> float:
    if np.isnan(share):
        return np.nan
    if share < 0 or share > 1:
        return float(np.copysign(np.inf, share - 0.5))
    bounds, first = np.unique(bounds, return_index=True)
    counts = np.maximum.accumulate(np.add.reduceat(counts, first))  # scraped bucket by bucket, they may go back
    if len(bounds) < 2 or bounds[-1] != np.inf or not counts[-1]:
        return np.nan
    rank = share * counts[-1]
    at = min(int(np.searchsorted(counts, rank)), len(bounds) - 1)
    if at == len(bounds) - 1:
        return float(bounds[-2])
    if at == 0 and bounds[0] <= 0:
        return float(bounds[0])
    begin = float(bounds[at - 1]) if at else 0.0
    below = float(counts[at - 1]) if at else 0.0
    return begin + (float(bounds[at]) - begin) * (float(rank) - below) / (float(counts[at]) - below)
