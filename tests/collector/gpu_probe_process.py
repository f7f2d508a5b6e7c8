"""A `GpuProbe` driven over stdin and stdout, one line of JSON each way; started by `GpuMachine` in conftest.py.

Of the kind `record` its driver is recorded, until `save`; of the kind `replay` it is a recording's.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pynvml  # for the statements of `run`

from collector.clock import Now
from collector.gpu.probe import GpuProbe
from collector.recordings.recorder import RecordingProbe
from collector.recordings.recording import write_recording
from collector.recordings.replay import ReplayProbe

PATHS = ("proc", "sys", "kernel_log", "path")
left_alone: set[str] = set()
KINDS = {
    "live": partial(GpuProbe, left_alone=lambda: left_alone),
    "record": RecordingProbe,
    "replay": ReplayProbe,
}

probe: GpuProbe | RecordingProbe | ReplayProbe | None = None


def begin(options: dict[str, Any]) -> None:
    global probe  # noqa: PLW0603 - the one thing this process is about
    if probe:
        probe.close()
    kind = KINDS[options.pop("kind", "live")]
    probe = kind(**{name: Path(value) if name in PATHS else value for name, value in options.items()})


def read(clocks: list[Any]) -> dict[str, Any]:
    events = [
        {"kind": event.kind, "observed_at_us": event.observed_at_us, "values": event.values}
        for event in probe.read(Now(*clocks))
    ]
    return {"status": probe.status(), "events": events}


def save(path_and_load: list[str]) -> int:
    """End the recording and write it; its size in bytes."""
    path, load = path_and_load
    probe.close()
    return write_recording(Path(path), probe.recording(load=load, gpuledger_version="0"))


def run(statement: str) -> None:
    exec(statement, {"pynvml": pynvml})


def rest(_: None) -> dict[str, Any]:
    held = list(probe.rest())
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {"held": held, "mapped": [line for line in maps if "nvidia" in line]}


def leave_alone(uuids: list[str]) -> None:
    left_alone.clear()
    left_alone.update(uuids)


COMMANDS = {"begin": begin, "read": read, "run": run, "rest": rest, "leave_alone": leave_alone, "save": save}
for line in sys.stdin:
    ((command, argument),) = json.loads(line).items()
    answer = COMMANDS[command](argument)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
