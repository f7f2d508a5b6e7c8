"""How answers about energy, waste and what slows GPUs down reach a person."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from rich.console import Console
from rich.markup import escape

from gpuledger.answers.output import Answer, plain_table, window_words
from gpuledger.answers.requests import seconds_words
from query.costs.activity import Activity, GpuActivity
from query.costs.energy import EnergyGroup, EnergySummary
from query.costs.leaks import MemoryLeaks, ProcessMemory
from query.costs.prices import Bill
from query.costs.stragglers import Deviation, PeerGpu, Stragglers
from query.costs.throttling import GpuThrottling, ThrottleReason, Throttling
from query.costs.waste import Held, Waste
from query.figures import age_words, significant, spelled
from query.windows import Window

_UNITS = {"clock_sm_hertz": "Hz", "temperature_celsius": "°C", "power_watts": "W", "sm_active_ratio": ""}


def energy_answer(found: EnergySummary) -> Answer:
    """What requests cost in energy: one row a group."""

    def show(out: Console) -> None:
        out.print(f"energy  {window_words(found.window)}", style="bold")
        share = found.attributed_joules / found.joules if found.joules else 0.0
        out.print(
            f"{spelled(found.joules, 'J')}, {_cost_words(found.cost)}: {_percent(share)} while requests ran, "
            f"{_percent(1 - share)} ({spelled(found.unattributed_joules, 'J')}) while none did"
        )
        money = _money_columns(found.cost)
        columns = [*found.by, "n", "J/request", "Wh/request", "J/1k in", "J/1k out", "shared", "energy", *money]
        table = plain_table("", columns, left=found.by)
        for one in found.groups:
            table.add_row(*_energy_cells(one, found))
        if found.groups:
            out.print(table)
        _show_dearest(out, found)
        _say(out, found.method, found.coverage, found.limits)

    rows = [_energy_row(one, found.window) for one in found.groups]
    return Answer(found, rows, show, ("from", "to", *_flat_names(EnergyGroup)))


def _energy_cells(one: EnergyGroup, found: EnergySummary) -> list[str]:
    return [
        *(escape(getattr(one, name) or "–") for name in found.by),
        f"{one.n:,}",
        spelled(one.joules_per_request, ""),
        spelled(one.watt_hours_per_request, ""),
        spelled(one.joules_per_1000_input_tokens, ""),
        spelled(one.joules_per_1000_output_tokens, ""),
        _percent(one.together_ratio),
        spelled(one.joules, "J"),
        *_money_cells(one.cost, found.cost),
    ]


def _energy_row(one: EnergyGroup, window: Window) -> dict[str, Any]:
    return {"from": window.start, "to": window.end, **_flat(one)}


def _show_dearest(out: Console, found: EnergySummary) -> None:
    if not found.requests:
        return
    table = plain_table("", ["request", "ended", "operation", "model", "took", "in", "out", "energy", "J/1k out", ""])
    for one in found.requests:
        counts = ["–" if count is None else f"{count:,}" for count in (one.input_tokens, one.output_tokens)]
        names = [escape(name or "–") for name in (one.operation, one.model)]
        table.add_row(
            str(one.seq),
            f"{one.ended_at:%Y-%m-%d %H:%M:%S}",
            *names,
            seconds_words(one.duration_seconds),
            *counts,
            spelled(one.joules, "J"),
            spelled(one.joules_per_1000_output_tokens, ""),
            "estimate" if one.is_estimate else "",
        )
    out.print(table)


def waste_answer(found: Waste) -> Answer:
    """What was held and not used: one row a GPU and one a holder."""

    def show(out: Console) -> None:
        out.print(f"held and not used  {window_words(found.window)}", style="bold")
        total = found.total
        if not found.n:
            out.print("No GPU was held.")
        else:
            out.print(
                f"{spelled(total.idle_hours, '')} of {spelled(total.held_hours, '')} GPU-hours held were idle "
                f"({_percent(total.idle_ratio)}): {_cost_words(total.cost)}"
            )
            _show_held(out, "gpu", [(_gpu_words(one.gpu_index, one.gpu_uuid), one) for one in found.gpus], total)
            _show_held(out, found.by, [(_holder_words(one), one) for one in found.holders], total)
        _say(out, found.method, found.coverage, found.limits)

    rows = [
        {"from": found.window.start, "to": found.window.end, "sum_of": of, **_flat(one)}
        for of, sums in (("gpu", found.gpus), (found.by, found.holders))
        for one in sums
    ]
    return Answer(found, rows, show, ("from", "to", "sum_of", *_flat_names(Held)))


def _show_held(out: Console, of: str, rows: Sequence[tuple[str, Held]], total: Held) -> None:
    table = plain_table(
        "", [of, "held h", "idle h", "idle", "unknown h", "kWh", *_money_columns(total.cost)], left=(of,)
    )
    for words, one in rows:
        hours = [spelled(hours, "") for hours in (one.held_hours, one.idle_hours)]
        more = [_percent(one.idle_ratio), spelled(one.unknown_hours, ""), spelled(one.cost.kwh, "")]
        table.add_row(words, *hours, *more, *_money_cells(one.cost, total.cost))
    out.print(table)


def _holder_words(one: Held) -> str:
    if not one.is_process_seen:
        return "(no process seen)"
    return escape(one.holder) if one.holder is not None else "(in none)"


def throttling_answer(found: Throttling) -> Answer:
    """What held clocks down: one row a GPU and reason."""

    def show(out: Console) -> None:
        columns = ["gpu", "reason", "time lost", "share", "by", "work lost", "clock while held", "else"]
        table = plain_table(f"throttling  {window_words(found.window)}", columns, left=("gpu", "reason", "by"))
        for gpu in found.gpus:
            for one in gpu.reasons:
                clocks = (spelled(gpu.held_clock_hertz, "Hz"), spelled(gpu.reference_clock_hertz, "Hz"))
                times = (_time_words(one.seconds), _percent(one.ratio), one.source, _time_words(one.lost_seconds))
                table.add_row(_gpu_words(gpu.gpu_index, gpu.gpu_uuid), one.reason, *times, *clocks)
        if table.rows:
            out.print(table)
        else:
            out.print(f"throttling  {window_words(found.window)}", style="bold")
        unheld = [_gpu_words(gpu.gpu_index, gpu.gpu_uuid) for gpu in found.gpus if not gpu.reasons]
        if unheld:
            out.print(f"Nothing held GPU {', '.join(unheld)}.")
        _say(out, found.method, found.coverage, found.limits)

    rows = [_throttle_row(gpu, one, found.window) for gpu in found.gpus for one in gpu.reasons]
    names = ("from", "to", *_names_but(GpuThrottling, "reasons", "lost_seconds"), *_names_but(ThrottleReason))
    return Answer(found, rows, show, names)


def _throttle_row(gpu: GpuThrottling, one: ThrottleReason, window: Window) -> dict[str, Any]:
    of_gpu = {name: getattr(gpu, name) for name in _names_but(GpuThrottling, "reasons", "lost_seconds")}
    return {"from": window.start, "to": window.end, **of_gpu, **_flat(one)}


def leaks_answer(found: MemoryLeaks) -> Answer:
    """Which processes leak: one row each."""

    def show(out: Console) -> None:
        columns = [
            "gpu",
            "pid",
            "name",
            "user",
            "verdict",
            "seen",
            "memory",
            "per hour",
            "99 % interval",
            "left",
            "full in",
        ]
        title = f"device memory of processes  {window_words(found.window)}"
        table = plain_table(title, columns, left=("gpu", "name", "user", "verdict"))
        for one in found.processes:
            table.add_row(*_leak_cells(one))
        out.print(table)
        leaks = sum(one.verdict == "leak" for one in found.processes)
        judged = sum(one.verdict != "too_short" for one in found.processes)
        out.print(f"{leaks or 'None'} of {judged} leak{'s' if leaks < 2 else ''}." if judged else "None can be judged.")
        _say(out, found.method, found.coverage, found.limits)

    return Answer(found, [_flat(one) for one in found.processes], show, _names_but(ProcessMemory))


def _leak_cells(one: ProcessMemory) -> list[str]:
    low, high = (spelled(edge, "B") for edge in (one.slope_low_bytes_per_hour, one.slope_high_bytes_per_hour))
    return [
        _gpu_words(one.gpu_index, one.gpu_uuid),
        str(one.pid),
        escape(one.name or "–"),
        escape(one.user or "–"),
        one.verdict.replace("_", " "),
        age_words(one.observed_seconds),
        spelled(one.memory_used_bytes, "B"),
        spelled(one.slope_bytes_per_hour, "B"),
        f"{low} – {high}" if one.slope_bytes_per_hour is not None else "–",
        spelled(one.free_bytes, "B"),
        age_words(one.exhausted_in_seconds) if one.exhausted_in_seconds is not None else "–",
    ]


def stragglers_answer(found: Stragglers) -> Answer:
    """Which GPUs lag behind their peers: one row a GPU and metric."""

    def show(out: Console) -> None:
        table = plain_table(
            f"stragglers  {window_words(found.window)}",
            ["host", "gpu", "metric", "its own", "its peers'", "robust z", "of the time"],
            left=("host", "gpu", "metric"),
        )
        for gpu in found.found:
            for one in gpu.deviations:
                values = (spelled(value, _UNITS[one.metric]) for value in (one.value, one.peers_value))
                told = (f"{one.robust_z:+.1f}", _percent(one.persistent_ratio))
                table.add_row(escape(gpu.host), _gpu_words(gpu.gpu_index, gpu.gpu_uuid), one.metric, *values, *told)
        if found.found:
            out.print(table)
        else:
            out.print(f"stragglers  {window_words(found.window)}", style="bold")
            out.print(f"None of {found.n} GPUs lags behind its peers." if found.n else "No GPUs could be compared.")
        for group in found.groups:
            if group.reason:
                out.print(f"{escape(group.work or group.host or '')}: not compared: {group.reason}")
        _say(out, found.method, found.coverage, found.limits)

    rows = [_straggler_row(gpu, one, found.window) for gpu in found.found for one in gpu.deviations]
    return Answer(found, rows, show, ("from", "to", *_names_but(PeerGpu, "deviations"), *_names_but(Deviation)))


def _straggler_row(gpu: PeerGpu, one: Deviation, window: Window) -> dict[str, Any]:
    of_gpu = {name: getattr(gpu, name) for name in _names_but(PeerGpu, "deviations")}
    return {"from": window.start, "to": window.end, **of_gpu, **_flat(one)}


def activity_answer(found: Activity) -> Answer:
    """How busy GPUs were and how full: one row each."""

    def show(out: Console) -> None:
        ratios = ("sm_active_ratio", "sm_occupancy_ratio", "tensor_active_ratio", "dram_active_ratio", "power_ratio")
        headings = ["SM", "occupancy", "tensor", "DRAM", "power"]
        columns = ["gpu", "busy h", "empty h", "empty", *headings, "kWh while empty", "by"]
        table = plain_table(f"busy but empty  {window_words(found.window)}", columns, left=("gpu", "by"))
        for one in found.gpus:
            table.add_row(
                _gpu_words(one.gpu_index, one.gpu_uuid),
                spelled(one.busy_seconds / 3600, ""),
                spelled(one.empty_seconds / 3600, ""),
                _percent(one.empty_ratio),
                *(_percent(getattr(one, name)) for name in ratios),
                spelled(one.cost.kwh, ""),
                (one.judged_by or "–").replace("_", " "),
            )
        out.print(table)
        _say(out, found.method, found.coverage, found.limits)

    rows = [{"from": found.window.start, "to": found.window.end, **_flat(one)} for one in found.gpus]
    return Answer(found, rows, show, ("from", "to", *_flat_names(GpuActivity)))


def _flat(one: Any) -> dict[str, Any]:
    """A record as one row: what it costs in columns of their own."""
    row = {name: getattr(one, name) for name in _names_but(type(one))}
    cost = row.pop("cost", None)
    return row | ({f"cost_{name}": getattr(cost, name) for name in _names_but(Bill)} if cost else {})


def _flat_names(kind: type) -> tuple[str, ...]:
    return (*_names_but(kind, "cost"), *(f"cost_{name}" for name in _names_but(Bill)))


def _names_but(kind: type, *left_out: str) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind) if one.name not in left_out)


def _gpu_words(index: int | None, uuid: str | None) -> str:
    return str(index) if index is not None else escape(uuid or "–")


def _time_words(seconds: float | None) -> str:
    return seconds_words(seconds) if seconds is None or seconds < 120 else age_words(seconds)


def _percent(ratio: float | None) -> str:
    return spelled(None if ratio is None else 100 * ratio, "%")


def _cost_words(cost: Bill) -> str:
    price = [f"{spelled(cost.price, '')} {cost.currency}".strip()] if cost.price is not None else []
    co2 = [f"{spelled(cost.co2_grams, '')} g of CO2"] if cost.co2_grams is not None else []
    return ", ".join([spelled(cost.kwh, "kWh"), *map(escape, price), *co2])


def _money_columns(total: Bill) -> list[str]:
    price = [total.currency or "price"] if total.price is not None else []
    return [*price, *(["g CO2"] if total.co2_grams is not None else [])]


def _money_cells(one: Bill, total: Bill) -> list[str]:
    price = [spelled(one.price, "")] if total.price is not None else []
    return [*price, *([spelled(one.co2_grams, "")] if total.co2_grams is not None else [])]


def _say(out: Console, method: str, coverage: float, limits: Sequence[str]) -> None:
    out.print(f"{escape(method)} · recorded for {significant(100 * coverage)} %", style="dim")
    for words in limits:
        out.print(escape(words), style="dim")
