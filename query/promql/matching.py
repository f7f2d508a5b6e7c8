"""Operators between two values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from query.promql.errors import EvaluationError
from query.promql.families import Labels
from query.promql.parser import COMPARISONS, SET_OPERATORS
from query.promql.tree import Binary, Matching
from query.promql.vectors import Bools, Floats, Vector, empty, only, without

Value = Floats | Vector

_OPERATORS: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,  # as Go's: the sign is the dividend's
    "^": np.power,
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def binary(node: Binary, left: Value, right: Value) -> Value:
    """Two values put together.

    Raises:
        EvaluationError: Their series match more than one to one, and that was not asked for.
    """
    with np.errstate(all="ignore"):
        if not isinstance(left, Vector) and not isinstance(right, Vector):
            return _figures(node, left, right)
        if isinstance(left, Vector) and isinstance(right, Vector):
            return _of_sets(node, left, right) if node.operator in SET_OPERATORS else _of_vectors(node, left, right)
        return _with_scalar(node, left, right)


def _figures(node: Binary, left: Floats, right: Floats) -> Floats:
    return np.asarray(_OPERATORS[node.operator](left, right), float)


def _with_scalar(node: Binary, left: Value, right: Value) -> Vector:
    if isinstance(left, Vector):
        return _judged(node, left, _figures(node, left.values, cast("Floats", right)))
    vector = cast("Vector", right)
    return _judged(node, vector, _figures(node, left, vector.values))


def _judged(node: Binary, vector: Vector, found: Floats) -> Vector:
    """A comparison keeps what holds, names included; all else is a new value, without them."""
    if node.operator in COMPARISONS and not node.is_bool:
        return Vector(vector.labels, vector.values, vector.present & (found != 0))
    return Vector(vector.labels, found, vector.present).unnamed()


def _signature(matching: Matching, labels: Labels) -> Labels:
    return only(labels, matching.labels) if matching.is_on else without(labels, (*matching.labels, "__name__"))


def _of_sets(node: Binary, left: Vector, right: Vector) -> Vector:
    """`and`, `unless` and `or`: what of the left has, or has not, a partner at the moment; or what else is right."""
    partners = _any_present(node.matching, right)
    nobody = np.zeros(left.values.shape[1], bool)
    has_partner = [partners.get(_signature(node.matching, labels), nobody) for labels in left.labels]
    if node.operator == "or":
        known = _any_present(node.matching, left)
        is_known = [known.get(_signature(node.matching, labels), nobody) for labels in right.labels]
        present = np.vstack([left.present, right.present & ~_rows(is_known, right)])
        both = Vector(left.labels + right.labels, np.vstack([left.values, right.values]), present)
        return both.relabelled(both.labels)
    is_kept = _rows(has_partner, left)
    return Vector(left.labels, left.values, left.present & (is_kept if node.operator == "and" else ~is_kept))


def _rows(rows: Sequence[Bools], like: Vector) -> Bools:
    return np.array(rows, bool).reshape(like.present.shape)


def _any_present(matching: Matching, vector: Vector) -> dict[Labels, Bools]:
    found: dict[Labels, Bools] = {}
    for labels, present in zip(vector.labels, vector.present, strict=True):
        signature = _signature(matching, labels)
        found[signature] = found[signature] | present if signature in found else present
    return found


@dataclass(frozen=True, slots=True)
class _Sides:
    """The two vectors, the one that may have several series for one of the other first."""

    many: Vector
    one: Vector
    is_swapped: bool


def _of_vectors(node: Binary, left: Vector, right: Vector) -> Vector:
    is_swapped = node.matching.many == "right"
    sides = _Sides(right, left, is_swapped) if is_swapped else _Sides(left, right, is_swapped)
    ones: dict[Labels, list[int]] = {}
    for row, labels in enumerate(sides.one.labels):
        ones.setdefault(_signature(node.matching, labels), []).append(row)
    labels_found, values, present = [], [], []
    for row, labels in enumerate(sides.many.labels):
        for other in ones.get(_signature(node.matching, labels), ()):
            made, is_there = _pair(node, sides, row, other)
            if is_there.any():
                labels_found.append(_result_labels(node, labels, sides.one.labels[other]))
                values.append(made)
                present.append(is_there)
    _check_unique(sides.one, ones, node)
    if not labels_found:
        return empty(left.values.shape[1])
    found = Vector(tuple(labels_found), np.array(values), np.array(present))
    try:
        return found.relabelled(labels_found)
    except EvaluationError:
        wanted = _UNIQUE_GROUPS if node.matching.many else _EXPLICIT
        raise EvaluationError(f"multiple matches for labels: {wanted}") from None


_UNIQUE_GROUPS = "grouping labels must ensure unique matches"
_EXPLICIT = "many-to-one matching must be explicit (group_left/group_right)"


def _pair(node: Binary, sides: _Sides, row: int, other: int) -> tuple[Floats, Bools]:
    mine, its = sides.many.values[row], sides.one.values[other]
    left, right = (its, mine) if sides.is_swapped else (mine, its)
    made = _figures(node, left, right)
    is_there = sides.many.present[row] & sides.one.present[other]
    if node.operator in COMPARISONS and not node.is_bool:
        return left, is_there & (made != 0)
    return made, is_there


def _check_unique(one: Vector, ones: Mapping[Labels, list[int]], node: Binary) -> None:
    for signature, rows in ones.items():
        if len(rows) > 1 and (one.present[rows].sum(axis=0) > 1).any():
            group = "{" + ", ".join(f'{name}="{value}"' for name, value in signature) + "}"
            side = "left" if node.matching.many == "right" else "right"
            raise EvaluationError(
                f"found duplicate series for the match group {group} on the {side} hand-side of the operation; "
                "many-to-many matching not allowed: matching labels must be unique on one side"
            )


def _result_labels(node: Binary, labels: Labels, of_one: Labels) -> Labels:
    matching = node.matching
    keeps_name = node.operator in COMPARISONS and not node.is_bool
    kept = labels if keeps_name else without(labels, ("__name__",))
    if matching.many is None:
        return only(kept, matching.labels) if matching.is_on else without(kept, matching.labels)
    brought = dict(only(of_one, matching.include))
    return tuple(sorted({**dict(without(kept, matching.include)), **brought}.items()))
