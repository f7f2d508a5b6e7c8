"""What the energy of requests is worked out from: a meter per GPU, and when and where each request ran."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query.costs.energy_sharing import Meter, counter_meter, power_meter
from query.engine import Engine, in_window, sql_text
from query.errors import GroupingError
from query.reading.columns import coded
from query.requests.summary import requests_with_model
from query.windows import Window
from store.rollups.cells import Ints, doubles

REQUESTS_MAX = 1_000_000  # 216,000 that name eight GPUs each, and six hours of samples, take 0.45 GB
OWN_CALLS = "mcp"  # the source of calls of gpuledger's own server, which use no GPU

Basis = Literal["counter", "power", "none"]
ToldBy = Literal["request", "process", "host"]


@dataclass(frozen=True, slots=True)
class GpuMeter:
    """How much one GPU used, and by what that is known."""

    host: str
    gpu_uuid: str
    gpu_index: int | None
    basis: Basis
    meter: Meter


def read_meters(engine: Engine, edges_us: tuple[int, int], step_s: int, reach_us: int) -> list[GpuMeter]:
    """The meters of all GPUs that have energy or power between two instants.

    Args:
        engine: Sees `gpu_sample`.
        edges_us: The instants, in microseconds since the epoch.
        step_s: One reading in so many seconds is enough.
        reach_us: Power samples further apart than that do not tell what was between them.
    """
    text = sql_text("energy_readings").format(
        relation=engine.relation("gpu_sample"),
        in_window=in_window(engine),
        bucket=engine.bucket("observed_at", engine.parameter("step", "int")),
    )
    table = engine.query(text, start=edges_us[0], end=edges_us[1], step=step_s)
    if not table.num_rows:
        return []
    gpus, gpu = coded(table, ("host", "gpu_uuid"))
    _, run = coded(table, ("boot_id", "counter_epoch"))
    indexes = table["index_then"].to_pylist()
    found = []
    for place in sorted(range(len(gpus)), key=lambda at: tuple(map(str, gpus[at]))):
        rows = np.flatnonzero(gpu == place)
        host, gpu_uuid = gpus[place]
        basis, meter = _meter(table.take(pa.array(rows)), run[rows], reach_us)
        found.append(GpuMeter(host, gpu_uuid, indexes[int(rows[-1])], basis, meter))
    return found


def _meter(table: pa.Table, run: Ints, reach_us: int) -> tuple[Basis, Meter]:
    """Of the counter where it was read at least twice, else of the power."""
    for basis, column in (("counter", "energy"), ("power", "power")):
        is_there = table[column].is_valid().to_numpy()
        if is_there.sum() < 2:
            continue
        time_us = table[f"{column}_at"].filter(pa.array(is_there)).cast(pa.int64()).to_numpy()
        values = doubles(table[column].filter(pa.array(is_there)))
        order = np.argsort(time_us, kind="stable")
        if basis == "counter":
            return "counter", counter_meter(time_us[order], run[is_there][order], values[order])
        return "power", power_meter(time_us[order], values[order], reach_us=reach_us)
    return "none", Meter(np.empty(0, np.int64), np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class RanOn:
    """Where requests ran: on these GPUs, or where nobody says on which, on all of their host."""

    host: str
    gpus: frozenset[str]
    told_by: ToldBy

    def has(self, one: GpuMeter) -> bool:
        return one.gpu_uuid in self.gpus if self.gpus else self.host == one.host


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests and when they ran.

    Args:
        table: A row each.
        start_us, end_us: From when to when.
        place: Of each the place of where it ran in `ran_on`.
        ran_on: The distinct ones of those.
    """

    table: pa.Table
    start_us: Ints
    end_us: Ints
    place: Ints
    ran_on: tuple[RanOn, ...]


def read_requests(engine: Engine, window: Window, late_us: int) -> Requests:
    """The requests that may have run in the window: it is known of those that finished up to `late_us` after it.

    Raises:
        GroupingError: There are more than `REQUESTS_MAX`.
    """
    text = sql_text("energy_requests").format(
        relation=requests_with_model(engine), in_window=in_window(engine), limit=engine.parameter("top", "int")
    )
    table = engine.query(text, start=window.start_us, end=window.end_us + late_us, top=REQUESTS_MAX + 1)
    if table.num_rows > REQUESTS_MAX:
        raise GroupingError(f"More than {REQUESTS_MAX:,} requests finished in this window", "give a shorter one")
    uuids = pc.binary_join(table["gpu_uuids"].cast(pa.list_(pa.string())), " ").fill_null("")
    is_own = pc.equal(table["source"].fill_null(""), OWN_CALLS)
    table = table.set_column(table.schema.get_field_index("gpu_uuids"), "gpu_uuids", uuids)
    table = table.filter(pc.invert(pc.and_(is_own, pc.equal(uuids, ""))))
    end_us = pc.coalesce(table["ended_at"], table["observed_at"]).cast(pa.int64()).to_numpy()
    began = (end_us - np.round(doubles(table["duration_seconds"]) * 1e6)).astype(np.int64)
    start_us = pc.coalesce(table["started_at"].cast(pa.int64()), pa.array(began)).to_numpy()
    keys, place = coded(table, ("host", "gpu_uuids", "pid"))
    seen = _process_gpus(engine, window)
    ran_on = tuple(_ran_on(host, frozenset(uuids.split()), seen.get((host, pid))) for host, uuids, pid in keys)
    return Requests(table, np.minimum(start_us, end_us), end_us, place, ran_on)


def _process_gpus(engine: Engine, window: Window) -> dict[tuple[str, int], set[str]]:
    """The GPUs that each process was seen on in the window, by host and pid."""
    text = sql_text("process_gpus").format(relation=engine.relation("process_sample"), in_window=in_window(engine))
    found: dict[tuple[str, int], set[str]] = {}
    for row in engine.query(text, start=window.start_us, end=window.end_us).to_pylist():
        found.setdefault((row["host"], row["pid"]), set()).add(row["gpu_uuid"])
    return found


def _ran_on(host: str, named: frozenset[str], of_process: set[str] | None) -> RanOn:
    if named:
        return RanOn(host, named, "request")
    return RanOn(host, frozenset(of_process or ()), "process" if of_process else "host")
