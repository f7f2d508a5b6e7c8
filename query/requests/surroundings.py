"""What GPUs, host and servers did while requests ran: samples joined to intervals.

A counter is joined ASOF on both sides: from the last reading at or before the beginning to the first at or after the
end, so that a request shorter than the sampling interval has a rate too. A gauge is the mean of the samples within, or
the last one before where there is none within. What is further away than three sampling intervals is unknown: NaN.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query.engine import Engine, in_window, sql_text
from query.reading.columns import dense
from query.reading.resolutions import MINUTE_US
from query.windows import Window
from store.events import KINDS, stale_after_s
from store.rollups.cells import Floats, Ints

Interval = tuple[int, int]
"""[from, to] in microseconds since the epoch."""

MINUTES_MAX = 2000  # what is near to more of them is all of it

COLUMNS: Mapping[str, Sequence[str]] = {
    "gpu_sample": (
        "throttle_sw_power_cap_seconds",
        "throttle_sw_thermal_seconds",
        "throttle_hw_thermal_seconds",
        "throttle_hw_power_brake_seconds",
        "throttle_sync_boost_seconds",
        "clock_sm_hertz",
        "clock_event_reasons_bitmask",
        "pcie_replay_count",
        "utilization_percent",
        "power_watts",
        "memory_used_bytes",
        "memory_total_bytes",
    ),
    "system_sample": (
        "pressure_cpu_some_seconds",
        "pressure_memory_some_seconds",
        "pressure_io_some_seconds",
        "swap_in_bytes",
        "swap_out_bytes",
        "tasks_running_count",
        "cpu_count",
    ),
    "device_sample": ("read_seconds", "reads_count", "write_seconds", "writes_count"),
    "server_sample": (
        "requests_running_count",
        "requests_waiting_count",
        "kv_cache_used_ratio",
        "preemption_count",
    ),
    "process_sample": ("pid", "name", "sm_utilization_percent", "memory_used_bytes"),
    "gpu_event": ("event", "xid", "message"),
    "ledger_event": ("event", "message", "started_at", "ended_at"),
}
PLACES = ("seq", "observed_at", "host", "boot_id", "counter_epoch", "gpu_uuid", "server_address", "device_type")
READ: Mapping[str, Sequence[str]] = {
    kind: tuple(dict.fromkeys(name for name in (*PLACES, *KINDS[kind].series, *columns) if name in KINDS[kind].by_name))
    for kind, columns in COLUMNS.items()
}
"""What is read of each kind: what is told of it, and what places it."""


class Surroundings:
    """Rows of some kinds around some requests, in order of time.

    Args:
        tables: By kind.
    """

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._tables = tables
        self._times = {kind: table["observed_at"].cast(pa.int64()).to_numpy() for kind, table in tables.items()}
        self._codes: dict[str, Ints] = {}

    def rows(self, kind: str, interval: Interval) -> list[dict[str, Any]]:
        """The rows of one kind that were observed in an interval."""
        first, after = np.searchsorted(self._times[kind], [interval[0], interval[1] + 1])
        found: list[dict[str, Any]] = self._tables[kind].slice(first, after - first).to_pylist()
        return found

    def table(self, kind: str) -> pa.Table:
        """All rows of one kind."""
        return self._tables[kind]

    def greatest(self, kind: str, column: str, intervals: Sequence[Interval]) -> Floats:
        """The greatest of all series in each interval: of a counter the rate, of a gauge the mean; NaN if unknown."""
        return self._merged(kind, column, intervals, np.fmax)

    def least(self, kind: str, column: str, intervals: Sequence[Interval]) -> Floats:
        """The least of all series in each interval."""
        return self._merged(kind, column, intervals, np.fmin)

    def of_series(self, kind: str, column: str, intervals: Sequence[Interval]) -> list[Floats]:
        """Each series' value in each interval, NaN where it is not known."""
        is_counter = KINDS[kind].by_name[column].instrument == "counter"
        every_s = KINDS[kind].by_name[column].every_seconds or _every_s(kind)
        reach_us = round(stale_after_s(every_s) * 1e6)
        join = _rates if is_counter else _means
        return [join(time_us, values, intervals, reach_us) for time_us, values in self._series(kind, column)]

    def share_of_bits(self, kind: str, column: str, bits: int, intervals: Sequence[Interval]) -> Floats:
        """The share of the samples in each interval that have any of these bits; NaN where there is none that says."""
        values = self._tables[kind][column].cast(pa.float64()).to_numpy(zero_copy_only=False)
        known = np.flatnonzero(~np.isnan(values))
        has_bit = np.concatenate([[0], np.cumsum(values[known].astype(np.int64) & bits != 0)])
        edges = np.searchsorted(self._times[kind][known], np.array(intervals).reshape(-1, 2) + np.array([0, 1]))
        n = edges[:, 1] - edges[:, 0]
        return np.where(n > 0, (has_bit[edges[:, 1]] - has_bit[edges[:, 0]]) / np.maximum(n, 1), np.nan)

    def covered(self, kind: str, interval: Interval) -> float | None:
        """The share of an interval that lies near a sample, mean of all series; None where there is no series at all.

        Near is half of the time after which a sample is stale: what lies between two such samples is known.
        """
        if not len(self._times[kind]):
            return None
        half_us = round(stale_after_s(_every_s(kind)) * 1e6) // 2
        codes = self._code(kind)
        shares = [_near(self._times[kind][codes == one], interval, half_us) for one in range(int(codes.max()) + 1)]
        return float(np.mean(shares))

    def _merged(self, kind: str, column: str, intervals: Sequence[Interval], merge: np.ufunc) -> Floats:
        found = np.full(len(intervals), np.nan)
        for values in self.of_series(kind, column, intervals):
            found = merge(found, values)
        return found

    def _series(self, kind: str, column: str) -> list[tuple[Ints, Floats]]:
        """The times and values of each series, of a counter of each epoch."""
        array = self._tables[kind][column]
        values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        codes, is_there = self._code(kind), ~np.isnan(values)
        return [
            (self._times[kind][chosen], values[chosen])
            for one in np.unique(codes[is_there])
            if (chosen := is_there & (codes == one)).any()
        ]

    def _code(self, kind: str) -> Ints:
        """Of each row the number of its series, of one boot and one counter epoch."""
        if kind not in self._codes:
            table, codes = self._tables[kind], np.zeros(len(self._times[kind]), np.int64)
            for name in ("host", *KINDS[kind].series, "boot_id", "counter_epoch"):
                if name in table.column_names:
                    encoded = table[name].combine_chunks().dictionary_encode()
                    places = pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy()
                    _, codes = dense(codes * (len(encoded.dictionary) + 1) + places)
            self._codes[kind] = codes
        return self._codes[kind]


def _every_s(kind: str) -> float:
    return KINDS[kind].expected_every_seconds or 1.0


def _near(time_us: Ints, interval: Interval, half_us: int) -> float:
    """The share of an interval within `half_us` of one of some times."""
    first = np.clip(time_us - half_us, *interval)
    after = np.clip(time_us + half_us, *interval)
    begins = np.maximum(first, np.concatenate([[interval[0]], after[:-1]]))
    return float(np.maximum(after - begins, 0).sum()) / max(interval[1] - interval[0], 1)


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


def read_surroundings(
    engine: Engine, window: Window, near: Sequence[Interval], *, gpus: Sequence[str], server: str | None
) -> Surroundings:
    """The rows of a window around some intervals.

    Args:
        engine: Sees the kinds and columns of `READ`.
        window: Which time.
        near: Only what is this near to them that it tells something about them.
        gpus: Only these GPUs; all where empty.
        server: Only this server, by its address; all where None.
    """
    tables = {}
    for kind, columns in READ.items():
        condition, bound = _condition(engine, kind, gpus, server)
        text = sql_text("surrounding_rows").format(
            columns=", ".join(columns),
            relation=engine.relation(kind),
            in_window=in_window(engine),
            filter=f"{condition} and {_is_near(engine, near)}",
        )
        tables[kind] = engine.query(text, start=window.start_us, end=window.end_us, **bound)
    return Surroundings(tables)


def _is_near(engine: Engine, near: Sequence[Interval]) -> str:
    """The condition that a row is of a minute of some interval, or of the one before or after."""
    minutes = {at for first, last in near for at in range(first // MINUTE_US - 1, last // MINUTE_US + 2)}
    if len(minutes) > MINUTES_MAX:
        return "true"
    return f"{engine.bucket('observed_at', '60')} in ({', '.join(map(str, sorted(minutes)))})"


def _condition(engine: Engine, kind: str, gpus: Sequence[str], server: str | None) -> tuple[str, dict[str, Any]]:
    if gpus and "gpu_uuid" in KINDS[kind].by_name:
        places = ", ".join(engine.parameter(f"gpu_{at}", "text") for at in range(len(gpus)))
        return f"gpu_uuid in ({places})", {f"gpu_{at}": uuid for at, uuid in enumerate(gpus)}
    if server and kind == "server_sample":
        return f"server_address = {engine.parameter('server', 'text')}", {"server": server}
    if kind == "device_sample":
        return "device_type = 'disk'", {}
    return "true", {}
