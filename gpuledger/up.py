"""`gpuledger up`: the collector and the MCP server over HTTP, as two processes watched by this one.

They are two so that a reader that runs out of memory or dies takes nothing with it. One that ends by itself is
started again, after 1, 2, 4 … 60 seconds; one that refuses to begin (a ledger held by another collector, a port in
use) ends the whole with its exit code.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gpuledger import __version__
from gpuledger.settings import Settings
from store.events import KINDS
from store.ledger import lock_holder
from store.upkeep.retention import LASTING_KINDS, RetentionRules
from store.upkeep.settings import UpkeepSettings

logger = logging.getLogger(__name__)

BEGAN_AFTER_S = 5.0  # who ends with an error sooner had refused to begin
RESTART_AT_MOST_S = 60.0
STOP_TIME_LIMIT_S = 45.0
_PR_SET_PDEATHSIG = 1


def configure_logging(level: str) -> None:
    """Log to stderr: stdout belongs to answers, and to the MCP wire."""
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    for library in ("mcp", "httpx", "sse_starlette"):  # each session and request, in their own words
        logging.getLogger(library).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)


def greeting(settings: Settings) -> str:
    """What a person who starts it wants to know."""
    collector, mcp = settings.collector, settings.mcp
    return f"""\
gpuledger {__version__} records to {settings.data}
  metrics   http://{collector.host}:{collector.port}/metrics
  MCP       http://{mcp.host}:{mcp.port}/mcp, token in {settings.data / "mcp.token"}
  look      gpuledger status, gpuledger trend cpu.utilization_percent -w 10m
  connect   gpuledger init --client claude-code"""


def collector_command(settings: Settings) -> list[str]:
    """The command line of a collector with these settings, free of the libraries that read them."""
    record = {
        "ledger_folder": str(settings.data.absolute()),
        "log_level": settings.log_level,
        "version": __version__,
        **settings.collector.model_dump(),
        "dcgm": settings.metrics.dcgm,
        "upkeep": upkeep_settings(settings),
        "scrape": [one.model_dump(mode="json") for one in settings.scrape],
    }
    return [sys.executable, "-P", "-m", "collector", msgspec.json.encode(record).decode()]


def upkeep_settings(settings: Settings) -> UpkeepSettings:
    """What the settings say of compaction and retention, as the child that does it takes it."""
    keep = settings.retention
    ages = {kind: getattr(keep, f"{kind}_max_age_days") for kind in KINDS}
    default_ages = {kind: 0.0 if kind in LASTING_KINDS else keep.max_age_days for kind in KINDS}
    return UpkeepSettings(
        # A question that takes its full time may still open a file that was in its list.
        grace_s=max(UpkeepSettings().grace_s, 2 * settings.query.sql_time_limit_s),
        retention=RetentionRules(
            max_age_days={kind: default_ages[kind] if age is None else age for kind, age in ages.items()},
            max_size_bytes=keep.max_size_bytes,
            min_free_bytes=keep.min_free_bytes,
            free_space_keeps_days=keep.free_space_keeps_days,
        ),
    )


def mcp_http_command(settings: Settings, config: Path | None = None) -> list[str]:
    """The command line of an MCP server over HTTP with these settings; `config` is the file they were read from."""
    return [
        sys.executable, "-P", "-m", "gpuledger", "mcp", "--http",
        "--data", str(settings.data.absolute()),
        "--host", settings.mcp.host,
        "--port", str(settings.mcp.port),
        "--log-level", settings.log_level,
        *(["--config", str(config.absolute())] if config else []),
    ]  # fmt: skip


@dataclass(slots=True)
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    restart_at_s: float = 0.0
    restarts: int = 0

    def start(self) -> None:
        # Set before exec in the child: it ends with this process, even when that is killed.
        self.process = subprocess.Popen(self.command, preexec_fn=_end_with_parent)  # noqa: S603, PLW1509
        self.started_s = time.monotonic()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Supervisor:
    """Keeps children running until told to stop.

    Args:
        commands: Name and command line of each child, the collector first; one's refusal to begin ends the whole.
        folder: The ledger's folder.
        greeting: What is printed once the collector has taken the ledger.
    """

    commands: Mapping[str, Sequence[str]]
    folder: Path
    greeting: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        children = [_Child(name, command) for name, command in self.commands.items()]
        for child in children:
            child.start()
        try:
            return self._watch(children)
        finally:
            _end(children)

    def _watch(self, children: Sequence[_Child]) -> int:
        while not self.stop.wait(0.2):
            self._greet(children[0])
            for child in children:
                if (refusal := self._look(child)) is not None:
                    return refusal
        return 0

    def _greet(self, collector: _Child) -> None:
        pid = collector.process.pid if collector.process else None
        if self.greeting and pid and (lock_holder(self.folder) or {}).get("pid") == pid:
            print(self.greeting, file=sys.stderr, flush=True)
            self.greeting = ""

    @staticmethod
    def _look(child: _Child) -> int | None:
        now_s = time.monotonic()
        if child.process is None:
            if now_s >= child.restart_at_s:
                child.start()
            return None
        code = child.process.poll()
        if code is None:
            return None
        if code > 0 and now_s - child.started_s < BEGAN_AFTER_S and not child.restarts:
            return code
        child.process = None
        wait_s = min(RESTART_AT_MOST_S, 2.0**child.restarts)
        child.restarts += 1
        child.restart_at_s = now_s + wait_s
        logger.error("the %s ended with exit code %d; it is started again in %.0f s", child.name, code, wait_s)
        return None


def _end(children: Sequence[_Child]) -> None:
    running = [child.process for child in children if child.process and child.process.poll() is None]
    for process in running:
        process.terminate()
    deadline_s = time.monotonic() + STOP_TIME_LIMIT_S
    for process in running:
        try:
            process.wait(timeout=max(0.1, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_collector(settings: Settings) -> None:
    """Become the collector: this process is replaced, so that it carries nothing it does not need."""
    command = collector_command(settings)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - our own interpreter and module
