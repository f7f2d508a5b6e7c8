"""Wrong calls put right: the nearest call that works, for whoever made one that does not."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import pydantic
from mcp.server.mcpserver.tools import Tool

from query.catalogue import metrics
from query.errors import (
    GroupingError,
    LengthError,
    QuantityError,
    SqlFailedError,
    SqlRefusedError,
    UnknownEventTypeError,
    UnknownGpuError,
    UnknownKindError,
    UnknownMetricError,
    WindowError,
)
from query.present.timeline import event_types
from query.windows import host_time_zone, resolve_window, zone_info
from store.errors import GpuledgerError, NoDataError, nearest
from store.events import KINDS

Call = tuple[str, dict[str, Any]]

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "query_metrics": {"metrics": ["gpu.utilization_percent"]},
    "compare_windows": {"window": "1h"},
    "forecast": {"metric": "gpu.memory_used_bytes"},
    "run_sql": {"sql": "select gpu_index, max(power_watts) as watts from gpu_sample group by gpu_index"},
}
"""A value for each argument that a tool cannot do without."""


def corrected(name: str, arguments: Mapping[str, Any], error: GpuledgerError) -> Call | None:
    """The nearest call that works; None where nothing about the call is wrong."""
    for kind, repair in _REPAIRS.items():
        if isinstance(error, kind):
            return repair(name, dict(arguments), error)
    return None


def corrected_arguments(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that fit the tool, as near to those that were given as can be told."""
    known = tool.parameters["properties"]
    fitting: dict[str, Any] = dict(EXAMPLES.get(tool.name, {}))
    for given, value in arguments.items():
        name = given if given in known else nearest(given, known)
        if name is None or (name != given and name in arguments):
            continue
        fitted = _fitted(tool, name, value)
        if fitted is not None:
            fitting[name] = fitted
    return fitting


def _fitted(tool: Tool, name: str, value: Any) -> Any:
    """A value that the parameter takes, near to the one given; None for its default."""
    declared = tool.parameters["properties"][name]
    candidates = [value, [value]]
    if isinstance(value, str):
        candidates += get_close_matches(value.lower(), map(str, declared.get("enum", ())), 1, 0.4)
        candidates += [part.strip() for part in value.split(",")] if declared.get("type") != "array" else []
        candidates += [[part.strip() for part in value.split(",")]]
    if isinstance(value, (int, float)):
        edges = [declared[edge] for edge in ("minimum", "maximum") if edge in declared]
        candidates += sorted(edges, key=lambda edge: abs(edge - value))
        candidates += [f"{value}m"]
    return next((one for one in candidates if _takes(tool, name, one)), EXAMPLES.get(tool.name, {}).get(name))


def _takes(tool: Tool, name: str, value: Any) -> bool:
    """Whether a parameter takes a value: JSON's types, not what pydantic would make of them."""
    try:
        tool.fn_metadata.arg_model.model_validate({**EXAMPLES.get(tool.name, {}), name: value})
    except pydantic.ValidationError:
        return False
    return True


def _metric(name: str, arguments: dict[str, Any], _: GpuledgerError) -> Call:
    def known(asked: str) -> str:
        wanted = asked.strip().lower()
        near = get_close_matches(wanted, metrics(), 1, 0.5)
        return wanted if wanted in metrics() else nearest(wanted, metrics()) or (near or ["gpu.utilization_percent"])[0]

    if "metric" in arguments:
        return name, arguments | {"metric": known(arguments["metric"])}
    asked = arguments.get("metrics") or ["gpu.utilization_percent"]
    return name, arguments | {"metrics": list(dict.fromkeys(known(one) for one in asked))}


def _window(name: str, arguments: dict[str, Any], error: GpuledgerError) -> Call:
    if "tz" in arguments and str(error).startswith("Time zone"):
        near = re.search(r"did you mean '([^']+)'", str(error))
        zone = near[1] if near else "UTC"
        return name, arguments | {"tz": zone}
    said = re.findall(r"'([^']+)'", error.hint)
    works = [text for text in said if _is_window(text)] or ["1h"]
    wrong = [
        key for key in ("window", "baseline", "history", "over", "at") if repr(arguments.get(key)) in error.problem
    ]
    return name, arguments | {wrong[0] if wrong else "window": works[0]}


def _is_window(text: str) -> bool:
    from datetime import UTC, datetime  # noqa: PLC0415 - as of this moment

    try:
        return bool(resolve_window(text, now=datetime.now(UTC), time_zone=zone_info(host_time_zone()).key))
    except WindowError:
        return False


def _gpu(name: str, arguments: dict[str, Any], error: GpuledgerError) -> Call:
    numbers = [int(number) for number in re.findall(r"[0-9]+", error.hint)]
    others = {key: value for key, value in arguments.items() if key != "gpu"}
    return name, others | ({"gpu": numbers[:1]} if numbers else {})


def _kind(name: str, arguments: dict[str, Any], _: GpuledgerError) -> Call:
    near = nearest(str(arguments.get("table", "")).lower(), KINDS) or "gpu_sample"
    return name, arguments | {"table": near}


def _event_type(name: str, arguments: dict[str, Any], _: GpuledgerError) -> Call:
    known = event_types()
    near = [one if one in known else nearest(one, known) for one in arguments.get("types") or ()]
    kept = [one for one in near if one]
    others = {key: value for key, value in arguments.items() if key != "types"}
    return name, others | ({"types": kept} if kept else {})


def _sql(name: str, arguments: dict[str, Any], error: GpuledgerError) -> Call:
    sql = str(arguments.get("sql", ""))
    column = re.search(r'Referenced column "([^"]+)" not found', str(error))
    candidate = re.search(r'Candidate bindings: "([^"]+)"', str(error)) if column else None
    if column and candidate:
        name_alone = candidate[1].rsplit(".", 1)[-1]
        return name, arguments | {"sql": re.sub(rf"\b{re.escape(column[1])}\b", name_alone, sql)}
    near = re.search(r"did you mean '([^']+)'", str(error))
    table = re.search(r"['\"]([A-Za-z_]+)['\"]", error.problem)
    if near and table and near[1] in KINDS:
        return name, arguments | {"sql": re.sub(rf"\b{re.escape(table[1])}\b", near[1], sql)}
    named = next((kind for kind in KINDS if re.search(rf"\b{kind}\b", sql)), None)
    return "describe_data", {"topic": "table", "table": named} if named else {"topic": "examples"}


def _length(name: str, arguments: dict[str, Any], _: GpuledgerError) -> Call:
    return name, arguments | ({"ahead": "1d"} if "ahead" in arguments else {"threshold": "2s"})


def _quantity(name: str, arguments: dict[str, Any], _: GpuledgerError) -> Call:
    return name, {key: value for key, value in arguments.items() if key != "threshold"}


def _grouping(name: str, arguments: dict[str, Any], _: GpuledgerError) -> Call:
    if name == "diagnose":
        return name, {"window": arguments.get("window", "1h")}
    return name, {key: value for key, value in arguments.items() if key in ("window", "limit", "tz")}


def _no_data(name: str, _: dict[str, Any], error: GpuledgerError) -> Call | None:
    return ("slow_requests", {"window": "24h"}) if name == "diagnose" and "request" in error.problem else None


_REPAIRS: Mapping[type[GpuledgerError], Callable[[str, dict[str, Any], GpuledgerError], Call | None]] = {
    UnknownMetricError: _metric,
    WindowError: _window,
    UnknownGpuError: _gpu,
    UnknownKindError: _kind,
    UnknownEventTypeError: _event_type,
    SqlRefusedError: _sql,
    SqlFailedError: _sql,
    LengthError: _length,
    QuantityError: _quantity,
    GroupingError: _grouping,
    NoDataError: _no_data,
}
