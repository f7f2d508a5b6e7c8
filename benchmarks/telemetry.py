"""Realistic telemetry from a seed: `gpu_sample` rows of a busy machine, for whoever measures size and speed.

    python benchmarks/telemetry.py --days 7             # what it makes, and its entropy

Jobs come and go: training over all GPUs at once, with steps and checkpoints; inference on single GPUs, in bursts; idle
time between. Power, temperature, clocks and traffic follow the load with the noise that the driver's readings have, at
the driver's own resolution: milliwatts, millijoules, whole degrees, 15 MHz, KiB. Counters run on, and start anew where
the driver was loaded again. The times of the ticks have the jitter of a real timer.

The same seed gives the same rows, whatever the number of days asked for. Needs numpy, of the `test` extra.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa

from store.derivations import arrow_schema
from store.events import KINDS

START_US = 1_767_225_600_000_000  # 2026-01-01 00:00:00 UTC
DAY_S = 86_400
HOST = "bench-1"
BOOT_ID = "3c5f1a70-8f0e-4a53-9a55-5a0f6d1f2b7c"
SEQS_PER_TICK = 2  # what else a tick records beside the GPUs: the host, and a process every few seconds
KIB, MIB, MHZ = 1024, 2**20, 1_000_000
MEMORY_BYTES = 81_559 * MIB
KERNEL_S = 60  # how long a GPU takes to warm up

FIELDS = (
    "utilization_percent", "memory_utilization_percent", "memory_used_bytes", "memory_free_bytes",
    "temperature_celsius", "memory_temperature_celsius", "power_watts", "energy_joules", "power_limit_watts",
    "clock_sm_hertz", "clock_memory_hertz", "performance_state", "clock_event_reasons_bitmask",
    "throttle_sw_power_cap_seconds", "throttle_hw_thermal_seconds", "pcie_tx_bytes", "pcie_rx_bytes",
    "nvlink_tx_bytes", "nvlink_rx_bytes", "encoder_utilization_percent",
)  # fmt: skip
"""The 20 fields that sizes per value are counted over; what tells the rows apart comes on top."""

COUNTERS = frozenset(name for name in FIELDS if KINDS["gpu_sample"].by_name[name].instrument == "counter")

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is made. `seed` tells one history from another."""

    days: int = 7
    gpus: int = 8
    seed: int = 0
    start_us: int = START_US

    @property
    def rows(self) -> int:
        return self.days * DAY_S * self.gpus

    @property
    def values(self) -> int:
        return self.rows * len(FIELDS)


def batches(shape: Shape, *, batch_s: int = 3600) -> Iterator[pa.RecordBatch]:
    """The rows of `gpu_sample` in the order in which a collector writes them, `batch_s` seconds a batch."""
    for day, columns in enumerate(days(shape)):
        for first in range(0, DAY_S, batch_s):
            piece = {name: values[first : first + batch_s] for name, values in columns.items()}
            yield record_batch(shape, day * DAY_S + first, piece)


def days(shape: Shape) -> Iterator[Columns]:
    """The values of each day: name to an array of [second, gpu]; `observed_at` is one of [second]."""
    counters: Mapping[str, np.ndarray] = {name: np.zeros(shape.gpus) for name in COUNTERS}
    heat = np.zeros((KERNEL_S, shape.gpus))
    for day in range(shape.days):
        chance = np.random.default_rng((shape.seed, day))
        load, is_training = _load(chance, shape.gpus)
        columns, heat = _readings(chance, load, is_training, heat)
        if chance.random() < 0.05:  # the driver was loaded again
            counters = {name: np.zeros(shape.gpus) for name in COUNTERS}
        for name in COUNTERS:
            columns[name] = counters[name] + np.cumsum(columns[name], axis=0)
        counters = {name: columns[name][-1] for name in COUNTERS}
        jitter_us = chance.exponential(70, DAY_S).astype(np.int64) + 60
        columns["observed_at"] = shape.start_us + (day * DAY_S + np.arange(DAY_S)) * 1_000_000 + jitter_us
        yield columns


def _load(chance: np.random.Generator, gpus: int) -> tuple[np.ndarray, np.ndarray]:
    """The load of each GPU at each second, 0 to 1, and whether it is that of a job over all of them."""
    load = np.zeros((DAY_S, gpus))
    is_training = np.zeros(DAY_S, dtype=bool)
    second = 0
    while second < DAY_S:
        length_s = int(chance.lognormal(7.8, 0.9)) + 60
        span = slice(second, min(second + length_s, DAY_S))
        draw = chance.random()
        if draw < 0.33:
            load[span] = _training(chance, span.stop - span.start)[:, None]
            is_training[span] = True
        elif draw < 0.55:
            for gpu in range(gpus):
                load[span, gpu] = _inference(chance, span.stop - span.start) if chance.random() < 0.6 else 0.0
        second = span.stop
    return load, is_training


def _training(chance: np.random.Generator, length_s: int) -> np.ndarray:
    load = np.full(length_s, chance.uniform(0.93, 1.0))
    every_s, pause_s = int(chance.uniform(300, 1800)), int(chance.uniform(5, 25))
    load[np.arange(length_s) % every_s >= every_s - pause_s] = 0.04  # a checkpoint is written
    load[: min(45, length_s)] = 0.1  # libraries and data come up
    return load


def _inference(chance: np.random.Generator, length_s: int) -> np.ndarray:
    lengths_s = chance.geometric(1 / 20, size=2 * (length_s // 20 + 2))
    heights = chance.beta(2, 1.5, lengths_s.size) * (chance.random(lengths_s.size) < 0.65)
    return np.resize(np.repeat(heights, lengths_s), length_s)


def _readings(
    chance: np.random.Generator, load: np.ndarray, is_training: np.ndarray, heat_before: np.ndarray
) -> tuple[Columns, np.ndarray]:
    shape, is_busy = load.shape, load > 0

    def noise(sigma: float) -> np.ndarray:
        return chance.normal(0, sigma, shape) * is_busy

    wanted_w = 72 + 660 * load**1.2 + noise(7)
    power_w = np.minimum(wanted_w, 700 + noise(1.5)) + chance.normal(0, 0.12, shape)
    is_capped = wanted_w > 700
    warmth = np.concatenate([heat_before, power_w / 700])
    kernel = np.full(KERNEL_S, 1 / KERNEL_S)
    heat = np.stack([np.convolve(one, kernel, "valid")[1:] for one in warmth.T], axis=1)
    utilization = np.clip(np.rint(100 * load + noise(0.9)), 0, 100)
    used_mib = 4 + _memory_mib(chance, is_busy, is_training)
    clock_mhz = np.where(is_busy, 1980 - 15 * np.rint(np.abs(noise(1.2)) + 9 * is_capped), 345)
    traffic = load * np.where(is_training[:, None], 1.0, 0.15)
    zero = np.zeros(shape)
    columns = {
        "utilization_percent": utilization,
        "memory_utilization_percent": np.clip(np.rint(0.52 * utilization + noise(1.0)), 0, 100),
        "memory_used_bytes": used_mib * MIB,
        "memory_free_bytes": MEMORY_BYTES - used_mib * MIB - 600 * MIB,
        "temperature_celsius": np.rint(27 + 36 * heat),
        "memory_temperature_celsius": np.rint(33 + 45 * heat),
        "power_watts": np.rint(power_w * 1000) / 1000,
        "energy_joules": np.rint((power_w + chance.normal(0, 0.4, shape)) * 1000) / 1000,
        "power_limit_watts": zero + 700,
        "clock_sm_hertz": clock_mhz * MHZ,
        "clock_memory_hertz": zero + 2619 * MHZ,
        "performance_state": zero,
        "clock_event_reasons_bitmask": np.where(is_capped, 4, np.where(is_busy, 0, 1)),
        "throttle_sw_power_cap_seconds": is_capped * np.rint(chance.beta(6, 2, shape) * 1000) / 1000,
        "throttle_hw_thermal_seconds": zero,
        "pcie_tx_bytes": KIB * np.rint(traffic * 25_000 * np.exp(noise(0.10)) + 3 * is_busy),
        "pcie_rx_bytes": KIB * np.rint(traffic * 60_000 * np.exp(noise(0.10)) + 5 * is_busy),
        "nvlink_tx_bytes": KIB * np.rint(is_training[:, None] * load * 2e6 * np.exp(noise(0.02))),
        "nvlink_rx_bytes": KIB * np.rint(is_training[:, None] * load * 2e6 * np.exp(noise(0.02))),
        "encoder_utilization_percent": zero,
    }
    return columns, warmth[-KERNEL_S:]


def _memory_mib(chance: np.random.Generator, is_busy: np.ndarray, is_training: np.ndarray) -> np.ndarray:
    """Training holds what it took; a server's allocator takes and gives back some 256 MiB now and then."""
    changes = chance.integers(-2, 3, is_busy.shape) * (chance.random(is_busy.shape) < 0.01)
    server = 38_000 + 256 * (np.abs(np.cumsum(changes * is_busy, axis=0)) % 128)
    return np.where(is_training[:, None], 71_344, np.where(is_busy, server, 0))


def record_batch(shape: Shape, first_tick: int, piece: Columns) -> pa.RecordBatch:
    """Rows of `gpu_sample` from arrays of [tick, gpu] by name; `observed_at`, of [tick], is taken out of them."""
    times = piece.pop("observed_at")
    ticks, gpus = times.size, shape.gpus
    rows = ticks * gpus
    seq = (first_tick + np.arange(ticks))[:, None] * (gpus + SEQS_PER_TICK) + np.arange(gpus)[None, :] + 1
    uuids = [f"GPU-{shape.seed:08x}-0000-4000-8000-{gpu:012x}" for gpu in range(gpus)]
    given: dict[str, object] = {
        "seq": seq.ravel(),
        "observed_at": np.repeat(times, gpus),
        "host": [HOST] * rows,
        "boot_id": [BOOT_ID] * rows,
        "gpu_uuid": uuids * ticks,
        "gpu_index": np.tile(np.arange(gpus), ticks),
        "interval_seconds": np.ones(rows),
        "counter_epoch": np.ones(rows),
        "up": [True] * rows,
        "memory_kind": ["dedicated"] * rows,
        "absence": ['{"fan_speed_percent":"not_supported"}'] * rows,
        **{name: values.ravel() for name, values in piece.items()},
    }
    schema = arrow_schema(KINDS["gpu_sample"])
    arrays = [
        _array(given[field.name], field.type) if field.name in given else pa.nulls(rows, field.type) for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)


def _array(values: object, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(wanted):
        return pa.array(np.asarray(values), pa.float64()).cast(wanted, safe=False)
    if pa.types.is_timestamp(wanted):
        return pa.array(values, pa.int64()).cast(wanted)
    if pa.types.is_string(wanted) or pa.types.is_boolean(wanted):
        return pa.array(values, wanted)
    return pa.array(np.asarray(values).astype(wanted.to_pandas_dtype()))


def entropy_bytes(shape: Shape) -> dict[str, float]:
    """Zero-order entropy of each field in bytes a value: of its values, of a counter's steps."""
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    for columns in days(shape):
        for name in FIELDS:
            scaled = np.rint(columns[name] * (1000 if name.endswith(("watts", "joules", "seconds")) else 1))
            drawn[name].append(np.diff(scaled, axis=0) if name in COUNTERS else scaled)
    return {name: _entropy_bytes(np.concatenate(pieces)) for name, pieces in drawn.items()}


def _entropy_bytes(values: np.ndarray) -> float:
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum() / 8) + 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shape = Shape(arguments.days, arguments.gpus, arguments.seed)
    entropies = entropy_bytes(shape)
    for name, entropy in entropies.items():
        print(f"{name:32}{entropy:8.3f}")
    mean = reduce(float.__add__, entropies.values()) / len(FIELDS)
    print(f"{shape.rows:,} rows, {shape.values:,} values; mean entropy {mean:.3f} bytes a value")


if __name__ == "__main__":
    main()
