"""What taking requests in costs, and what asking about them does.

    python benchmarks/requests.py ingest                # a minute; the marks are printed beside the figures
    python benchmarks/requests.py ingest --folder /var/tmp
    python benchmarks/requests.py ask                   # 10 million requests over 30 days: minutes to make them
    python benchmarks/requests.py ask --folder /var/tmp/history     # made there once, asked again the next time

`ingest` starts a real collector on one core and posts to it from another: batches of spans as the OpenTelemetry SDK
encodes them, and batches of NDJSON. Each has ids of its own, so nothing is stored for being known. An acknowledgement
says that the batch is on disk; the CPU time is all of the collector's, its sampling included.

`ask` asks the ledger of `benchmarks/request_history.py`, warm: the median of some askings by one process that has asked
before, and the CPU time of one, which other work on the machine changes less.
"""

import argparse
import gzip
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

SENDERS = 8


def row(what: str, figure: float, unit: str, mark: str = "", *, is_met: bool | None = None) -> None:
    verdict = "" if is_met is None else "met" if is_met else "MISSED"
    print(f"{what:52}{figure:12,.1f} {unit:10}{mark:>14}  {verdict}".rstrip(), flush=True)


class Collector:
    """A running collector, bound to one core where there are two."""

    def __init__(self, folder: Path) -> None:
        settings = {
            "ledger_folder": str(folder / "ledger"),
            "host": "127.0.0.1",
            "port": 0,
            "sample_interval_s": 1.0,
            "seal_interval_s": 3600.0,
            "source": "demo",
            "demo_seed": 0,
            "log_level": "info",
            "version": "benchmark",
        }
        self._log = folder / "log"
        command = [sys.executable, "-P", "-m", "collector", json.dumps(settings)]
        cores = sorted(os.sched_getaffinity(0))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)
        os.sched_setaffinity(self.process.pid, cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        self.port = self._listening()

    def _listening(self) -> int:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/metrics", self._log.read_text())):
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.05)
        return int(found[1])

    def cpu_s(self) -> float:
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self, name: str) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def ndjson_batch(number: int, count: int) -> bytes:
    now_us = time.time_ns() // 1000
    event: dict[str, Any] = {
        "kind": "request", "observed_at": now_us, "source": "asgi", "service": "chat",
        "endpoint": "/v1/chat/completions", "operation": "chat", "method": "POST", "response_model": "llama-3",
        "status": "ok", "http_status": 200,
        "duration_seconds": 1.25, "time_to_first_token_seconds": 0.3, "input_tokens": 180, "output_tokens": 220,
        "pid": 4711,
    }  # fmt: skip
    return b"\n".join(json.dumps({**event, "source_event_id": f"{number}-{one}"}).encode() for one in range(count))


def span_batch(_number: int, count: int) -> bytes:
    """`count` spans of vLLM, encoded by the SDK's own exporter."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind

    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "vllm"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("vllm.llm_engine")
    attributes = {
        "gen_ai.request.id": "cmpl-0123456789abcdef", "gen_ai.response.model": "llama-3",
        "gen_ai.request.max_tokens": 512, "gen_ai.request.temperature": 0.7,
        "gen_ai.request.top_p": 1.0, "gen_ai.usage.prompt_tokens": 180,
        "gen_ai.usage.completion_tokens": 220, "gen_ai.latency.time_in_queue": 0.02, "gen_ai.latency.e2e": 1.25,
        "gen_ai.latency.time_to_first_token": 0.3, "gen_ai.latency.time_in_model_prefill": 0.2,
        "gen_ai.latency.time_in_model_decode": 0.9,
    }  # fmt: skip
    for _ in range(count):
        tracer.start_span("llm_request", kind=SpanKind.SERVER, attributes=attributes).end()
    return encode_spans(kept.get_finished_spans()).SerializeToString()


def post_all(port: int, path: str, bodies: list[bytes], headers: dict[str, str]) -> list[float]:
    """Post one after the other on one connection; seconds until each was acknowledged."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    waited_s = []
    for body in bodies:
        began_s = time.perf_counter()
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        waited_s.append(time.perf_counter() - began_s)
    connection.close()
    return waited_s


def measure(
    collector: Collector, what: str, path: str, make: Callable[[int, int], bytes], size: int, batches: int, mark: int
) -> None:
    kind = "application/x-protobuf" if path == "/v1/traces" else "application/x-ndjson"
    headers = {"content-type": kind, "content-encoding": "gzip"}
    bodies = [gzip.compress(make(number, size), 1) for number in range(batches + 1)]
    post_all(collector.port, path, bodies[:1], headers)  # imports and first pages
    waited_s: list[float] = []
    shares = [bodies[1 + sender :: SENDERS] for sender in range(SENDERS)]
    threads = [
        threading.Thread(target=lambda share=share: waited_s.extend(post_all(collector.port, path, share, headers)))
        for share in shares
    ]
    began_s, cpu_began_s = time.perf_counter(), collector.cpu_s()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s, cpu_s = time.perf_counter() - began_s, collector.cpu_s() - cpu_began_s
    per_core = size * batches / cpu_s
    row(f"{what}, by the collector's CPU time", per_core, "per core s", f"{mark:,}", is_met=per_core >= mark)
    row(f"{what}, acknowledged as durable, {SENDERS} senders", size * batches / wall_s, "per s")
    row(f"acknowledgement of {size:,}, median", 1000 * statistics.median(waited_s), "ms")
    row("the same, p99", 1000 * statistics.quantiles(waited_s, n=100)[98], "ms")
    row("resident memory, at most so far", collector.resident_mib("VmHWM"), "MiB")


def ingest(folder: Path) -> None:
    collector = Collector(folder)
    try:
        time.sleep(2)
        row("resident memory before anything came", collector.resident_mib("VmRSS"), "MiB")
        measure(collector, "events (NDJSON, gzip)", "/ingest/events", ndjson_batch, 1000, 200, 50_000)
        measure(collector, "spans (protobuf, gzip)", "/v1/traces", span_batch, 512, 200, 20_000)
    finally:
        collector.end()


def ask(folder: Path, requests: int, days: int, times: int) -> None:
    from request_history import NOW, History, make_history

    from query.reading.local_source import LocalSource
    from query.requests.diagnosis import diagnose, diagnose_window
    from query.requests.slow import SlowRule, slow_requests
    from query.requests.summary import summarize_requests
    from query.windows import Window

    if not folder.exists():
        began_s = time.monotonic()
        make_history(folder, History(requests, days))
        print(f"{requests:,} requests over {days} days, made in {time.monotonic() - began_s:.0f} s", flush=True)
    source = LocalSource(folder)

    def window(hours: float) -> Window:
        return Window(NOW - timedelta(hours=hours), NOW, "UTC", f"{hours:g}h")

    def slow(hours: float, rule: SlowRule) -> Any:
        return slow_requests(source, window(hours), rule, now=NOW)

    by_percentile = SlowRule("percentile", percentile=99)
    found = slow(1, by_percentile)
    assert found.requests, "nothing is slow in the last hour"
    one = str(found.requests[0].seq)
    trace = str(slow(24 * days, by_percentile).requests[-1].trace_id)
    asked: list[tuple[str, Callable[[], Any], float | None]] = [
        ("slow, the last hour, p99", lambda: slow(1, by_percentile), 50),
        (f"slow, {days} days, p99", lambda: slow(24 * days, by_percentile), 500),
        (f"slow, {days} days, at least 30 s", lambda: slow(24 * days, SlowRule("threshold", 30.0)), 500),
        ("slow, the last hour, for their tokens", lambda: slow(1, SlowRule("excess")), None),
        (f"requests, {days} days", lambda: summarize_requests(source, window(24 * days), now=NOW), None),
        ("one diagnosis, by its number", lambda: diagnose(source, one, now=NOW), 300),
        ("one diagnosis, by the trace id of an old one", lambda: diagnose(source, trace, now=NOW), None),
        ("diagnosis of the last half hour", lambda: diagnose_window(source, window(0.5), now=NOW), None),
    ]
    for what, question, mark_ms in asked:
        wall_ms, cpu_ms = took_ms(question, times)
        verdict = {} if mark_ms is None else {"is_met": wall_ms < mark_ms}
        row(what, wall_ms, "ms", f"{mark_ms:g}" if mark_ms else "", **verdict)
        row("    of CPU", cpu_ms, "ms")
    source.close()


def took_ms(question: Callable[[], Any], times: int) -> tuple[float, float]:
    """Median of the time that a question takes, and of its CPU time; the first asking does not count."""
    question()
    wall_s, cpu_s = [], []
    for _ in range(times):
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        question()
        wall_s.append(time.perf_counter() - began_s)
        cpu_s.append(time.process_time() - cpu_began_s)
    return 1000 * statistics.median(wall_s), 1000 * statistics.median(cpu_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("part", choices=["ingest", "ask"])
    parser.add_argument("--folder", type=Path, help="ingest: on whose disk; ask: where the ledger is, or is to be made")
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--times", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder if arguments.part == "ingest" else None) as name:
        if arguments.part == "ingest":
            ingest(Path(name))
        else:
            ask(arguments.folder or Path(name) / "ledger", arguments.requests, arguments.days, arguments.times)


if __name__ == "__main__":
    main()
