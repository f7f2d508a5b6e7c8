"""A sketch of many values from which any quantile can be told within 1 %, and which merges by addition.

The layout of DDSketch: a value falls into the bucket numbered by its logarithm to the base `GAMMA`, and the sketch is
how many fell into each. All sketches share the same buckets, so two are merged by adding counts, in SQL as well:
GROUP BY bucket. The bucket's number orders as its values do:

    number > 0    positive values: OFFSET + ceil(log(x) / log(GAMMA))
    number = 0    zero
    number < 0    negative values, mirrored

What is nearer to zero than 2.7e-36 shares the outermost bucket of its sign. NaN has no bucket.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

RELATIVE_ERROR = 0.01
GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GAMMA = math.log(GAMMA)
OFFSET = 4096  # the smallest positive value told apart is GAMMA ** -OFFSET
LAST_BUCKET = 2**15 - 1


def buckets_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bucket of each value, none of which may be NaN."""
    with np.errstate(divide="ignore"):
        rank = np.ceil(np.log(np.abs(values)) / LOG_GAMMA) + OFFSET
    numbers: NDArray[np.int64] = (np.sign(values) * np.clip(rank, 1, LAST_BUCKET)).astype(np.int64)
    return numbers


def value_of(bucket: int) -> float:
    """The value that stands for a bucket: within `RELATIVE_ERROR` of every value in it."""
    if not bucket:
        return 0.0
    return math.copysign(2 * GAMMA ** (abs(bucket) - OFFSET) / (GAMMA + 1), bucket)


def values_of(buckets: NDArray[np.int64]) -> NDArray[np.float64]:
    """What `value_of` gives for each of them."""
    rank = np.abs(buckets).astype(np.float64)
    values: NDArray[np.float64] = np.sign(buckets) * 2 * GAMMA ** (rank - OFFSET) / (GAMMA + 1)
    return values


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """A quantile of the values whose buckets were counted, interpolated between its neighbours; None of nothing.

    Where both neighbours have one sign it is within `RELATIVE_ERROR` of the exact one.
    """
    if not counts:
        return None
    rank = share * (sum(counts.values()) - 1)
    below, above = _value_at(counts, math.floor(rank)), _value_at(counts, math.ceil(rank))
    return below + (above - below) * (rank - math.floor(rank))


def _value_at(counts: Mapping[int, int], rank: int) -> float:
    """The value at a rank, counted from 0 in the order of the values."""
    upto = 0
    for bucket in sorted(counts):
        upto += counts[bucket]
        if upto > rank:
            return value_of(bucket)
    raise ValueError(f"there are only {upto} values")
