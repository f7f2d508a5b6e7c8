"""What the parts of an expression come to, for all moments of a question at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from query.promql.errors import EvaluationError
from query.promql.families import Labels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Vector:
    """An instant vector at each moment.

    Args:
        labels: Of each series.
        values: A row for each series, a column for each moment.
        present: Where there is a value; NaN may be one.
    """

    labels: tuple[Labels, ...]
    values: Floats
    present: Bools

    def unnamed(self) -> "Vector":
        """The same without the metrics' names. Raises EvaluationError where two become one."""
        return self.relabelled([without(one, ("__name__",)) for one in self.labels])

    def relabelled(self, labels: Sequence[Labels]) -> "Vector":
        """The same series under other labels, those of equal labels joined.

        Raises:
            EvaluationError: Two of equal labels have a value at the same moment.
        """
        if len(set(labels)) == len(labels):
            return Vector(tuple(labels), self.values, self.present)
        first = {one: at for at, one in reversed(list(enumerate(labels)))}
        keys = list(dict.fromkeys(labels))
        place = np.array([keys.index(one) for one in labels])
        present = np.zeros((len(keys), self.values.shape[1]), np.int64)
        np.add.at(present, place, self.present)
        if (present > 1).any():
            raise EvaluationError("vector cannot contain metrics with the same labelset")
        values = self.values[[first[one] for one in keys]].copy()
        for at, row in enumerate(place):
            values[row] = np.where(self.present[at], self.values[at], values[row])
        return Vector(tuple(keys), values, present > 0)

    def mapped(self, change: Callable[[Floats], Floats]) -> "Vector":
        """The values changed one by one, as a function does: the names are lost."""
        with np.errstate(all="ignore"):
            return Vector(self.labels, change(self.values), self.present).unnamed()

    def taken(self, rows: Sequence[int] | Ints) -> "Vector":
        """Some of the series, in this order."""
        return Vector(tuple(self.labels[row] for row in rows), self.values[list(rows)], self.present[list(rows)])


def empty(moments: int) -> Vector:
    return Vector((), np.empty((0, moments)), np.empty((0, moments), bool))


def without(labels: Labels, names: Sequence[str]) -> Labels:
    return tuple(one for one in labels if one[0] not in names)


def only(labels: Labels, names: Sequence[str]) -> Labels:
    return tuple(one for one in labels if one[0] in names)
