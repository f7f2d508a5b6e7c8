"""Make trend.svg beside this file: what a terminal shows of `gpuledger trend` and `gpuledger status`.

    python docs/images/make_trend.py [FOLDER]

An hour of demo data is written into a new ledger in FOLDER, a collector then goes on recording into it, and the two
commands are run on a terminal of their own. What they print is the picture; nothing in it is written by hand.
"""

import os
import pty
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from collector.clock import Now
from collector.demo import DemoProbe
from collector.host.probe import HostProbe
from collector.sampler import Sampler
from gpuledger import __version__
from store.ledger import Ledger
from store.upkeep.sealing import seal

WIDTH = 88
SECONDS = 3600
SEAL_INTERVAL_S = 120
COMMANDS = (("trend", "gpu.utilization_percent"), ("status",))
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


class NoClock:
    """The ticks are given by hand, so nobody waits."""

    def now(self) -> Now:
        return Now(0.0, 0.0, time.time_ns() // 1000)

    def wait_until(self, monotonic_s: float, stop: object) -> None: ...


def record_last_hour(folder: Path) -> None:
    """Write the hour before now, a tick a second, sealed every two minutes, as a collector of then would have."""
    end_us = time.time_ns() // 1000
    with Ledger(folder) as ledger:
        probes = (HostProbe(ledger_folder=folder, interval_s=1.0), DemoProbe(interval_s=1.0))
        sampler = Sampler(
            ledger=ledger, probes=probes, clock=NoClock(), interval_s=1.0, version=__version__, pid=os.getpid()
        )
        for second in range(SECONDS):
            sampler.tick(Now(float(second), float(second), end_us - (SECONDS - second) * 1_000_000))
            if second % SEAL_INTERVAL_S == SEAL_INTERVAL_S - 1:
                seal(folder)


def shown_on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What `command` prints on a terminal of WIDTH columns, with its colours."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**environment, "COLUMNS": str(WIDTH)}):
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # how Linux says that the other end of a terminal was closed
            while piece := os.read(ours, 65536):
                printed += piece
    os.close(ours)
    return printed.decode().replace("\r\n", "\n")


def picture(screens: dict[str, str]) -> str:
    """The screens under their prompts, as one SVG without fonts from elsewhere."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: PTH123, SIM115
    for command, printed in screens.items():
        console.print(Text.assemble(("$ ", "green"), (command, "bold")))
        console.print(Text.from_ansi(printed.rstrip("\n")))
        console.print()
    svg = console.export_svg(title="gpuledger", unique_id="trend")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: (?:Fira Code, monospace|arial)", f"font-family: {FONT}", svg)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/demo")  # noqa: S108 - it is seen in the picture
    environment = {**os.environ, "TERM": "xterm-256color", "TZ": "UTC", "GPULEDGER_DATA": str(folder)}
    environment |= {"GPULEDGER_COLLECTOR__PORT": "0", "GPULEDGER_COLLECTOR__SOURCE": "demo"}
    gpuledger = str(Path(sys.executable).with_name("gpuledger"))
    record_last_hour(folder)
    collector = subprocess.Popen([gpuledger, "collect"], env=environment)
    try:
        time.sleep(5)
        screens = {
            f"gpuledger {' '.join(command)}": shown_on_a_terminal([gpuledger, *command], environment)
            for command in COMMANDS
        }
    finally:
        collector.terminate()
        collector.wait()
        shutil.rmtree(folder)
    Path(__file__).with_name("trend.svg").write_text(picture(screens))


if __name__ == "__main__":
    main()
