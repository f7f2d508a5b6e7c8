"""What the driver tells by itself, through the real nvidia-ml-py on the stand-in, and from a kernel log of a file."""

import time

import pytest

MACHINE = "gpu 0 uuid=GPU-a pci=00000000:1B:00.0\ngpu 1 uuid=GPU-b pci=00000000:1C:00.0\n"
FALLEN = (
    "4,100,5000000,-;NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
)


@pytest.fixture
def kernel_log(tmp_path):
    path = tmp_path / "kmsg"
    path.write_text("")
    return path


@pytest.fixture
def machine(gpu_machine, fake_nvml, kernel_log):
    def start(scenario=MACHINE, **options):
        fake_nvml.write(scenario)
        probe = gpu_machine(fake_nvml, kernel_log=str(kernel_log), **options)
        probe.read()
        return probe

    return start


def told(probe, count=1):
    """The next events that the driver tells; a thread brings them, so they are asked for until they are there."""
    events = []
    deadline = time.monotonic() + 30
    while len(events) < count:
        assert time.monotonic() < deadline, events
        events += [values for values in probe.read(after_s=0.01).of("gpu_event") if values["source"] != "sampler"]
    return events


def test_an_xid_is_an_event_of_its_gpu_with_the_code_and_what_it_means(machine):
    probe = machine()
    probe.becomes(MACHINE + "xid gpu=1 code=31\n")
    assert told(probe) == [
        {
            "source": "nvml",
            "gpu_uuid": "GPU-b",
            "gpu_index": 1,
            "pci_bus_id": "00000000:1C:00.0",
            "event": "xid",
            "xid": 31,
            "severity": "warning",
            "message": "Xid 31: memory page fault",
        }
    ]


def test_the_same_xid_twice_is_two_events(machine):
    probe = machine()
    probe.becomes(MACHINE + "xid gpu=0 code=13\nxid gpu=0 code=13\n")
    assert [event["xid"] for event in told(probe, count=2)] == [13, 13]


def test_an_xid_that_only_the_kernel_log_has_is_an_event_too(machine, kernel_log):
    probe = machine()
    kernel_log.write_text(FALLEN)
    (event,) = told(probe)
    assert (event["source"], event["gpu_uuid"], event["xid"], event["severity"]) == ("kmsg", "GPU-a", 79, "critical")
    assert event["message"] == "GPU has fallen off the bus."


def test_an_xid_that_both_tell_is_one_event(machine, kernel_log):
    probe = machine()
    probe.becomes(MACHINE + "xid gpu=0 code=79\n")
    (event,) = told(probe)
    assert event["source"] == "nvml"
    kernel_log.write_text(FALLEN)
    probe.becomes(MACHINE + "xid gpu=0 code=79\nxid gpu=1 code=45\n")
    assert [(one["gpu_uuid"], one["xid"]) for one in told(probe)] == [("GPU-b", 45)]


def test_an_xid_of_a_card_that_is_not_known_keeps_its_address(machine, kernel_log):
    probe = machine()
    kernel_log.write_text(FALLEN.replace("0000:1b", "0000:ff"))
    (event,) = told(probe)
    assert (event["pci_bus_id"], event.get("gpu_uuid")) == ("00000000:FF:00.0", None)


def test_other_events_say_what_happened(machine):
    able = MACHINE + "events gpu=0 supported=0xFFFF\nevents gpu=1 supported=0xFFFF\n"
    probe = machine(able)
    probe.becomes(
        able + "event gpu=0 type=0x2 data=0\nevent gpu=0 type=0x8000 data=2\nevent gpu=1 type=0x4000 data=0\n"
    )
    assert [(one["event"], one["gpu_uuid"], one["severity"]) for one in told(probe, count=3)] == [
        ("ecc", "GPU-a", "critical"),
        ("recovery_action", "GPU-a", "warning"),
        ("unavailable", "GPU-b", "critical"),
    ]


def test_a_type_that_a_gpu_does_not_support_costs_none_of_the_others(machine):
    only_xid = MACHINE + "events gpu=0 supported=0x8\nevents gpu=1 supported=0x8\n"
    probe = machine(only_xid)
    probe.becomes(only_xid + "xid gpu=0 code=48\n")
    assert [event["xid"] for event in told(probe)] == [48]


def test_events_are_waited_for_again_after_the_driver_was_away_and_when_a_gpu_is_added(machine):
    probe = machine()
    probe.becomes("fail * 9\n" + MACHINE)
    probe.read()
    grown = MACHINE + "gpu 2 uuid=GPU-c pci=00000000:1D:00.0\n"
    probe.becomes(grown)
    probe.read(after_s=61.0)
    probe.becomes(grown + "xid gpu=2 code=94\n")
    assert [(event["gpu_uuid"], event["xid"]) for event in told(probe)] == [("GPU-c", 94)]


def test_a_driver_without_events_is_recorded_all_the_same(machine):
    probe = machine(MACHINE + "fail nvmlEventSetCreate 3\n")
    assert [row["up"] for row in probe.read().rows] == [True, True]
