"""A ledger with weeks of requests, and of what was sampled around them, for whoever measures questions about requests.

Requests come day and night, three times as many at noon as at midnight; of three models and three operations, as OTLP
spans of a server give them: with tokens, queue, first token, trace and event ids. Every few hours the GPUs are capped
for a quarter of an hour and what runs then takes longer. One host of 8 GPUs is sampled all the time; what its GPUs,
processes and servers did is kept for two days. Closed days are a file a kind as compaction leaves them, today is hours
and then pieces of two minutes, and the newest two minutes are in the tail; rollups are made by the store.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.derivations import arrow_schema
from store.encodings import segment_writer
from store.events import KINDS, Event
from store.head import open_head
from store.ledger import Ledger
from store.rollups.updating import update_rollups
from store.segments import Segment, as_written, enter_segments, segment_path
from store.times import DAY_US, HOUR_US

NOW = datetime(2026, 11, 23, 12, 47, tzinfo=UTC)
NOW_US = round(NOW.timestamp() * 1e6)
HOST, BOOT = "bench-1", "3c5f1a70-8f0e-4a53-9a55-5a0f6d1f2b7c"
GPUS = [f"GPU-0badc0de-0000-4000-8000-{gpu:012x}" for gpu in range(8)]
MODELS = ("llama-3-70b", "qwen-3-32b", "bge-m3")
OPERATIONS = ("chat", "completion", "embedding")
PIECE_US = 120_000_000
INSTANTS_PER_BLOCK = 7168  # as store.upkeep.merging
ROW_GROUP_US = (
    4 * HOUR_US
)  # some 55,000 requests, and 115,200 samples of GPUs: as store.upkeep.merging, where rows are wide
SAMPLED_DAYS = 2

Columns = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """What is made.

    Args:
        requests: How many, in all.
        days: Over how many days before `NOW`.
        seed: Tells one history from another.
    """

    requests: int = 10_000_000
    days: int = 30
    seed: int = 0

    @property
    def start_us(self) -> int:
        return NOW_US - self.days * DAY_US


def make_history(folder: Path, history: History) -> None:
    """The ledger: sealed, rolled up, and a tail."""
    with closing(open_head(folder)) as head:
        ledger_id = head.execute("select id from ledger").get
        seq = 1
        for start_us, end_us in _spans(history):
            segments = []
            for kind, table in _tables(history, start_us, end_us, seq):
                segments.append(_written(folder, ledger_id, kind, table, is_closed=end_us - start_us > HOUR_US))
                seq += table.num_rows
            with head:
                enter_segments(head, segments, now_us=time.time_ns() // 1000)
                head.execute("update ledger set next_seq = ?", (seq,))
    with Ledger(folder, host=HOST, boot_id=BOOT) as ledger:
        for _, table in _tables(history, NOW_US - PIECE_US, NOW_US, seq):
            ledger.append(list(_events(table)))
    update_rollups(folder, now_us=NOW_US, until_done=True)


def _spans(history: History) -> Iterator[tuple[int, int]]:
    """The times of the files: closed days, hours of today, two minutes of this hour but for the last."""
    start_us, today_us = history.start_us, NOW_US // DAY_US * DAY_US
    while start_us < NOW_US - PIECE_US:
        step_us = DAY_US if start_us < today_us else HOUR_US if start_us + HOUR_US <= NOW_US else PIECE_US
        end_us = min((start_us // step_us + 1) * step_us, NOW_US - PIECE_US)
        yield start_us, end_us
        start_us = end_us


def _tables(history: History, start_us: int, end_us: int, seq: int) -> Iterator[tuple[str, pa.Table]]:
    """What is recorded in a span of time, by kind, with seqs from `seq` on."""
    makers = {"request": _requests, "system_sample": _host}
    if start_us >= NOW_US - SAMPLED_DAYS * DAY_US:
        makers |= {"gpu_sample": _gpus, "process_sample": _processes, "server_sample": _servers}
    for kind, make in makers.items():
        random = np.random.default_rng((history.seed, start_us // 1_000_000, len(kind)))
        table = _table(kind, make(history, random, start_us, end_us), seq)
        seq += table.num_rows
        yield kind, table


def _table(kind: str, columns: Columns, seq: int) -> pa.Table:
    rows = len(columns["observed_at"])
    order = pa.array(np.argsort(columns["observed_at"], kind="stable"))
    given = {"host": HOST, "boot_id": BOOT, **columns}
    arrays = [
        _array(given[one.name], one.type, rows) if one.name in given else pa.nulls(rows, one.type)
        for one in arrow_schema(KINDS[kind])
    ]
    table = pa.table(arrays, schema=arrow_schema(KINDS[kind])).take(order)
    place = table.schema.get_field_index("seq")
    return table.set_column(place, table.schema.field(place), pa.array(np.arange(seq, seq + rows)))


def _array(values: Any, wanted: pa.DataType, rows: int) -> pa.Array:
    if isinstance(values, (str, bool, float, int)):
        return pa.repeat(pa.scalar(values).cast(wanted), rows)
    if isinstance(values, pa.Array):
        return values.cast(wanted)
    if pa.types.is_decimal(wanted):
        return pa.array(np.round(values, 3), pa.float64()).cast(wanted, safe=False)
    if pa.types.is_timestamp(wanted):
        return pa.array(values, pa.int64()).cast(wanted)
    return pa.array(values).cast(wanted, safe=False)


def is_capped(time_us: np.ndarray) -> np.ndarray:
    """Whether the GPUs are capped then: the third quarter of every fifth hour."""
    return (time_us // HOUR_US % 5 == 0) & (time_us % HOUR_US >= HOUR_US // 2) & (time_us % HOUR_US < HOUR_US * 3 // 4)


def _requests(history: History, random: np.random.Generator, start_us: int, end_us: int) -> Columns:
    expected = history.requests * (end_us - start_us) / (history.days * DAY_US)
    time_us = _arrivals(random, round(expected), start_us, end_us)
    rows = len(time_us)
    kind = random.choice(4, rows, p=[0.45, 0.25, 0.1, 0.2])  # chat of two models, completion, embedding
    model, operation = np.array([0, 1, 1, 2])[kind], np.array([0, 0, 1, 2])[kind]
    tokens_in = np.clip(random.lognormal(5.5, 0.9, rows), 8, 16_000).astype(np.int64)
    tokens_out = np.where(kind == 3, 0, np.clip(random.lognormal(5.0, 0.8, rows), 1, 4096)).astype(np.int64)
    slower = np.where(is_capped(time_us), 1.8, 1.0) * np.exp(random.normal(0, 0.06, rows))
    queue_s = random.exponential(0.02, rows)
    prefill_s = (0.03 + 0.00015 * tokens_in) * slower
    decode_s = np.array([0.03, 0.016, 0.016, 0.0])[kind] * tokens_out * slower
    status = random.choice(3, rows, p=[0.98, 0.015, 0.005])
    ids, traces = _hex(random, rows, 16), _hex(random, rows, 16)
    text_less = kind == 3
    return {
        "observed_at": time_us,
        "ended_at": time_us,
        "started_at": time_us - np.round(1e6 * (queue_s + prefill_s + decode_s)).astype(np.int64),
        "event_id": ids,
        "source": "otlp",
        "trace_id": traces,
        "span_id": pc.utf8_slice_codeunits(ids, 0, 16),
        "service": pa.array(["api", "batch"]).take(pa.array((kind == 2).astype(np.int64))),
        "endpoint": "/v1/chat/completions",
        "operation": pa.array(OPERATIONS).take(pa.array(operation)),
        "method": "POST",
        "request_model": pa.array(MODELS).take(pa.array(model)),
        "response_model": pa.array(MODELS).take(pa.array(model)),
        "server_address": pa.array([f"server-{at}:8000" for at in range(3)]).take(pa.array(model)),
        "stream": True,
        "status": pa.array(["ok", "error", "timeout"]).take(pa.array(status)),
        "duration_seconds": queue_s + prefill_s + decode_s,
        "queue_seconds": queue_s,
        "prefill_seconds": prefill_s,
        "time_to_first_token_seconds": pa.array(queue_s + prefill_s, mask=text_less),
        "decode_seconds": pa.array(decode_s, mask=text_less),
        "time_per_output_token_seconds": pa.array(decode_s / np.maximum(tokens_out - 1, 1), mask=text_less),
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "cached_input_tokens": tokens_in // 2,
        "gpu_uuids": pa.array([GPUS[:4], GPUS[4:6], GPUS[6:7]]).take(pa.array(model)),
    }


def _arrivals(random: np.random.Generator, count: int, start_us: int, end_us: int) -> np.ndarray:
    """Times of requests: three times as many at noon as at midnight."""
    tried = random.integers(start_us, end_us, 2 * count)
    wanted = (2 - np.cos(2 * np.pi * (tried % DAY_US) / DAY_US)) / 4  # of two thirds at most, half on average
    return np.sort(tried[random.random(len(tried)) < wanted])


def _hex(random: np.random.Generator, rows: int, size: int) -> pa.Array:
    text = random.bytes(rows * size).hex().encode()
    offsets = pa.py_buffer(np.arange(0, (rows + 1) * 2 * size, 2 * size, dtype=np.int32))
    return pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(text))


def _ticks(start_us: int, end_us: int, every_us: int) -> np.ndarray:
    return np.arange(-(-start_us // every_us) * every_us, end_us, every_us)


def _sample(time_us: np.ndarray, every_s: float) -> dict[str, Any]:
    return {"observed_at": time_us, "interval_seconds": every_s, "counter_epoch": 0}


def _host(_: History, random: np.random.Generator, start_us: int, end_us: int) -> Columns:
    time_us = _ticks(start_us, end_us, 1_000_000)
    second = (time_us - 1_750_000_000_000_000) / 1e6
    return _sample(time_us, 1.0) | {
        "cpu_utilization_percent": np.round(random.normal(30, 4, len(time_us)), 1),
        "memory_used_bytes": 2**34 + random.integers(0, 2**24, len(time_us)),
        "pressure_cpu_some_seconds": 0.02 * second,
        "pressure_memory_some_seconds": 0.0 * second,
        "pressure_io_some_seconds": 0.01 * second,
        "swap_in_bytes": 0,
        "swap_out_bytes": 0,
    }


def _gpus(_: History, random: np.random.Generator, start_us: int, end_us: int) -> Columns:
    tick_us = _ticks(start_us, end_us, 1_000_000)
    time_us = np.repeat(tick_us, len(GPUS))
    rows, capped = len(time_us), is_capped(time_us)
    second = (time_us - 1_750_000_000_000_000) / 1e6
    since_us = time_us % HOUR_US - HOUR_US // 2
    in_hour_s = np.where(time_us // HOUR_US % 5 == 0, np.clip(since_us, 0, HOUR_US // 4), 0) / 1e6
    power = np.where(capped, 690, 540) + random.normal(0, 8, rows)
    return _sample(time_us, 1.0) | {
        "gpu_uuid": pa.array(GPUS).take(pa.array(np.tile(np.arange(len(GPUS)), len(tick_us)))),
        "gpu_index": np.tile(np.arange(len(GPUS)), len(tick_us)),
        "up": True,
        "utilization_percent": np.clip(np.rint(random.normal(93, 3, rows)), 0, 100),
        "memory_used_bytes": 2**36 + 2**20 * random.integers(0, 99, rows),
        "memory_total_bytes": 2**36 + 2**33,
        "temperature_celsius": np.rint(random.normal(62, 1, rows)),
        "power_watts": np.round(power, 2),
        "energy_joules": 560 * second,
        "clock_sm_hertz": np.where(capped, 1_095_000_000, 1_980_000_000) + 15_000_000 * random.integers(-1, 2, rows),
        "clock_event_reasons_bitmask": np.where(capped, 4, 0),
        "throttle_sw_power_cap_seconds": (time_us // HOUR_US // 5) * 900 + in_hour_s,
        "throttle_sw_thermal_seconds": 0.0 * second,
        "throttle_hw_thermal_seconds": 0.0 * second,
        "pcie_replay_count": 0,
    }


def _processes(_: History, random: np.random.Generator, start_us: int, end_us: int) -> Columns:
    tick_us = _ticks(start_us, end_us, 5_000_000)
    time_us, gpu = np.repeat(tick_us, len(GPUS)), np.tile(np.arange(len(GPUS)), len(tick_us))
    return _sample(time_us, 5.0) | {
        "gpu_uuid": pa.array(GPUS).take(pa.array(gpu)),
        "gpu_index": gpu,
        "pid": 4000 + gpu,
        "started_at": NOW_US - 99 * DAY_US + 0 * time_us,
        "name": "vllm",
        "memory_used_bytes": 2**36 + 2**20 * random.integers(0, 99, len(time_us)),
        "sm_utilization_percent": np.rint(random.normal(93, 3, len(time_us))),
    }


def _servers(_: History, random: np.random.Generator, start_us: int, end_us: int) -> Columns:
    tick_us = _ticks(start_us, end_us, 5_000_000)
    time_us, number = np.repeat(tick_us, 3), np.tile(np.arange(3), len(tick_us))
    return _sample(time_us, 5.0) | {
        "server_address": pa.array([f"server-{at}:8000" for at in range(3)]).take(pa.array(number)),
        "model": pa.array(MODELS).take(pa.array(number)),
        "up": True,
        "requests_running_count": random.integers(8, 24, len(time_us)),
        "requests_waiting_count": random.integers(0, 3, len(time_us)),
        "kv_cache_used_ratio": np.clip(random.normal(0.6, 0.05, len(time_us)), 0, 1),
        "preemption_count": 0,
    }


def _written(folder: Path, ledger_id: str, kind: str, table: pa.Table, *, is_closed: bool) -> Segment:
    """One sealed file; of a closed day in row groups and an order as a merge gives them."""
    time_us = table["observed_at"].cast(pa.int64()).to_numpy()
    seq = table["seq"].to_numpy()
    first_us, last_us = int(time_us[0]), int(time_us[-1])
    day = (date(1970, 1, 1) + timedelta(first_us // DAY_US)).isoformat()
    level = 2 if is_closed else 0
    seqs = (int(seq[0]), int(seq[-1]))
    path = segment_path(kind, KINDS[kind].version, day, HOST, seqs, level=level)
    segment = Segment(path, kind, KINDS[kind].version, level, HOST, *seqs, table.num_rows, first_us, last_us)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    with segment_writer(folder / path, segment, ledger_id, table.schema) as writer:
        for piece in _row_groups(kind, table, time_us) if is_closed else [table]:
            writer.write_table(piece, row_group_size=len(piece))
    return replace(as_written(folder, segment))


def _row_groups(kind: str, table: pa.Table, time_us: np.ndarray) -> Iterator[pa.Table]:
    cuts = np.flatnonzero(np.diff(time_us // ROW_GROUP_US)) + 1
    for first, after in zip([0, *cuts.tolist()], [*cuts.tolist(), len(time_us)], strict=True):
        piece = table.slice(first, after - first)
        _, instant = np.unique(time_us[first:after], return_inverse=True)
        keys = piece.select([*KINDS[kind].series, "observed_at", "seq"])
        keys = keys.append_column("block", pa.array(instant // INSTANTS_PER_BLOCK))
        names = ("block", *KINDS[kind].series, "observed_at", "seq")
        yield piece.take(pc.sort_indices(keys, [(name, "ascending") for name in names]))


def _events(table: pa.Table) -> Iterator[Event]:
    kind = next(name for name, one in KINDS.items() if arrow_schema(one) == table.schema)
    for row in table.drop_columns(["seq", "host", "boot_id"]).to_pylist():
        observed_us = round(row.pop("observed_at").timestamp() * 1e6)
        yield Event(kind, observed_us, {name: _plain(one) for name, one in row.items() if one is not None})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1e6)
    return value if isinstance(value, (int, float, str, bool, list)) else float(value)
