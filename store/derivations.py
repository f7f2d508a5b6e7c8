"""What follows from the declarations in `store.events`: Arrow, DuckDB, Prometheus, JSON Schema, the reference page.

Pure functions, each the only place where its shape is derived. pyarrow is imported inside the one that needs
it, because the collector derives Prometheus families and must stay small.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from store.events import KINDS, UNITS, ColumnType, Field, Kind

if TYPE_CHECKING:
    import pyarrow as pa

DUCKDB_TYPES: Mapping[ColumnType, str] = {
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "decimal": "DECIMAL(18,3)",
    "string": "VARCHAR",
    "strings": "VARCHAR[]",
    "json": "VARCHAR",
    "time": "TIMESTAMP WITH TIME ZONE",
}

_JSON_TYPES: Mapping[ColumnType, Mapping[str, Any]] = {
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "int64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float32": {"type": "number"},
    "float64": {"type": "number"},
    "decimal": {"type": "number"},
    "string": {"type": "string"},
    "strings": {"type": "array", "items": {"type": "string"}},
    "json": {},
    "time": {"type": "string", "format": "date-time"},
}


@cache
def arrow_schema(kind: Kind) -> "pa.Schema":
    """The columns of `kind` as stored in Parquet and handed to DuckDB, common ones first."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and the collector derives no Arrow

    types: Mapping[ColumnType, pa.DataType] = {
        "bool": pa.bool_(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "decimal": pa.decimal128(18, 3),
        "string": pa.string(),
        "strings": pa.list_(pa.string()),
        "json": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([pa.field(column.name, types[column.type]) for column in kind.columns])


def duckdb_columns(kind: Kind) -> dict[str, str]:
    """Column name to DuckDB type, in stored order."""
    return {column.name: DUCKDB_TYPES[column.type] for column in kind.columns}


def json_schema(kind: Kind) -> dict[str, Any]:
    """JSON Schema (2020-12) of one event as a source may write it: without what the ledger adds."""
    own = [column for column in kind.columns if column.name not in ("seq", "host", "boot_id")]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.name,
        "description": f"{kind.row}; version {kind.version}",
        "type": "object",
        "properties": {column.name: _json_property(column) for column in own},
        "required": ["observed_at"],
        "additionalProperties": False,
    }


def _json_property(column: Field) -> dict[str, Any]:
    kind = dict(_JSON_TYPES[column.type])
    if "type" in kind and column.name != "observed_at":
        kind["type"] = [kind["type"], "null"]
    return {**kind, "description": column.meaning}


@dataclass(frozen=True, slots=True)
class PrometheusFamily:
    """One family of the live exposition.

    Args:
        name: Family name, without the `_total` that the exposition format adds to counters.
        type: `gauge` or `counter`.
        help: What it says.
        members: Fields that appear in it, each with the labels that tell it from the others.
    """

    name: str
    type: str
    help: str
    members: tuple[tuple[Field, tuple[tuple[str, str], ...]], ...]


GPU_INFO = "dgx_gpu_info"
GPU_INFO_LABELS = ("name", "source", "driver_version", "memory_kind")
"""The family that says what each GPU is, and what of its inventory it says."""

_PROMETHEUS_LABELS: Mapping[str, Mapping[str, str]] = {
    "gpu_sample": {"gpu": "gpu_index", "uuid": "gpu_uuid"},
    "device_sample": {"type": "device_type", "device": "device"},
    "nvlink_sample": {"gpu": "gpu_index", "uuid": "gpu_uuid", "link": "link"},
    "process_sample": {"uuid": "gpu_uuid", "pid": "pid", "name": "name"},
    "server_sample": {"server": "server_address", "model": "model", "engine": "engine"},
}


def prometheus_labels(kind: Kind) -> Mapping[str, str]:
    """The labels of a sample kind's families, and the columns behind them."""
    return _PROMETHEUS_LABELS.get(kind.name, {})


@cache
def prometheus_families(kind: Kind) -> tuple[PrometheusFamily, ...]:
    """The families of a sample kind: one per gauge and counter, fields that declare a common family joined in it."""
    members: dict[str, list[Field]] = {}
    for column in kind.fields:
        if column.is_measured or (column.instrument == "state" and column.type in ("bool", "int32", "int64")):
            members.setdefault(prometheus_name(kind, column), []).append(column)
    return tuple(_family(name, columns) for name, columns in members.items())


def prometheus_name(kind: Kind, column: Field) -> str:
    """`dgx_gpu_power_usage_watts`: the declared family, or the metric's name behind `dgx_`.

    A trailing `_count` is dropped: promtool keeps that suffix for histograms and summaries.
    """
    if column.family:
        return column.family.name
    return f"dgx_{kind.metric_name(column).replace('.', '_')}".removesuffix("_count")


def _family(name: str, columns: list[Field]) -> PrometheusFamily:
    counters = {column.instrument == "counter" for column in columns}
    if len(counters) != 1:
        raise ValueError(f"{name} mixes counters and gauges")
    labelled = tuple((column, column.family.labels if column.family else ()) for column in columns)
    return PrometheusFamily(name, "counter" if counters.pop() else "gauge", columns[0].meaning, labelled)


def events_page() -> str:
    """`docs/reference/events.md`."""
    lines = [
        "# Events",
        "",
        "Generated from `store/events.py` by `gpuledger docs`; do not edit.",
        "",
        "Each kind is a view in SQL and a folder of Parquet files. A gauge's or counter's last word is its unit.",
        "Absence is NULL; why, says `absence`, where the row has it.",
        "The metric's name is what `gpuledger trend` and the MCP tools take.",
        "",
        *(f"- [`{kind.name}`](#{kind.name}): {kind.row}; {kind.cadence}" for kind in KINDS.values()),
        "",
    ]
    for kind in KINDS.values():
        lines += _kind_section(kind)
    return "\n".join(lines)


def _kind_section(kind: Kind) -> Iterable[str]:
    yield f"## {kind.name}"
    yield ""
    yield f"{kind.row[0].upper()}{kind.row[1:]}. Written {_cadence_words(kind)}. Version {kind.version}."
    yield ""
    yield "| column | type | instrument | meaning | read from | metric | Prometheus | DCGM | OpenTelemetry |"
    yield "|---|---|---|---|---|---|---|---|---|"
    exposed = {
        column.name: f"{family.name}{'_total' if family.type == 'counter' else ''}"
        for family in prometheus_families(kind)
        if kind.expected_every_seconds
        for column, _ in family.members
    }
    for column in kind.columns:
        cells = (
            f"`{column.name}`",
            DUCKDB_TYPES[column.type],
            column.instrument,
            f"{column.meaning}{_bits_words(column)}",
            column.source,
            f"`{kind.metric_name(column)}`" if column.is_measured else "",
            f"`{exposed[column.name]}`" if column.name in exposed else "",
            f"`{column.dcgm}`" if column.dcgm else "",
            f"`{column.otel}`" if column.otel else "",
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def _cadence_words(kind: Kind) -> str:
    return f"about every {kind.cadence}" if kind.expected_every_seconds else kind.cadence


def _bits_words(column: Field) -> str:
    return "".join(f" 0x{bit:x} {reason}." for bit, reason in (column.bits or {}).items())


def unit_sign(column: Field) -> str:
    """The sign for a field's unit as a table shows it: `%`, `W`, `B`."""
    return UNITS.get(column.unit, "")
