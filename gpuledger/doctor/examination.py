"""`gpuledger doctor`: what is wrong with driver, GPUs and recording, and what to do next.

It looks, and changes nothing. NVML is asked from a child process with a limit of time, so that a driver that hangs is
a finding; everything else is a file, a socket with a time-out, or the ledger read as any reader reads it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from collector.gpu.driver_files import confinement, driver_files
from collector.gpu.kernel_log import KernelLog
from collector.gpu.self_test import STEP_LIMIT_S, GpuAnswers, self_test
from gpuledger import __version__
from gpuledger.doctor.checks_gpu import GpuFacts, gpu_checks
from gpuledger.doctor.checks_recording import (
    client_check,
    clock_check,
    clock_is_synchronized,
    ledger_checks,
    port_checks,
    refusal,
    refused_calls,
    settings_check,
    sql_check,
)
from gpuledger.doctor.findings import Check, exit_code, lines, verdict
from gpuledger.settings import SettingOrigin, Settings, load_origins, load_settings
from query.present.status import LedgerStatus
from query.sandbox.confinement import landlock_version
from query.sandbox.no_sockets import can_refuse_sockets
from store.errors import GpuledgerError


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where to look; all of it can be a test's.

    Args:
        root: The root of /proc, /sys, /dev.
        environment: Environment of the child that asks NVML.
        step_limit_s: How long one call of it may take.
        home: The user's home, for MCP clients.
        folder: The working folder, likewise.
        clock_is_synchronized: Whether the clock is right; None where nobody says.
    """

    root: Path = Path("/")
    environment: Mapping[str, str] | None = None
    step_limit_s: float = STEP_LIMIT_S
    home: Path | None = None
    folder: Path | None = None
    clock_is_synchronized: bool | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, and some of the facts behind them.

    Args:
        checked_at: When it was looked.
        version: Of gpuledger.
        checks: The findings.
        gpus: What each GPU answered.
        origins: The settings; none where they cannot be read.
        ledger: The ledger's folder; None where the settings that name it cannot be read.
    """

    checked_at: datetime
    version: str
    checks: tuple[Check, ...]
    gpus: tuple[Mapping[str, Any], ...]
    origins: tuple[SettingOrigin, ...] = ()
    ledger: Path | None = None

    @property
    def exit_code(self) -> int:
        return exit_code(self.checks)

    def text(self) -> str:
        return "\n".join([*lines(self.checks), "", verdict(self.checks), ""])

    def value(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "checked_at": self.checked_at,
            "version": self.version,
            "verdict": verdict(self.checks),
            "exit_code": self.exit_code,
            "checks": self.checks,
            "gpus": self.gpus,
        }


def examine(flags: Mapping[str, Any], config: Path | None, *, now: datetime, where: Surroundings) -> Report:
    """Look at everything.

    Args:
        flags: Settings given on the command line, as for `load_settings`.
        config: A settings file to read instead of the usual ones.
        now: The time of the question.
        where: Where to look.
    """
    settings, origins, problems = _settings(flags, config)
    ledger = settings.data.absolute() if settings else None
    found, status = ledger_checks(ledger, now) if ledger else ([], None)
    facts = _gpu_facts(where, status)
    checks = (
        *gpu_checks(facts),
        *(problems or [settings_check(origins)]),
        *found,
        *(port_checks(settings) if settings else ()),
        *clock_check(where.clock_is_synchronized),
        sql_check(landlock_version(), refuses_sockets=can_refuse_sockets()),
        client_check(where.home or Path.home(), where.folder or Path.cwd()),
    )
    return Report(now, __version__, checks, tuple(map(_told, facts.test.gpus)), tuple(origins), ledger)


def _settings(
    flags: Mapping[str, Any], config: Path | None
) -> tuple[Settings | None, Sequence[SettingOrigin], list[Check]]:
    try:
        return load_settings(flags, config), load_origins(flags, config), []
    except GpuledgerError as error:
        return None, (), [refusal("settings", error)]


def _told(gpu: GpuAnswers) -> dict[str, Any]:
    return {name: value for name, value in asdict(gpu).items() if name not in ("values", "pids")}


def here() -> Surroundings:
    """This machine."""
    return Surroundings(clock_is_synchronized=clock_is_synchronized())


def _gpu_facts(where: Surroundings, status: LedgerStatus | None) -> GpuFacts:
    proc = where.root / "proc"
    log = KernelLog(where.root / "dev/kmsg", back_fill=True)
    xids = log.read_new()
    readable = log.status().startswith("reading")
    log.close()
    test = self_test(step_limit_s=where.step_limit_s, environment=where.environment)
    pids = {pid for gpu in test.gpus for pid in gpu.pids}
    pid = status.collector_pid if status else None
    return GpuFacts(
        files=driver_files(where.root, where.environment or os.environ),
        test=test,
        xids=xids,
        kernel_log_refusal="" if readable else log.status(),
        visible_pids=frozenset(pid for pid in pids if (proc / str(pid)).exists()),
        own=confinement(proc / "self"),
        refused_calls=refused_calls(status.folder) if status and pid else {},
        collector=confinement(proc / str(pid)) if pid else None,
    )
