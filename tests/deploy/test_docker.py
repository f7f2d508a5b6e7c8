"""The container's files, as far as they can be tried without a Docker engine."""

import http.server
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
HADOLINT = Path(sys.executable).parent / "hadolint"


def instructions() -> list[tuple[str, str]]:
    """Each instruction with what follows it, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line]


def said(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_linter_finds_nothing():
    done = subprocess.run([HADOLINT, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_is_copied_is_what_the_wheel_is_built_from_and_what_is_not_ignored():
    copied = {name for rest in said("COPY") if "--from" not in rest for name in rest.split()[:-1]}
    packages = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert copied == {*re.findall(r'"(\w+)"', packages), "pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_it_runs_as_a_user_who_owns_nothing_but_the_ledger_under_an_init():
    assert said("USER") == ["10001:10001"]
    assert said("VOLUME") == ["/var/lib/gpuledger"]
    assert json.loads(said("ENTRYPOINT")[0]) == ["/usr/bin/tini", "--"]


@contextmanager
def answering(status: int):
    """A server on a free port that gives every path but /healthz a 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False), (404, False)])
def test_the_health_check_passes_where_healthz_says_so_and_nowhere_else(status, is_healthy):
    with answering(status) as port:
        assert health_check(port) == is_healthy


def test_the_health_check_fails_where_nobody_answers():
    with answering(200) as port:
        pass
    assert not health_check(port)


def health_check(port: int) -> bool:
    """Whether the Dockerfile's own command, asking this port, ends with 0."""
    command = json.loads(said("HEALTHCHECK")[0].partition("CMD ")[2])
    assert command[0] == "python"
    assert ":9465/" in command[-1]
    words = [sys.executable, *command[1:-1], command[-1].replace(":9465/", f":{port}/")]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_prometheus_takes_its_settings():
    command = ["promtool", "check", "config", str(ROOT / "deploy/prometheus/prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
