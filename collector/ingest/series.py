"""Samples of inference servers from OTLP metrics.

Known are the metrics of vLLM and SGLang by their Prometheus names, as the OpenTelemetry Collector passes them on (with
`_` for the `:` where a sender may not write that), and the server metrics of the GenAI conventions. Points of one
server, model, engine and time are one row. A histogram that counts from the server's start becomes what was added since
the point before, which is why the newest point of each is kept; a counter stays as it is. What is not known is rejected
and counted, as OTLP's partial success has it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from collector.ingest.protobuf import attributes_of, decoded
from collector.ingest.reading import EVENTS_MAX, PROBLEMS_MAX, Arrival, Read, check_time, too_many
from collector.ingest.texts import short_text
from store.events import SERVER_SAMPLE, Event, Field

KEPT_SERIES_MAX = 4096  # some 4 MiB: 400 servers with ten histograms
BUCKETS_MAX = 200

_SCALARS: Mapping[str, Field] = {
    column.source.removesuffix("_total").replace(":", "_"): column
    for column in SERVER_SAMPLE.fields
    if ":" in column.source
}
_HISTOGRAMS: Mapping[str, str] = {
    "vllm_time_to_first_token_seconds": "time_to_first_token_histogram",
    "vllm_inter_token_latency_seconds": "inter_token_latency_histogram",
    "vllm_request_time_per_output_token_seconds": "time_per_output_token_histogram",
    "vllm_time_per_output_token_seconds": "time_per_output_token_histogram",
    "vllm_e2e_request_latency_seconds": "duration_histogram",
    "vllm_request_queue_time_seconds": "queue_histogram",
    "vllm_request_prefill_time_seconds": "prefill_histogram",
    "vllm_request_decode_time_seconds": "decode_histogram",
    "sglang_time_to_first_token_seconds": "time_to_first_token_histogram",
    "sglang_inter_token_latency_seconds": "inter_token_latency_histogram",
    "sglang_e2e_request_latency_seconds": "duration_histogram",
    "sglang_queue_time_seconds": "queue_histogram",
    "gen_ai.server.request.duration": "duration_histogram",
    "gen_ai.server.time_to_first_token": "time_to_first_token_histogram",
    "gen_ai.server.time_per_output_token": "time_per_output_token_histogram",
}
_OF_RESOURCE = frozenset({"service.name", "service.instance.id", "server.address", "host.name"})
_MODEL = ("gen_ai.response.model", "gen_ai.request.model", "model_name")
_OF_POINT = frozenset({*_MODEL, "engine", "server.address", "server.port"})
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA

RowKey = tuple[str, str | None, str | None, str | None, int]
"""Server address, service, model, engine and time of a row."""


@dataclass(slots=True)
class _Newest:
    """The newest point of a histogram that counts from a start, and what it added to the one before."""

    time_ns: int
    start_ns: int
    bounds: list[float]
    counts: list[int]
    total: float
    added: dict[str, Any] | None


@dataclass(slots=True)
class _Rows:
    """The rows that a message is made into."""

    values: dict[RowKey, dict[str, Any]] = field(default_factory=dict)
    problems: dict[str, None] = field(default_factory=dict)
    rejected: int = 0

    def reject(self, name: str, why: str, points: int = 1) -> None:
        self.rejected += points
        if len(self.problems) < PROBLEMS_MAX:
            self.problems[f"metric {name[:100]!r}: {why}"] = None


class SeriesReader:
    """Reads metrics; keeps the newest point of each cumulative histogram, of at most `KEPT_SERIES_MAX`."""

    def __init__(self) -> None:
        self._newest: dict[tuple[Any, ...], _Newest] = {}

    def read(self, body: bytes, is_json: bool, arrival: Arrival) -> Read:
        """The samples in an ExportMetricsServiceRequest. Raises `Refusal` where it is none."""
        message = decoded(ExportMetricsServiceRequest(), body, is_json=is_json)
        rows = _Rows()
        for part in message.resource_metrics:
            resource = attributes_of(part.resource.attributes, _OF_RESOURCE)
            for metric in (metric for scope in part.scope_metrics for metric in scope.metrics):
                self._take(metric, resource, arrival, rows)
        if len(rows.values) > EVENTS_MAX:
            raise too_many()
        events = [Event("server_sample", key[-1], values) for key, values in rows.values.items()]
        return Read(events, rows.rejected, list(rows.problems))

    def _take(self, metric: Metric, resource: Mapping[str, Any], arrival: Arrival, rows: _Rows) -> None:
        shape = metric.WhichOneof("data")
        points = getattr(metric, shape).data_points if shape else ()
        name = metric.name.replace(":", "_")
        if (column := _HISTOGRAMS.get(name)) and shape == "histogram":
            is_delta = metric.histogram.aggregation_temporality == _DELTA
            self._take_each(metric.name, points, resource, arrival, rows, column, is_delta=is_delta)
        elif (scalar := _SCALARS.get(name.removesuffix("_total"))) is None or shape not in ("gauge", "sum"):
            rows.reject(metric.name, "not one that is recorded", len(points))
        elif shape == "sum" and metric.sum.aggregation_temporality == _DELTA:
            rows.reject(metric.name, "a counter is recorded as it counts: send it cumulative", len(points))
        else:
            self._take_each(metric.name, points, resource, arrival, rows, scalar)

    def _take_each(
        self,
        name: str,
        points: Iterable[Any],
        resource: Mapping[str, Any],
        arrival: Arrival,
        rows: _Rows,
        column: Field | str,
        *,
        is_delta: bool = False,
    ) -> None:
        for point in points:
            try:
                key = _row_key(point, resource, arrival)
                row = rows.values.get(key) or _row(key, name)
                if isinstance(column, Field):
                    _add_scalar(row, column, point)
                else:
                    series = (*key[:-1], name, _labels(point))
                    row[column] = _sum_of(row.get(column), self._histogram(point, series, is_delta=is_delta))
            except ValueError as error:
                rows.reject(name, str(error))
            else:
                rows.values[key] = row

    def _histogram(
        self, point: HistogramDataPoint, series: tuple[Any, ...], *, is_delta: bool
    ) -> dict[str, Any] | None:
        """What the point added; None for the first of its series, and after a restart."""
        bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
        if len(bounds) > BUCKETS_MAX or len(counts) != len(bounds) + 1:
            raise ValueError(f"its buckets are not those of a histogram with at most {BUCKETS_MAX} bounds")
        if is_delta:
            return _counted(bounds, counts, point.sum)
        before = self._newest.pop(series, None)
        if before and before.time_ns >= point.time_unix_nano:  # sent again, or out of order
            self._newest[series] = before
            return before.added if before.time_ns == point.time_unix_nano else None
        added = None
        if before and before.start_ns == point.start_time_unix_nano and before.bounds == bounds:
            grown = [now - then for now, then in zip(counts, before.counts, strict=True)]
            added = _counted(bounds, grown, point.sum - before.total) if min(grown) >= 0 else None
        start_ns = point.start_time_unix_nano
        self._newest[series] = _Newest(point.time_unix_nano, start_ns, bounds, counts, point.sum, added)
        if len(self._newest) > KEPT_SERIES_MAX:
            del self._newest[next(iter(self._newest))]  # the one that was longest without a point
        return added


def _counted(bounds: list[float], counts: list[int], total: float) -> dict[str, Any]:
    return {"bounds": bounds, "counts": counts, "sum": total, "count": sum(counts)}


def _sum_of(one: dict[str, Any] | None, other: dict[str, Any] | None) -> dict[str, Any] | None:
    """Two histograms of one row together, such as those of two routes."""
    if one is None or other is None or one["bounds"] != other["bounds"]:
        return one or other
    counts = [a + b for a, b in zip(one["counts"], other["counts"], strict=True)]
    return _counted(one["bounds"], counts, one["sum"] + other["sum"])


def _row_key(point: Any, resource: Mapping[str, Any], arrival: Arrival) -> RowKey:
    said = attributes_of(point.attributes, _OF_POINT)
    address = said.get("server.address") or resource.get("server.address") or resource.get("service.instance.id")
    port = said.get("server.port")
    named = f"{address}:{port}" if address and port else address or resource.get("host.name") or "unknown"
    model = next((said[name] for name in _MODEL if said.get(name)), None)
    time_us = check_time(point.time_unix_nano // 1000, arrival)
    engine = said.get("engine")
    return (
        short_text(str(named)) or "unknown",
        short_text(resource.get("service.name")),
        short_text(model),
        None if engine is None else str(engine)[:64],
        time_us,
    )


def _labels(point: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((pair.key[:256], str(pair.value)[:256]) for pair in point.attributes))


def _row(key: RowKey, name: str) -> dict[str, Any]:
    address, service, model, engine, _ = key
    kind = next((kind for kind in ("vllm", "sglang") if name.startswith(kind)), None)
    return {"server_address": address, "service": service, "model": model, "engine": engine, "server_kind": kind}


def _add_scalar(row: dict[str, Any], column: Field, point: NumberDataPoint) -> None:
    """Add the point's value to its column: points that differ in other labels, such as why requests ended, are one."""
    value: float = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
    if not 0 <= value <= 2**53:
        raise ValueError(f"{value:g} is no value of it")
    whole = row.get(column.name, 0) + (round(value) if column.type.startswith("int") else float(value))
    row[column.name] = min(whole, 2**31 - 1) if column.type == "int32" else whole
    if column.instrument == "counter":
        epoch = point.start_time_unix_nano // 10**9 % 2**31
        row["counter_epoch"] = max(row.get("counter_epoch", 0), epoch)
