"""Samples of inference servers from OTLP metrics.

Known are the metrics of vLLM and SGLang by their Prometheus names, as the OpenTelemetry Collector passes them on (with
`_` for the `:` where a sender may not write that), and the server metrics of the GenAI conventions. Points of one
server, model, engine and time are one row. A histogram that counts from the server's start becomes what was added since
the point before, which is why the newest point of each is kept; a counter stays as it counts, and one that is sent as
differences is added up from the first that comes. What is not known is rejected and counted, as OTLP's partial success
has it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, NumberDataPoint

from collector.histograms import counted, together
from collector.ingest.exponential import Exponential
from collector.ingest.protobuf import attributes_of, decoded
from collector.ingest.reading import EVENTS_MAX, PROBLEMS_MAX, Arrival, Read, check_time, too_many
from collector.ingest.texts import short_text
from store.events import SERVER_SAMPLE, Event, Field

KEPT_SERIES_MAX = 4096  # some 4 MiB: 400 servers with ten histograms
BUCKETS_MAX = 200
LABELS_MAX = 256  # sets of them, of one counter
INTERVAL_S_MAX = 3600.0  # beyond it the sender was away, and the row stands for less

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
_HELD = frozenset({"histogram", "exponential_histogram"})
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA

T = TypeVar("T")
RowKey = tuple[str, str | None, str | None, str | None, int]
"""Server address, service, model, engine and time of a row."""


@dataclass(frozen=True, slots=True)
class _Explicit:
    """Observations so far, in buckets whose bounds the sender chose."""

    bounds: Sequence[float]
    counts: Sequence[int]

    @classmethod
    def of_point(cls, point: Any) -> Self:
        bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
        if len(bounds) > BUCKETS_MAX or len(counts) != len(bounds) + 1:
            raise ValueError(f"its buckets are not those of a histogram with at most {BUCKETS_MAX} bounds")
        return cls(bounds, counts)

    def since(self, before: object) -> "_Explicit | None":
        """What came after `before`; None where these are not the same buckets, or something of that is gone."""
        if not isinstance(before, _Explicit) or self.bounds != before.bounds:
            return None
        grown = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        return _Explicit(self.bounds, grown) if min(grown) >= 0 else None

    def buckets(self) -> tuple[Sequence[float], Sequence[int]]:
        return self.bounds, self.counts


@dataclass(slots=True)
class _Newest:
    """The newest point of a histogram that counts from a start, and what it added to the one before."""

    time_ns: int
    start_ns: int
    held: "_Explicit | Exponential"
    total: float | None
    added: dict[str, Any] | None


@dataclass(slots=True)
class _Count:
    """A counter that is sent as differences: its sum, from when on, and the newest point of each set of labels."""

    since_ns: int
    sum: float = 0.0
    times_ns: dict[tuple[tuple[str, str], ...], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Beat:
    """When a series of rows had its newest, and how long after the one before."""

    time_us: int
    interval_s: float | None = None


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
    """Reads metrics; keeps the newest point of what counts on, of at most `KEPT_SERIES_MAX` series each."""

    def __init__(self) -> None:
        self._newest: dict[tuple[Any, ...], _Newest] = {}
        self._counts: dict[tuple[Any, ...], _Count] = {}
        self._beats: dict[tuple[Any, ...], _Beat] = {}

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
        events = [
            Event("server_sample", key[-1], values | self._interval(key))
            for key, values in sorted(rows.values.items(), key=_time_of)
        ]
        return Read(events, rows.rejected, list(rows.problems))

    def _interval(self, key: RowKey) -> dict[str, float]:
        """The time since the row before of the same series, which is what this one stands for; unknown in its first."""
        series, time_us = key[:-1], key[-1]
        before = self._beats.get(series)
        if before is None or before.time_us < time_us:
            since_s = (time_us - before.time_us) / 1e6 if before else None
            before = _Beat(time_us, since_s if since_s is not None and since_s <= INTERVAL_S_MAX else None)
            _keep(self._beats, series, before)
        if before.time_us != time_us or before.interval_s is None:  # one that is sent again gets what it got
            return {}
        return {"interval_seconds": before.interval_s}

    def _take(self, metric: Metric, resource: Mapping[str, Any], arrival: Arrival, rows: _Rows) -> None:
        shape = metric.WhichOneof("data")
        data = getattr(metric, shape) if shape else None
        points = data.data_points if data else ()
        name = metric.name.replace(":", "_")
        is_delta = getattr(data, "aggregation_temporality", None) == _DELTA
        histogram, scalar = _HISTOGRAMS.get(name), _SCALARS.get(name.removesuffix("_total"))
        if histogram and shape in _HELD:
            self._take_each(metric.name, points, resource, arrival, rows, histogram, is_delta=is_delta)
        elif histogram:
            rows.reject(metric.name, f"it is recorded as a histogram, not as {_words(shape)}", len(points))
        elif scalar is None:
            rows.reject(metric.name, "not one that is recorded", len(points))
        elif shape not in ("gauge", "sum"):
            rows.reject(metric.name, f"it is recorded as a gauge or sum, not as {_words(shape)}", len(points))
        elif is_delta and scalar.instrument != "counter":
            rows.reject(metric.name, "a gauge is no sum of differences: send it cumulative", len(points))
        else:
            self._take_each(metric.name, points, resource, arrival, rows, scalar, is_delta=is_delta)

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
                if isinstance(column, str):
                    series = (*key[:-1], name, _labels(point))
                    row[column] = together(row.get(column), self._histogram(point, series, is_delta=is_delta))
                elif is_delta:
                    self._add_up(row, column, point, (*key[:-1], column.name))
                else:
                    _add_scalar(row, column, point)
            except ValueError as error:
                rows.reject(name, str(error))
            else:
                rows.values[key] = row

    def _histogram(self, point: Any, series: tuple[Any, ...], *, is_delta: bool) -> dict[str, Any] | None:
        """What the point added; None for the first of its series, and after a restart."""
        held = Exponential.of_point(point) if hasattr(point, "scale") else _Explicit.of_point(point)
        total = point.sum if point.HasField("sum") else None
        if is_delta:
            return counted(*held.buckets(), total)
        before = self._newest.get(series)
        if before and before.time_ns >= point.time_unix_nano:  # sent again, or out of order
            return before.added if before.time_ns == point.time_unix_nano else None
        added = None
        if before and before.start_ns == point.start_time_unix_nano:
            since = held.since(before.held)
            grown = None if total is None or before.total is None else total - before.total
            added = counted(*since.buckets(), grown) if since else None
        newest = _Newest(point.time_unix_nano, point.start_time_unix_nano, held, total, added)
        _keep(self._newest, series, newest)
        return added

    def _add_up(self, row: dict[str, Any], column: Field, point: NumberDataPoint, series: tuple[Any, ...]) -> None:
        """Add a difference to its counter, which begins with the first of them; one that is sent again adds nothing."""
        value = _value(point)
        count = self._counts.get(series) or _Count(point.start_time_unix_nano or point.time_unix_nano)
        labels = _labels(point)
        if len(count.times_ns) >= LABELS_MAX and labels not in count.times_ns:
            raise ValueError(f"it has more than {LABELS_MAX} sets of labels")
        if count.times_ns.get(labels, -1) < point.time_unix_nano:
            count.sum += value
            count.times_ns[labels] = point.time_unix_nano
        _keep(self._counts, series, count)
        row[column.name] = _as_column(column, count.sum)
        row["counter_epoch"] = max(row.get("counter_epoch", 0), count.since_ns // 10**9 % 2**31)


def _words(shape: str | None) -> str:
    return f"{'an' if shape == 'exponential_histogram' else 'a'} {(shape or 'metric without data').replace('_', ' ')}"


def _keep(kept: dict[tuple[Any, ...], T], series: tuple[Any, ...], newest: T) -> None:
    """Remember the newest of a series; of too many, the one that was longest without a point is forgotten."""
    kept.pop(series, None)
    kept[series] = newest
    if len(kept) > KEPT_SERIES_MAX:
        del kept[next(iter(kept))]


def _time_of(row: tuple[RowKey, Any]) -> int:
    return row[0][-1]


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
    row[column.name] = _as_column(column, row.get(column.name, 0) + _value(point))
    if column.instrument == "counter":
        epoch = point.start_time_unix_nano // 10**9 % 2**31
        row["counter_epoch"] = max(row.get("counter_epoch", 0), epoch)


def _value(point: NumberDataPoint) -> float:
    value: float = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
    if not 0 <= value <= 2**53:
        raise ValueError(f"{value:g} is no value of it")
    return value


def _as_column(column: Field, value: float) -> float:
    if not column.type.startswith("int"):
        return float(value)
    return min(round(value), 2**31 - 1 if column.type == "int32" else 2**63 - 1)
