"""The systemd units: what systemd's own tools say of them, and what must never be in them."""

import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpuledger.cli import app

SYSTEMD = Path(__file__).parents[2] / "deploy/systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
EXPOSURE_MAX = {"gpuledger-collector.service": 3.0, "gpuledger-mcp.service": 2.0}
HIDES_GPUS_OR_PROCESSES = {
    "PrivateDevices",
    "DevicePolicy",
    "ProtectClock",
    "ProtectProc",
    "ProcSubset",
    "PrivateUsers",
}


def analyze(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def settings(unit: Path) -> dict[str, str]:
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_every_line_of_the_unit(unit, tmp_path):
    program = tmp_path / "gpuledger"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copies = [tmp_path / one.name for one in UNITS]
    for one, copy in zip(UNITS, copies, strict=True):
        copy.write_text(one.read_text().replace("/opt/gpuledger/current/bin/gpuledger", str(program)))
    done = analyze("verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_little_exposed(unit, capsys):
    done = analyze("security", "--offline=true", "--no-pager", str(unit))
    exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)[1])
    with capsys.disabled():
        print(f"\nsystemd-analyze security {unit.name}: {exposure} of 10")  # noqa: T201 - for who reads the run
    assert exposure <= EXPOSURE_MAX[unit.name]


def test_the_collector_sees_gpus_and_processes():
    assert HIDES_GPUS_OR_PROCESSES.isdisjoint(settings(SYSTEMD / "gpuledger-collector.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_unit_starts_a_command_that_there_is(unit):
    program, command, *options = settings(unit)["ExecStart"].split()
    assert program == "/opt/gpuledger/current/bin/gpuledger"
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    assert [option for option in options if option.startswith("--") and option not in shown] == []
