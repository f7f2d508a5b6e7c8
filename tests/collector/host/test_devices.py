"""The devices' probe: on folders that stand for machines, and on this machine beside psutil."""

import shutil
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.clock import Now, SystemClock
from collector.host.devices import DEVICES_MAX, DeviceProbe, network_cards, whole_disks
from collector.host.probe import HostProbe
from store.events import DEVICE_SAMPLE, AbsenceReason

MACHINES = Path(__file__).parents[2] / "fixtures"
NO_DATA, NOT_SUPPORTED = "no_data", "not_supported"
BEGINNING_S = 1_795_435_200

PORT_HAS_NOT = ("receive_drops_count",)
"""What of a port's columns ConnectX does not tell in a file of its own."""
EFA_HAS_NOT = (
    "receive_errors_count",
    "send_drops_count",
    "link_down_count",
    "link_recoveries_count",
    "symbol_errors_count",
    "send_waits_count",
    "out_of_sequence_count",
    "acknowledgement_timeouts_count",
    "congestion_notifications_sent_count",
    "congestion_notifications_handled_count",
)

NODE_ROWS = {
    ("disk", "nvme0n1"): {
        "reads_count": 1000,
        "read_bytes": 80000 * 512,
        "read_seconds": 0.5,
        "writes_count": 2000,
        "written_bytes": 160000 * 512,
        "write_seconds": 0.9,
        "in_flight_count": 0,
        "busy_seconds": 1.5,
        "queue_seconds": 1.4,
    },
    ("disk", "nvme1n1"): {
        "reads_count": 1,
        "read_bytes": 8 * 512,
        "read_seconds": 0.001,
        "writes_count": 2,
        "written_bytes": 16 * 512,
        "write_seconds": 0.002,
        "in_flight_count": 0,
        "busy_seconds": 0.003,
        "queue_seconds": 0.003,
    },
    ("disk", "cciss/c0d0"): {
        "reads_count": 10,
        "read_bytes": 100 * 512,
        "read_seconds": 0.005,
        "writes_count": 20,
        "written_bytes": 200 * 512,
        "write_seconds": 0.009,
        "in_flight_count": 0,
        "busy_seconds": 0.014,
        "queue_seconds": 0.014,
    },
    ("network", "eth0"): {
        "received_bytes": 1_000_000,
        "received_packets_count": 1000,
        "receive_errors_count": 1,
        "receive_drops_count": 2,
        "sent_bytes": 500_000,
        "sent_packets_count": 600,
        "send_errors_count": 3,
        "send_drops_count": 4,
        "link_up": True,
        "link_down_count": 3,
        "link_speed_bytes_per_second": 125_000_000,
    },
    ("network", "ibp24s0"): {
        "received_bytes": 9_000_000_000,
        "received_packets_count": 9_000_000,
        "receive_errors_count": 0,
        "receive_drops_count": 5,
        "sent_bytes": 8_000_000_000,
        "sent_packets_count": 8_000_000,
        "send_errors_count": 0,
        "send_drops_count": 6,
        "link_up": True,
        "link_down_count": 0,
        "link_speed_bytes_per_second": 50_000_000_000,
    },
    ("infiniband", "mlx5_0/1"): {
        "received_bytes": 10_000_000_000_000,
        "sent_bytes": 9_000_000_000_000,
        "received_packets_count": 3_000_000_000,
        "sent_packets_count": 2_900_000_000,
        "receive_errors_count": 4,
        "send_drops_count": 2,
        "link_up": True,
        "link_down_count": 1,
        "link_speed_bytes_per_second": 50_000_000_000,
        "link_recoveries_count": 5,
        "symbol_errors_count": 65535,
        "send_waits_count": 123456789,
        "out_of_sequence_count": 11,
        "acknowledgement_timeouts_count": 12,
        "congestion_notifications_sent_count": 0,
        "congestion_notifications_handled_count": 0,
        "absence": dict.fromkeys(PORT_HAS_NOT, NOT_SUPPORTED),
    },
    ("infiniband", "rdmap79s0/1"): {
        "received_bytes": 7000,
        "sent_bytes": 6000,
        "received_packets_count": 70,
        "sent_packets_count": 60,
        "receive_drops_count": 1,
        "link_up": False,
        "link_speed_bytes_per_second": 12_500_000_000,
        "absence": dict.fromkeys(EFA_HAS_NOT, NOT_SUPPORTED),
    },
    ("thermal_zone", "acpitz/thermal_zone0"): {"temperature_celsius": 27.8},
    ("thermal_zone", "x86_pkg_temp/thermal_zone2"): {"temperature_celsius": 51.0},
    ("thermal_zone", "x86_pkg_temp/thermal_zone10"): {"temperature_celsius": 48.5},
    ("numa_node", "node0"): {
        "memory_total_bytes": 1056716800 * 1024,
        "memory_free_bytes": 500000000 * 1024,
        "memory_used_bytes": 556716800 * 1024,
        "memory_cached_bytes": 400000000 * 1024,
        "numa_hit_count": 900000000,
        "numa_miss_count": 10,
        "numa_foreign_count": 20,
        "numa_other_node_count": 1000,
    },
    ("numa_node", "node1"): {
        "memory_total_bytes": 1056716801 * 1024,
        "memory_free_bytes": 500000001 * 1024,
        "memory_used_bytes": 556716800 * 1024,
        "memory_cached_bytes": 400000001 * 1024,
        "numa_hit_count": 900000001,
        "numa_miss_count": 11,
        "numa_foreign_count": 21,
        "numa_other_node_count": 1001,
    },
}
"""Type and name to the columns of its own; what is not here is in no row and in no row's absence."""


@pytest.fixture
def probe_of():
    return lambda root: DeviceProbe(interval_s=1.0, root=root)


def rows_of(events):
    """Type and name to the rest of the row, in the order of the rows."""
    assert {event.kind for event in events} <= {"device_sample"}
    rows = [dict(event.values) for event in events]
    return {(row.pop("device_type"), row.pop("device")): row for row in rows}


def own(rows):
    """The rows without what every sample bears."""
    return {
        key: {column: value for column, value in row.items() if column not in ("interval_seconds", "counter_epoch")}
        for key, row in rows.items()
    }


# --- machines that are folders


def test_every_device_of_a_machine_is_a_row_with_the_columns_of_its_type_and_no_others(machine, probe_of, clock):
    now = clock.now()
    probe = probe_of(machine())
    events = probe.read(now)
    rows = rows_of(events)
    assert list(rows) == list(NODE_ROWS)
    assert own(rows) == NODE_ROWS
    assert {(row["interval_seconds"], row["counter_epoch"]) for row in rows.values()} == {(5.0, BEGINNING_S)}
    assert {event.observed_at_us for event in events} == {now.wall_us}
    assert probe.status() == "3 disks, 2 network cards, 2 InfiniBand ports, 3 thermal zones, 2 NUMA nodes"


def test_the_rows_of_disks_and_network_cards_add_up_to_the_hosts_sums(machine, probe_of, clock, tmp_path):
    root = machine()
    rows = rows_of(probe_of(root).read(clock.now()))
    host = HostProbe(ledger_folder=tmp_path, interval_s=1.0, root=root).read(clock.now())[0].values

    def total(kind, *columns):
        return sum(row[column] for (name, _), row in rows.items() if name == kind for column in columns)

    assert {column: value for column, value in host.items() if column.startswith(("disk_", "network_"))} == {
        **{f"disk_{column}": total("disk", column) for column in ("reads_count", "read_bytes", "writes_count")},
        "disk_written_bytes": total("disk", "written_bytes"),
        "disk_busy_seconds": pytest.approx(total("disk", "busy_seconds")),
        "network_received_bytes": total("network", "received_bytes"),
        "network_received_packets_count": total("network", "received_packets_count"),
        "network_sent_bytes": total("network", "sent_bytes"),
        "network_sent_packets_count": total("network", "sent_packets_count"),
        "network_errors_count": total("network", "receive_errors_count", "send_errors_count"),
        "network_drops_count": total("network", "receive_drops_count", "send_drops_count"),
    }


def test_a_machine_without_any_of_it_has_no_row_and_says_so(machine, probe_of, clock):
    probe = probe_of(machine("host-old-kernel"))
    assert (probe.status(), probe.read(clock.now()), probe.status()) == ("no device", [], "no device")


def test_a_container_without_hardware_of_its_own_has_its_interfaces_but_loopback(machine):
    root = machine()
    assert list(network_cards(root)) == ["eth0", "ibp24s0"]
    shutil.rmtree(root / "sys/class/net")
    assert list(network_cards(root)) == ["eth0", "ibp24s0", "bond0", "docker0", "veth9f8e7d6"]


def test_a_single_numa_node_is_the_host_and_has_no_row_and_one_without_memory_is_none(machine, probe_of, clock):
    root = machine()
    has_memory = root / "sys/devices/system/node/has_memory"
    shutil.copytree(root / "sys/devices/system/node/node1", root / "sys/devices/system/node/node3")
    seen = []
    for ranges in ("0\n", "0,3\n", "0-1,3\n"):
        has_memory.write_text(ranges)
        seen.append([name for kind, name in rows_of(probe_of(root).read(clock.now())) if kind == "numa_node"])
    assert seen == [[], ["node0", "node3"], ["node0", "node1", "node3"]]


def test_a_machine_with_very_many_devices_has_rows_of_the_first_of_them_and_says_how_many_there_are(
    machine, probe_of, clock
):
    root = machine()
    for number in range(DEVICES_MAX):
        zone = root / f"sys/class/thermal/thermal_zone{100 + number}"
        zone.mkdir()
        (zone / "type").write_text("soc\n")
        (zone / "temp").write_text("40000\n")
    probe = probe_of(root)
    zones = [name for kind, name in rows_of(probe.read(clock.now())) if kind == "thermal_zone"]
    assert len(zones) == DEVICES_MAX
    assert (zones[0], zones[-1]) == ("acpitz/thermal_zone0", f"soc/thermal_zone{100 + DEVICES_MAX - 4}")
    assert f"{DEVICES_MAX} of {DEVICES_MAX + 3} thermal zones" in probe.status()


NODE = MACHINES / "host-h200-node"
FOLDERS = ("sys/class/net/eth0", "sys/class/infiniband", "sys/class/thermal", "sys/devices/system/node")
FILES = [
    "proc/diskstats",
    "proc/net/dev",
    *sorted(
        str(path.relative_to(NODE))
        for folder in FOLDERS
        for path in (NODE / folder).rglob("*")
        if path.is_file() and path.name not in ("vendor", "link_layer") and path.parent.name != "cooling_device0"
    ),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, "one\n\neth0: x\n254 0 nvme0n1 y\nNode 0 MemTotal: ? kB\n"])
def test_a_file_that_is_missing_or_of_another_layout_costs_its_own_columns_and_none_becomes_0(
    machine, probe_of, clock, name, content
):
    root = machine()
    damaged = root / name
    damaged.unlink() if content is None else damaged.write_text(content)
    rows = own(rows_of(probe_of(root).read(clock.now())))
    if name.endswith("/type"):  # its word is a part of the name
        assert len(rows) == len(NODE_ROWS)
        return
    whole_type = {"diskstats": "disk", "dev": "network", "has_memory": "numa_node"}.get(damaged.name)
    assert set(NODE_ROWS) - set(rows) == {key for key in NODE_ROWS if key[0] == whole_type}
    changed = {key for key, row in rows.items() if row != NODE_ROWS[key]}
    assert len(changed) == (0 if whole_type else 1)
    for key in changed:
        row, before = dict(rows[key]), dict(NODE_ROWS[key])
        absence, absence_before = row.pop("absence"), before.pop("absence", {})
        assert row == {column: before[column] for column in row}
        assert {*row, *absence} == {*before, *absence_before}
        assert set(absence.values()) == {NOT_SUPPORTED}


@pytest.mark.parametrize(
    ("file", "text", "key", "column", "reason"),
    [
        ("sys/class/net/eth0/speed", "-1", ("network", "eth0"), "link_speed_bytes_per_second", NO_DATA),
        ("sys/class/net/eth0/operstate", "unknown", ("network", "eth0"), "link_up", NO_DATA),
        (
            "sys/class/thermal/thermal_zone0/temp",
            "-274000",
            ("thermal_zone", "acpitz/thermal_zone0"),
            "temperature_celsius",
            NO_DATA,
        ),
    ],
)
def test_a_number_that_cannot_be_true_is_no_data(machine, probe_of, clock, file, text, key, column, reason):
    root = machine()
    (root / file).write_text(f"{text}\n")
    row = rows_of(probe_of(root).read(clock.now()))[key]
    assert column not in row
    assert row["absence"] == {column: reason}


@pytest.mark.parametrize("state", ["down", "lowerlayerdown", "notpresent", "dormant"])
def test_a_card_whose_link_carries_no_data_is_down(machine, probe_of, clock, state):
    root = machine()
    (root / "sys/class/net/eth0/operstate").write_text(f"{state}\n")
    assert rows_of(probe_of(root).read(clock.now()))["network", "eth0"]["link_up"] is False


# --- over time


def test_devices_are_read_every_five_seconds_though_ticks_are_never_on_time(machine, probe_of, clock):
    probe = probe_of(machine())
    late_s = [0.004, 0.001, 0.003, 0.0, 0.002, 0.001, 0.0, 0.005, 0.0, 0.001, 0.0, 0.003, 0.001, 0.0, 0.002, 0.0]
    begin = clock.now()
    counts = [
        len(probe.read(replace(begin, monotonic_s=begin.monotonic_s + tick + late))) for tick, late in enumerate(late_s)
    ]
    assert counts == [12, 0, 0, 0, 0, 12, 0, 0, 0, 0, 12, 0, 0, 0, 0, 12]


@pytest.mark.parametrize(("interval_s", "every_s"), [(0.5, 5.0), (2.0, 6.0), (3.0, 6.0), (5.0, 5.0), (10.0, 10.0)])
def test_a_row_stands_for_the_time_between_two_readings_whatever_the_interval_of_ticks(
    machine, clock, interval_s, every_s
):
    probe = DeviceProbe(interval_s=interval_s, root=machine())
    begin = clock.now().monotonic_s
    reads = [(clock.now().monotonic_s - begin, probe.read(clock.now())) for _ in range(40) if clock.advance(interval_s)]
    times = [at for at, events in reads if events]
    assert {later - earlier for earlier, later in pairwise(times)} == {every_s}
    assert {event.values["interval_seconds"] for _, events in reads for event in events} == {every_s}


def epochs_of(probe, clock):
    rows = rows_of(probe.read(clock.advance(5.0)))
    return {key: row["counter_epoch"] - BEGINNING_S for key, row in rows.items()}


def set_numbers(root, disk, numbers):
    """Replace what diskstats says of one disk."""
    diskstats = root / "proc/diskstats"
    lines = diskstats.read_text().splitlines()
    assert any(line.split()[2] == disk for line in lines)
    diskstats.write_text(
        "".join(f"{f'259 2 {disk} {numbers}' if line.split()[2] == disk else line}\n" for line in lines)
    )


def test_a_counter_that_restarts_begins_a_new_epoch_of_its_device_alone(machine, probe_of, clock):
    root = machine()
    probe = probe_of(root)
    assert set(epochs_of(probe, clock).values()) == {5}
    set_numbers(root, "nvme1n1", "0 0 0 0 0 0 0 0 0 0 0")
    (root / "sys/class/infiniband/mlx5_0/ports/1/counters/port_rcv_data").write_text("1\n")
    (root / "sys/devices/system/node/node1/numastat").write_text(
        "numa_hit 1\nnuma_miss 0\nnuma_foreign 0\nother_node 0\n"
    )
    for _ in range(2):
        epochs = epochs_of(probe, clock)
        changed = {("disk", "nvme1n1"), ("infiniband", "mlx5_0/1"), ("numa_node", "node1")}
        assert {key for key, epoch in epochs.items() if epoch == 10} == changed
        assert {epoch for key, epoch in epochs.items() if key not in changed} == {5}


def test_a_disk_that_was_away_begins_a_new_epoch_though_its_counts_grew(machine, probe_of, clock):
    root = machine()
    probe = probe_of(root)
    key = ("disk", "nvme1n1")
    epochs = [epochs_of(probe, clock).get(key)]
    for there in (False, True, True):
        if there:
            shutil.copytree(root / "sys/block/nvme0n1", root / "sys/block/nvme1n1", dirs_exist_ok=True)
            set_numbers(root, "nvme1n1", "9 9 9999 9 9 9 9999 9 9 9 9")
        else:
            shutil.rmtree(root / "sys/block/nvme1n1")
        epochs.append(epochs_of(probe, clock).get(key))
    assert epochs == [5, None, 15, 15]


def test_a_time_that_wraps_at_32_bits_is_no_restart(machine, probe_of, clock):
    root = machine()
    probe = probe_of(root)
    key = ("disk", "nvme1n1")
    epochs = []
    for numbers in ("1 0 8 1 2 0 16 2 0 3 4294967295", "2 0 16 2 3 0 24 3 0 4 100"):
        set_numbers(root, "nvme1n1", numbers)
        epochs.append(epochs_of(probe, clock)[key])
    assert epochs == [5, 5]


NUMBERS = st.lists(st.integers(0, 2**40), min_size=11, max_size=11)
RISING = ("reads_count", "read_bytes", "writes_count", "written_bytes")


@given(st.lists(st.none() | NUMBERS, min_size=2, max_size=8))
@settings(deadline=None, max_examples=100)
def test_whatever_a_disk_counts_and_however_often_it_leaves_nothing_goes_back_within_an_epoch(history):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "sys/block/sda").mkdir(parents=True)
        (root / "proc").mkdir()
        probe = DeviceProbe(interval_s=5.0, root=root)
        rows = []
        for turn, numbers in enumerate(history):
            words = "" if numbers is None else f"8 0 sda {' '.join(map(str, numbers))}\n"
            (root / "proc/diskstats").write_text(words)
            rows.append(rows_of(probe.read(Now(5.0 * turn, 5.0 * turn, 5_000_000 * turn))).get(("disk", "sda")))
    assert [row and row["reads_count"] for row in rows] == [numbers and numbers[0] for numbers in history]
    for before, after in pairwise(rows):
        if before and after and before["counter_epoch"] == after["counter_epoch"]:
            assert all(before[column] <= after[column] for column in RISING)
    seen = [row["counter_epoch"] for row in rows if row]
    assert seen == sorted(seen)


# --- this machine


@pytest.fixture
def this_machine():
    return rows_of(DeviceProbe(interval_s=1.0).read(SystemClock().now()))


def by_psutil():
    disks = psutil.disk_io_counters(perdisk=True, nowrap=False)
    cards = psutil.net_io_counters(pernic=True, nowrap=False)
    return {
        **{
            ("disk", name): {
                "reads_count": io.read_count,
                "read_bytes": io.read_bytes,
                "read_seconds": io.read_time / 1000,
                "writes_count": io.write_count,
                "written_bytes": io.write_bytes,
                "write_seconds": io.write_time / 1000,
                "busy_seconds": io.busy_time / 1000,
            }
            for name, io in disks.items()
        },
        **{
            ("network", name): {
                "received_bytes": io.bytes_recv,
                "sent_bytes": io.bytes_sent,
                "received_packets_count": io.packets_recv,
                "sent_packets_count": io.packets_sent,
                "receive_errors_count": io.errin,
                "send_errors_count": io.errout,
                "receive_drops_count": io.dropin,
                "send_drops_count": io.dropout,
            }
            for name, io in cards.items()
        },
    }


def test_this_machines_disks_and_cards_count_between_psutils_before_and_after():
    before = by_psutil()
    rows = rows_of(DeviceProbe(interval_s=1.0).read(SystemClock().now()))
    after = by_psutil()
    rows = {key: row for key, row in rows.items() if key[0] in ("disk", "network")}
    outside = {
        (key, column): (low, rows[key].get(column), after[key][column])
        for key in rows
        for column, low in before[key].items()
        if not low <= rows[key][column] <= after[key][column]
    }
    assert outside == {}
    assert {name for kind, name in rows if kind == "disk"} == set(whole_disks(Path("/")))
    assert {name for kind, name in rows if kind == "network"} == set(network_cards(Path("/")))


def test_this_machines_cards_have_the_link_that_psutil_sees(this_machine):
    seen = psutil.net_if_stats()
    for (kind, name), row in this_machine.items():
        if kind == "network" and "link_up" in row:
            assert row["link_up"] == seen[name].isup
            assert row.get("link_speed_bytes_per_second", 0) == seen[name].speed * 125_000


def test_every_value_of_this_machine_is_declared_and_every_null_has_a_reason(this_machine):
    for row in this_machine.values():
        absence = row.get("absence", {})
        assert {*row, *absence} <= set(DEVICE_SAMPLE.by_name)
        assert None not in row.values()
        assert not set(row) & set(absence)
        assert set(absence.values()) <= set(AbsenceReason)
