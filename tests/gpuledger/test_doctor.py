"""What the doctor prints on each machine: the driver that works and each way in which it does not."""

import http.server
import json
import os
import re
import socket
import tarfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collector.gpu.driver_files import Confinement, DriverFiles, Node, confinement, driver_files
from collector.gpu.kernel_log import KernelXid, XidMessage
from collector.gpu.self_test import GpuAnswers, SelfTest
from gpuledger import __version__
from gpuledger.doctor.checks_gpu import GpuFacts, gpu_checks
from gpuledger.doctor.checks_recording import port_checks, sql_check
from gpuledger.doctor.examination import Surroundings, examine
from gpuledger.doctor.findings import Check, State, lines
from gpuledger.settings import Settings
from query.sandbox.confinement import landlock_version
from store.events import Event
from store.ledger import CollectorLock, Ledger

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PATIENCE_S = 30.0  # for one step of a child on a machine under load
UNSUPPORTED = re.compile(r"^( +(?:not supported|not in a driver of this age)): .*", re.MULTILINE)


class Machine:
    """A root folder, a scenario, a home, and the doctor in between."""

    def __init__(self, folder: Path, fake_nvml) -> None:
        self.root = folder / "root"
        (self.root / "dev").mkdir(parents=True)
        (self.root / "dev/kmsg").write_text("6,1,5,-;Linux\n")
        self.fake_nvml = fake_nvml
        self.ledger = folder / "ledger"
        self.home = folder / "home"
        self.home.mkdir()

    def write(self, path: str, text: str = "") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def has_driver(self, version: str = "580.95.05") -> None:
        self.write(
            "proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Wed Sep\n"
        )
        for node in ("nvidiactl", "nvidia0", "nvidia-uvm"):
            self.write(f"dev/{node}")

    def has_gpu_on_the_bus(self) -> None:
        self.write("sys/bus/pci/devices/0000:1b:00.0/vendor", "0x10de\n")
        self.write("sys/bus/pci/devices/0000:1b:00.0/class", "0x030200\n")

    def examine(self, scenario: str = "", *, step_limit_s: float = PATIENCE_S, library: bool = True):
        if scenario:
            self.fake_nvml.write(scenario)
        environment = self.fake_nvml.environment if library else {**os.environ, "LD_LIBRARY_PATH": ""}
        where = Surroundings(
            root=self.root,
            environment={name: value for name, value in environment.items() if name != "KUBERNETES_SERVICE_HOST"},
            step_limit_s=step_limit_s,
            home=self.home,
            folder=self.home,
            clock_is_synchronized=True,
        )
        flags = {"data": self.ledger, "collector.port": 0, "mcp.port": 0}
        return examine(flags, None, now=NOW, where=where)

    def printed(self, scenario: str = "", **options) -> str:
        """What is printed of driver and GPUs, paths and the lists of calls cut short; and the exit code."""
        report = self.examine(scenario, **options)
        text = "\n".join(lines(report.checks[: -len(RECORDING)]))
        assert [check.name for check in report.checks[-len(RECORDING) :]] == RECORDING
        text = text.replace(str(self.fake_nvml.library_folder), "/usr/lib")
        text = re.sub(r"\d+ of \d+ calls", "N of N calls", text)
        text = UNSUPPORTED.sub(r"\1: …", text)
        return f"{text}\nexit {report.exit_code}"


RECORDING = ["settings", "ledger", "metrics port", "MCP port", "clock", "SQL", "MCP client"]


@pytest.fixture
def machine(tmp_path, fake_nvml, monkeypatch) -> Machine:
    for name in [name for name in os.environ if name.startswith("GPULEDGER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Machine(tmp_path, fake_nvml)


# --- whole machines


def test_a_machine_with_two_gpus_that_work(machine):
    machine.has_driver()
    assert (
        machine.printed("gpu 0\ngpu 1\n")
        == """\
ok       library        /usr/lib/libnvidia-ml.so.1, NVML 13.580.95.05
ok       kernel driver  580.95.05
ok       device nodes   /dev/nvidia0, /dev/nvidiactl
ok       answers        2 GPUs
ok       GPU 0 to 1     NVIDIA H200: N of N calls answered
                        not supported: …
ok       profiling      not supported: it begins with Hopper
ok       persistence    on
ok       kernel log     readable, no Xid since boot
exit 5"""
    )


def test_a_machine_without_a_gpu(machine):
    assert (
        machine.printed(library=False)
        == """\
warning  library     no NVIDIA GPU and no libnvidia-ml.so.1 here
                     → the host and requests are recorded without
ok       kernel log  readable, no Xid since boot
exit 5"""
    )


def test_a_container_that_was_started_without_its_gpus(machine):
    machine.write(".dockerenv")
    machine.has_gpu_on_the_bus()
    assert (
        machine.printed(library=False)
        == """\
problem  library     there is an NVIDIA GPU, and no libnvidia-ml.so.1 here
                     → start it with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=utility
ok       kernel log  readable, no Xid since boot
exit 1"""
    )


def test_a_gpu_without_a_driver(machine):
    machine.has_gpu_on_the_bus()
    assert (
        machine.printed(library=False)
        == """\
problem  library     there is an NVIDIA GPU (0000:1b:00.0), and no driver is installed for it
                     → install NVIDIA's driver from your distribution's packages
ok       kernel log  readable, no Xid since boot
exit 1"""
    )


def test_a_library_where_the_loader_does_not_look(machine):
    machine.write("proc/version", "Linux version 6.6.87.2-microsoft-standard-WSL2\n")
    machine.write("usr/lib/wsl/lib/libnvidia-ml.so.1")
    assert (
        machine.printed(library=False)
        == """\
problem  library     /usr/lib/wsl/lib/libnvidia-ml.so.1 is there, but the loader does not look there
                     → echo /usr/lib/wsl/lib | sudo tee /etc/ld.so.conf.d/nvidia.conf && sudo ldconfig
ok       kernel log  readable, no Xid since boot
exit 1"""
    )


def test_a_kernel_driver_that_is_not_loaded(machine):
    assert (
        machine.printed("fail nvmlInit 9\n")
        == """\
ok       library        /usr/lib/libnvidia-ml.so.1
problem  kernel driver  it is installed and not loaded
                        → sudo modprobe nvidia; if that fails, 'dmesg | grep -i nvrm' says why: mostly a module that was not built for this kernel ('sudo dkms autoinstall'), or Secure Boot ('mokutil --sb-state')
ok       kernel log     readable, no Xid since boot
exit 1"""
    )


def test_nouveau_has_the_gpu(machine):
    machine.has_gpu_on_the_bus()
    machine.write("proc/modules", "nouveau 3112960 0 - Live 0x0\n")
    assert (
        machine.printed("fail nvmlInit 9\n")
        == """\
ok       library        /usr/lib/libnvidia-ml.so.1
problem  kernel driver  nouveau has the GPU
                        → echo blacklist nouveau | sudo tee /etc/modprobe.d/no-nouveau.conf, install NVIDIA's driver, reboot
ok       kernel log     readable, no Xid since boot
exit 1"""
    )


def test_a_driver_that_was_upgraded_and_not_reloaded(machine):
    machine.has_driver("570.133.20")
    assert (
        machine.printed("fail nvmlInit 18\n")
        == """\
ok       library        /usr/lib/libnvidia-ml.so.1
problem  kernel driver  the library and kernel driver 570.133.20 are of different versions
                        → sudo modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia, or reboot; a collector that runs goes on by itself then
ok       device nodes   /dev/nvidia0, /dev/nvidiactl
ok       kernel log     readable, no Xid since boot
exit 1"""
    )


def test_a_user_who_may_not_talk_to_the_driver(machine):
    assert (
        machine.printed("fail nvmlInit 4\n")
        == """\
ok       library     /usr/lib/libnvidia-ml.so.1
problem  answers     this user may not talk to the driver
                     → 'ls -l /dev/nvidia*' says who may use the GPU
ok       kernel log  readable, no Xid since boot
exit 1"""
    )


def test_one_gpu_of_two_that_is_lost(machine):
    machine.write("dev/kmsg", "3,7,90,-;NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.\n")
    assert (
        machine.printed("gpu 0\ngpu 1 lost_after=0\n")
        == """\
ok       library        /usr/lib/libnvidia-ml.so.1, NVML 13.580.95.05
ok       kernel driver  580.95.05, as NVML tells
ok       answers        2 GPUs
ok       GPU 0          NVIDIA H200: N of N calls answered
                        not supported: …
problem  GPU 1          it is listed and does not answer (gpu is lost)
                        → 'sudo dmesg | grep Xid' may say why; 'nvidia-smi -q' names what it needs, mostly a reset or a reboot
ok       profiling      not supported: it begins with Hopper
ok       persistence    on
warning  kernel log     Xid 79 on 00000000:1B:00.0: GPU fell off the bus
                        → What it was computing is lost. Take the work off the machine and reboot, or better switch it off and on. When it returns: look at temperature, power and `pcie_replay_count` before the event, seat the board, check its power, try another slot. Have the GPU replaced when the fault moves with it.
exit 1"""
    )


def test_a_gpu_that_is_lost_while_it_is_asked(machine):
    assert "problem  GPU 0          it was lost while it was asked" in machine.printed("gpu 0 lost_after=12\n")


def test_a_call_that_hangs_is_named_and_does_not_hold_the_doctor_up(machine):
    scenario = "gpu 0\ngpu 1\nhang nvmlDeviceGetUtilizationRates 600000 gpu=1\n"
    assert (
        machine.printed(scenario, step_limit_s=4.0)
        == """\
ok       library        /usr/lib/libnvidia-ml.so.1, NVML 13.580.95.05
ok       kernel driver  580.95.05, as NVML tells
problem  answers        GPU 1: nvmlDeviceGetUtilizationRates: the driver did not come back
                        → 'sudo dmesg | grep NVRM' may say why; end what uses the GPU, reset it with 'nvidia-smi --gpu-reset', or reboot; the collector records the rest of the machine meanwhile
ok       GPU 0          NVIDIA H200: N of N calls answered
                        not supported: …
ok       profiling      not supported: it begins with Hopper
ok       persistence    on
ok       kernel log     readable, no Xid since boot
exit 1"""
    )


def test_a_driver_that_hangs_before_it_is_asked_anything(machine):
    printed = machine.printed("hang nvmlInitWithFlags 600000\n", step_limit_s=4.0)
    assert "problem  answers     nvmlInit: the driver did not come back" in printed


def test_unified_memory(machine):
    machine.write("proc/meminfo", "MemTotal: 1 kB\nMemAvailable: 1 kB\n")
    printed = machine.printed('gpu 0 unified=1 name="NVIDIA GB10"\n')
    assert "ok       GPU 0          NVIDIA GB10, shares the host's memory: N of N calls answered" in printed


def test_mig_devices_are_told_beside_their_gpu(machine):
    mig = "mig gpu=0 gi=1 ci=0 uuid=MIG-a profile=1g.18gb memory_total=18253611008\n"
    assert (
        machine.printed(f"gpu 0\n{mig}gpm gpu=0 gi=1 2=50\n")
        == """\
ok       library        /usr/lib/libnvidia-ml.so.1, NVML 13.580.95.05
ok       kernel driver  580.95.05, as NVML tells
ok       answers        1 GPU, 1 MIG device
ok       GPU 0          NVIDIA H200: N of N calls answered
                        not supported: …
ok       GPU 0 MIG      NVIDIA H200 MIG 1g.18gb: N of N calls answered
ok       profiling      permitted
ok       persistence    on
ok       kernel log     readable, no Xid since boot
exit 5"""
    )


def test_an_old_driver_lacks_calls_and_is_told_so(tmp_path, machine, fake_nvml_old_driver):
    machine.fake_nvml = fake_nvml_old_driver
    printed = machine.printed("driver 470.256.02\ngpu 0\n")
    assert "ok       kernel driver  470.256.02, as NVML tells" in printed
    assert "\n                        not in a driver of this age: …\n" in printed


def test_profiling_that_is_for_root_alone(machine):
    machine.write("proc/driver/nvidia/params", "RmProfilingAdminOnly: 1\nOther: 0\n")
    printed = machine.printed("gpu 0\ngpm gpu=0 2=50 no_permission_after=0\n")
    assert (
        """\
warning  profiling      what the multiprocessors do is told to root alone (RmProfilingAdminOnly is 1)
                        → echo options nvidia NVreg_RestrictProfilingToAdminUsers=0 | sudo tee /etc/modprobe.d/nvidia-gpm.conf, then reboot; or give the collector AmbientCapabilities=CAP_SYS_ADMIN
"""
        in printed
    )


def test_processes_that_proc_does_not_show(machine):
    machine.write("proc/123/comm", "python\n")
    scenario = "gpu 0\nprocess gpu=0 pid=123 memory=1 type=compute\nprocess gpu=0 pid=124 memory=1 type=compute\n"
    assert """\
warning  processes      1 of 2 processes on the GPUs cannot be seen in /proc: name and owner stay NULL
                        → run the collector as root, or mount /proc without hidepid
""" in machine.printed(scenario)


def test_persistence_is_for_servers(machine):
    off = "warning  persistence    off on GPU 0: when nothing uses a GPU, the driver lets it go, and its counters begin anew"
    assert off in machine.printed("gpu 0 persistence=0\n")
    assert "ok       persistence    off, as is usual outside of servers" in machine.printed(
        'gpu 0 persistence=0 name="NVIDIA GeForce RTX 4090"\n'
    )


def test_a_kernel_log_that_may_not_be_read(machine):
    (machine.root / "dev/kmsg").unlink()
    machine.write(".dockerenv")
    printed = machine.printed("gpu 0\n")
    assert "warning  kernel log     there is no " in printed
    assert "→ start it with --device /dev/kmsg --cap-add SYSLOG: some Xids are told there alone" in printed


# --- findings that need a machine of their own


def checks(**facts) -> str:
    return "\n".join(lines(gpu_checks(GpuFacts(**{"files": DriverFiles(), "test": SelfTest(), **facts}))))


def test_device_nodes_that_may_not_be_opened():
    files = DriverFiles(kernel_version="580.95.05", nodes=(Node("/dev/nvidiactl", False, "crw-rw---- 0:44"),))
    assert (
        checks(files=files, test=SelfTest(library="/usr/lib/libnvidia-ml.so.580.95.05", init_code=4))
        == """\
ok       library        /usr/lib/libnvidia-ml.so.580.95.05
ok       kernel driver  580.95.05
problem  device nodes   /dev/nvidiactl may not be opened by this user (crw-rw---- 0:44)
                        → sudo usermod -aG video,render $USER and log in again; in a systemd unit SupplementaryGroups=video render
problem  answers        this user may not talk to the driver
                        → see the device nodes
ok       kernel log     readable, no Xid since boot"""
    )


def test_a_loaded_driver_without_device_nodes():
    files = DriverFiles(kernel_version="580.95.05")
    out = checks(files=files, test=SelfTest(library="/lib/x.so", init_code=9))
    assert "problem  device nodes   the driver is loaded, and there is no /dev/nvidia* here" in out
    assert "leave PrivateDevices= out" in out
    assert "--device nvidia.com/gpu=all" in checks(
        files=replace(files, sandbox="podman"), test=SelfTest(library="/lib/x.so", init_code=9)
    )


def test_both_versions_are_named_where_they_are_known():
    test = SelfTest(library="/usr/lib/libnvidia-ml.so.580.95.05", init_code=18)
    out = checks(files=DriverFiles(kernel_version="570.133.20"), test=test)
    assert "library 580.95.05 and kernel driver 570.133.20 are of different versions" in out


def test_a_driver_that_ends_the_process_is_a_problem():
    out = checks(
        test=SelfTest(library="/lib/x.so", init_code=0, last_step="GPU 0: nvmlDeviceGetName", ended_by="SIGSEGV")
    )
    assert "problem  answers     GPU 0: nvmlDeviceGetName: the driver ended the process (SIGSEGV)" in out


def test_calls_are_told_by_how_they_went_and_fields_by_their_columns():
    calls = {
        "nvmlDeviceGetPowerUsage": "ok",
        "field 82": "not_supported",
        "nvmlDeviceGetFanSpeed_v2": "not_supported",
        "nvmlDeviceGetJpgUtilization": "missing_symbol",
        "nvmlDeviceGetBAR1MemoryInfo": "error 999",
        "nvmlGpmMetricsGet": "no_permission",
    }
    gpu = GpuAnswers(3, "GPU-1", description={"name": "NVIDIA A100"}, calls=calls, values={"power_watts": 60.0})
    test = SelfTest(library="/lib/x.so", init_code=0, gpus=(gpu,), is_done=True)
    assert (
        checks(test=test)
        == """\
ok       library     /lib/x.so
ok       answers     1 GPU
warning  GPU 3       NVIDIA A100: 1 of 6 calls answered
                     error 999: nvmlDeviceGetBAR1MemoryInfo
                     not in a driver of this age: nvmlDeviceGetJpgUtilization
                     refused to this user: nvmlGpmMetricsGet
                     not supported: memory_temperature_celsius (field 82), nvmlDeviceGetFanSpeed_v2
                     → 'gpuledger status' shows which columns that leaves NULL
ok       profiling   permitted
ok       kernel log  readable, no Xid since boot"""
    )


def test_a_collector_that_sees_less_than_this_user():
    confined = Confinement(has_private_dev=True, has_partial_proc=True)
    assert checks(collector=confined, own=confined) == "ok       kernel log  readable, no Xid since boot"
    assert (
        checks(collector=confined)
        == """\
problem  collector's view  the collector has a /dev of its own, without the GPUs
                           → leave PrivateDevices= out of its systemd unit
warning  collector's view  the collector does not see other users' processes
                           → leave ProtectProc= and ProcSubset= out of its systemd unit
ok       kernel log        readable, no Xid since boot"""
    )


def test_a_collector_that_is_refused_what_this_user_is_answered():
    gpu = GpuAnswers(0, "GPU-1", calls={"nvmlGpmMetricsGet": "ok", "field 82": "ok"}, values={"power_watts": 1.0})
    test = SelfTest(library="/lib/x.so", init_code=0, gpus=(gpu,), is_done=True)
    assert """\
warning  collector's view  on GPU 0 it is refused what this user is answered: nvmlGpmMetricsGet
                           → run it as this user, or give its systemd unit the right by AmbientCapabilities=
""" in checks(test=test, refused_calls={"GPU-1": frozenset({"nvmlGpmMetricsGet"})})
    assert "view" not in checks(test=test, refused_calls={"GPU-2": frozenset({"nvmlGpmMetricsGet"})})


def test_the_same_xid_is_told_once_with_its_count_and_a_harmless_one_is_no_warning():
    xids = [KernelXid(1, XidMessage("00000000:1B:00.0", code, None, None, "")) for code in (31, 31, 44)]
    out = checks(xids=xids)
    assert "warning  kernel log  Xid 31 on 00000000:1B:00.0 (2 times): memory page fault" in out
    assert "ok       kernel log  Xid 44 on 00000000:1B:00.0: fault while switching programs" in out


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("22 27 0:21 / /proc rw,relatime - proc proc rw\n24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n", Confinement()),
        (
            "1 2 0:9 / /dev rw - devtmpfs devtmpfs rw\n3 2 0:7 / /dev ro,nosuid shared:1 - tmpfs tmpfs rw\n",
            Confinement(has_private_dev=True),
        ),
        ("1 2 0:9 / /proc rw,nosuid - proc proc rw,hidepid=invisible\n", Confinement(has_partial_proc=True)),
        ("1 2 0:9 / /proc rw,nosuid - proc proc rw,subset=pid\n", Confinement(has_partial_proc=True)),
        ("1 2 0:9 / /proc rw - proc proc rw,hidepid=0\n", Confinement()),
    ],
)
def test_mounts_tell_what_a_process_may_not_see(tmp_path, mounts, expected):
    (tmp_path / "mountinfo").write_text(mounts)
    assert confinement(tmp_path) == expected


@pytest.mark.parametrize(
    ("environment", "file", "expected"),
    [
        ({}, "etc/nothing", ""),
        ({}, ".dockerenv", "docker"),
        ({}, "run/.containerenv", "podman"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ".dockerenv", "kubernetes"),
        ({"SNAP": "/snap/x"}, "etc/nothing", "snap"),
        ({}, ".flatpak-info", "flatpak"),
    ],
)
def test_a_sandbox_is_known_by_what_lies_around(tmp_path, environment, file, expected):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert driver_files(tmp_path, environment).sandbox == expected


# --- recording


def test_a_fresh_machine_is_told_how_to_begin(machine):
    report = machine.examine("gpu 0\n")
    (sql,) = lines([sql_check(landlock_version(), refuses_sockets=True)])
    sql = sql.replace("SQL", f"{'SQL':<12}")
    assert (
        "\n".join(lines(report.checks[-len(RECORDING) :]))
        == f"""\
ok       settings      3 set, from flag
warning  ledger        nothing was recorded yet in {machine.ledger}
                       → gpuledger up
ok       metrics port  any that is free
ok       MCP port      any that is free
ok       clock         synchronized
{sql}
ok       MCP client    none knows gpuledger
                       → gpuledger init --client claude-code"""
    )
    assert report.text().splitlines()[-1] == "1 warning"


def record(folder: Path, *, age_s: float, version: str = __version__) -> None:
    with Ledger(folder, host="spark-1") as ledger:
        time_us = time.time_ns() // 1000 - round(age_s * 1e6)
        start = Event("ledger_event", time_us, {"event": "start", "gpuledger_version": version})
        probe = Event("ledger_event", time_us, {"event": "probe_status", "probe": "gpu", "message": "2 GPUs"})
        sample = {"interval_seconds": 60.0, "counter_epoch": 0, "cpu_utilization_percent": 1.0}
        ledger.append([start, probe, Event("system_sample", time_us, sample)])


def test_a_collector_of_another_version_is_told_beside_what_it_records(gpuledger):
    record(gpuledger.data, age_s=0, version="0.0.1")
    lock = CollectorLock(gpuledger.data)
    out = gpuledger("doctor", code=5).stdout
    lock.close()
    assert "view" not in out
    assert f"by pid {os.getpid()}, newest sample " in out
    assert re.search(r"^ +gpu: 2 GPUs$", out, re.MULTILINE)
    assert f"warning  version       the collector that runs is of 0.0.1, this is {__version__}\n" in out


def test_a_collector_that_stopped_sampling_is_a_problem(gpuledger):
    record(gpuledger.data, age_s=3600)
    lock = CollectorLock(gpuledger.data)
    out = gpuledger("doctor", code=1).stdout
    lock.close()
    assert (
        f"problem  recording     pid {os.getpid()} holds the ledger, and sampling has stopped: newest sample 60 min old\n"
        in out
    )
    assert f"→ kill {os.getpid()}, then 'gpuledger up'\n" in out


def test_settings_that_cannot_be_read_leave_the_driver_to_be_looked_at(gpuledger):
    gpuledger.environment["GPULEDGER_COLLECTOR__PORT"] = "many"
    out = gpuledger("doctor", code=1).stdout
    assert "problem  settings    the setting collector.port from environment cannot be 'many'" in out
    assert "kernel log" in out


def test_a_folder_that_is_no_ledger_is_a_problem(gpuledger, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    out = gpuledger("doctor", "--data", str(tmp_path / "photos"), code=1).stdout
    assert "problem  ledger" in out
    assert "is not a ledger: it holds 'cat.jpg'" in out


class _Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.server.body.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def listener():
    server = http.server.HTTPServer(("127.0.0.1", 0), _Other)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_port_is_free_or_ours_or_somebody_elses(listener):
    port = listener.server_port
    with socket.create_server(("127.0.0.1", 0)) as one:
        free = one.getsockname()[1]
    settings = Settings(collector={"port": port}, mcp={"port": free})
    place = f"127.0.0.1:{port}"

    def found(body: str) -> Check:
        listener.body = body
        metrics, mcp = port_checks(settings)
        assert mcp == Check("MCP port", State.OK, f"127.0.0.1:{free} is free")
        return metrics

    assert found('{"status": "ok", "reason": null}') == Check("metrics port", State.OK, f"{place} answers")
    ill = found('{"status": "unavailable", "reason": "no tick has been taken yet"}')
    assert (ill.state, ill.finding) == (
        State.WARNING,
        f"{place} answers that it is not well: no tick has been taken yet",
    )
    assert found("<html>") == Check(
        "metrics port",
        State.PROBLEM,
        f"something else listens at {place}",
        f"'ss -ltnp sport = :{port}' names it; stop it, or set collector.port",
    )


def test_an_mcp_client_whose_command_is_gone_is_told_to_be_entered_again(gpuledger):
    gpuledger("init", "--client", "claude-code")
    assert f"entered in {gpuledger.home / '.claude.json'}" in gpuledger("doctor", code=5).stdout
    settings = json.loads((gpuledger.home / ".claude.json").read_text())
    settings["mcpServers"]["gpuledger"]["command"] = "/gone/gpuledger"
    (gpuledger.home / ".claude.json").write_text(json.dumps(settings))
    assert "starts /gone/gpuledger, which is not there" in gpuledger("doctor", code=5).stdout


# --- as JSON and as a bundle


def test_json_carries_the_checks_and_how_each_call_went(gpuledger, fake_nvml):
    fake_nvml.write("gpu 0\nfield 82 4\n")
    gpuledger.environment |= {name: fake_nvml.environment[name] for name in ("LD_LIBRARY_PATH", "FAKE_NVML_SCENARIO")}
    answer = json.loads(gpuledger("doctor", "--json", code=5).stdout)
    assert answer["exit_code"] == 5
    assert {check["name"]: check["state"] for check in answer["checks"]}["GPU 0"] == "warning"
    (gpu,) = answer["gpus"]
    assert (gpu["index"], gpu["calls"]["field 82"], gpu["calls"]["field 83"]) == (0, "no_permission", "ok")
    assert gpu["absent"]["memory_temperature_celsius"] == "no_permission"


def test_a_bundle_holds_findings_settings_versions_and_events_without_names(gpuledger, tmp_path):
    record(gpuledger.data, age_s=0)
    host = socket.gethostname()
    with Ledger(gpuledger.data, host=host) as ledger:
        xid = {"event": "xid", "xid": 31, "pid": 77, "process_name": "secret-project", "message": f"on {host}"}
        ledger.append([Event("gpu_event", time.time_ns() // 1000, xid)])
    gpuledger("doctor", "--bundle", "bundle.tar.gz", code=5)
    with tarfile.open(gpuledger.home / "bundle.tar.gz") as archive:
        texts = {entry.name: archive.extractfile(entry).read().decode() for entry in archive}
    assert sorted(texts) == [
        f"gpuledger-bundle/{name}"
        for name in ("doctor.json", "doctor.txt", "events.json", "settings.json", "versions.json")
    ]
    whole = "\n".join(texts.values())
    assert str(gpuledger.home) not in whole
    assert not re.search(rf"\b{re.escape(host)}\b", whole)
    assert "secret-project" not in whole
    assert "~/.local/share/gpuledger" in texts["gpuledger-bundle/doctor.txt"]
    (event,) = json.loads(texts["gpuledger-bundle/events.json"])["gpu_event"]
    assert (event["xid"], event["message"]) == (31, "on HOST")
    assert json.loads(texts["gpuledger-bundle/versions.json"])["nvidia-ml-py"]


def test_a_bundle_does_not_overwrite_a_file(gpuledger):
    (gpuledger.home / "bundle.tar.gz").touch()
    done = gpuledger("doctor", "--bundle", "bundle.tar.gz", code=2)
    assert done.stderr == "gpuledger: bundle.tar.gz is there already: name another file\n"


def test_gpus_that_say_the_same_are_one_line_and_others_are_named_apart(machine):
    machine.has_driver()
    gpus = "gpu 0\ngpu 1\ngpu 2 name=A100\ngpu 3\n"
    printed = machine.printed(gpus)
    assert "ok       GPU 0 and 2 more  NVIDIA H200: N of N calls answered" in printed
    assert "ok       GPU 2             A100: N of N calls answered" in printed


@pytest.mark.parametrize(
    ("landlock", "finding"),
    [
        (7, "queries run in a process that Landlock 7 lets read the sealed files alone"),
        (2, "queries run in a process without a file system; Landlock 3 would be faster, this kernel has version 2"),
        (0, "queries run in a process without a file system; Landlock 3 would be faster, this kernel has none"),
    ],
)
def test_what_holds_foreign_sql_is_told(landlock, finding):
    assert sql_check(landlock, refuses_sockets=True) == Check("SQL", State.OK, finding)
    open_sockets = sql_check(landlock, refuses_sockets=False)
    assert open_sockets.state == State.WARNING
    assert open_sockets.finding == f"{finding}; UDP and Unix sockets are not shut"
