"""`/metrics` of the MCP server: what was asked of it, counted from the ledger.

Every call is recorded there, whichever process served it, on stdio or over HTTP. So the counters are the same in all of
them and survive a restart; what retention removes was counted before, and is not taken back while a process lives.
In OpenMetrics each bucket of a histogram bears its newest call as exemplar, which `gpuledger diagnose` takes by its id.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Lock
from typing import Any

import anyio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from query.reading.local_source import LocalSource
from store.errors import GpuledgerError

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LATE_US = 600_000_000  # a call is written when it ended, within a moment; clocks may be stepped

Group = tuple[str, str, str]
"""Method, operation and status."""


Call = Mapping[str, Any]
"""A call's `event_id`, `seconds` that it took, and `at_us`, when that was."""


@dataclass(slots=True)
class _Count:
    """Calls of one group, and how long they took: how many up to each bucket's bound, and all together.

    `newest` is the newest call of each bucket, the last of those that took longer than every bound.
    """

    calls: int = 0
    seconds: float = 0.0
    within: list[int] = field(default_factory=lambda: [0] * len(BUCKETS_S))
    newest: list[Call | None] = field(default_factory=lambda: [None] * (len(BUCKETS_S) + 1))


class CallCounter:
    """Counts the calls in a ledger, each once.

    Args:
        source: The ledger.
    """

    def __init__(self, source: LocalSource) -> None:
        self._source = source
        self._counts: dict[Group, _Count] = {}
        self._upto_seq = 0
        self._upto_us = 0
        self._lock = Lock()

    def counts(self) -> dict[Group, _Count]:
        """All calls so far; where the ledger cannot be read, those that were counted before."""
        with self._lock:
            try:
                self._count_new()
            except GpuledgerError:
                return dict(self._counts)
            return dict(self._counts)

    def _count_new(self) -> None:
        with self._source.engine(["request"], start_us=max(0, self._upto_us - LATE_US)) as engine:
            at_us = engine.epoch_us("observed_at")
            bounds = ", ".join(f"count(*) filter (duration_seconds <= {bound})" for bound in BUCKETS_S)
            a_call = f"{{'event_id': event_id, 'seconds': duration_seconds, 'at_us': {at_us}}}"
            newest = ", ".join(
                f"arg_max({a_call}, seq) filter (event_id is not null and duration_seconds > {above} "
                f"and duration_seconds <= {bound})"
                for above, bound in pairwise((-1.0, *BUCKETS_S, "'inf'::double"))
            )
            sql = (
                "select coalesce(method, ''), coalesce(operation, ''), coalesce(status, ''), count(*), "
                f"coalesce(sum(duration_seconds), 0), max(seq), max({at_us}), {bounds}, {newest} "
                f"from {engine.relation('request')} where source = 'mcp' and seq > {engine.parameter('seq', 'int')} "
                "group by 1, 2, 3 order by 1, 2, 3"
            )
            columns = engine.query(sql, seq=self._upto_seq).columns
        for method, operation, status, calls, seconds, seq, newest_us, *buckets in zip(
            *(column.to_pylist() for column in columns), strict=True
        ):
            within, called = buckets[: len(BUCKETS_S)], buckets[len(BUCKETS_S) :]
            count = self._counts.setdefault((method, operation, status), _Count())
            count.calls += calls
            count.seconds += seconds
            count.within = [before + more for before, more in zip(count.within, within, strict=True)]
            count.newest = [call or before for before, call in zip(count.newest, called, strict=True)]
            self._upto_seq, self._upto_us = max(self._upto_seq, seq), max(self._upto_us, newest_us)


class McpCollector(Collector):
    """The MCP server's families.

    Args:
        counter: What was asked.
        version: Of the program.
        uptime_s: How long this process runs.
    """

    def __init__(self, counter: CallCounter, version: str, uptime_s: Callable[[], float]) -> None:
        self._counter = counter
        self._version = version
        self._uptime_s = uptime_s

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("dgx_mcp_build_info", "Version of the MCP server.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        yield GaugeMetricFamily("dgx_mcp_uptime_seconds", "How long this server has run.", self._uptime_s())
        counts = self._counter.counts()
        tools = {group: one for group, one in counts.items() if group[0] == "tools/call"}
        reads = {group: one for group, one in counts.items() if group[0] == "resources/read"}
        failed = {group: one for group, one in counts.items() if group[2] != "ok"}
        told = (
            _counted("dgx_mcp_requests", "Requests answered.", ("method", "status"), counts, (0, 2)),
            _timed("dgx_mcp_request_duration_seconds", "How long requests took.", "method", counts, 0),
            _counted("dgx_mcp_tool_executions", "Calls of tools.", ("tool", "status"), tools, (1, 2)),
            _timed("dgx_mcp_tool_duration_seconds", "How long calls of tools took.", "tool", tools, 1),
            _counted("dgx_mcp_resource_reads", "Resources read.", ("type", "status"), reads, (1, 2)),
            _counted("dgx_mcp_errors", "Requests that failed.", ("type", "severity"), failed, (0, 2)),
        )
        yield from (family for family in told if family.samples)


def _counted(
    name: str, meaning: str, labels: Sequence[str], counts: dict[Group, _Count], places: Sequence[int]
) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    sums: dict[tuple[str, ...], int] = {}
    for group, count in counts.items():
        key = tuple(group[place] for place in places)
        sums[key] = sums.get(key, 0) + count.calls
    for key, calls in sums.items():
        family.add_metric(key, calls)
    return family


def _timed(name: str, meaning: str, label: str, counts: dict[Group, _Count], place: int) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=[label])
    for value in dict.fromkeys(group[place] for group in counts):
        several = [count for group, count in counts.items() if group[place] == value]
        within = [sum(one) for one in zip(*(count.within for count in several), strict=True)]
        calls = [*within, sum(count.calls for count in several)]
        exemplars = [_newest(of_bucket) for of_bucket in zip(*(count.newest for count in several), strict=True)]
        buckets = [
            (str(bound), float(number), exemplar) if exemplar else (str(bound), float(number))
            for bound, number, exemplar in zip((*BUCKETS_S, "+Inf"), calls, exemplars, strict=True)
        ]
        family.add_metric([value], buckets, sum(count.seconds for count in several))
    return family


def _newest(calls: Iterable[Call | None]) -> Exemplar | None:
    newest = max(filter(None, calls), key=lambda call: call["at_us"], default=None)
    if newest is None:
        return None
    return Exemplar({"event_id": newest["event_id"]}, newest["seconds"], newest["at_us"] / 1e6)


def metrics_route(source: LocalSource, version: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> Route:
    """`/metrics` of the MCP server, as text or OpenMetrics, as the scraper's Accept header asks."""
    began_s = monotonic_s()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(McpCollector(CallCounter(source), version, lambda: monotonic_s() - began_s))

    async def scraped(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        body = await anyio.to_thread.run_sync(encode, registry)
        return Response(body, headers={"content-type": content_type})

    return Route("/metrics", scraped)
