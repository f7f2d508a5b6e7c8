"""Releases to install, as wheels of the tree with another version, and a root to install them in."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ROOMS = ("collector", "gpuledger", "mcp_server", "query", "store", "migrations")


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory):
    """A folder with what gpuledger needs of this interpreter's packages: what pip finds there, it need not fetch.

    Files and no links to folders: what answers SQL may read where Python finds its packages, and nowhere else.
    """
    folder = tmp_path_factory.mktemp("dependencies")
    found = {}
    needed("gpuledger", (), found)
    for name, one in found.items():
        for path in (path for path in one.files or () if name != "gpuledger" and ".." not in path.parts):
            (folder / path.parent).mkdir(parents=True, exist_ok=True)
            link(one.locate_file(path), folder / path)
    return folder


def needed(name: str, extras: Iterable[str], found: dict[str, metadata.Distribution]) -> None:
    """Add a distribution, and what it asks for, to those that were found."""
    found[name] = metadata.distribution(name)
    for wanted in map(Requirement, found[name].requires or ()):
        is_asked_for = wanted.marker is None or any(wanted.marker.evaluate({"extra": one}) for one in ("", *extras))
        if is_asked_for and canonicalize_name(wanted.name) not in found:
            needed(canonicalize_name(wanted.name), wanted.extras, found)


def link(source: Path, target: Path) -> None:
    """The same file under another name where that can be: together they are a gigabyte."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def make_wheel(tmp_path_factory):
    """Build the tree as a wheel of the given version, after `change` was let loose on a copy of it."""

    def make(version: str, change=lambda tree: None) -> Path:
        tree = tmp_path_factory.mktemp(f"tree-{version}") / "gpuledger"
        tree.mkdir()
        for room in ROOMS:
            shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tree)
        change(tree)
        source = tree / "gpuledger/__init__.py"
        before, _, after = source.read_text().partition('__version__ = "')
        source.write_text(f'{before}__version__ = "{version}"\n{after.partition(chr(10))[2]}')
        build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tree.parent), str(tree)]
        subprocess.run(build, capture_output=True, check=True)
        return tree.parent / f"gpuledger-{version}-py3-none-any.whl"

    return make


@pytest.fixture(scope="session")
def free_port():
    """Gives a port that nobody listens on."""

    def ask() -> int:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return probe.getsockname()[1]

    return ask


@dataclass
class Place:
    """A root to install in, without systemd and without being root."""

    root: Path
    environment: dict[str, str]
    collector_port: int
    mcp_port: int

    @property
    def ledger(self) -> Path:
        return self.root / "var/lib/gpuledger"

    @property
    def current(self) -> str:
        return (self.root / "opt/gpuledger/current").readlink().name

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [str(ROOT / "deploy" / script), "--root", str(self.root), "--no-systemd", *arguments]
        return subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def gpuledger(self, *arguments: str) -> str:
        command = [str(self.root / "usr/local/bin/gpuledger"), *arguments]
        command += ["--config", str(self.root / "etc/gpuledger/config.toml")]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}


@pytest.fixture
def place(tmp_path, dependencies, free_port):
    """A root with settings that let two of it be on one machine; whatever runs in it ends with the test."""
    root = tmp_path / "root"
    ports = free_port(), free_port()
    settings = root / "etc/gpuledger/config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f'data = "{root}/var/lib/gpuledger"\n'
        f'[collector]\nport = {ports[0]}\nsource = "demo"\nsample_interval_s = 0.2\n'
        f"[mcp]\nport = {ports[1]}\n"
    )
    environment = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin")),
        "HOME": str(tmp_path),
        "PYTHONPATH": str(dependencies),
        "PIP_NO_INDEX": "1",  # nothing but the wheel is to be installed
    }
    place = Place(root, environment, *ports)
    yield place
    place.run("uninstall.sh")


@pytest.fixture
def prometheus(place, tmp_path, pytestconfig):
    """A real Prometheus with the settings that are delivered, but for this root's ports and folder, and each second."""
    settings = (ROOT / "deploy/prometheus/prometheus.yaml").read_text()
    for delivered, ours in (
        ("127.0.0.1:9465", f"127.0.0.1:{place.collector_port}"),
        ("127.0.0.1:9466", f"127.0.0.1:{place.mcp_port}"),
        ("/var/lib/gpuledger", str(place.ledger)),
        ("15s", "1s"),
    ):
        assert delivered in settings
        settings = settings.replace(delivered, ours)
    folder = tmp_path / "prometheus"
    folder.mkdir()
    shutil.copy(ROOT / "deploy/prometheus/rules.yaml", folder)
    real = pytestconfig.pluginmanager.get_plugin("prometheus").RealPrometheus(folder, settings)
    yield real
    real.close()


@pytest.fixture(scope="session")
def roots(pytestconfig):
    """How to make roots to be root in: roots.py."""
    return pytestconfig.pluginmanager.get_plugin("roots")
