"""How far two samples lie apart, by ranks and by medians.

Cliff's delta is the chance that a value of the second is greater than one of the first, less the chance that it is
smaller: -1 to 1 (Cliff, "Dominance statistics: ordinal analyses to answer ordinal questions", Psychological Bulletin
114, 1993). Its interval is the asymmetric one of Feng and Cliff ("Monte Carlo evaluation of ordinal d with improved
confidence interval", J. Modern Applied Statistical Methods 3, 2004), which stays within -1 and 1.

Neighbouring values of a metric resemble each other, so that a hundred of them say less than a hundred: the variance is
that of the effective sizes n · (1 - r) / (1 + r), with the correlation r of neighbours (Bayley and Hammersley, "The
effective number of independent observations in an autocorrelated time series", JRSS Suppl. 8, 1946).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from query.statistics.robust_line import MAD_TO_SIGMA
from store.rollups.cells import Floats

Z95 = 1.959964
CORRELATION_MAX = 0.95
SCALE_SHARE = 0.01  # of the median: a constant that moves by less has not moved by what matters

Strength = Literal["large", "medium", "small", "negligible"]
STRENGTHS: tuple[tuple[float, Strength], ...] = ((0.474, "large"), (0.33, "medium"), (0.147, "small"))
"""Romano et al., "Appropriate statistics for ordinal level data", FAIR 2006."""


@dataclass(frozen=True, slots=True)
class EffectSize:
    """How a second sample differs from a first.

    Args:
        n_before, n_after: How many values each has.
        median_before, median_after: In the metric's unit.
        difference: How much greater the second median is.
        standardised: The same, divided by the robust scale of both (median absolute deviation times 1.4826).
        delta: Cliff's delta.
        delta_low, delta_high: Its 95 % interval.
    """

    n_before: int
    n_after: int
    median_before: float
    median_after: float
    difference: float
    standardised: float
    delta: float
    delta_low: float
    delta_high: float

    @property
    def certain_delta(self) -> float:
        """The end of the interval that is nearer to nothing, as a size; 0 where the interval holds 0."""
        return max(self.delta_low, -self.delta_high, 0.0)

    @property
    def is_certain(self) -> bool:
        return self.certain_delta > 0

    @property
    def strength(self) -> Strength:
        """In words: `negligible` too where the medians differ by less than matters."""
        if abs(self.difference) < SCALE_SHARE * max(abs(self.median_before), abs(self.median_after)):
            return "negligible"
        return next((word for least, word in STRENGTHS if abs(self.delta) >= least), "negligible")


def effect_size(before: Floats, after: Floats) -> EffectSize:
    """How `after` differs from `before`: each at least two values in order of time, none of them NaN."""
    dominance_after = _dominance(after, before)
    dominance_before = -_dominance(before, after)
    delta = float(dominance_after.mean())
    variance = _variance_of_mean(dominance_before, before) + _variance_of_mean(dominance_after, after)
    low, high = _interval(delta, variance, min(effective_n(before), effective_n(after)))
    medians = float(np.median(before)), float(np.median(after))
    difference = medians[1] - medians[0]
    return EffectSize(
        len(before), len(after), *medians, difference, difference / _scale(before, after), delta, low, high
    )


def _dominance(values: Floats, others: Floats) -> Floats:
    """Of each value the share of the others that it exceeds, less the share that exceed it."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    above = len(ordered) - np.searchsorted(ordered, values, side="right")
    return (below - above) / len(ordered)


def _variance_of_mean(dominance: Floats, values: Floats) -> float:
    return float(dominance.var(ddof=1)) / effective_n(values)


def effective_n(values: Floats) -> float:
    """As how many independent values these count; at least two."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)
    centred = order - order.mean()
    spread = float(centred @ centred)
    is_constant = values.min() == values.max()
    r = 0.0 if is_constant or not spread else float(centred[:-1] @ centred[1:]) / spread
    r += (1 + 4 * r) / len(values)  # a short series looks less correlated than it is (Marriott and Pope, 1954)
    r = min(max(r if r > 2 / len(values) ** 0.5 else 0.0, 0.0), CORRELATION_MAX)
    return max(2.0, len(values) * (1 - r) / (1 + r))


def _interval(delta: float, variance: float, n: float) -> tuple[float, float]:
    z2 = Z95**2
    if abs(delta) == 1 or not variance:  # all of one beyond all of the other: the formula is 0 / 0
        nearest = max(0.0, (n - z2) / (n + z2)) if delta else 0.0
        return (nearest, 1.0) if delta > 0 else (-1.0, -nearest) if delta < 0 else (0.0, 0.0)
    root = Z95 * np.sqrt(variance) * np.sqrt((1 - delta**2) ** 2 + z2 * variance)
    middle, divisor = delta - delta**3, 1 - delta**2 + z2 * variance
    return max(-1.0, float((middle - root) / divisor)), min(1.0, float((middle + root) / divisor))


def _scale(before: Floats, after: Floats) -> float:
    deviations = np.concatenate([np.abs(one - np.median(one)) for one in (before, after)])
    floor = SCALE_SHARE * max(abs(float(np.median(before))), abs(float(np.median(after))))
    return max(MAD_TO_SIGMA * float(np.median(deviations)), floor, np.finfo(float).tiny)
