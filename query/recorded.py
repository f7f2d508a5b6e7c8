"""Which share of a window something was recording at all."""

from datetime import datetime

from query.engine import Source
from query.trends import trend
from query.windows import Window

HEARTBEAT = "cpu.utilization_percent"  # every tick has it, on every machine


def recorded_share(source: Source, window: Window, *, now: datetime) -> float:
    """The share of the window in which the collector sampled its host, 0 to 1; the mean where there are several."""
    return trend(source, HEARTBEAT, window, now=now, points=1).coverage or 0.0
