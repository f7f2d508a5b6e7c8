"""The exposition, the alert rules and the dashboards under the eyes of Prometheus itself."""

import importlib.util
import json
import re
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from collector.dcgm import DcgmCollector
from collector.exposition import LedgerFigures, LiveCollector, UpkeepFigures, expose
from collector.listening import bound_socket
from collector.service import Exposed, _serve
from gpuledger.mcp_metrics import metrics_route
from query.promql.asking import ask_at
from query.reading.local_source import LocalSource
from store.events import Event
from store.ledger import Ledger

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yaml"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
NOW_US = 1_795_435_200_000_000


@pytest.fixture(scope="session")
def live(full_tick, received):
    figures = LedgerFigures(lambda: 0, lambda: 1, lambda: 1, UpkeepFigures)
    return LiveCollector(lambda: full_tick, lambda: True, "1.2.3", figures, received)


@pytest.fixture(scope="session")
def promtool(pytestconfig):
    """Runs promtool and returns its exit code and what it says."""
    tool = pytestconfig.pluginmanager.get_plugin("prometheus").tool("promtool")

    def run(*arguments, told=b""):
        done = subprocess.run([tool, *arguments], input=told, capture_output=True, check=False)
        return done.returncode, (done.stdout + done.stderr).decode()

    return run


@pytest.fixture(scope="session")
def families(live):
    """The names of all samples that are exposed."""
    body, _ = expose(live, accept="")
    return {re.split(r"[ {]", line)[0] for line in body.decode().splitlines() if not line.startswith("#")}


def test_promtool_finds_nothing_to_say_of_all_our_families(promtool, live):
    body, _ = expose(live, accept="")
    assert promtool("check", "metrics", told=body) == (0, "")


# --- alert rules


def test_every_rule_is_right_and_its_unit_test_passes(promtool):
    assert promtool("check", "rules", str(RULES))[0] == 0
    code, told = promtool("test", "rules", str(RULES.with_name("rules_test.yaml")))
    assert code == 0, told


def test_every_alert_has_a_test_in_which_it_is_silent_and_one_in_which_it_fires():
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    tests = RULES.with_name("rules_test.yaml").read_text()
    assert sorted(alerts) == sorted(set(alerts))
    assert alerts == re.findall(r"alertname: (\w+), eval_time: \w+, exp_alerts: \[\]", tests)
    assert alerts == re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels", tests)


def test_a_rule_that_is_changed_for_the_worse_fails_its_test(promtool, tmp_path):
    tests = RULES.with_name("rules_test.yaml")
    (tmp_path / tests.name).write_text(tests.read_text())
    (tmp_path / RULES.name).write_text(RULES.read_text().replace("dgx_gpu_up == 0", "dgx_gpu_up == 2"))
    code, told = promtool("test", "rules", str(tmp_path / tests.name))
    assert code == 1
    assert re.findall(r"alertname: (\w+)", told) == ["GpuLost"]


def test_every_metric_of_a_rule_is_exposed(families):
    asked = set(re.findall(r"\bdgx_\w+", RULES.read_text())) - {"dgx_collector_dropped_events_total"}
    assert asked <= families


# --- dashboards


def queries(dashboard):
    return [target["expr"] for panel in json.loads(dashboard.read_text())["panels"] for target in panel["targets"]]


def filled_in(expression):
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$gpu", ".*")


def test_the_dashboards_are_what_their_script_makes():
    spec = importlib.util.spec_from_file_location("make_dashboards", DEPLOY / "grafana" / "make.py")
    make = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(__import__("sys").modules, "make_dashboards", make)
        spec.loader.exec_module(make)
    assert {path.stem: path.read_text() for path in DASHBOARDS} == {name: make.text(name) for name in make.DASHBOARDS}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """A ledger in which every kind of call of the MCP server was made."""
    folder = tmp_path_factory.mktemp("calls") / "ledger"
    made = [("tools/call", "live_state", "ok"), ("tools/call", "run_sql", "error"), ("resources/read", "x", "ok")]
    with Ledger(folder) as ledger:
        common = {"source": "mcp", "duration_seconds": 0.1}
        rows = [common | {"method": method, "operation": name, "status": status} for method, name, status in made]
        ledger.append([Event("request", NOW_US, row) for row in rows])
    return folder


@pytest.fixture(scope="module")
def scraping(full_tick, live, calls, pytestconfig, tmp_path_factory):
    """A Prometheus that has scraped both servers' /metrics a few times."""
    exposed = Exposed(live, DcgmCollector(lambda: full_tick, lambda: True, "box"))

    async def scraped(request):
        body, content_type = exposed.scraped(request.headers["accept"], request.query_params.getlist("set"))
        return Response(body, headers={"content-type": content_type})

    with closing(LocalSource(calls)) as source:
        app = Starlette(routes=[Route("/metrics", scraped), Mount("/mcp", routes=[metrics_route(source, "1.2.3")])])
        listener = bound_socket("127.0.0.1", 0, "a test's port")
        server = _serve(app, listener)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        jobs = [("gpuledger", "/metrics", "{set: [dcgm]}"), ("gpuledger-mcp", "/mcp/metrics", "{}")]
        config = "global: {scrape_interval: 1s}\nscrape_configs:\n" + "".join(
            f"- {{job_name: {job}, metrics_path: {path}, params: {params}, static_configs: [{{targets: ['{address}']}}]}}\n"
            for job, path, params in jobs
        )
        real = pytestconfig.pluginmanager.get_plugin("prometheus").RealPrometheus
        prometheus = real(tmp_path_factory.mktemp("scraping"), config)
        try:
            until_scraped(prometheus, times=3)
            yield prometheus
        finally:
            prometheus.close()
            server.should_exit = True


def until_scraped(prometheus, times):
    for _ in range(300):
        result = prometheus.get("query", query="min(sum_over_time(up[1m]))")[1]["data"]["result"]
        if result and float(result[0]["value"][1]) >= times:
            return
        time.sleep(0.1)  # another process scrapes at its own pace
    raise AssertionError(prometheus.get("targets")[1])


def test_both_servers_are_scraped_by_the_real_prometheus_dcgms_families_too(scraping):
    _, told = scraping.get("query", query='count by (job) ({__name__=~"dgx_.*|DCGM_.*"})')
    assert {one["metric"]["job"] for one in told["data"]["result"]} == {"gpuledger", "gpuledger-mcp"}
    assert scraping.get("query", query="DCGM_FI_DEV_GPU_TEMP")[1]["data"]["result"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_finds_something_in_what_was_scraped(scraping, dashboard):
    found = {one: scraping.get("query", query=filled_in(one)) for one in queries(dashboard)}
    assert [one for one, (status, told) in found.items() if status != 200 or not told["data"]["result"]] == []


@pytest.fixture(scope="module")
def recorded(full_tick, tmp_path_factory):
    """A ledger of twenty such ticks."""
    folder = tmp_path_factory.mktemp("recorded") / "ledger"
    with Ledger(folder, host="box") as ledger:
        ledger.append([Event("inventory", NOW_US, {"subject": "gpu", **full_tick.inventory["GPU-a"]})])
        for second in range(20):
            rows = [*full_tick.events, *full_tick.devices]
            ledger.append([replace(row, observed_at_us=NOW_US + second * 1_000_000) for row in rows])
    with closing(LocalSource(folder)) as source:
        yield source


@pytest.mark.parametrize("name", ["gpu", "overview"])
def test_every_query_about_the_machine_finds_the_same_series_in_the_ledger(scraping, recorded, name):
    for expression in queries(DEPLOY / "grafana" / f"{name}.json"):
        answer = ask_at(recorded, filled_in(expression), NOW_US // 1000 + 19_000)
        told = scraping.get("query", query=filled_in(expression))[1]["data"]["result"]
        assert of_anywhere(one.labels for one in answer.series) == of_anywhere(one["metric"].items() for one in told), (
            expression
        )


def of_anywhere(series):
    """The labels of series but for where each was: here a host, there an address."""
    return sorted(sorted((name, value) for name, value in labels if name != "instance") for labels in series)
