"""What GPUs, host and servers did while requests ran: samples joined to intervals.

A counter is joined ASOF on both sides: from the last reading at or before the beginning to the first at or after the
end, so that a request shorter than the sampling interval has a rate too. A gauge is the mean of the samples within, or
the last one before where there is none within. What is further away than three sampling intervals is unknown: NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from query.engine import Engine, in_window, sql_text
from query.windows import Window
from store.events import KINDS, stale_after_s
from store.rollup_cells import Floats, Ints

Interval = tuple[int, int]
"""[from, to] in microseconds since the epoch."""

COLUMNS: Mapping[str, Sequence[str]] = {
    "gpu_sample": (
        "throttle_sw_power_cap_seconds",
        "throttle_sw_thermal_seconds",
        "throttle_hw_thermal_seconds",
        "throttle_hw_power_brake_seconds",
        "throttle_sync_boost_seconds",
        "clock_sm_hertz",
        "pcie_replay_count",
    ),
    "system_sample": (
        "pressure_cpu_some_seconds",
        "pressure_memory_some_seconds",
        "pressure_io_some_seconds",
        "swap_in_bytes",
        "swap_out_bytes",
    ),
    "server_sample": ("requests_waiting_count", "kv_cache_used_ratio", "preemption_count"),
    "process_sample": ("pid", "name", "sm_utilization_percent", "memory_used_bytes"),
    "gpu_event": ("event", "xid", "message"),
    "ledger_event": ("event", "message", "started_at", "ended_at"),
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Rows of some kinds around some requests, in order of time.

    Args:
        tables: By kind.
    """

    tables: Mapping[str, pa.Table]

    def rows(self, kind: str, interval: Interval) -> list[dict[str, Any]]:
        """The rows of one kind that were observed in an interval."""
        time_us = self.tables[kind]["observed_at"].cast(pa.int64()).to_numpy()
        first, after = np.searchsorted(time_us, [interval[0], interval[1] + 1])
        found: list[dict[str, Any]] = self.tables[kind].slice(first, after - first).to_pylist()
        return found

    def greatest(self, kind: str, column: str, intervals: Sequence[Interval]) -> Floats:
        """The greatest of all series in each interval: of a counter the rate, of a gauge the mean; NaN if unknown."""
        return self._merged(kind, column, intervals, np.fmax)

    def least(self, kind: str, column: str, intervals: Sequence[Interval]) -> Floats:
        """The least of all series in each interval."""
        return self._merged(kind, column, intervals, np.fmin)

    def _merged(self, kind: str, column: str, intervals: Sequence[Interval], merge: np.ufunc) -> Floats:
        found = np.full(len(intervals), np.nan)
        is_counter = KINDS[kind].by_name[column].instrument == "counter"
        every_s = KINDS[kind].by_name[column].every_seconds or KINDS[kind].expected_every_seconds or 1.0
        reach_us = round(stale_after_s(every_s) * 1e6)
        for time_us, values in self._series(kind, column):
            join = _rates if is_counter else _means
            found = merge(found, join(time_us, values, intervals, reach_us))
        return found

    def _series(self, kind: str, column: str) -> list[tuple[Ints, Floats]]:
        table = self.tables[kind]
        table = table.filter(table[column].is_valid())
        if not table.num_rows:
            return []
        names = [
            name for name in ("host", *KINDS[kind].series, "boot_id", "counter_epoch") if name in table.column_names
        ]
        keys = list(zip(*(table[name].to_pylist() for name in names), strict=True))
        number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        code = np.array([number[key] for key in keys])
        time_us = table["observed_at"].cast(pa.int64()).to_numpy()
        values = table[column].cast(pa.float64()).to_numpy()
        return [(time_us[code == one], values[code == one]) for one in range(len(number))]


def _rates(time_us: Ints, values: Floats, intervals: Sequence[Interval], reach_us: int) -> Floats:
    start_us, end_us = (np.array([one[at] for one in intervals], np.int64) for at in (0, 1))
    before = np.searchsorted(time_us, start_us, side="right") - 1
    after = np.searchsorted(time_us, end_us, side="left")
    is_known = (before >= 0) & (after < len(time_us))
    before, after = np.maximum(before, 0), np.minimum(after, len(time_us) - 1)
    is_known &= (start_us - time_us[before] <= reach_us) & (time_us[after] - end_us <= reach_us) & (after > before)
    took_s = np.maximum(time_us[after] - time_us[before], 1) / 1e6
    grown = values[after] - values[before]
    return np.where(is_known & (grown >= 0), grown / took_s, np.nan)


def _means(time_us: Ints, values: Floats, intervals: Sequence[Interval], reach_us: int) -> Floats:
    found = []
    for start_us, end_us in intervals:
        first, after = np.searchsorted(time_us, [start_us, end_us + 1])
        if after > first:
            found.append(float(values[first:after].mean()))
        else:
            is_near = first > 0 and start_us - time_us[first - 1] <= reach_us
            found.append(float(values[first - 1]) if is_near else np.nan)
    return np.array(found)


def read_surroundings(engine: Engine, window: Window, *, gpus: Sequence[str], server: str | None) -> Surroundings:
    """The rows of a window.

    Args:
        engine: Sees the kinds of `COLUMNS`.
        window: Which time.
        gpus: Only these GPUs; all where empty.
        server: Only this server, by its address; all where None.
    """
    tables = {}
    for kind, columns in COLUMNS.items():
        condition, bound = _condition(engine, kind, gpus, server)
        names = ("seq", "observed_at", "host", "boot_id", *KINDS[kind].series, "counter_epoch", *columns)
        text = sql_text("surrounding_rows").format(
            columns=", ".join(dict.fromkeys(name for name in names if name in KINDS[kind].by_name)),
            relation=engine.relation(kind),
            in_window=in_window(engine),
            filter=condition,
        )
        tables[kind] = engine.query(text, start=window.start_us, end=window.end_us, **bound)
    return Surroundings(tables)


def _condition(engine: Engine, kind: str, gpus: Sequence[str], server: str | None) -> tuple[str, dict[str, Any]]:
    if gpus and "gpu_uuid" in KINDS[kind].by_name:
        places = ", ".join(engine.parameter(f"gpu_{at}", "text") for at in range(len(gpus)))
        return f"gpu_uuid in ({places})", {f"gpu_{at}": uuid for at, uuid in enumerate(gpus)}
    if server and kind == "server_sample":
        return f"server_address = {engine.parameter('server', 'text')}", {"server": server}
    return "true", {}
