"""From what a trend is answered: the events, or their rollups per minute or per hour.

| resolution | when | edges of the window | percentiles |
|---|---|---|---|
| raw | up to 6 hours | exact | exact |
| minute | up to 2 days; and where the events are gone | exact; whole minutes where the events are gone | within 1 % |
| hour | longer, in steps of whole hours | whole minutes | within 1 %, of the hours that the window touches |

What no rollup holds yet, the newest hour above all, comes from the events in each case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from query.windows import Window
from store.rollups.sketch import RELATIVE_ERROR
from store.snapshot import RollupExtent
from store.times import HOUR_US

Resolution = Literal["raw", "minute", "hour"]

MINUTE_US = 60_000_000
RAW_UPTO_S = 6 * 3600  # 172,800 samples of 8 GPUs: as fast as from cells, and exact
MINUTE_UPTO_S = 2 * 86_400

Range = tuple[int, int]
"""[from, to) in microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class RollupPlan:
    """Which cells answer for which part of a window, and which events for the rest.

    Args:
        resolution: Of most of it.
        minutes: The ranges answered from cells of a minute: before and after those of an hour.
        hours: The range answered from cells of an hour.
        sketched: The range of the hours whose sketches stand for its percentiles.
        rolled: The whole range answered from cells, for events with a seq up to `upto_seq`.
        upto_seq: What came later is answered from the events.
    """

    resolution: Resolution
    minutes: tuple[Range, Range]
    hours: Range
    sketched: Range
    rolled: Range
    upto_seq: int

    @property
    def cells(self) -> Mapping[str, Sequence[Range]]:
        """The ranges of cells that are looked at, by the width of the cells."""
        return {"minute": self.minutes, "hour": (self.hours, self.sketched)}

    def event_ranges(self, window: Window) -> Sequence[Range]:
        """The parts of the window for which there is no cell."""
        ranges = ((window.start_us, self.rolled[0]), (self.rolled[1], window.end_us))
        return [one for one in ranges if one[0] < one[1]]

    def seconds(self, window: Window) -> float:
        """How long the answered time is: the window, widened to whole minutes where cells lie at its edges."""
        return (max(window.end_us, self.rolled[1]) - min(window.start_us, self.rolled[0])) / 1e6


def plan_rollups(window: Window, step_s: int, extent: RollupExtent | None) -> RollupPlan | None:
    """How to answer a window in steps of `step_s` from rollups; None where the events are to answer."""
    if extent is None or extent.first_us >= window.end_us or extent.before_us <= window.start_us:
        return None
    is_gone = extent.first_us < extent.first_event_us and window.start_us < extent.first_event_us
    if window.seconds > MINUTE_UPTO_S and step_s % 3600 == 0:
        return _by_hour(window, extent)
    if is_gone:
        return _by_minute_alone(window, extent)
    if window.seconds > RAW_UPTO_S and step_s % 60 == 0:
        return _by_minute(window, extent)
    return None


def _by_hour(window: Window, extent: RollupExtent) -> RollupPlan:
    rolled = _outward(window, extent, MINUTE_US)
    first = -(-window.start_us // HOUR_US) * HOUR_US
    hours = (first, max(first, min(window.end_us, extent.before_us) // HOUR_US * HOUR_US))
    minutes = ((rolled[0], hours[0]), (hours[1], rolled[1]))
    return RollupPlan("hour", minutes, hours, _outward(window, extent, HOUR_US), rolled, extent.upto_seq)


def _by_minute(window: Window, extent: RollupExtent) -> RollupPlan | None:
    """Whole hours from cells, so that their sketches stand for the same samples; the rest from the events."""
    first = -(-window.start_us // HOUR_US) * HOUR_US
    rolled = (first, min(window.end_us, extent.before_us) // HOUR_US * HOUR_US)
    if rolled[0] >= rolled[1]:
        return None
    return RollupPlan("minute", (rolled, _nothing(rolled)), _nothing(rolled), rolled, rolled, extent.upto_seq)


def _by_minute_alone(window: Window, extent: RollupExtent) -> RollupPlan:
    rolled = _outward(window, extent, MINUTE_US)
    sketched = _outward(window, extent, HOUR_US)
    return RollupPlan("minute", (rolled, _nothing(rolled)), _nothing(rolled), sketched, rolled, extent.upto_seq)


def _outward(window: Window, extent: RollupExtent, unit_us: int) -> Range:
    """The window as far as cells go, widened to whole units."""
    end_us = -(-window.end_us // unit_us) * unit_us
    return window.start_us // unit_us * unit_us, min(end_us, extent.before_us)


def _nothing(after: Range) -> Range:
    return after[1], after[1]


def resolution_words(resolution: Resolution) -> str:
    """What an answer was made from, for a person."""
    if resolution == "raw":
        return "from every sample"
    return f"from rollups per {resolution}, p50 and p95 within {100 * RELATIVE_ERROR:g} %"
