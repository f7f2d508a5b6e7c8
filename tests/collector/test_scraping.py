"""Inference servers that are scraped: a vLLM-shaped one over HTTP, with its real names, and texts of the others."""

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from collector.probe import Condition
from collector.scraping.exposition_text import parse_scrape
from collector.scraping.probe import ScrapeError, ScrapeProbe, ScrapeTarget, Server, fetch
from store.ledger import Ledger
from store.snapshot import LedgerReader

WAIT_S = 30.0


class Vllm:
    """A vLLM engine's metrics, by the names, types and labels of vLLM 0.33."""

    def __init__(self):
        self.registry = CollectorRegistry()
        labels = ["model_name", "engine"]
        of = {"model_name": "llama-3-8b", "engine": "0"}

        def gauge(name):
            return Gauge(f"vllm:{name}", "", labels, registry=self.registry).labels(**of)

        def counter(name):
            return Counter(f"vllm:{name}", "", labels, registry=self.registry).labels(**of)

        def histogram(name):
            buckets = (0.1, 0.5, 1.0, 5.0)
            return Histogram(f"vllm:{name}", "", labels, registry=self.registry, buckets=buckets).labels(**of)

        self.running, self.waiting = gauge("num_requests_running"), gauge("num_requests_waiting")
        self.kv = gauge("kv_cache_usage_perc")
        self.prompt, self.generated = counter("prompt_tokens"), counter("generation_tokens")
        self.preemptions = counter("num_preemptions")
        self.finished = Counter("vllm:request_success", "", [*labels, "finished_reason"], registry=self.registry)
        self.first_token = histogram("time_to_first_token_seconds")
        self.duration = histogram("e2e_request_latency_seconds")
        self.started = Gauge("process_start_time_seconds", "", registry=self.registry)
        self.started.set(1000.0)

    def finish(self, reason):
        self.finished.labels(model_name="llama-3-8b", engine="0", finished_reason=reason).inc()

    def text(self):
        return generate_latest(self.registry).decode()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.may_answer.wait()
        self.server.shown = self.headers
        body = self.server.text().encode()
        self.send_response(200 if self.path == "/metrics" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # who asked has given up
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    servers = []

    def serve(text):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.text, server.may_answer, server.daemon_threads = text, threading.Event(), True
        server.may_answer.set()
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.address = f"127.0.0.1:{server.server_port}"
        return server

    yield serve
    for server in servers:
        server.may_answer.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def probe_of():
    probes = []

    def make(*urls):
        probes.append(ScrapeProbe([ScrapeTarget(url, "chat") for url in urls], interval_s=1.0))
        return probes[-1]

    yield make
    for probe in probes:
        probe.close()


def rows(probe, now, back=None):
    """What the next tick tells after the servers that were asked at `now` have answered."""
    probe.read(now)
    for scraper in probe.scrapers if back is None else back:
        assert scraper.is_back.wait(WAIT_S)
    return probe.read(now)


@pytest.fixture
def vllm():
    return Vllm()


def test_a_vllm_server_is_a_row_with_its_own_gauges_and_counters(served, probe_of, clock, vllm):
    server = served(vllm.text)
    vllm.running.set(3)
    vllm.waiting.set(2)
    vllm.kv.set(0.625)
    vllm.prompt.inc(1000)
    vllm.generated.inc(200)
    vllm.finish("stop")
    vllm.finish("length")
    probe = probe_of(f"http://{server.address}/metrics")
    now = clock.now()
    (row,) = rows(probe, now)
    assert (row.kind, row.observed_at_us) == ("server_sample", now.wall_us)
    absence = row.values["absence"]
    assert {name: value for name, value in row.values.items() if name != "absence"} == {
        "server_address": server.address,
        "server_kind": "vllm",
        "service": "chat",
        "model": "llama-3-8b",
        "engine": "0",
        "interval_seconds": 5.0,
        "counter_epoch": now.wall_us // 1_000_000,
        "up": True,
        "requests_running_count": 3,
        "requests_waiting_count": 2,
        "kv_cache_used_ratio": 0.625,
        "prompt_tokens": 1000,
        "generation_tokens": 200,
        "preemption_count": 0,
        "requests_success_count": 2,
    }
    assert (absence["duration_histogram"], absence["queue_histogram"]) == ("no_data", "not_supported")
    assert (probe.condition, probe.status()) == (Condition.ANSWERS, "scraping 1 servers")


def test_a_histogram_is_what_came_since_the_row_before_with_percentiles_said_to_be_estimated(
    served, probe_of, clock, vllm
):
    probe = probe_of(f"http://{served(vllm.text).address}")
    vllm.duration.observe(4.0)
    rows(probe, clock.now())
    for seconds in (0.3, 0.7, 0.8, 9.0):
        vllm.duration.observe(seconds)
    (row,) = rows(probe, clock.advance(5.0))
    told = row.values["duration_histogram"]
    assert {**told, "sum": round(told["sum"], 6)} == {
        "bounds": [0.1, 0.5, 1.0, 5.0],
        "counts": [0, 1, 2, 0, 1],
        "sum": 10.8,
        "count": 4,
        "estimated": {"p50": 0.75, "p90": 5.0, "p95": 5.0, "p99": 5.0},
    }
    (row,) = rows(probe, clock.advance(5.0))
    assert row.values["absence"]["duration_histogram"] == "no_data"


def test_a_server_that_was_restarted_is_a_new_epoch_and_no_histogram_spans_it(served, probe_of, clock, vllm):
    server = served(vllm.text)
    probe = probe_of(f"http://{server.address}")
    vllm.prompt.inc(10)
    (before,) = rows(probe, clock.now())
    anew = Vllm()
    anew.started.set(2000.0)
    anew.prompt.inc(50)  # more than before: its counters do not tell that it was restarted
    anew.duration.observe(0.2)
    server.text = anew.text
    (after,) = rows(probe, clock.advance(5.0))
    assert after.values["counter_epoch"] > before.values["counter_epoch"]
    assert after.values["absence"]["duration_histogram"] == "no_data"
    anew.prompt.inc(1)
    anew.duration.observe(0.2)
    (later,) = rows(probe, clock.advance(5.0))
    assert later.values["counter_epoch"] == after.values["counter_epoch"]
    assert later.values["duration_histogram"]["count"] == 1


def test_counters_that_fall_are_a_new_epoch_where_no_start_is_told(clock):
    texts = iter([f"llamacpp:requests_processing 1\nllamacpp:prompt_tokens_total {n}\n" for n in (100, 7)])
    server = Server(ScrapeTarget("http://x:1"), lambda _: next(texts))
    (before,), (after,) = server.read(clock.now()), server.read(clock.advance(5.0))
    assert after.values["counter_epoch"] > before.values["counter_epoch"]


def test_a_server_that_hangs_costs_the_others_nothing_and_no_tick_waits_for_it(served, probe_of, clock, vllm):
    bad, good = served(vllm.text), served(vllm.text)
    bad.may_answer.clear()
    probe = probe_of(f"http://{bad.address}", f"http://{good.address}")
    answering = probe.scrapers[1:]
    for _ in range(3):
        told = rows(probe, clock.advance(5.0), back=answering)
        assert [(row.values["server_address"], row.values["up"]) for row in told] == [(good.address, True)]
    bad.may_answer.set()
    assert probe.scrapers[0].is_back.wait(WAIT_S)
    (late,) = probe.read(clock.now())
    assert (late.values["server_address"], late.values["up"]) == (bad.address, True)


def test_a_server_that_does_not_answer_is_down_until_it_does(served, probe_of, clock, vllm):
    server = served(vllm.text)
    probe = probe_of(f"http://{server.address}")
    rows(probe, clock.now())
    server.text = lambda: "<html>bad gateway</html>"
    (row,) = rows(probe, clock.advance(5.0))
    assert row.values == {
        "up": False,
        "absence": {"*": "no_data"},
        "server_address": server.address,
        "interval_seconds": 5.0,
        "service": "chat",
        "model": "llama-3-8b",
        "engine": "0",
    }
    assert probe.status() == f"scraping 1 servers; {server.address}: it does not speak Prometheus' text format"
    server.text = vllm.text
    (row,) = rows(probe, clock.advance(5.0))
    assert row.values["up"] is True
    assert probe.status() == "scraping 1 servers"


def test_servers_are_asked_every_fifth_second(clock):
    asked = []
    probe = ScrapeProbe([ScrapeTarget("http://127.0.0.1:1/metrics")], interval_s=1.0)
    probe.scrapers[0].ask = asked.append
    for _ in range(11):
        probe.read(clock.advance(1.0))
    assert [now.monotonic_s for now in asked] == [1001.0, 1006.0, 1011.0]


@pytest.mark.parametrize(
    ("path", "words"), [("/other", "it answered /other with 404"), ("", "connection refused")], ids=["404", "refused"]
)
def test_what_cannot_be_scraped_says_why(served, vllm, path, words):
    if path:
        url = f"http://{served(vllm.text).address}{path}"
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ScrapeError, match=words):
        fetch(ScrapeTarget(url))


def test_a_server_is_shown_what_the_files_hold_as_they_are_now(served, vllm, tmp_path):
    server = served(vllm.text)
    token, headers = tmp_path / "token", tmp_path / "headers"
    target = ScrapeTarget(f"http://{server.address}", None, str(token), str(headers))
    headers.write_text("# of the gateway\nX-Api-Key: k:1\n\n")
    for secret in ("first", "renewed"):
        token.write_text(f"{secret}\n")
        fetch(target)
        assert (server.shown["Authorization"], server.shown["X-Api-Key"]) == (f"Bearer {secret}", "k:1")


@pytest.mark.parametrize(
    ("token", "headers", "words"),
    [
        (None, None, "its token_file cannot be read (no such file or directory)"),
        ("s3cret s3cret", "", "its token_file holds no token in one line"),
        ("t", "X-Ok: s3cret\ns3cret\n", "line 2 of its headers_file is no 'Name: value'"),
        ("t", "X-Bad: s3cret\x01", "line 1 of its headers_file is no 'Name: value'"),
    ],
)
def test_what_cannot_be_shown_is_told_without_what_is_in_it(clock, served, vllm, tmp_path, token, headers, words):
    for name, text in (("token", token), ("headers", headers)):
        if text is not None:
            (tmp_path / name).write_text(text)
    files = (str(tmp_path / "token"), headers and str(tmp_path / "headers"))
    server = Server(ScrapeTarget(f"http://{served(vllm.text).address}", None, *files))
    (row,) = server.read(clock.now())
    assert (row.values["up"], row.values["absence"], server.problem) == (False, {"*": "lost"}, words)


def test_a_server_that_keeps_silent_has_a_deadline(served, vllm):
    server = served(vllm.text)
    server.may_answer.clear()
    with pytest.raises(ScrapeError, match=r"it did not answer within 0\.05 s"):
        fetch(ScrapeTarget(f"http://{server.address}"), time_limit_s=0.05)


def test_metrics_of_something_else_and_numbers_that_no_column_holds_do_not_end_the_scraping(clock):
    texts = iter(["node_load1 0.5\n", "llamacpp:requests_processing NaN\nllamacpp:prompt_tokens_total 1e300\n"])
    server = Server(ScrapeTarget("http://x:1/metrics"), lambda _: next(texts))
    (row,) = server.read(clock.now())
    assert (row.values["up"], server.problem) == (False, "its metrics are of no inference server that is known")
    (row,) = server.read(clock.advance(5.0))
    assert row.values["up"] is True
    assert {"requests_running_count", "prompt_tokens"} <= row.values["absence"].keys()


OTHERS = {
    "sglang": """
sglang:num_running_reqs{model_name="m"} 4
sglang:num_queue_reqs{model_name="m"} 1
sglang:token_usage{model_name="m"} 0.25
sglang:gen_throughput{model_name="m"} 812.5
sglang:prompt_tokens_total{model_name="m"} 100
sglang:generation_tokens_total{model_name="m"} 50
sglang:num_retracted_reqs{model_name="m"} 2
sglang:queue_time_seconds_bucket{model_name="m",le="1.0"} 2
sglang:queue_time_seconds_bucket{model_name="m",le="+Inf"} 2
sglang:queue_time_seconds_sum{model_name="m"} 0.5
""",
    "tgi": """
tgi_queue_size 1
tgi_batch_current_size 4
tgi_request_generated_tokens_sum 50
tgi_request_input_length_sum 100
""",
    "llamacpp": """
llamacpp:requests_processing 4
llamacpp:requests_deferred 1
llamacpp:prompt_tokens_total 100
llamacpp:tokens_predicted_total 50
""",
    "triton": """
nv_inference_request_success{model="m",version="1"} 9
nv_inference_request_failure{model="m",version="1",reason="REJECTED"} 2
nv_inference_request_failure{model="m",version="1",reason="BACKEND"} 1
nv_inference_pending_request_count{model="m",version="1"} 4
nv_gpu_utilization 0.5
""",
    "nim": """
num_requests_running{model_name="m"} 4
num_requests_waiting{model_name="m"} 1
gpu_cache_usage_perc{model_name="m"} 0.25
prompt_tokens_total{model_name="m"} 100
generation_tokens_total{model_name="m"} 50
""",
}
COMMON = {"requests_running_count": 4, "requests_waiting_count": 1, "prompt_tokens": 100, "generation_tokens": 50}


@pytest.mark.parametrize(
    ("kind", "series", "values"),
    [
        (
            "sglang",
            ("m", None),
            {
                **COMMON,
                "kv_cache_used_ratio": 0.25,
                "generation_tokens_per_second": 812.5,
                "requests_retracted_count": 2,
            },
        ),
        ("tgi", (None, None), COMMON),
        ("llamacpp", (None, None), COMMON),
        (
            "triton",
            ("m", "1"),
            {"requests_success_count": 9, "requests_failure_count": 3, "requests_waiting_count": 4},
        ),
        ("nim", ("m", None), {**COMMON, "kv_cache_used_ratio": 0.25}),
    ],
)
def test_the_other_servers_are_known_by_their_metrics(kind, series, values):
    scrape = parse_scrape(OTHERS[kind])
    assert (scrape.server_kind, scrape.values) == (kind, {series: values})


def test_what_was_scraped_can_be_stored_as_it_is(served, probe_of, clock, vllm, tmp_path):
    probe = probe_of(f"http://{served(vllm.text).address}")
    rows(probe, clock.now())
    vllm.duration.observe(0.2)
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.append(rows(probe, clock.advance(5.0)))
    with LedgerReader(tmp_path / "ledger") as reader:
        assert reader.extents()["server_sample"].event_count == 1
