"""Exponential histograms of OpenTelemetry, whose buckets are powers of a base.

https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram. Bucket i of a scale holds what lies
in (base^i, base^(i+1)], the base being 2^(2^-scale). A sender that needs room lowers the scale, which joins buckets in
twos for each step: two points are compared at the lower of their scales.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint

BUCKETS_MAX = 200
SCALE_MIN, SCALE_MAX = -10, 20  # as OpenTelemetry's own limits


@dataclass(frozen=True, slots=True)
class Exponential:
    """Observations so far.

    Args:
        scale: Of the buckets.
        zeros: How many were 0, or as good as that.
        counts: The others, by bucket.
        zero_threshold: What is as good as 0.
    """

    scale: int
    zeros: int
    counts: Mapping[int, int]
    zero_threshold: float = 0.0

    @classmethod
    def of_point(cls, point: ExponentialHistogramDataPoint) -> Self:
        """What a point holds.

        Raises:
            ValueError: It has too many buckets, negative observations or a scale that is none.
        """
        if any(point.negative.bucket_counts):
            raise ValueError("it counts negative observations, which no time is")
        if len(point.positive.bucket_counts) > BUCKETS_MAX or not SCALE_MIN <= point.scale <= SCALE_MAX:
            raise ValueError(f"it has more than {BUCKETS_MAX} buckets, or a scale beyond {SCALE_MIN} to {SCALE_MAX}")
        numbered = enumerate(point.positive.bucket_counts, start=point.positive.offset)
        counts = {number: count for number, count in numbered if count}
        made = cls(point.scale, point.zero_count, counts, point.zero_threshold)
        if any(not -1070 <= number * 2.0**-made.scale <= 1020 for number in counts):
            raise ValueError("its buckets lie beyond what a number can be")
        return made

    def at_scale(self, scale: int) -> "Exponential":
        """The same with the wider buckets of a lower scale."""
        joined: Counter[int] = Counter()
        for number, count in self.counts.items():
            joined[number >> (self.scale - scale)] += count
        return Exponential(scale, self.zeros, joined, self.zero_threshold)

    def since(self, before: object) -> "Exponential | None":
        """What came after `before`; None where that is nothing of the kind, or something of it is gone."""
        if not isinstance(before, Exponential):
            return None
        scale = min(self.scale, before.scale)
        now, then = self.at_scale(scale), before.at_scale(scale)
        added = {
            number: now.counts.get(number, 0) - then.counts.get(number, 0) for number in {*now.counts, *then.counts}
        }
        if now.zeros < then.zeros or min(added.values(), default=0) < 0:
            return None
        grown = {number: count for number, count in added.items() if count}
        return Exponential(scale, now.zeros - then.zeros, grown, self.zero_threshold)

    def buckets(self) -> tuple[list[float], list[int]]:
        """Upper bounds, and the counts below each and, last, beyond them all; where nothing was counted, no bucket."""
        bounds: list[float] = []
        counts: list[int] = []
        reached: int | None = None
        if self.zeros:
            bounds, counts = [self.zero_threshold], [self.zeros]
        for number, count in sorted(self.counts.items()):
            if number != reached:  # what lies between two buckets is one bucket of nothing
                bounds.append(self._bound(number))
                counts.append(0)
            bounds.append(self._bound(number + 1))
            counts.append(count)
            reached = number + 1
        return bounds, [*counts, 0]

    def _bound(self, number: int) -> float:
        return float(2.0 ** (number * 2.0**-self.scale))
