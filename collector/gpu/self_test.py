"""A look at the driver from a process of its own, which may hang or crash without taking the asker with it.

`python -m collector.gpu.self_test` makes every call that recording makes. It says before each what it is about to do,
and afterwards what came of it, one JSON object a line: whatever becomes of it, the lines tell how far it got.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pynvml

from collector.clock import SystemClock
from collector.gpu.calls import Reading
from collector.gpu.capabilities import statuses
from collector.gpu.description import described
from collector.gpu.driver_files import LIBRARY_NAME
from collector.gpu.listing import Listed, listed
from collector.gpu.nvml import Absent, DriverAway, Nvml
from collector.gpu.processes import ProcessLists
from collector.gpu.readings import gpu_readings, mig_readings, substitutes
from collector.probe import Row

STEP_LIMIT_S = 20.0  # without persistence mode, a driver brings a GPU up in 1 to 3 s, and all of them in one call
START_LIMIT_S = 60.0  # until the first line: Python's own start, which a loaded machine may hold up
BETWEEN_PASSES_S = 0.15  # GPM compares two samples, at least 100 ms apart (nvml.h)


@dataclass(frozen=True, slots=True)
class GpuAnswers:
    """What one GPU or MIG device answered.

    Args:
        index: NVML's index of the GPU.
        uuid: Its identity.
        parent_uuid: Of a MIG device, the GPU that it is a part of.
        description: The columns of its `inventory`.
        calls: Each call and how it went, as `collector.gpu.capabilities` says it.
        absent: Each column of `gpu_sample` without a value, and the reason.
        values: Each column with a value.
        pids: The processes on it.
    """

    index: int
    uuid: str
    parent_uuid: str | None = None
    description: Mapping[str, Any] = field(default_factory=dict)
    calls: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    pids: Sequence[int] = ()


@dataclass(slots=True)
class SelfTest:
    """How far the look got.

    Args:
        library: The library that was loaded; empty where none was.
        library_error: Why none was, in the loader's words.
        init_code: What nvmlInit returned; None where it was not reached.
        versions: `driver_version`, `nvml_version` and `cuda_version`, as far as told.
        gpus: What answered.
        lost: Index of each GPU that is listed and does not say who it is, and NVML's code.
        last_step: What it was about to do when it stopped.
        has_hung: It did not come back from that step.
        ended_by: The signal that ended it there; empty where none did.
        own_error: An error of gpuledger itself; empty where there was none.
        is_done: It got to the end.
    """

    library: str = ""
    library_error: str = ""
    init_code: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[GpuAnswers, ...] = ()
    lost: Mapping[int, int] = field(default_factory=dict)
    last_step: str = ""
    has_hung: bool = False
    ended_by: str = ""
    own_error: str = ""
    is_done: bool = False


def self_test(*, step_limit_s: float = STEP_LIMIT_S, environment: Mapping[str, str] | None = None) -> SelfTest:
    """Look at the driver from a child process.

    Args:
        step_limit_s: How long one step may take before it counts as hung.
        environment: The child's environment; this process's where left out.
    """
    with tempfile.TemporaryFile("w+b") as lines:  # and not a pipe: what a dying child has said must not be lost
        command = [sys.executable, "-P", "-m", "collector.gpu.self_test"]
        child = subprocess.Popen(command, stdout=lines, stderr=subprocess.DEVNULL, env=environment)  # noqa: S603
        code = _waited(child, lines, step_limit_s)
        lines.seek(0)
        found = _understood(lines.read().decode(errors="replace").splitlines())
    found.has_hung = code is None
    found.ended_by = signal.Signals(-code).name if code is not None and code < 0 else ""
    return found


def _waited(child: subprocess.Popen[bytes], lines: IO[bytes], step_limit_s: float) -> int | None:
    """The child's exit code; None where it went on with one step beyond the limit."""
    size, since_s = 0, time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=0.05)
        if (now_size := os.fstat(lines.fileno()).st_size) != size:
            size, since_s = now_size, time.monotonic()
        elif time.monotonic() - since_s > (step_limit_s if size else max(step_limit_s, START_LIMIT_S)):
            child.kill()
            with suppress(subprocess.TimeoutExpired):  # a process that waits in the kernel cannot be killed
                child.wait(timeout=1.0)
            return None


def _understood(lines: Sequence[str]) -> SelfTest:
    found = SelfTest()
    for told in _objects(lines):
        match told:
            case {"step": str(step)}:
                found.last_step = step
            case {"gpu": dict(gpu)}:
                found.gpus += (GpuAnswers(**gpu),)
            case {"lost": int(index), "code": int(code)}:
                found.lost = {**found.lost, index: code}
            case _:
                for name, value in told.items():
                    setattr(found, name, value)
    return found


def _objects(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):  # what the library itself prints, or a line cut short
            told = json.loads(line)
            if isinstance(told, dict):
                yield told


# --- in the child


def _tell(**what: Any) -> None:
    print(json.dumps(what, default=str), flush=True)


def main() -> None:
    """Make the calls, as far as they go."""
    _tell(step=f"loading {LIBRARY_NAME}")
    try:
        ctypes.CDLL(LIBRARY_NAME)
    except OSError as error:
        _tell(library_error=str(error))
        return
    _tell(library=_mapped_library())
    _tell(step="nvmlInit")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        _tell(init_code=error.value)
        return
    _tell(init_code=0)
    try:
        _look(Nvml())
    except DriverAway:
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the asker must hear of it
        _tell(own_error=f"{type(error).__name__}: {error}")
        return
    _tell(is_done=True)


def _mapped_library() -> str:
    """The file that was loaded, links resolved: its name ends in its version."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if LIBRARY_NAME.partition(".")[0] in line:
            return line.split(maxsplit=5)[-1]
    return LIBRARY_NAME


def _look(nvml: Nvml) -> None:
    _tell(step="asking for versions")
    _tell(versions=dict(_versions(nvml)))
    _tell(step="listing the GPUs")
    for index, code in _lost(nvml).items():
        _tell(lost=index, code=code)
    everything = listed(nvml)
    for device in everything:
        _tell(gpu=_tested(nvml, device, everything))


def _versions(nvml: Nvml) -> Iterator[tuple[str, str]]:
    for name, call in (("driver_version", "nvmlSystemGetDriverVersion"), ("nvml_version", "nvmlSystemGetNVMLVersion")):
        with suppress(Absent):
            yield name, nvml.ask(call)


def _lost(nvml: Nvml) -> dict[int, int]:
    codes = {}
    for index in range(nvml.ask("nvmlDeviceGetCount")):
        try:
            nvml.ask("nvmlDeviceGetUUID", nvml.ask("nvmlDeviceGetHandleByIndex", index))
        except Absent as absent:
            codes[index] = absent.code or pynvml.NVML_ERROR_UNKNOWN
    return codes


def _tested(nvml: Nvml, device: Listed, everything: Sequence[Listed]) -> dict[str, Any]:
    name = f"GPU {device.index}" if device.parent is None else f"MIG device {device.uuid}"
    readings, instead = _readings(device)
    _read(name, readings, instead)
    time.sleep(BETWEEN_PASSES_S)
    row = _read(name, readings, instead)
    _tell(step=f"{name}: its processes")
    processes = ProcessLists(device.handle)
    pids = sorted(processes.read(SystemClock().now()))
    _tell(step=f"{name}: what it is")
    description, failed = described(nvml, device, everything, row.values)
    capabilities = [one for reading in (*readings, *instead) for one in reading.capabilities]
    return {
        "index": device.index,
        "uuid": device.uuid,
        "parent_uuid": device.parent.uuid if device.parent else None,
        "description": {column: value for column, value in description.items() if isinstance(value, str | bool)},
        "calls": {**statuses([*capabilities, *processes.capabilities]), **failed},
        "absent": row.absence,
        "values": row.values,
        "pids": pids,
    }


def _readings(device: Listed) -> tuple[list[Reading], list[Reading]]:
    proc = Path("/proc")
    if device.parent is None:
        return gpu_readings(device.handle, proc), substitutes(device.handle)
    return mig_readings(device.handle, device.parent.handle, device.gpu_instance_id or 0, proc), []


def _read(name: str, readings: Sequence[Reading], instead: Sequence[Reading]) -> Row:
    row = Row()
    for reading in (*readings, *instead):
        if reading in instead and reading.columns[0] not in row.absence:
            continue
        _tell(step=f"{name}: {reading.ways[0][0]}")
        row.put(reading.answers(SystemClock().now()))
    return row


if __name__ == "__main__":
    main()
