"""Which share of a window something was recording at all."""

from datetime import datetime

from query.engine import Engine, Source, in_window, sql_text
from query.history.trends import trend
from query.windows import Window

HEARTBEAT = "cpu.utilization_percent"  # every tick has it, on every machine


def recorded_share(source: Source, window: Window, *, now: datetime) -> float:
    """The share of the window in which the collector sampled its host, 0 to 1; the mean where there are several."""
    return recorded(source, window, now=now)[0]


def recorded(source: Source, window: Window, *, now: datetime) -> tuple[float, float | None]:
    """The same, and the age of the newest sample in the window, seconds; None where there is none."""
    found = trend(source, HEARTBEAT, window, now=now, points=1)
    return found.coverage or 0.0, found.newest_age_s


def recorded_seconds(engine: Engine, kind: str, window: Window) -> float:
    """From the first to the last event of a kind in the window, which may begin long before anything was recorded."""
    text = sql_text("first_and_last").format(
        epoch_us=engine.epoch_us("observed_at"), relation=engine.relation(kind), in_window=in_window(engine)
    )
    rows = engine.query(text, start=window.start_us, end=window.end_us).to_pylist()
    found = [(row["last_us"] - row["first_us"]) / 1e6 for row in rows if row["first_us"] is not None]
    return found[0] if found else 0.0
