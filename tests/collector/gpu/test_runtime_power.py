"""GPUs that sleep are not woken, through the stand-in driver and a /sys of files."""

import pytest

from collector.gpu.runtime_power import RuntimePower

BUS = "00000000:01:00.0"
LAPTOP = f'gpu 0 uuid=GPU-a name="NVIDIA RTX 4090 Laptop" util=0 pci={BUS}\n'


@pytest.fixture
def sys(tmp_path):
    return tmp_path / "sys"


@pytest.fixture
def gpu(sys):
    """Say how the GPU at that address is powered; other devices are there too."""
    for address, vendor, kind in (("0000:00:1f.3", "0x8086", "0x040300"), ("0000:01:00.1", "0x10de", "0x040300")):
        folder = sys / "bus/pci/devices" / address
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")

    def power(*, status="active", control="auto", address="0000:01:00.0"):
        folder = sys / "bus/pci/devices" / address
        (folder / "power").mkdir(parents=True, exist_ok=True)
        (folder / "vendor").write_text("0x10de\n")
        (folder / "class").write_text("0x030000\n")
        (folder / "power/control").write_text(f"{control}\n")
        (folder / "power/runtime_status").write_text(f"{status}\n")

    return power


@pytest.fixture
def machine(gpu_machine, fake_nvml, sys):
    def start(scenario=LAPTOP):
        fake_nvml.write(scenario)
        return gpu_machine(fake_nvml, sys=str(sys))

    return start


def states(seen):
    return [(row.get("up"), row.get("absence", {}).get("*"), row.get("utilization_percent")) for row in seen.rows]


ASLEEP = [(None, "suspended", None)]
AWAKE = [(True, None, 0)]


def test_the_kernel_tells_which_gpus_there_are_and_which_sleep(gpu, sys):
    power = RuntimePower(sys)
    assert power.gpus() == []
    gpu(status="suspended")
    gpu(status="active", control="on", address="0000:41:00.0")
    assert sorted(power.gpus()) == ["0000:01:00.0", "0000:41:00.0"]
    assert [power.is_asleep(bus) for bus in (BUS, "00000000:41:00.0", "00000000:99:00.0", None)] == [
        True,
        False,
        False,
        False,
    ]
    assert [power.may_sleep(bus) for bus in (BUS, "00000000:41:00.0", None)] == [True, False, False]


def test_a_machine_without_sysfs_has_no_gpu_that_sleeps(tmp_path):
    power = RuntimePower(tmp_path / "nothing")
    assert (power.gpus(), power.is_asleep(BUS), power.may_sleep(BUS)) == ([], False, False)


def test_a_gpu_that_sleeps_when_recording_begins_is_not_woken(machine, gpu):
    gpu(status="suspended")
    probe = machine(LAPTOP + "fail nvmlInit 999\n")  # whoever asks fails, and would say so
    assert [probe.read().events for _ in range(3)] == [[], [], []]
    assert probe.read().status == "the GPUs sleep and are not woken"
    gpu(status="active")
    probe.becomes(LAPTOP)
    seen = probe.read()
    assert states(seen) == AWAKE
    assert seen.status == "1 GPU"


def test_an_idle_gpu_that_may_sleep_is_left_alone_until_it_does_and_wakes(machine, gpu):
    gpu()
    probe = machine()
    assert [states(probe.read()) for _ in range(10)] == [AWAKE] * 10
    gone = LAPTOP + "fail * 999\n"
    probe.becomes(gone)  # from here on whoever asks would see it in the row
    assert [states(probe.read()) for _ in range(15)] == [ASLEEP] * 15
    gpu(status="suspended")
    assert [states(probe.read()) for _ in range(60)] == [ASLEEP] * 60
    probe.becomes(LAPTOP)
    gpu()
    woken = probe.read()
    assert states(woken) == AWAKE
    assert woken.told == []


def test_a_gpu_that_does_not_fall_asleep_is_looked_at_now_and_then(machine, gpu):
    gpu()
    probe = machine()
    row_states = [states(probe.read()) for _ in range(100)]
    assert row_states == ([AWAKE] * 10 + [ASLEEP] * 30) * 2 + [AWAKE] * 10 + [ASLEEP] * 10


def test_a_gpu_that_computes_or_holds_a_process_is_recorded_all_the_time(machine, gpu):
    gpu()
    busy = machine(LAPTOP + "gpu 0 util=3\n")
    assert [states(busy.read()) for _ in range(60)] == [[(True, None, 3)]] * 60
    held = machine(LAPTOP + "process gpu=0 pid=5 memory=100 type=graphics\n")
    assert [states(held.read()) for _ in range(60)] == [AWAKE] * 60


def test_a_gpu_that_may_not_sleep_is_recorded_all_the_time(machine, gpu):
    gpu(control="on")
    probe = machine()
    assert [states(probe.read()) for _ in range(60)] == [AWAKE] * 60
