"""Sharing out a GPU's energy among the requests that ran on it.

At each instant its power is shared equally among the requests then running; what it used while none ran is left over.
Between two neighbouring beginnings or ends the number of requests is constant, so that the sum over those intervals is
exact, and shares and remainder add up to what the meter grew by. Equal shares are an estimate: the meter cannot tell
requests that run together apart (the same for partitions of a GPU: Vamja et al., "On the Partitioning of GPU Power
among Multi-Instances", arXiv 2501.17752).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.rollups.cells import Floats, Ints

_NO_TIMES: Ints = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Meter:
    """How much one GPU had used at some instants, and for how long that was known until then; between them linear.

    Args:
        time_us: The instants, in order.
        joules: Used since the first of them, as far as it is known.
        known_us: How much of the time since the first of them it is known for.
    """

    time_us: Ints
    joules: Floats
    known_us: Floats

    def joules_at(self, time_us: Ints) -> Floats:
        return _between(time_us, self.time_us, self.joules)

    def known_us_at(self, time_us: Ints) -> Floats:
        return _between(time_us, self.time_us, self.known_us)


def _between(time_us: Ints, known_at_us: Ints, values: Floats) -> Floats:
    if not len(known_at_us):
        return np.zeros(len(time_us))
    found: Floats = np.interp(time_us, known_at_us, values)
    return found


def counter_meter(time_us: Ints, run: Ints, joules: Floats) -> Meter:
    """The meter that a counter is.

    A step between readings of two runs of the counter, or to a lower reading, is not known.

    Args:
        time_us: When it was read, in order.
        run: Which run of the counter each reading is of.
        joules: The readings.
    """
    grown = np.diff(joules)
    is_known = (np.diff(run) == 0) & (grown >= 0)
    return _added_up(time_us, np.where(is_known, grown, 0.0), is_known)


def power_meter(time_us: Ints, watts: Floats, *, reach_us: int) -> Meter:
    """The integral of the power that was sampled, by the trapezoidal rule.

    A step longer than `reach_us` is not known.
    """
    took_us = np.diff(time_us)
    is_known = took_us <= reach_us
    grown = (watts[1:] + watts[:-1]) / 2 * took_us / 1e6
    return _added_up(time_us, np.where(is_known, grown, 0.0), is_known)


def _added_up(time_us: Ints, grown: Floats, is_known: NDArray[np.bool_]) -> Meter:
    if not len(time_us):
        return Meter(_NO_TIMES, np.empty(0), np.empty(0))
    known_us = np.where(is_known, np.diff(time_us), 0)
    return Meter(time_us, np.append(0.0, np.cumsum(grown)), np.append(0.0, np.cumsum(known_us)))


@dataclass(frozen=True, slots=True)
class Shares:
    """What each request had of a GPU's energy between two instants.

    Args:
        joules: Of each request.
        together_joules: How much of that it had while others ran, too.
        known_us: For how much of each request's time the meter knew.
        attributed_joules: Of all requests together.
        unattributed_joules: While none ran.
    """

    joules: Floats
    together_joules: Floats
    known_us: Floats
    attributed_joules: float
    unattributed_joules: float


def share_out(meter: Meter, edges_us: tuple[int, int], start_us: Ints, end_us: Ints) -> Shares:
    """Share out what a meter grew by between two instants among the requests that ran in [start, end) then."""
    start_us, end_us = (np.clip(times, *edges_us) for times in (start_us, end_us))
    bounds = np.unique(np.concatenate([np.array(edges_us), start_us, end_us]))
    first, after = np.searchsorted(bounds, start_us), np.searchsorted(bounds, end_us)
    begun, ended = (np.bincount(places, minlength=len(bounds)) for places in (first, after))
    running = np.cumsum(begun - ended)[:-1]
    grown = np.diff(meter.joules_at(bounds))
    each = np.where(running > 0, grown / np.maximum(running, 1), 0.0)
    upto = np.append(0.0, np.cumsum(each))
    together = np.append(0.0, np.cumsum(np.where(running > 1, each, 0.0)))
    known_us = meter.known_us_at(bounds)
    return Shares(
        joules=upto[after] - upto[first],
        together_joules=together[after] - together[first],
        known_us=known_us[after] - known_us[first],
        attributed_joules=float(grown[running > 0].sum()),
        unattributed_joules=float(grown[running == 0].sum()),
    )
