"""A `GpuProbe` driven over stdin and stdout, one line of JSON each way; started by `GpuMachine` in conftest.py."""

import json
import sys
from pathlib import Path
from typing import Any

import pynvml  # for the statements of `run`

from collector.clock import Now
from collector.gpu import GpuProbe

probe: GpuProbe | None = None
left_alone: set[str] = set()


def begin(options: dict[str, Any]) -> None:
    global probe  # noqa: PLW0603 - the one thing this process is about
    if probe:
        probe.close()
    probe = GpuProbe(
        left_alone=lambda: left_alone,
        **{name: Path(value) if name in ("proc", "sys", "kernel_log") else value for name, value in options.items()},
    )


def read(clocks: list[Any]) -> dict[str, Any]:
    events = [
        {"kind": event.kind, "observed_at_us": event.observed_at_us, "values": event.values}
        for event in probe.read(Now(*clocks))
    ]
    return {"status": probe.status(), "events": events}


def run(statement: str) -> None:
    exec(statement, {"pynvml": pynvml})


def rest(_: None) -> dict[str, Any]:
    held = list(probe.rest())
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {"held": held, "mapped": [line for line in maps if "nvidia" in line]}


def leave_alone(uuids: list[str]) -> None:
    left_alone.clear()
    left_alone.update(uuids)


COMMANDS = {"begin": begin, "read": read, "run": run, "rest": rest, "leave_alone": leave_alone}
for line in sys.stdin:
    ((command, argument),) = json.loads(line).items()
    answer = COMMANDS[command](argument)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
