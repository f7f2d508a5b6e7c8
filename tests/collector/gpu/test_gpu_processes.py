"""The processes on a GPU, through the real nvidia-ml-py on the stand-in driver and a /proc of files."""

import pytest

MACHINE = "gpu 0 uuid=GPU-a\ngpu 1 uuid=GPU-b\n"
BUSY = MACHINE + (
    "process gpu=0 pid=4242 memory=1073741824 type=compute sm=40 mem=10 enc=1 dec=2 t_us=1000\n"
    "process gpu=0 pid=4242 memory=1073741824 type=graphics\n"
    "process gpu=0 pid=77 memory=none type=graphics\n"
    "process gpu=1 pid=4242 memory=5 type=mps gi=3 ci=1\n"
)


@pytest.fixture
def proc(tmp_path):
    folder = tmp_path / "proc/4242"
    folder.mkdir(parents=True)
    (folder.parent / "stat").write_text("cpu 1 2 3\nbtime 1795000000\n")
    (folder.parent / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    fields = " ".join(str(number) for number in range(4, 53))
    (folder / "stat").write_text(f"4242 (vllm) S {fields}\n")
    (folder / "comm").write_text("vllm\n")
    (folder / "cmdline").write_bytes(b"vllm\0serve\0--api-key\0sk-123456789012345\0")
    (folder / "cgroup").write_text(f"0::/system.slice/docker-{'ab' * 32}.scope\n")
    return str(folder.parent)


@pytest.fixture
def machine(gpu_machine, fake_nvml, proc):
    def start(scenario=BUSY, **options):
        fake_nvml.write(scenario)
        return gpu_machine(fake_nvml, proc=proc, **options)

    return start


def by_gpu_and_pid(seen):
    return {(row["gpu_uuid"], row["pid"]): row for row in seen.of("process_sample")}


def test_each_process_is_a_row_with_what_it_holds_and_uses_and_who_it_is(machine):
    row = by_gpu_and_pid(machine().read())["GPU-a", 4242]
    assert {
        name: row[name] for name in ("gpu_index", "process_type", "memory_used_bytes", "process_visible", "name")
    } == {
        "gpu_index": 0,
        "process_type": "compute",
        "memory_used_bytes": 1_073_741_824,
        "process_visible": True,
        "name": "vllm",
    }
    assert row["command"] == "vllm serve --api-key ***"
    assert row["container_id"] == "ab" * 32
    assert [row[f"{what}_utilization_percent"] for what in ("sm", "memory", "encoder", "decoder")] == [40, 10, 1, 2]
    assert row["interval_seconds"] == 5.0
    assert "absence" not in row


def test_a_process_that_cannot_be_seen_is_kept_and_marked(machine):
    row = by_gpu_and_pid(machine().read())["GPU-a", 77]
    assert row["process_visible"] is False
    assert (row["process_type"], "name" in row) == ("graphics", False)
    assert row["absence"]["memory_used_bytes"] == "no_data"


def test_a_process_on_two_gpus_is_two_rows_and_on_a_mig_device_says_which(machine):
    rows = by_gpu_and_pid(machine().read())
    assert list(rows) == [("GPU-a", 4242), ("GPU-a", 77), ("GPU-b", 4242)]
    on_mig = rows["GPU-b", 4242]
    assert (on_mig["process_type"], on_mig["mig_gpu_instance_id"], on_mig["mig_compute_instance_id"]) == ("mps", 3, 1)
    assert "mig_gpu_instance_id" not in rows["GPU-a", 4242]


def test_processes_are_read_every_five_seconds(machine):
    probe = machine()
    assert [len(probe.read().of("process_sample")) for _ in range(11)] == [3, 0, 0, 0, 0, 3, 0, 0, 0, 0, 3]


def process_counts(seen):
    return {
        row["gpu_uuid"]: row.get("process_count", row.get("absence", {}).get("process_count"))
        for row in seen.whole_rows
    }


def test_each_gpu_says_how_many_processes_are_on_it_as_often_as_they_are_read(machine):
    probe = machine()
    assert process_counts(probe.read()) == {"GPU-a": 2, "GPU-b": 1}  # one of them computes and draws
    assert process_counts(probe.read()) == {"GPU-a": None, "GPU-b": None}
    probe.becomes(MACHINE)
    assert process_counts(probe.read(after_s=5.0)) == {"GPU-a": 0, "GPU-b": 0}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("fail nvmlDeviceGetComputeRunningProcesses 4 gpu=0", "no_permission"),
        ("fail nvmlDeviceGetComputeRunningProcesses 3 gpu=0", "not_supported"),
        ("fail nvmlDeviceGetGraphicsRunningProcesses 999 gpu=0", "no_data"),
        ("fail nvmlDeviceGetMPSComputeRunningProcesses 3 gpu=0", 2),  # a list that this GPU does not have
    ],
)
def test_a_list_of_processes_that_is_not_told_makes_their_number_null_with_the_reason(machine, line, told):
    assert process_counts(machine(f"{BUSY}{line}\n").read()) == {"GPU-a": told, "GPU-b": 1}


def test_an_idle_process_has_no_utilization_and_never_0(machine):
    probe = machine()
    probe.read()
    row = by_gpu_and_pid(probe.read(after_s=5.0))["GPU-a", 4242]
    assert "sm_utilization_percent" not in row
    assert row["absence"]["sm_utilization_percent"] == "no_data"


def test_a_share_beyond_100_percent_is_garbage_and_is_left_out(machine):
    row = by_gpu_and_pid(
        machine(MACHINE + "process gpu=0 pid=4242 memory=5 type=compute sm=4000000 mem=7 t_us=9\n").read()
    )["GPU-a", 4242]
    assert (row.get("sm_utilization_percent"), row["memory_utilization_percent"]) == (None, 7)
    assert row["absence"]["sm_utilization_percent"] == "no_data"


def test_a_driver_that_does_not_tell_utilization_still_lists_the_processes(machine):
    row = by_gpu_and_pid(machine(BUSY + "fail nvmlDeviceGetProcessUtilization 3\n").read())["GPU-a", 4242]
    assert row["memory_used_bytes"] == 1_073_741_824
    assert row["absence"]["sm_utilization_percent"] == "not_supported"


def test_a_gpu_that_is_lost_has_no_processes_and_the_others_keep_theirs(machine):
    probe = machine()
    probe.read()
    probe.becomes(BUSY + "gpu 0 lost_after=0\n")
    assert list(by_gpu_and_pid(probe.read(after_s=5.0))) == [("GPU-b", 4242)]
