"""What the MCP server's /metrics counts: each recorded call once, in whichever process it was served."""

from contextlib import closing

import prometheus_client.openmetrics.parser
import prometheus_client.parser
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gpuledger.mcp_metrics import metrics_route
from query.reading.local_source import LocalSource
from store.events import Event
from store.ledger import Ledger
from store.upkeep.sealing import seal

BEGIN_US = 1_795_334_400_000_000


def call(second, operation, seconds, status="ok", method="tools/call", source="mcp"):
    values = {"source": source, "operation": operation, "status": status, "method": method}
    return Event("request", BEGIN_US + round(second * 1e6), values | {"duration_seconds": seconds})


CALLS = [
    call(0, "live_state", 0.004),
    call(1, "live_state", 0.3),
    call(2, "query_metrics", 40.0, "error"),
    call(3, "dgx://hardware/gpus", 0.02, method="resources/read"),
    call(4, "chat", 9.0, source="otlp"),
]


def key(name, *values):
    return (name, frozenset(values))


@pytest.fixture
def folder(tmp_path):
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.append(CALLS[:2])
        seal(tmp_path / "ledger")
        ledger.append(CALLS[2:])
    return tmp_path / "ledger"


@pytest.fixture
def scrape(folder):
    """Return what a scrape of one process gives, by name and labels, without buckets."""
    times = iter(range(100, 200))
    with (
        closing(LocalSource(folder)) as source,
        TestClient(Starlette(routes=[metrics_route(source, "1.2.3", monotonic_s=lambda: next(times))])) as client,
    ):

        def scraped():
            families = prometheus_client.parser.text_string_to_metric_families(client.get("/metrics").text)
            samples = [sample for family in families for sample in family.samples]
            return {key(one.name, *one.labels.values()): one.value for one in samples}

        yield scraped


def test_every_recorded_call_is_counted_by_what_it_was(scrape):
    found = {one: value for one, value in scrape().items() if "_bucket" not in one[0]}
    assert found == {
        key("dgx_mcp_build_info", "1.2.3"): 1,
        key("dgx_mcp_uptime_seconds"): 1,
        key("dgx_mcp_requests_total", "tools/call", "ok"): 2,
        key("dgx_mcp_requests_total", "tools/call", "error"): 1,
        key("dgx_mcp_requests_total", "resources/read", "ok"): 1,
        key("dgx_mcp_request_duration_seconds_count", "tools/call"): 3,
        key("dgx_mcp_request_duration_seconds_sum", "tools/call"): pytest.approx(40.304),
        key("dgx_mcp_request_duration_seconds_count", "resources/read"): 1,
        key("dgx_mcp_request_duration_seconds_sum", "resources/read"): pytest.approx(0.02),
        key("dgx_mcp_tool_executions_total", "live_state", "ok"): 2,
        key("dgx_mcp_tool_executions_total", "query_metrics", "error"): 1,
        key("dgx_mcp_tool_duration_seconds_count", "live_state"): 2,
        key("dgx_mcp_tool_duration_seconds_sum", "live_state"): pytest.approx(0.304),
        key("dgx_mcp_tool_duration_seconds_count", "query_metrics"): 1,
        key("dgx_mcp_tool_duration_seconds_sum", "query_metrics"): pytest.approx(40),
        key("dgx_mcp_resource_reads_total", "dgx://hardware/gpus", "ok"): 1,
        key("dgx_mcp_errors_total", "tools/call", "error"): 1,
    }


def test_the_buckets_are_cumulative_up_to_all(scrape):
    found, name = scrape(), "dgx_mcp_tool_duration_seconds_bucket"
    bounds = ("0.005", "0.25", "0.5", "30.0", "+Inf")
    assert [found[key(name, "live_state", bound)] for bound in bounds] == [1, 1, 2, 2, 2]


def test_what_came_since_the_last_scrape_is_added_and_nothing_counted_twice(scrape, folder):
    calls = key("dgx_mcp_tool_executions_total", "live_state", "ok")
    assert [scrape()[calls], scrape()[calls]] == [2, 2]
    seal(folder)
    assert scrape()[calls] == 2
    with Ledger(folder) as ledger:
        ledger.append([call(5, "live_state", 0.1), call(-300, "live_state", 0.1)])
    assert [scrape()[calls], scrape()[calls]] == [4, 4]


def test_without_a_ledger_there_is_what_the_server_knows_of_itself(tmp_path):
    with TestClient(Starlette(routes=[metrics_route(LocalSource(tmp_path / "none"), "1.2.3")])) as client:
        answer = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "dgx_mcp_build_info" in answer.text
    assert "dgx_mcp_requests" not in answer.text


def test_a_bucket_bears_its_newest_call_so_that_it_can_be_diagnosed(folder):
    with Ledger(folder) as ledger:
        ledger.append(
            [
                Event("request", call.observed_at_us, dict(call.values) | {"event_id": name})
                for call, name in [
                    (call(10, "live_state", 0.2), "older"),
                    (call(11, "live_state", 0.21), "newer"),
                    (call(12, "run_sql", 0.22), "newest"),
                    (call(13, "run_sql", 99.0), "endless"),
                ]
            ]
        )
    route = metrics_route(LocalSource(folder), "1.2.3")
    with TestClient(Starlette(routes=[route])) as client:
        text = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}).text
    found = {
        (sample.name, *sample.labels.values()): (sample.exemplar.labels["event_id"], sample.exemplar.value)
        for family in prometheus_client.openmetrics.parser.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar
    }
    requests, tools = "dgx_mcp_request_duration_seconds_bucket", "dgx_mcp_tool_duration_seconds_bucket"
    assert found == {
        (requests, "0.25", "tools/call"): ("newest", 0.22),
        (requests, "+Inf", "tools/call"): ("endless", 99.0),
        (tools, "0.25", "live_state"): ("newer", 0.21),
        (tools, "0.25", "run_sql"): ("newest", 0.22),
        (tools, "+Inf", "run_sql"): ("endless", 99.0),
    }
