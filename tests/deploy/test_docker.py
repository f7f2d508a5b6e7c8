"""The container's files, as far as they can be tried without a Docker engine."""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROVISIONING = DEPLOY / "grafana/provisioning"
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


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def mounts() -> dict[str, list[tuple[str, str]]]:
    """What each service mounts, and where."""
    services = compose()["services"].items()
    return {name: [tuple(mount.split(":")[:2]) for mount in service.get("volumes", [])] for name, service in services}


def test_everything_that_compose_mounts_is_there_and_what_is_delivered_is_mounted():
    volumes = set(compose()["volumes"])
    sources = {source for mounted in mounts().values() for source, _ in mounted}
    folders = {source for source in sources if source.startswith("./")}
    assert sources - folders == volumes
    assert all(any((DEPLOY / folder).iterdir()) for folder in folders)
    grafana = dict(mounts()["grafana"])
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/gpuledger.yaml").read_text())["providers"]
    dashboards = next(source for source, target in grafana.items() if target == provider["options"]["path"])
    assert {path.stem for path in (DEPLOY / dashboards).glob("*.json")} >= {"overview", "gpu", "requests", "recorder"}
    assert grafana["./grafana/provisioning"] == "/etc/grafana/provisioning"


def test_compose_reads_the_ledger_as_the_user_whose_token_it_is():
    services = compose()["services"]
    (owner,) = said("USER")
    assert services["prometheus"]["user"] == owner
    assert ("ledger", "/var/lib/gpuledger") in mounts()["prometheus"]
    assert f"--owner={owner.split(':')[0]}" in services["prometheus-folder"]["entrypoint"]


def test_grafana_asks_where_prometheus_and_the_ledger_listen():
    sources = yaml.safe_load((PROVISIONING / "datasources/gpuledger.yaml").read_text())["datasources"]
    (listening,) = [word for word in compose()["services"]["prometheus"]["command"] if "listen-address" in word]
    assert [source["url"] for source in sources] == [f"http://{listening.split('=')[1]}", "http://127.0.0.1:9466"]
    assert {source["type"] for source in sources} == {"prometheus"}


def test_prometheus_takes_its_settings_and_its_rules(tmp_path):
    delivered = (DEPLOY / "prometheus/prometheus.yaml").read_text()
    (tmp_path / "mcp.token").write_text("promtool asks for the file")
    (tmp_path / "prometheus.yaml").write_text(delivered.replace("/var/lib/gpuledger", str(tmp_path)))
    shutil.copy(DEPLOY / "prometheus/rules.yaml", tmp_path)
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout
