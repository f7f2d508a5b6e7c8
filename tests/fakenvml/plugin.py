"""A GPU machine for tests: the stand-in NVML library in C beside this file and the scenario that drives it.

The dynamic loader reads LD_LIBRARY_PATH when a process starts, so the library is for subprocesses:

    def test_something(fake_nvml):
        fake_nvml.write("gpu 0 util=37 lost_after=5")
        subprocess.run([sys.executable, ...], env=fake_nvml.environment, check=True)

The scenario format stands at the top of fake_nvml.c.
"""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCES = sorted(Path(__file__).parent.glob("*.c"))
LIBRARY_NAME = "libnvidia-ml.so.1"  # what pynvml loads
TWO_IDLE_GPUS = "gpu 0\ngpu 1\n"


class NoCompilerError(RuntimeError):
    """The stand-in is C and this machine has no C compiler."""


def build(folder: Path, *, old_driver: bool = False) -> Path:
    """Compile the stand-in into the folder and return the library; old_driver leaves later symbols out."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError(f"building {SOURCES[0].parent} needs cc or gcc on PATH: apt-get install gcc")
    library = folder / LIBRARY_NAME
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY_NAME}"]
    options += ["-DOLD_DRIVER"] if old_driver else []
    subprocess.run([compiler, *options, "-o", library, *SOURCES], check=True)
    return library


@dataclass
class FakeNvml:
    """One machine: where its library lies, and the scenario file that says what it is."""

    library_folder: Path
    scenario_path: Path
    _written_ns: int = field(default=0, init=False)

    def write(self, text: str) -> None:
        """Replace the scenario: the next NVML call in any process sees the new machine, never half of it."""
        # Two writes within one tick of the file system's clock would look like one to the library's stat.
        self._written_ns = max(time.time_ns(), self._written_ns + 1)
        new = self.scenario_path.with_name(f"{self.scenario_path.name}.new")
        new.write_text(text, encoding="utf-8")
        os.utime(new, ns=(self._written_ns, self._written_ns))
        new.replace(self.scenario_path)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that is to find this machine."""
        folders = [str(self.library_folder), os.environ.get("LD_LIBRARY_PATH", "")]
        return os.environ | {
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders)),
            "FAKE_NVML_SCENARIO": str(self.scenario_path),
        }


def _two_idle_gpus(library_folder: Path, folder: Path) -> FakeNvml:
    machine = FakeNvml(library_folder, folder / "machine.scenario")
    machine.write(TWO_IDLE_GPUS)
    return machine


@pytest.fixture(scope="session")
def fake_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds the stand-in library."""
    return build(tmp_path_factory.mktemp("fakenvml")).parent


@pytest.fixture(scope="session")
def fake_nvml_old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds the stand-in of a driver of the 470 branch."""
    return build(tmp_path_factory.mktemp("fakenvml-old"), old_driver=True).parent


@pytest.fixture
def fake_nvml(fake_nvml_library: Path, tmp_path: Path) -> FakeNvml:
    """Return a machine with two idle H200, until the test writes another scenario."""
    return _two_idle_gpus(fake_nvml_library, tmp_path)


@pytest.fixture
def fake_nvml_old_driver(fake_nvml_old_library: Path, tmp_path: Path) -> FakeNvml:
    """Return the same machine under a driver of the 470 branch."""
    return _two_idle_gpus(fake_nvml_old_library, tmp_path)
