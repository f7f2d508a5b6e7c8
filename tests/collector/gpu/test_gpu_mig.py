"""MIG devices: a row each, the processes on them, and a layout that changes."""

import pytest

GPU = 'gpu 0 uuid=GPU-a name="NVIDIA H100" util=50 pci=00000000:1B:00.0\n'
ONE = "mig gpu=0 gi=1 ci=0 uuid=MIG-1 profile=1g.10gb memory_total=10737418240 memory_used=1000 sms=16\n"
TWO = "mig gpu=0 gi=2 ci=0 uuid=MIG-2 profile=2g.20gb memory_total=21474836480 memory_used=2000 sms=32\n"
DIVIDED = GPU + ONE + TWO


@pytest.fixture
def machine(gpu_machine, fake_nvml):
    def start(scenario=DIVIDED, **options):
        fake_nvml.write(scenario)
        return gpu_machine(fake_nvml, **options)

    return start


def by_uuid(events):
    return {values["gpu_uuid"]: values for values in events}


def test_each_mig_device_has_a_row_with_its_own_memory(machine):
    rows = by_uuid(machine().read().whole_rows)
    assert list(rows) == ["GPU-a", "MIG-1", "MIG-2"]
    assert {
        uuid: (
            row.get("mig_gpu_instance_id"),
            row.get("mig_compute_instance_id"),
            row["gpu_index"],
            row["memory_used_bytes"],
            row["memory_total_bytes"],
        )
        for uuid, row in rows.items()
        if uuid != "GPU-a"
    } == {"MIG-1": (1, 0, 0, 1000, 10737418240), "MIG-2": (2, 0, 0, 2000, 21474836480)}
    assert rows["GPU-a"]["absence"]["utilization_percent"] == "not_supported"  # NVML has none for a divided GPU
    assert "power_watts" not in rows["MIG-1"]
    assert "power_watts" not in rows["MIG-1"].get("absence", {})  # it is the whole GPU's: not asked for here


def test_gpm_is_read_for_each_gpu_instance(machine):
    probe = machine(DIVIDED + "gpm gpu=0 2=10\ngpm gpu=0 gi=1 2=80 3=40\ngpm gpu=0 gi=2 2=20 3=5\n")
    probe.read()
    rows = by_uuid(probe.read().whole_rows)
    active = {uuid: (row["sm_active_ratio"], row.get("sm_occupancy_ratio")) for uuid, row in rows.items()}
    assert active == {"GPU-a": (0.1, None), "MIG-1": (0.8, 0.4), "MIG-2": (0.2, 0.05)}


def test_processes_are_on_their_mig_device(machine):
    processes = (
        "process gpu=0 pid=11 gi=1 ci=0 memory=500 type=compute\n"
        "process gpu=0 pid=12 gi=2 ci=0 memory=700 type=compute\n"
    )
    told = machine(DIVIDED + processes).read().of("process_sample")
    assert [
        (one["pid"], one["gpu_uuid"], one["mig_gpu_instance_id"], one["memory_used_bytes"], one["absence"])
        for one in told
    ] == [
        (11, "MIG-1", 1, 500, dict.fromkeys(UTILIZATIONS, "not_supported")),
        (12, "MIG-2", 2, 700, dict.fromkeys(UTILIZATIONS, "not_supported")),
    ]


UTILIZATIONS = (
    "sm_utilization_percent",
    "memory_utilization_percent",
    "encoder_utilization_percent",
    "decoder_utilization_percent",
)


def test_the_inventory_says_how_the_gpu_is_divided(machine):
    described = by_uuid(machine().read().of("inventory"))
    assert described["GPU-a"]["mig_enabled"]
    assert described["GPU-a"]["attributes"]["mig_devices"] == ["MIG-1", "MIG-2"]
    part = described["MIG-2"]
    assert (part["subject"], part["name"], part["memory_total_bytes"]) == (
        "mig",
        "NVIDIA H100 MIG 2g.20gb",
        21474836480,
    )
    assert part["attributes"]["parent_gpu_uuid"] == "GPU-a"
    assert part["attributes"]["multiprocessor_count"] == 32


def test_another_layout_is_told_of_and_recorded(machine):
    probe = machine()
    probe.read()
    three = "mig gpu=0 gi=5 ci=0 uuid=MIG-3 profile=3g.40gb memory_total=5 memory_used=3 sms=48\n"
    probe.becomes(GPU + ONE + three)
    seen = probe.read(after_s=10)
    (event,) = seen.of("gpu_event")
    assert event == {
        "event": "mig_changed",
        "gpu_uuid": "GPU-a",
        "gpu_index": 0,
        "pci_bus_id": "00000000:1B:00.0",
        "source": "sampler",
        "severity": "info",
        "message": "GPU 0 mig_changed: MIG-2 is gone, MIG-3 is new",
    }
    assert list(by_uuid(seen.whole_rows)) == ["GPU-a", "MIG-1", "MIG-3"]
    assert by_uuid(seen.of("inventory"))["MIG-3"]["attributes"]["multiprocessor_count"] == 48


def test_mig_that_is_turned_off_leaves_one_whole_gpu_with_its_processes(machine):
    process = "process gpu=0 pid=11 gi=1 ci=0 memory=500 type=compute\n"
    probe = machine(DIVIDED + process)
    probe.read()
    probe.becomes(GPU + "process gpu=0 pid=13 memory=900 type=compute\n")
    seen = probe.read(after_s=10)
    assert [values["event"] for values in seen.of("gpu_event")] == ["mig_changed"]
    assert list(by_uuid(seen.whole_rows)) == ["GPU-a"]
    assert seen.row["utilization_percent"] == 50
    assert [(one["pid"], one["gpu_uuid"]) for one in seen.of("process_sample")] == [(13, "GPU-a")]


def test_a_lost_gpu_takes_its_mig_devices_with_it_and_brings_them_back(machine):
    probe = machine()
    probe.read()
    probe.becomes(DIVIDED + "gpu 0 lost_after=0\n")
    lost = probe.read()
    assert [row["up"] for row in lost.whole_rows] == [False] * 3
    assert [values["event"] for values in lost.of("gpu_event")] == ["lost"] * 3
    probe.becomes(DIVIDED)
    back = [probe.read() for _ in range(11)]
    assert [row["up"] for row in back[-1].whole_rows] == [True] * 3
    assert [values["event"] for seen in back for values in seen.of("gpu_event")] == ["recovered"] * 3
