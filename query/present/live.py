"""What the machine does now: the newest row of each GPU and of the host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from query.engine import Source, sql_text
from query.errors import UnknownGpuError
from query.reading.newest_rows import NewestQuestion
from store.events import GPU_SAMPLE, KINDS, AbsenceReason, stale_after_s

LOOK_BACK_S = 600  # how far back the newest row is looked for

GPU_COLUMNS = (
    "up",
    "utilization_percent",
    "sm_active_ratio",
    "memory_used_bytes",
    "memory_total_bytes",
    "memory_available_bytes",
    "memory_kind",
    "temperature_celsius",
    "memory_temperature_celsius",
    "power_watts",
    "power_limit_watts",
    "clock_sm_hertz",
    "performance_state",
    "clock_event_reasons_bitmask",
)
HOST_COLUMNS = (
    "cpu_utilization_percent",
    "cpu_count",
    "load_1m_count",
    "memory_used_bytes",
    "memory_total_bytes",
    "memory_available_bytes",
    "swap_used_bytes",
    "swap_total_bytes",
    "ledger_filesystem_free_bytes",
)


_ROW = ("seq", "observed_at", "host", "interval_seconds", "absence")
_COLUMNS = {
    "gpu_sample": (*_ROW, "gpu_uuid", "gpu_index", *GPU_COLUMNS),
    "system_sample": (*_ROW, *HOST_COLUMNS),
}
_NAME_COLUMNS = ("seq", "observed_at", "host", "gpu_uuid", "name")


@dataclass(frozen=True, slots=True)
class GpuNow:
    """One GPU now.

    Args:
        index: NVML index.
        uuid: Identity.
        name: Product name, where it is known.
        age_s: Age of its newest row.
        values: Columns of `gpu_sample`; None where absent, all None when the row is stale.
        clock_event_reasons: What holds its clocks, in words.
        absence: Why a value is None.
    """

    index: int
    uuid: str
    name: str | None
    age_s: float
    values: Mapping[str, Any]
    clock_event_reasons: tuple[str, ...]
    absence: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HostNow:
    """The host now; as `GpuNow`."""

    host: str
    age_s: float
    values: Mapping[str, Any]
    absence: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LiveState:
    """The machine now.

    Args:
        as_of: The time of the question.
        newest_age_s: Age of the newest row; None where nothing was recorded in the last ten minutes.
        is_stale: Whether that is too old to stand for now.
        gpus: By index.
        hosts: Usually one.
        no_gpu_because: Why there is no GPU, or no fresh row of one while the host has some, in the recorder's words;
            None where there is one, and where the recorder was silent: then nobody knows.
    """

    as_of: datetime
    newest_age_s: float | None
    is_stale: bool
    gpus: tuple[GpuNow, ...]
    hosts: tuple[HostNow, ...]
    no_gpu_because: str | None


def live_state(source: Source, *, now: datetime, gpus: Sequence[int] = ()) -> LiveState:
    """The newest state of GPUs and host.

    Raises:
        UnknownGpuError: There is no such GPU.
    """
    now_us = round(now.timestamp() * 1e6)
    start_us = now_us - LOOK_BACK_S * 1_000_000
    rows = {kind: _newest(source, kind, start_us, now_us) for kind in _COLUMNS}
    names = _names(source)
    found = sorted((_gpu_now(row, now, names) for row in rows["gpu_sample"]), key=lambda gpu: gpu.index)
    unknown = [gpu for gpu in gpus if gpu not in {one.index for one in found}]
    if unknown and found:
        raise UnknownGpuError(
            f"There is no GPU {unknown[0]}", f"there is GPU {', '.join(str(one.index) for one in found)}"
        )
    hosts = tuple(_host_now(row, now) for row in rows["system_sample"])
    ages = [*(gpu.age_s for gpu in found), *(host.age_s for host in hosts)]
    return LiveState(
        as_of=now,
        newest_age_s=min(ages, default=None),
        is_stale=all(_is_stale(row, now) for kind in rows.values() for row in kind),
        gpus=tuple(gpu for gpu in found if not gpus or gpu.index in gpus),
        hosts=hosts,
        no_gpu_because=probe_words(source, "gpu") if hosts and _are_missing(rows, now) else None,
    )


def _are_missing(rows: Mapping[str, Sequence[Mapping[str, Any]]], now: datetime) -> bool:
    """Whether there are no GPUs, or those there are have fallen silent while the host has not."""
    if not rows["gpu_sample"]:
        return True
    is_host_fresh = not all(_is_stale(row, now) for row in rows["system_sample"])
    return is_host_fresh and all(_is_stale(row, now) for row in rows["gpu_sample"])


def _newest(source: Source, kind: str, start_us: int, now_us: int) -> Sequence[Mapping[str, Any]]:
    return source.newest(NewestQuestion(kind, _COLUMNS[kind], ("host", *KINDS[kind].series), start_us, now_us))


def _names(source: Source) -> Mapping[str, str]:
    described = source.newest(NewestQuestion("inventory", _NAME_COLUMNS, ("gpu_uuid",)))
    return {row["gpu_uuid"]: row["name"] for row in described if row["gpu_uuid"]}


def probe_words(source: Source, probe: str) -> str | None:
    """What the recorder last said of one of its probes: what it watches, or why it sees nothing."""
    with source.engine(("ledger_event",)) as engine:
        sql = sql_text("probe_message").format(
            relation=engine.relation("ledger_event"), probe=engine.parameter("probe", "text")
        )
        words: str | None = engine.query(sql, probe=probe)["message"][0].as_py()
        return words


def _gpu_now(row: Mapping[str, Any], now: datetime, names: Mapping[str, str]) -> GpuNow:
    values, absence = _present(row, GPU_COLUMNS, now)
    mask = values.pop("clock_event_reasons_bitmask") or 0
    return GpuNow(
        index=row["gpu_index"],
        uuid=row["gpu_uuid"],
        name=names.get(row["gpu_uuid"]),
        age_s=_age_s(row, now),
        values=values,
        clock_event_reasons=_reasons(mask),
        absence=absence,
    )


def _reasons(mask: int) -> tuple[str, ...]:
    """The reasons that the bits stand for; a bit that a newer driver brought says its number."""
    known = GPU_SAMPLE.by_name["clock_event_reasons_bitmask"].bits or {}
    bits = (1 << place for place in range(mask.bit_length()))
    return tuple(known.get(bit, f"0x{bit:x}") for bit in bits if mask & bit)


def _host_now(row: Mapping[str, Any], now: datetime) -> HostNow:
    values, absence = _present(row, HOST_COLUMNS, now)
    return HostNow(row["host"], _age_s(row, now), values, absence)


def _present(row: Mapping[str, Any], columns: Sequence[str], now: datetime) -> tuple[dict[str, Any], dict[str, str]]:
    """The columns' values and why some are missing. A row that is too old has none: never the last value again."""
    if _is_stale(row, now):
        return dict.fromkeys(columns), {"*": AbsenceReason.STALE.value}
    absence: dict[str, str] = msgspec.json.decode(row["absence"]) if row["absence"] else {}
    return {column: row[column] for column in columns}, absence


def _age_s(row: Mapping[str, Any], now: datetime) -> float:
    age_s: float = (now.astimezone(UTC) - row["observed_at"]).total_seconds()
    return max(0.0, age_s)


def _is_stale(row: Mapping[str, Any], now: datetime) -> bool:
    interval_s = row["interval_seconds"] or 1.0
    return _age_s(row, now) > stale_after_s(interval_s)
