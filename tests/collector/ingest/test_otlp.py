"""OTLP over HTTP, sent by the real OpenTelemetry SDK with its real exporters."""

import json
import logging
import time

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

RESOURCE = Resource({"service.name": "vllm.entrypoints", "process.pid": 4711, "server.address": "spark-1:8000"})


@pytest.fixture(params=[Compression.NoCompression, Compression.Gzip], ids=["plain", "gzip"])
def tracer(face, request):
    """A tracer of the SDK that sends each span as it ends."""
    exporter = OTLPSpanExporter(endpoint=f"{face.url}/v1/traces", compression=request.param, timeout=20)
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test")
    provider.shutdown()


@pytest.fixture
def plain_tracer(face):
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{face.url}/v1/traces")))
    yield provider.get_tracer("test")
    provider.shutdown()


def test_a_span_of_vllm_is_a_request_with_its_latencies(face, tracer):
    started_ns = time.time_ns() - 2_000_000_000
    attributes = {
        "gen_ai.request.id": "cmpl-1",
        "gen_ai.response.model": "llama-3",
        "gen_ai.request.max_tokens": 512,
        "gen_ai.usage.prompt_tokens": 100,
        "gen_ai.usage.completion_tokens": 21,
        "gen_ai.latency.time_in_queue": 0.25,
        "gen_ai.latency.time_to_first_token": 0.5,
        "gen_ai.latency.e2e": 1.5,
        "gen_ai.latency.time_in_model_prefill": 0.25,
        "gen_ai.latency.time_in_model_decode": 1.0,
    }
    span = tracer.start_span("llm_request", kind=SpanKind.SERVER, start_time=started_ns, attributes=attributes)
    span.end(started_ns + 1_600_000_000)
    (row,) = face.rows()
    context = span.get_span_context()
    trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    for name in ("seq", "boot_id", "event_id"):
        row.pop(name)
    assert row.pop("observed_at") == row["ended_at"]
    assert row.pop("started_at").timestamp() == pytest.approx(started_ns / 1e9, abs=1e-5)
    assert row.pop("ended_at").timestamp() == pytest.approx(started_ns / 1e9 + 1.6, abs=1e-5)
    assert json.loads(row.pop("attributes")) == {"gen_ai.request.id": "cmpl-1", "gen_ai.request.max_tokens": 512}
    assert row == {
        "host": "spark-1",
        "source": "otlp",
        "source_event_id": f"{trace_id}-{span_id}",
        "trace_id": trace_id,
        "span_id": span_id,
        "service": "vllm.entrypoints",
        "server_address": "spark-1:8000",
        "endpoint": "llm_request",
        "pid": 4711,
        "response_model": "llama-3",
        "status": "ok",
        "duration_seconds": 1.5,
        "queue_seconds": 0.25,
        "prefill_seconds": 0.25,
        "time_to_first_token_seconds": 0.5,
        "decode_seconds": 1.0,
        "time_per_output_token_seconds": 0.05,
        "input_tokens": 100,
        "output_tokens": 21,
    }


def test_new_names_of_genai_attributes_are_known_and_texts_are_not_read(face, plain_tracer):
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "gen_ai.request.stream": True,
        "gen_ai.input.messages": "the prompt",
        "gen_ai.prompt": "the prompt",
        "user.id": "ada@example.com",
    }
    plain_tracer.start_span("chat gpt-5", kind=SpanKind.CLIENT, attributes=attributes).end()
    (row,) = face.rows()
    wanted = ("operation", "provider", "request_model", "finish_reason", "input_tokens", "output_tokens")
    assert [row[name] for name in wanted] == ["chat", "openai", "gpt-5", "stop,length", 7, 9]
    assert (row["cached_input_tokens"], row["reasoning_tokens"], row["stream"]) == (3, 2, True)
    assert len(row["user_hash"]) == 16
    assert "the prompt" not in str(row)
    assert "ada" not in str(row)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {"http.request.method": "POST", "http.route": "/v1/{id}", "http.response.status_code": 200},
            {"method": "POST", "endpoint": "/v1/{id}", "http_status": 200, "status": "ok"},
        ),
        (
            {"http.method": "GET", "http.target": "/v1/models?key=secret", "http.status_code": 503},
            {"method": "GET", "endpoint": "/v1/models", "http_status": 503, "status": "rejected"},
        ),
        (
            {"rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer", "rpc.grpc.status_code": 4},
            {"method": "ModelInfer", "endpoint": "/inference.GRPCInferenceService/ModelInfer", "status": "timeout"},
        ),
    ],
)
def test_spans_of_http_and_rpc_servers_are_requests(face, plain_tracer, attributes, expected):
    plain_tracer.start_span("POST", kind=SpanKind.SERVER, attributes=attributes).end()
    (row,) = face.rows()
    assert {name: row[name] for name in expected} == expected


def test_a_span_that_failed_says_why_without_secrets(face, plain_tracer):
    span = plain_tracer.start_span("generate", kind=SpanKind.SERVER)
    span.record_exception(ValueError("no access with api_key=sk-abcdefghijklmnopqrst"))
    span.set_status(Status(StatusCode.ERROR))
    span.end()
    (row,) = face.rows()
    told = (row["status"], row["error_type"], row["error_message"])
    assert told == ("error", "ValueError", "no access with api_key=***")


def test_other_spans_are_passed_over(face, plain_tracer, caplog):
    with caplog.at_level(logging.WARNING):
        plain_tracer.start_span("tokenize", kind=SpanKind.INTERNAL).end()
        plain_tracer.start_span("GET", kind=SpanKind.CLIENT, attributes={"http.request.method": "GET"}).end()
    assert (face.rows(), caplog.messages) == ([], [])


# --- what an exporter sends, again and otherwise


@pytest.fixture
def span_body(now_us):
    """An ExportTraceServiceRequest as JSON with spans of these ids."""

    def make(*ids, **more):
        spans = [
            {
                "traceId": "5b8efff798038103d269b633813fc60c",
                "spanId": span_id,
                "name": "llm_request",
                "kind": 2,
                "startTimeUnixNano": str(now_us * 1000),
                "endTimeUnixNano": str(now_us * 1000 + 5_000_000),
                **more,
            }
            for span_id in ids
        ]
        return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}

    return make


def test_json_is_read_with_its_ids_in_hexadecimal(face, span_body):
    body = span_body("eee19b7ec3c1b173", unknownField=1)
    assert face.send("/v1/traces", body) == (200, {})
    assert face.send("/v1/traces", body) == (200, {})  # sent again
    (row,) = face.rows()
    assert (row["trace_id"], row["span_id"]) == ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b173")
    assert row["duration_seconds"] == pytest.approx(0.005)


def test_bad_spans_are_counted_in_a_partial_success_and_the_good_ones_kept(face, span_body):
    status, answer = face.send("/v1/traces", span_body("eee19b7ec3c1b173", "0000000000000000"))
    told = "span 'llm_request': its trace id or span id is none"
    assert (status, answer) == (200, {"partialSuccess": {"rejectedSpans": "1", "errorMessage": told}})
    assert len(face.rows()) == 1
    late = span_body("eee19b7ec3c1b174", endTimeUnixNano="1")
    assert "older than 400 days" in face.send("/v1/traces", late)[1]["partialSuccess"]["errorMessage"]


def test_what_is_no_otlp_is_refused_in_the_senders_own_format(face):
    protobuf = "application/x-protobuf"
    status, headers, answer = face.post("/v1/traces", b"\xff\xff", content_type=protobuf)
    assert (status, headers["content-type"]) == (400, protobuf)
    assert answer.startswith(b"\x08\x03\x12")  # a google.rpc.Status: INVALID_ARGUMENT and a message
    assert b"The body is no ExportTraceServiceRequest" in answer
    status, answer = face.send("/v1/traces", "{")
    assert (status, answer["code"]) == (400, 3)
    status, answer = face.send("/v1/traces", "x", content_type="text/plain")
    told = "OTLP comes as application/x-protobuf or application/json, not as 'text/plain'"
    assert (status, answer["message"]) == (415, told)


@pytest.mark.parametrize("rejected", [1, 127, 128, 300_000])
def test_a_partial_success_is_what_the_messages_of_opentelemetry_say(rejected):
    from collector.ingest.intake import Outcome
    from collector.ingest.otlp import PROTOBUF, answer_metrics, answer_traces
    from collector.ingest.reading import Read
    from store.sent_events import Receipt

    outcome = Outcome(Read([], rejected, ["one", "two" * 100]), Receipt(0, 0))
    traces = ExportTraceServiceResponse.FromString(answer_traces(outcome, PROTOBUF).body).partial_success
    metrics = ExportMetricsServiceResponse.FromString(answer_metrics(outcome, PROTOBUF).body).partial_success
    assert (traces.rejected_spans, metrics.rejected_data_points) == (rejected, rejected)
    assert traces.error_message == metrics.error_message == "one; " + "two" * 100


# --- metrics


@pytest.fixture
def meter(face):
    """A meter of the SDK and what sends its metrics now; counting from the start, or since the last time."""
    providers = []

    def make(temporality=None, aggregation=None):
        exporter = OTLPMetricExporter(
            endpoint=f"{face.url}/v1/metrics",
            preferred_temporality=temporality,
            preferred_aggregation=aggregation,
            compression=Compression.Gzip,
        )
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
        providers.append(MeterProvider(resource=RESOURCE, metric_readers=[reader], shutdown_on_exit=False))
        return providers[-1].get_meter("test"), reader.force_flush

    yield make
    for provider in providers:
        provider.shutdown()


def test_metrics_of_vllm_are_samples_and_histograms_what_was_added(face, meter):
    vllm, send = meter()
    labels = {"model_name": "llama-3", "engine": "0"}
    vllm.create_gauge("vllm_num_requests_running").set(3, labels)
    vllm.create_gauge("vllm_kv_cache_usage_perc").set(0.5, labels)
    finished = vllm.create_counter("vllm_request_success")
    finished.add(4, {**labels, "finished_reason": "stop"})
    finished.add(1, {**labels, "finished_reason": "length"})
    queue_time = vllm.create_histogram("vllm_request_queue_time_seconds", explicit_bucket_boundaries_advisory=[0.1, 1])
    queue_time.record(5, labels)
    send()
    queue_time.record(0.05, labels)
    queue_time.record(0.5, labels)
    send()
    first, second = face.rows("server_sample")
    expected = {
        "server_address": "spark-1:8000",
        "server_kind": "vllm",
        "service": "vllm.entrypoints",
        "model": "llama-3",
        "engine": "0",
        "requests_running_count": 3,
        "kv_cache_used_ratio": 0.5,
        "requests_success_count": 5,
    }
    assert {name: first.get(name) for name in expected} == expected
    assert "queue_histogram" not in first
    assert json.loads(second["queue_histogram"]) == {
        "bounds": [0.1, 1.0],
        "counts": [1, 1, 0],
        "sum": pytest.approx(0.55),
        "count": 2,
        "estimated": pytest.approx({"p50": 0.1, "p90": 0.82, "p95": 0.91, "p99": 0.982}),
    }
    assert first["counter_epoch"] == second["counter_epoch"] > 0
    between_s = (second["observed_at"] - first["observed_at"]).total_seconds()
    assert ("interval_seconds" in first, second["interval_seconds"]) == (False, pytest.approx(between_s))


def test_histograms_that_are_sent_as_differences_are_taken_as_they_are(face, meter):
    server, send = meter({Histogram: AggregationTemporality.DELTA, Counter: AggregationTemporality.DELTA})
    duration = server.create_histogram("gen_ai.server.request.duration", explicit_bucket_boundaries_advisory=[1.0])
    duration.record(0.5, {"gen_ai.response.model": "llama-3"})
    send()
    (row,) = face.rows("server_sample")
    assert (row["model"], json.loads(row["duration_histogram"])["counts"]) == ("llama-3", [1, 0])


def test_counters_that_are_sent_as_differences_are_added_up(face, meter):
    server, send = meter({Counter: AggregationTemporality.DELTA})
    finished = server.create_counter("vllm_request_success")
    for reason, count in (("stop", 4), ("length", 1), ("stop", 2)):
        finished.add(count, {"finished_reason": reason})
        send()
    rows = face.rows("server_sample")
    assert [row["requests_success_count"] for row in rows] == [4, 5, 7]
    assert len({row["counter_epoch"] for row in rows}) == 1
    assert rows[0]["counter_epoch"] > 0


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def test_exponential_histograms_keep_their_percentiles(face, meter, temporality):
    """The SDK lowers the scale as values spread: what was added is right across that."""
    server, send = meter({Histogram: temporality}, {Histogram: ExponentialBucketHistogramAggregation()})
    duration = server.create_histogram("gen_ai.server.request.duration")
    random = np.random.default_rng(5)
    duration.record(1.0)
    send()
    values = np.concatenate([random.lognormal(0.0, 1.5, 2000), [0.0, 1e-4, 500.0]])
    for value in values:
        duration.record(float(value))
    send()
    added = json.loads(face.rows("server_sample")[1]["duration_histogram"])
    assert (added["count"], sum(added["counts"])) == (2003, 2003)
    assert added["sum"] == pytest.approx(values.sum())
    exact = {f"p{share}": np.percentile(values, share) for share in (50, 90, 95, 99)}
    assert added["estimated"] == pytest.approx(exact, rel=0.1)


def test_a_row_of_two_routes_has_the_observations_of_both(face, meter):
    server, send = meter(
        {Histogram: AggregationTemporality.DELTA}, {Histogram: ExponentialBucketHistogramAggregation()}
    )
    duration = server.create_histogram("gen_ai.server.request.duration")
    for seconds, route in ((0.1, "/a"), (0.2, "/a"), (8.0, "/b")):
        duration.record(seconds, {"http.route": route})
    send()
    (row,) = face.rows("server_sample")
    assert json.loads(row["duration_histogram"])["count"] == 3


@pytest.fixture
def metric_body(now_us):
    """An ExportMetricsServiceRequest as JSON: one cumulative histogram, at a second and with a start in seconds."""

    def make(second, *counts, start=0):
        point = {
            "startTimeUnixNano": str((now_us + start * 1_000_000) * 1000),
            "timeUnixNano": str((now_us + second * 1_000_000) * 1000),
            "explicitBounds": [1.0],
            "bucketCounts": list(map(str, counts)),
            "count": str(sum(counts)),
            "sum": 0.5,
        }
        histogram = {"aggregationTemporality": 2, "dataPoints": [point]}
        metric = {"name": "vllm:e2e_request_latency_seconds", "histogram": histogram}
        return {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}

    return make


def test_metrics_that_are_not_recorded_are_counted_in_a_partial_success_and_the_others_kept(face, metric_body, now_us):
    body = metric_body(1, 1, 2)
    point = {"timeUnixNano": str(now_us * 1000)}
    counted = {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [{"asInt": "1"}]}
    others = [
        {"name": "http.requests", "sum": counted},
        {"name": "vllm:num_requests_running", "sum": {**counted, "dataPoints": [{**point, "asInt": "1"}]}},
        {"name": "vllm:prompt_tokens", "exponentialHistogram": {"dataPoints": [point]}},
        {"name": "gen_ai.server.request.duration", "summary": {"dataPoints": [point]}},
        {
            "name": "gen_ai.server.request.duration",
            "exponentialHistogram": {"dataPoints": [{**point, "negative": {"bucketCounts": ["1"]}}]},
        },
    ]
    body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"] += others
    status, answer = face.send("/v1/metrics", body)
    told = (
        "metric 'http.requests': not one that is recorded; "
        "metric 'vllm:num_requests_running': a gauge is no sum of differences: send it cumulative; "
        "metric 'vllm:prompt_tokens': it is recorded as a gauge or sum, not as an exponential histogram; "
        "metric 'gen_ai.server.request.duration': it is recorded as a histogram, not as a summary; "
        "metric 'gen_ai.server.request.duration': it counts negative observations, which no time is"
    )
    assert (status, answer) == (200, {"partialSuccess": {"rejectedDataPoints": "5", "errorMessage": told}})
    assert len(face.rows("server_sample")) == 1


def test_a_body_of_metrics_that_is_sent_again_is_stored_once(face, metric_body):
    for _ in range(2):
        assert face.send("/v1/metrics", metric_body(1, 1, 2)) == (200, {})
    assert len(face.rows("server_sample")) == 1


def test_a_restart_of_the_server_is_no_negative_difference(face, metric_body):
    for body in (
        metric_body(1, 5, 5),
        metric_body(2, 7, 5),
        metric_body(3, 1, 0, start=2),
        metric_body(4, 2, 0, start=2),
    ):
        assert face.send("/v1/metrics", body) == (200, {})
    added = [row.get("duration_histogram") for row in face.rows("server_sample")]
    assert [one and json.loads(one)["counts"] for one in added] == [None, [2, 0], None, [1, 0]]
