"""Releases to install, as wheels of the tree with another version, and a root to install them in."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("collector", "gpuledger", "mcp_server", "query", "store", "migrations")


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory):
    """A folder with what this interpreter has installed but gpuledger: what pip finds there, it need not fetch."""
    folder = tmp_path_factory.mktemp("dependencies")
    places = [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    for path in (path for place in places for path in place.iterdir() if path.suffix != ".pth"):
        if path.name not in ROOMS and not path.name.startswith(("gpuledger-", "__editable__")):
            (folder / path.name).symlink_to(path)
    return folder


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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


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
def place(tmp_path, dependencies):
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
