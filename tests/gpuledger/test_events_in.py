"""Requests on their whole way: real senders, a real `gpuledger collect`, and what `gpuledger sql` then says."""

import gzip
import http.client
import json
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastapi
import prometheus_client
import pytest
import uvicorn
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from collector.ingest.intake import WAITING_MAX
from gpuledger.asgi import RequestRecorder, request_of
from gpuledger.measuring import Recorder
from gpuledger.outbox import Counts, Limits, Outbox

WAIT_S = 30.0
NO_LINGER = Limits(linger_s=0.01, wait_s=0.05, wait_s_max=0.2, close_time_limit_s=WAIT_S)
TOKEN = "scrape-s3cret"


def eventually(look):
    deadline_s = time.monotonic() + WAIT_S
    while not (found := look()):
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.02)
    return found


def vllm_registry():
    """What vLLM 0.33 tells Prometheus, by its names, types and labels."""
    registry = prometheus_client.CollectorRegistry()
    labels = {"model_name": "llama-3-8b", "engine": "0"}
    for name, value in (("num_requests_running", 3), ("num_requests_waiting", 2), ("kv_cache_usage_perc", 0.625)):
        prometheus_client.Gauge(f"vllm:{name}", "", labels, registry=registry).labels(**labels).set(value)
    prometheus_client.Counter("vllm:generation_tokens", "", labels, registry=registry).labels(**labels).inc(200)
    return registry


class Vllm(BaseHTTPRequestHandler):
    """/metrics of a vLLM behind a gateway, shown to who bears the token."""

    registry = vllm_registry()

    def do_GET(self):
        is_allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        body = prometheus_client.generate_latest(self.registry) if is_allowed else b"no"
        self.send_response(200 if is_allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def vllm():
    with ThreadingHTTPServer(("127.0.0.1", 0), Vllm) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


class Collecting:
    """`gpuledger collect` of one home, which can be ended and started again where it was."""

    def __init__(self, gpuledger):
        self._gpuledger = gpuledger
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self._config = gpuledger.home / "config.toml"
        self.set("")
        self.process = None

    def set(self, more):
        self._config.write_text(f"[collector]\nsource = 'demo'\nport = {self.port}\n{more}")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        command = self._gpuledger.command("collect", "--config", str(self._config))
        with (self._gpuledger.home / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self._gpuledger.variables, stderr=log)
        eventually(self._is_ready)
        return self

    def _is_ready(self):
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            assert self.process.poll() is None, (self._gpuledger.home / "log").read_text()
            return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT_S)

    def get(self, path):
        return self._asked("GET", path, None, {})[::2]

    def post(self, path, body, **headers):
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        status, headers, text = self._asked("POST", path, body, {"content-type": "application/json", **named})
        return status, headers, json.loads(text)

    def _asked(self, method, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read().decode()
        finally:
            connection.close()

    def sql(self, query):
        done = self._gpuledger("sql", query, "--json", "--config", str(self._config))
        answer = json.loads(done.stdout)
        return answer["rows"] if isinstance(answer, dict) else answer


@pytest.fixture
def collecting(gpuledger):
    collecting = Collecting(gpuledger)
    yield collecting
    if collecting.process:
        collecting.kill()


def llm_span(provider, number):
    """A span as vLLM's tracing ends one."""
    now_ns = time.time_ns()
    attributes = {
        "gen_ai.request.id": f"cmpl-{number}",
        "gen_ai.response.model": "llama-3-8b",
        "gen_ai.usage.prompt_tokens": 100,
        "gen_ai.usage.completion_tokens": 21,
        "gen_ai.latency.e2e": 1.5,
        "gen_ai.latency.time_to_first_token": 0.5,
        "gen_ai.latency.time_in_queue": 0.25,
    }
    tracer = provider.get_tracer("vllm.llm_engine")
    span = tracer.start_span("llm_request", kind=SpanKind.SERVER, attributes=attributes, start_time=now_ns - 10**9)
    span.end(now_ns)


def test_a_vllm_server_is_recorded_by_its_spans_its_metrics_and_its_scrape(collecting, vllm, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    collecting.set(f"[[scrape]]\nurl = 'http://{vllm}'\nservice = 'chat'\ntoken_file = '{tmp_path / 'token'}'\n")
    collecting.start()
    resource = Resource({"service.name": "vllm"})
    spans = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{collecting.url}/v1/traces", compression=Compression.Gzip)
    spans.add_span_processor(BatchSpanProcessor(exporter))
    for number in range(1000):
        llm_span(spans, number)
    spans.shutdown()
    told = OTLPMetricExporter(f"{collecting.url}/v1/metrics")
    reader = PeriodicExportingMetricReader(told, export_interval_millis=float("inf"))
    metrics = MeterProvider(resource=resource, metric_readers=[reader], shutdown_on_exit=False)
    metrics.get_meter("vllm").create_gauge("vllm_num_requests_running").set(7)
    assert reader.force_flush()
    metrics.shutdown()

    query = "select count(*) as n, min(queue_seconds) as q, max(output_tokens) as o from request where source = 'otlp'"
    assert collecting.sql(query) == [{"n": 1000, "q": 0.25, "o": 21}]
    columns = "server_kind, model, service, requests_running_count as running, generation_tokens as tokens, up"
    scraped = f"select distinct {columns} from server_sample where server_address = '{vllm}'"
    of_vllm = {"server_kind": "vllm", "model": "llama-3-8b", "service": "chat"}
    assert eventually(lambda: collecting.sql(scraped)) == [{**of_vllm, "running": 3, "tokens": 200, "up": True}]
    assert collecting.sql("select requests_running_count as n from server_sample where service = 'vllm'") == [{"n": 7}]
    lines = collecting.get("/metrics")[1].splitlines()
    assert f'dgx_server_requests_running{{engine="0",model="llama-3-8b",server="{vllm}"}} 3.0' in lines
    assert 'dgx_ingest_events_total{outcome="accepted",path="/v1/traces"} 1000.0' in lines
    everything = collecting.get("/healthz")[1] + (tmp_path / "log").read_text()
    assert TOKEN not in everything


def test_json_gzipped_and_partly_wrong_and_litellms_callback_are_answered_as_their_senders_expect(collecting):
    collecting.start()
    now_ns = time.time_ns()
    span = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b173", "name": "x", "kind": 2}
    timed = {**span, "startTimeUnixNano": str(now_ns), "endTimeUnixNano": str(now_ns + 1)}
    spans = [timed, {**timed, "spanId": "0" * 16}]
    body = gzip.compress(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode())
    status, _, answer = collecting.post("/v1/traces", body, content_encoding="gzip")
    told = {"rejectedSpans": "1", "errorMessage": "span 'x': its trace id or span id is none"}
    assert (status, answer) == (200, {"partialSuccess": told})

    call = {"id": "c-1", "call_type": "acompletion", "status": "success", "model": "llama-3", "stream": False}
    call |= {"startTime": now_ns / 1e9 - 2, "endTime": now_ns / 1e9, "messages": [{"content": "a prompt"}]}
    for stored, repeated in ((1, 0), (0, 1)):
        status, _, answer = collecting.post("/ingest/litellm", json.dumps([call]))
        assert (status, answer["stored"], answer["repeated"]) == (200, stored, repeated)
    rows = collecting.sql("select source, round(duration_seconds, 3) as s from request order by source")
    assert rows == [{"source": "litellm", "s": 2.0}, {"source": "otlp", "s": 0.0}]


def test_a_flood_is_answered_with_429_and_all_that_was_acknowledged_is_there_after_a_kill(collecting):
    """More connections than may wait, all in the middle of their bodies: those beyond the limit are sent away."""
    collecting.start()
    beyond = 20
    waiting = selectors.DefaultSelector()
    for number in range(WAITING_MAX + beyond):
        body = json.dumps({"kind": "request", "source": "flood", "source_event_id": str(number)}).encode()
        client = socket.create_connection(("127.0.0.1", collecting.port), timeout=WAIT_S)
        head = f"POST /ingest/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode() + body[:5])
        waiting.register(client, selectors.EVENT_READ, body)
    away = []
    while len(away) < beyond:
        answered = waiting.select(WAIT_S)
        assert answered
        for key, _ in answered:
            waiting.unregister(key.fileobj)
            away.append((key.fileobj, key.data))
    for client, _ in away:
        told = read_all(client)
        assert told.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1\r\n" in told
    acknowledged = list(waiting.get_map().values())
    assert len(acknowledged) == WAITING_MAX
    for key in acknowledged:
        key.fileobj.sendall(key.data[5:])
    for key in acknowledged:
        assert read_all(key.fileobj).startswith(b"HTTP/1.1 200 ")
    assert 'dgx_ingest_refused_bodies_total{path="/ingest/events",status="429"} 20.0' in collecting.get("/metrics")[1]
    collecting.kill()
    rows = collecting.sql("select count(*) as n, count(distinct source_event_id) as different from request")
    assert rows == [{"n": WAITING_MAX, "different": WAITING_MAX}]
    collecting.start()
    for _, body in away:
        assert collecting.post("/ingest/events", body)[0] == 200
    assert collecting.sql("select count(distinct source_event_id) as n from request") == [{"n": WAITING_MAX + beyond}]


def read_all(client):
    told = b""
    with client:
        while part := client.recv(65_536):
            told += part
    return told


async def starlette_generate(request):
    request_of(request.scope).tokens(input=7, output=int(request.path_params["tokens"]))
    return PlainTextResponse("a prompt")


def starlette_app(middleware):
    return Starlette(routes=[Route("/generate/{tokens}", starlette_generate)], middleware=[middleware])


def fastapi_app(middleware):
    app = fastapi.FastAPI(middleware=[middleware])

    @app.get("/generate/{tokens}")
    async def generate(tokens: int, request: fastapi.Request):
        request_of(request.scope).tokens(input=7, output=tokens)
        return "a prompt"

    return app


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_an_application_under_load_is_recorded_while_the_collector_is_killed_and_comes_back(collecting, make):
    collecting.start()
    outbox = Outbox(collecting.url, limits=NO_LINGER)
    app = make(Middleware(RequestRecorder, service="chat", recorder=Recorder("asgi", lambda: outbox)))
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()

        def ask(number):
            connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=WAIT_S)
            connection.request("GET", f"/generate/{number}")
            status = connection.getresponse().status
            connection.close()
            return status

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(200)))
            collecting.kill()
            answers += pool.map(ask, range(200, 400))
        collecting.start()
        assert outbox.flush(WAIT_S)
        server.should_exit = True
        thread.join(WAIT_S)
    assert Counter(answers) == {200: 400}
    assert outbox.counts == Counts(sent=400, dropped=0, waiting=0)
    outbox.close()
    columns = "count(*) as n, count(distinct output_tokens) as different, any_value(endpoint) as endpoint"
    rows = collecting.sql(f"select {columns} from request where source = 'asgi' and status = 'ok'")
    assert rows == [{"n": 400, "different": 400, "endpoint": "/generate/{tokens}"}]
