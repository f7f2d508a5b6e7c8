"""The host's probe: on folders that stand for machines, and on this machine beside psutil."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from collector.clock import Now, SystemClock
from collector.host.probe import PAGE_BYTES, HostProbe
from store.events import SYSTEM_SAMPLE, AbsenceReason, Event

MACHINES = Path(__file__).parents[2] / "fixtures"
NO_DATA, NOT_SUPPORTED, NO_PERMISSION = "no_data", "not_supported", "no_permission"

NOT_ASKED = {"cpu_frequency_hertz", "cpu_temperature_celsius"}
"""What this version does not read, on any machine."""

CPU_SHARES = {
    f"cpu_{state}_percent"
    for state in ("utilization", "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
}

NODE_ROW = {
    "interval_seconds": 1.0,
    "counter_epoch": 1_795_435_200,
    "uptime_seconds": 4000.0,
    "cpu_count": 2,
    "tasks_running_count": 3,
    "tasks_blocked_count": 1,
    "context_switches_count": 987654321,
    "load_1m_count": 1.25,
    "load_5m_count": 2.5,
    "load_15m_count": 3.75,
    "memory_total_bytes": 2113433600 * 1024,
    "memory_available_bytes": 1900000000 * 1024,
    "memory_used_bytes": 213433600 * 1024,
    "memory_free_bytes": 1000000000 * 1024,
    "memory_cached_bytes": 850000000 * 1024,
    "memory_buffers_bytes": 2000000 * 1024,
    "memory_shared_bytes": 3000000 * 1024,
    "swap_total_bytes": 8388608 * 1024,
    "swap_used_bytes": 388608 * 1024,
    "swap_in_bytes": 1000 * PAGE_BYTES,
    "swap_out_bytes": 2000 * PAGE_BYTES,
    "pressure_cpu_some_seconds": 33.870912,
    "pressure_cpu_full_seconds": 0.0,
    "pressure_memory_some_seconds": 1.5,
    "pressure_memory_full_seconds": 0.5,
    "pressure_io_some_seconds": 42.000001,
    "pressure_io_full_seconds": 41.000002,
    # nvme0n1, nvme1n1 and cciss/c0d0: no partition, no loop, no device mapper, no RAM
    "disk_reads_count": 1011,
    "disk_read_bytes": 80108 * 512,
    "disk_writes_count": 2022,
    "disk_written_bytes": 160216 * 512,
    "disk_busy_seconds": 1.517,
    "network_received_bytes": 9_001_000_000,
    "network_received_packets_count": 9_001_000,
    "network_sent_bytes": 8_000_500_000,
    "network_sent_packets_count": 8_000_600,
    "network_errors_count": 4,
    "network_drops_count": 17,
}


@pytest.fixture
def probe_of(tmp_path):
    def make(root):
        return HostProbe(ledger_folder=tmp_path, interval_s=1.0, root=root)

    return make


def row_of(events):
    """The system_sample's values; what the ledger's file system has free is this machine's own."""
    (values,) = [event.values for event in events if event.kind == "system_sample"]
    values = dict(values)
    assert values.pop("ledger_filesystem_free_bytes") > 0
    return values


def set_word(path, line, words):
    """Replace what follows the first word of one line."""
    lines = path.read_text().splitlines()
    assert any(one.split()[0] == line for one in lines)
    path.write_text("".join(f"{f'{line} {words}' if one.split()[0] == line else one}\n" for one in lines))


# --- machines that are folders


def test_every_value_of_a_machine_is_read_under_its_root(machine, probe_of, clock):
    now = clock.now()
    assert row_of(probe_of(machine()).read(now)) == {**NODE_ROW, "absence": dict.fromkeys(CPU_SHARES, NO_DATA)}


def test_the_inventory_says_once_what_the_machine_is(machine, probe_of, clock):
    probe = probe_of(machine())
    now = clock.now()
    (inventory,) = [event for event in probe.read(now) if event.kind == "inventory"]
    architecture = inventory.values["architecture"]
    assert inventory == Event(
        "inventory",
        now.wall_us,
        {
            "subject": "host",
            "source": "host",
            "name": "DGXH200",
            "architecture": architecture,
            "memory_total_bytes": 2113433600 * 1024,
            "os_name": "Ubuntu 22.04.5 LTS",
            "kernel_version": "5.15.0-1063-nvidia",
            "cpu_model": "Intel(R) Xeon(R) Platinum 8480C",
            "cpu_count": 2,
        },
    )
    assert architecture
    assert [event.kind for event in probe.read(clock.advance(1.0))] == ["system_sample"]


def test_cpu_shares_are_of_the_time_since_the_row_before_and_are_all_of_it(machine, probe_of, clock):
    root = machine()
    probe = probe_of(root)
    probe.read(clock.now())
    set_word(root / "proc/stat", "cpu", " 1400 200 400 8400 450 50 30 70 160 15")
    row = row_of(probe.read(clock.advance(1.0)))
    assert {column: row[column] for column in CPU_SHARES} == {
        "cpu_utilization_percent": 55.0,
        "cpu_user_percent": 40.0,
        "cpu_nice_percent": 0.0,
        "cpu_system_percent": 10.0,
        "cpu_idle_percent": 40.0,
        "cpu_iowait_percent": 5.0,
        "cpu_irq_percent": 0.0,
        "cpu_softirq_percent": 0.0,
        "cpu_steal_percent": 5.0,
    }
    assert "absence" not in row


def test_an_iowait_that_the_kernel_takes_back_gives_no_negative_share(machine, probe_of, clock):
    root = machine()
    probe = probe_of(root)
    probe.read(clock.now())
    set_word(root / "proc/stat", "cpu", " 1100 200 300 8100 390 50 30 20 100 10")
    row = row_of(probe.read(clock.advance(1.0)))
    assert (row["cpu_user_percent"], row["cpu_idle_percent"], row["cpu_iowait_percent"]) == (50.0, 50.0, 0.0)


def test_cpu_shares_of_no_time_at_all_are_no_data(machine, probe_of, clock):
    probe = probe_of(machine())
    probe.read(clock.now())
    row = row_of(probe.read(clock.advance(0.001)))
    assert row["absence"] == dict.fromkeys(CPU_SHARES, NO_DATA)


def test_a_kernel_without_a_reading_has_null_with_not_supported_and_the_rest_goes_on(machine, probe_of, clock):
    row = row_of(probe_of(machine("host-old-kernel")).read(clock.now()))
    absence = row.pop("absence")
    assert row == {
        "interval_seconds": 1.0,
        "counter_epoch": 1_795_435_200,
        "uptime_seconds": 4000.0,
        "cpu_count": 1,
        "tasks_running_count": 1,
        "tasks_blocked_count": 0,
        "context_switches_count": 5000,
        "load_1m_count": 0.0,
        "load_5m_count": 0.01,
        "load_15m_count": 0.05,
        "memory_total_bytes": 127535152 * 1024,
        "memory_available_bytes": 110000000 * 1024,
        "memory_used_bytes": 17535152 * 1024,
        "memory_free_bytes": 90000000 * 1024,
        "memory_buffers_bytes": 100000 * 1024,
        "memory_shared_bytes": 50000 * 1024,
        "swap_total_bytes": 0,
        "swap_used_bytes": 0,
    }
    unread = {field.name for field in SYSTEM_SAMPLE.fields if field.is_measured} - set(row) - NOT_ASKED
    unread -= {"ledger_filesystem_free_bytes"}
    assert absence == {column: NO_DATA if column in CPU_SHARES else NOT_SUPPORTED for column in unread}


def test_cpu_pressure_of_a_kernel_before_5_13_lacks_full_alone(machine, probe_of, clock):
    root = machine()
    pressure = root / "proc/pressure/cpu"
    pressure.write_text(pressure.read_text().splitlines()[0] + "\n")
    row = row_of(probe_of(root).read(clock.now()))
    assert row["pressure_cpu_some_seconds"] == 33.870912
    assert row["absence"] == {**dict.fromkeys(CPU_SHARES, NO_DATA), "pressure_cpu_full_seconds": NOT_SUPPORTED}


@pytest.mark.parametrize(
    "name",
    ["stat", "loadavg", "meminfo", "vmstat", "pressure/cpu", "pressure/memory", "pressure/io", "diskstats", "net/dev"],
)
@pytest.mark.parametrize("content", [None, "", "\n\n\n", "cpu one\neth0: x\n254 0 vda y\nsome\nMemTotal: ? kB\n"])
def test_a_file_that_is_missing_or_of_another_layout_costs_its_own_columns_and_none_becomes_0(
    machine, probe_of, clock, name, content
):
    root = machine()
    damaged = root / "proc" / name
    damaged.unlink() if content is None else damaged.write_text(content)
    probe = probe_of(root)
    row = row_of(probe.read(clock.now()))
    absence = row.pop("absence")
    assert {*row, *absence} == {*NODE_ROW, *CPU_SHARES}
    assert {column: NODE_ROW[column] for column in row} == row
    lost = {column: reason for column, reason in absence.items() if reason != NO_DATA}
    assert lost
    assert set(lost.values()) == {NOT_SUPPORTED}
    probe.read(clock.advance(1.0))


def test_a_disk_that_is_pulled_begins_a_new_counter_epoch(machine, probe_of, clock):
    root = machine()
    probe = probe_of(root)
    epochs = [row_of(probe.read(clock.advance(1.0)))["counter_epoch"]]
    diskstats = root / "proc/diskstats"
    lines = diskstats.read_text().splitlines(keepends=True)
    diskstats.write_text("".join(line for line in lines if "nvme1n1" not in line))
    epochs += [row_of(probe.read(clock.advance(1.0)))["counter_epoch"] for _ in range(2)]
    assert epochs == [1_795_435_201, 1_795_435_202, 1_795_435_202]


def test_a_ledger_folder_that_is_gone_costs_its_free_space_alone(machine, clock, tmp_path):
    probe = HostProbe(ledger_folder=tmp_path / "gone", interval_s=1.0, root=machine())
    (row,) = [event.values for event in probe.read(clock.now()) if event.kind == "system_sample"]
    reasons = {**dict.fromkeys(CPU_SHARES, NO_DATA), "ledger_filesystem_free_bytes": NOT_SUPPORTED}
    assert row == {**NODE_ROW, "absence": reasons}


READ_AS_NOBODY = """
import json, os, sys
from pathlib import Path
from collector.clock import Now
from collector.host.probe import HostProbe
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
root = Path(sys.argv[1])
events = HostProbe(ledger_folder=root, interval_s=1.0, root=root).read(Now(1.0, 1.0, 1_000_000))
print(json.dumps([event.values.get("absence") for event in events]))
"""


@pytest.fixture
def public_machine():
    """Return a machine's folder that any user may enter; pytest's own folders are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(MACHINES / "host-h200-node", Path(folder) / "root"))


def test_a_file_that_this_user_may_not_read_is_no_permission(public_machine):
    (public_machine / "proc/diskstats").chmod(0)
    (public_machine / "proc/pressure/io").chmod(0)
    done = subprocess.run(
        [sys.executable, "-P", "-c", READ_AS_NOBODY, public_machine], capture_output=True, text=True, check=True
    )
    sample_absence, inventory_absence = json.loads(done.stdout)
    refused = [column for column in NODE_ROW if column.startswith(("disk_", "pressure_io_"))]
    assert sample_absence == {**dict.fromkeys(CPU_SHARES, NO_DATA), **dict.fromkeys(refused, NO_PERMISSION)}
    assert inventory_absence is None


# --- this machine


@pytest.fixture
def this_host(tmp_path):
    return HostProbe(ledger_folder=tmp_path, interval_s=1.0)


def test_every_null_of_this_machine_has_a_reason(this_host):
    clock = SystemClock()
    this_host.read(clock.now())
    (row,) = [event.values for event in this_host.read(clock.now())]
    absence = row.get("absence", {})
    asked = {field.name for field in SYSTEM_SAMPLE.fields} - NOT_ASKED - {"absence"}
    assert {*row, *absence} - {"absence"} == asked
    assert not set(row) & set(absence)
    assert None not in row.values()
    assert set(absence.values()) <= set(AbsenceReason)


def test_shares_of_this_machines_cpu_sum_to_100(this_host):
    clock = SystemClock()
    this_host.read(clock.now())
    row = {}
    while "cpu_user_percent" not in row:  # until the kernel has counted a tick, a few milliseconds
        row = this_host.read(clock.now())[0].values
    shares = {column: row[column] for column in CPU_SHARES}
    utilization = shares.pop("cpu_utilization_percent")
    assert sum(shares.values()) == pytest.approx(100.0)
    assert utilization == pytest.approx(100.0 - shares["cpu_idle_percent"] - shares["cpu_iowait_percent"])
    assert all(0.0 <= share <= 100.0 for share in (utilization, *shares.values()))


def totals_by_psutil(root):
    disks = [
        io
        for name, io in psutil.disk_io_counters(perdisk=True, nowrap=False).items()
        if (root / "sys/block" / name).exists() and not name.startswith(("loop", "ram", "zram", "dm-", "md"))
    ]
    interfaces = psutil.net_io_counters(pernic=True, nowrap=False)
    cards = [io for name, io in interfaces.items() if (root / "sys/class/net" / name / "device").exists()] or [
        io for name, io in interfaces.items() if name != "lo"
    ]
    totals = {
        "swap_in_bytes": psutil.swap_memory().sin,
        "swap_out_bytes": psutil.swap_memory().sout,
        "context_switches_count": psutil.cpu_stats().ctx_switches,
    }
    if disks:
        totals |= {
            "disk_reads_count": sum(io.read_count for io in disks),
            "disk_read_bytes": sum(io.read_bytes for io in disks),
            "disk_writes_count": sum(io.write_count for io in disks),
            "disk_written_bytes": sum(io.write_bytes for io in disks),
            "disk_busy_seconds": sum(io.busy_time for io in disks) / 1000,
        }
    if cards:
        totals |= {
            "network_received_bytes": sum(io.bytes_recv for io in cards),
            "network_received_packets_count": sum(io.packets_recv for io in cards),
            "network_sent_bytes": sum(io.bytes_sent for io in cards),
            "network_sent_packets_count": sum(io.packets_sent for io in cards),
            "network_errors_count": sum(io.errin + io.errout for io in cards),
            "network_drops_count": sum(io.dropin + io.dropout for io in cards),
        }
    return totals


def test_this_machines_counters_lie_between_psutils_before_and_after(this_host):
    before = totals_by_psutil(Path("/"))
    row = this_host.read(SystemClock().now())[0].values
    after = totals_by_psutil(Path("/"))
    outside = {
        column: (low, row.get(column), after[column])
        for column, low in before.items()
        if column in row and not low <= row[column] <= after[column]
    }
    assert outside == {}
    assert set(before) - set(row) <= {"swap_in_bytes", "swap_out_bytes"}  # where the kernel was built without swap


def test_this_machines_gauges_agree_with_psutil(this_host):
    now = SystemClock().now()
    row = this_host.read(now)[0].values
    memory = psutil.virtual_memory()
    assert row["cpu_count"] == psutil.cpu_count()
    assert row["memory_total_bytes"] == memory.total
    assert row["swap_total_bytes"] == psutil.swap_memory().total
    assert row["memory_available_bytes"] == pytest.approx(memory.available, rel=0.1)
    assert row["memory_used_bytes"] == row["memory_total_bytes"] - row["memory_available_bytes"]
    assert row["uptime_seconds"] == now.boottime_s
    assert 0 < row["ledger_filesystem_free_bytes"] < 2**60


def test_sensors_are_asked_every_five_seconds_and_are_not_asked_in_between(tmp_path):
    answers = {"cpu_frequency_hertz": 2_000_000_000, "cpu_temperature_celsius": AbsenceReason.NOT_SUPPORTED}
    probe = HostProbe(ledger_folder=tmp_path, interval_s=1.0, sensors=lambda: answers)
    rows = [probe.read(Now(float(second), float(second), second * 1_000_000))[0].values for second in range(7)]
    assert [row.get("cpu_frequency_hertz") for row in rows] == [2_000_000_000, *[None] * 4, 2_000_000_000, None]
    assert [row.get("absence", {}).get("cpu_temperature_celsius") for row in rows] == [
        "not_supported", None, None, None, None, "not_supported", None
    ]  # fmt: skip
