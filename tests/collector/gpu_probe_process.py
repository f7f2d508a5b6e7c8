"""A `GpuProbe` driven over stdin and stdout, one line of JSON each way; started by `GpuMachine` in conftest.py."""

import json
import sys
from pathlib import Path
from typing import Any

import pynvml  # for the statements of `run`

from collector.clock import Now
from collector.gpu import GpuProbe

probe: GpuProbe | None = None


def begin(options: dict[str, Any]) -> None:
    global probe  # noqa: PLW0603 - the one thing this process is about
    if probe:
        probe.close()
    probe = GpuProbe(
        **{name: Path(value) if name in ("proc", "sys", "kernel_log") else value for name, value in options.items()}
    )


def read(clocks: list[Any]) -> dict[str, Any]:
    events = [
        {"kind": event.kind, "observed_at_us": event.observed_at_us, "values": event.values}
        for event in probe.read(Now(*clocks))
    ]
    return {"status": probe.status(), "events": events}


def run(statement: str) -> None:
    exec(statement, {"pynvml": pynvml})


for line in sys.stdin:
    ((command, argument),) = json.loads(line).items()
    answer = {"begin": begin, "read": read, "run": run}[command](argument)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
