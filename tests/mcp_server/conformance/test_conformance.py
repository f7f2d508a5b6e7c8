"""The official conformance runner and the Inspector, both Node programs from npm, against our server.

The whole requirement set asks for fixtures by name, so it runs against our server with them beside our own tools; the
scenarios that any server can be asked run against the real process, with all that stands before it.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUNNER, INSPECTOR = "conformance/dist/index.js", "inspector/clients/launcher/build/index.js"
REVISIONS = ("2025-11-25", "2026-07-28")
# What asks for nothing by a name of its own. Of server-stateless two checks call fixtures; the other run has them.
GENERIC = {
    "2025-11-25": [
        *("completion-complete", "dns-rebinding-protection", "ping", "prompts-list", "resources-list"),
        *("server-initialize", "server-session-lifecycle", "server-sse-multiple-streams", "tools-list"),
    ],
    "2026-07-28": [
        *("caching", "completion-complete", "dns-rebinding-protection", "http-header-validation", "prompts-list"),
        *("resources-list", "sep-2164-resource-not-found", "server-sse-multiple-streams", "tools-list"),
    ],
}


@pytest.fixture(scope="module")
def node(npm, request):
    """Runs a program of the packages: what it prints, once it has ended with the exit code that is expected."""
    tools = request.config.pluginmanager.get_plugin("npm_tools")

    def call(program: str, *arguments: object, **more):
        return tools.run(tools.NODE, npm / "@modelcontextprotocol" / program, *arguments, **more)

    return call


@pytest.fixture(scope="module")
def everything(recorded, request):
    """The address of our server with the runner's fixtures."""
    peers = request.config.pluginmanager.get_plugin("http_peers")
    port = peers.free_port()
    with subprocess.Popen(
        [sys.executable, str(HERE / "everything_server.py"), str(recorded), str(port)], stderr=subprocess.PIPE
    ) as server:
        try:
            peers.wait_for_port(port, server)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.terminate()


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_requirement_of_the_specification_is_met(node, everything, revision, tmp_path):
    said = node(RUNNER, "server", "--url", everything, "--requirements", revision, "-o", tmp_path)
    failed = set(re.findall(r"^✗ ([\w-]+):", said, re.MULTILINE))
    assert failed == set(json.loads((HERE / "expected_failures.json").read_text())[revision])
    assert re.search(r"Total: (\d+) passed", said)[1] == {"2025-11-25": "84", "2026-07-28": "169"}[revision]


def test_the_real_server_meets_what_every_server_must(node, own_ledger, tmp_path, http_server):
    with http_server(own_ledger, tmp_path, GPULEDGER_MCP__AUTH="none") as server:
        for revision in REVISIONS:
            url = ["--url", f"{server.url}/mcp", "--requirements", revision]
            said = node(RUNNER, "server", *url, "-o", tmp_path / revision, code=1)  # its fixtures are not there
            met = re.findall(r"^✓ ([\w-]+): [1-9]\d* passed, 0 failed", said, re.MULTILINE)
            assert set(GENERIC[revision]) - set(met) == set(), said


def test_the_inspector_lists_and_calls_the_tools_over_stdio(node, own_ledger, tmp_path):
    inspect = [INSPECTOR, "--cli"]
    server = [sys.executable, "-P", "-m", "gpuledger", "mcp", "--data", own_ledger]
    asked = {"HOME": str(tmp_path)}
    listed = json.loads(node(*inspect, *server, "--method", "tools/list", **asked))
    assert {"live_state", "query_metrics"} <= {tool["name"] for tool in listed["tools"]}
    call = ["--method", "tools/call", "--tool-name", "query_metrics"]
    found = json.loads(node(*inspect, *server, *call, "--tool-arg", 'metrics=["gpu.power_watts"]', **asked))
    assert found["structuredContent"]["summary"].startswith("gpu.power_watts: avg ")
    wrong = node(*inspect, *server, *call, "--tool-arg", 'metrics=["gpu.powr"]', code=5, **asked)
    assert "Did you mean" in wrong or "did you mean" in wrong
