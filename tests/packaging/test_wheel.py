"""The wheel as a user has it: built through the source distribution, installed alone, run far from the source."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpuledger import __version__

pytestmark = pytest.mark.timeout(900)  # the first test waits for the dependencies to be installed

ROOT = Path(__file__).parents[2]
ROOMS = ("collector", "gpuledger", "mcp_server", "query", "store")
RECORDS_WITHIN_S = 60
ENDS_WITHIN_S = 60


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """Return the folder that holds the source distribution and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel_names(distributions):
    """Return the paths in the wheel, without the metadata."""
    with zipfile.ZipFile(distributions / f"gpuledger-{__version__}-py3-none-any.whl") as wheel:
        return wheel.namelist()


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, and a home and a working folder with nothing in them."""

    bin_folder: Path
    home: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": os.pathsep.join((str(self.bin_folder), "/usr/bin", "/bin")),
            "GPULEDGER_COLLECTOR__PORT": "0",
            "GPULEDGER_COLLECTOR__SAMPLE_INTERVAL_S": "0.2",
            "GPULEDGER_MCP__PORT": "0",
        }

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def answer(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def environment_of_its_own(distributions, tmp_path_factory):
    """Return the bin folder of a virtual environment with the wheel and what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    [wheel] = distributions.glob("*.whl")
    install = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin"


def new_user(bin_folder: Path, folder: Path) -> Installed:
    user = Installed(bin_folder, folder / "home", folder / "work")
    user.home.mkdir()
    user.folder.mkdir()
    return user


@pytest.fixture
def user(environment_of_its_own, tmp_path):
    """Return the installed product for a user who has never run it."""
    return new_user(environment_of_its_own, tmp_path)


@contextmanager
def recording(user: Installed) -> Iterator[None]:
    """`gpuledger up --source demo` until the block ends; at its beginning the first rates can be asked for."""
    log_path = user.home.parent / "up.log"
    with log_path.open("w") as log:
        command = ("gpuledger", "up", "--source", "demo")
        up = subprocess.Popen(command, cwd=user.folder, env=user.environment, stdout=log, stderr=log)
        try:
            deadline_s = time.monotonic() + RECORDS_WITHIN_S
            while user.run("gpuledger", "trend", "gpu.energy_joules").returncode:
                assert up.poll() is None, log_path.read_text()
                assert time.monotonic() < deadline_s, log_path.read_text()
            yield
        finally:
            up.send_signal(signal.SIGTERM)
            code = up.wait(timeout=ENDS_WITHIN_S)
    assert code == 0, log_path.read_text()


@pytest.fixture(scope="module")
def recorded(environment_of_its_own, tmp_path_factory):
    """Return the installed product for a user who has recorded a little and stopped."""
    user = new_user(environment_of_its_own, tmp_path_factory.mktemp("recorded"))
    with recording(user):
        pass
    return user


def test_the_wheel_holds_the_rooms_and_the_migrations_and_nothing_else(wheel_names):
    metadata = f"gpuledger-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in wheel_names} == {*ROOMS, "migrations", metadata}


def test_the_wheel_holds_every_tracked_file_of_its_packages(wheel_names):
    paths = subprocess.run(
        ["git", "ls-files", "-z", *ROOMS, "migrations"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    tracked = {path for path in paths if path and (ROOT / path).exists()}
    assert "migrations/head/0001_frames_and_segments.sql" in tracked
    assert "query/sql/trend_of_gauge.sql" in tracked
    assert {f"{room}/py.typed" for room in ROOMS} <= tracked
    assert tracked <= set(wheel_names)


def test_the_wheel_carries_its_licence_and_says_so(distributions, wheel_names):
    metadata = f"gpuledger-{__version__}.dist-info"
    assert f"{metadata}/licenses/LICENSE" in wheel_names
    with zipfile.ZipFile(distributions / f"gpuledger-{__version__}-py3-none-any.whl") as wheel:
        assert "License-Expression: Apache-2.0\n" in wheel.read(f"{metadata}/METADATA").decode()


def test_the_source_distribution_holds_the_tests(distributions):
    with tarfile.open(distributions / f"gpuledger-{__version__}.tar.gz") as archive:
        names = archive.getnames()
    assert f"gpuledger-{__version__}/tests/packaging/test_wheel.py" in names


def test_the_installed_command_says_its_version_and_leaves_no_trace(user):
    assert user.answer("gpuledger", "--version") == f"gpuledger {__version__}\n"
    assert list(user.home.iterdir()) == list(user.folder.iterdir()) == []


def test_recording_leaves_a_ledger_in_the_home_and_nothing_in_the_working_folder(recorded):
    assert (recorded.home / ".local/share/gpuledger/head.sqlite").exists()
    assert list(recorded.folder.iterdir()) == []


def test_what_was_recorded_is_answered_the_same_before_and_after_sealing(recorded):
    per_gpu = "select gpu_index, count(*) as n, max(energy_joules) as joules from gpu_sample group by all order by all"
    before = json.loads(recorded.answer("gpuledger", "sql", per_gpu, "--json"))
    assert [row["gpu_index"] for row in before] == [0, 1, 2]
    trend = ("gpuledger", "trend", "gpu.utilization_percent", "--json")
    assert [series["label"] for series in json.loads(recorded.answer(*trend))["series"]] == ["0", "1", "2"]
    assert "events sealed into" in recorded.answer("gpuledger", "seal")
    assert json.loads(recorded.answer("gpuledger", "sql", per_gpu, "--json")) == before
    assert [series["n"] for series in json.loads(recorded.answer(*trend))["series"]] == [row["n"] for row in before]


def test_status_ends_with_5_once_nothing_records(recorded):
    assert recorded.run("gpuledger", "status").returncode == 5


def test_the_mcp_server_ends_with_the_client_that_started_it(recorded):
    assert recorded.run("gpuledger", "mcp").returncode == 0


def marked_block(path: Path, name: str) -> str:
    command = [sys.executable, str(ROOT / ".ci/marked_block.py"), str(path), name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_examples_of_the_readme_run_beside_the_recorder(user):
    with recording(user):
        done = user.run("bash", "-euxc", marked_block(ROOT / "README.md", "examples"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (user.home / ".claude.json").exists()


@pytest.mark.parametrize("name", ["open", "analyses", "polars", "duckdb"])
def test_the_examples_for_a_notebook_run(recorded, name):
    recorded.answer("gpuledger", "seal")
    example = marked_block(ROOT / "docs/how-to/notebook.md", name)
    done = recorded.run("python", "-W", "error", "-c", example)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
