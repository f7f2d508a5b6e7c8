"""Many series made one."""

from collections.abc import Callable, Mapping

import numpy as np

from query.promql.families import Labels
from query.promql.ranges import quantile
from query.promql.tree import Aggregate
from query.promql.vectors import Bools, Floats, Vector, empty, only, without


def _sum(values: Floats, present: Bools) -> Floats:
    return np.asarray(np.where(present, values, 0.0).sum(axis=0))


def _mean(values: Floats, present: Bools) -> Floats:
    return np.asarray(_sum(values, present) / present.sum(axis=0))


def _variance(values: Floats, present: Bools) -> Floats:
    return _mean((values - _mean(values, present)) ** 2, present)


def _least(values: Floats, present: Bools) -> Floats:
    return np.asarray(np.fmin.reduce(np.where(present, values, np.nan), axis=0))


def _greatest(values: Floats, present: Bools) -> Floats:
    return np.asarray(np.fmax.reduce(np.where(present, values, np.nan), axis=0))


_FIGURES: Mapping[str, Callable[[Floats, Bools], Floats]] = {
    "sum": _sum,
    "avg": _mean,
    "min": _least,
    "max": _greatest,
    "count": lambda _, present: present.sum(axis=0).astype(float),
    "group": lambda _, present: np.ones(present.shape[1]),
    "stddev": lambda values, present: np.sqrt(_variance(values, present)),
    "stdvar": _variance,
}


def aggregate(node: Aggregate, vector: Vector, parameter: Floats | None) -> Vector:
    """One series for each group; of topk and bottomk the series themselves."""
    if not vector.labels:
        return vector
    groups: dict[Labels, list[int]] = {}
    for row, labels in enumerate(vector.labels):
        groups.setdefault(_group(node, labels), []).append(row)
    if parameter is not None and node.operation != "quantile":
        return _outermost(vector, list(groups.values()), parameter, is_top=node.operation == "topk")
    values, present = np.full((len(groups), vector.values.shape[1]), np.nan), []
    with np.errstate(all="ignore"):
        for place, rows in enumerate(groups.values()):
            of_group, is_there = vector.values[rows], vector.present[rows]
            if parameter is None:
                values[place] = _FIGURES[node.operation](of_group, is_there)
            else:
                values[place] = _quantiles(parameter, of_group, is_there)
            present.append(is_there.any(axis=0))
    return Vector(tuple(groups), values, np.array(present))


def _group(node: Aggregate, labels: Labels) -> Labels:
    return without(labels, (*node.labels, "__name__")) if node.is_without else only(labels, node.labels)


def _quantiles(share: Floats, values: Floats, present: Bools) -> Floats:
    return np.array([quantile(share[at], values[present[:, at], at]) for at in range(len(share))])


def _outermost(vector: Vector, groups: list[list[int]], number: Floats, *, is_top: bool) -> Vector:
    """The greatest or least of each group, NaN last; in their order at the last moment, which an instant has alone."""
    present = np.zeros_like(vector.present)
    order: list[int] = []
    for rows in groups:
        values, is_there = vector.values[rows], vector.present[rows]
        ranked = np.lexsort((-values if is_top else values, np.isnan(values), ~is_there), axis=0)
        rank = np.empty_like(ranked)
        np.put_along_axis(rank, ranked, np.arange(len(rows))[:, None], axis=0)
        present[rows] = is_there & (rank < np.floor(number))
        order += [rows[at] for at in ranked[:, -1]]
    kept = [row for row in order if present[row].any()]
    return Vector(vector.labels, vector.values, present).taken(kept) if kept else empty(vector.values.shape[1])
