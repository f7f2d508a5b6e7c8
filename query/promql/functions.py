"""The functions of instant vectors."""

from collections.abc import Callable, Mapping

import numpy as np

from query.promql.vectors import Floats, Vector

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
