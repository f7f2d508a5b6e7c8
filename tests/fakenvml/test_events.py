"""Events of the stand-in: who hears of which, and what ends a wait."""

import time

import pytest

WAIT = "[(event := nvmlEventSetWait(events, {})).eventType, event.eventData, nvmlDeviceGetUUID(event.device)]"


def test_each_new_xid_line_is_one_event_for_who_is_registered(fake_nvml, nvml):
    machine = "gpu 0 uuid=GPU-a\ngpu 1 uuid=GPU-b\n"
    fake_nvml.write(machine + "xid gpu=0 code=13")
    nvml.run("events = nvmlEventSetCreate()")
    nvml.run("nvmlDeviceRegisterEvents(gpu(0), nvmlEventTypeXidCriticalError, events)")
    assert nvml.ask(WAIT.format(0)) == "NVMLError_Timeout"  # what was there before is lost
    fake_nvml.write(machine + "xid gpu=0 code=13\nxid gpu=0 code=79\nxid gpu=1 code=48\nxid gpu=0 code=79")
    seen = [nvml.ask(WAIT.format(0)) for _ in range(3)]
    assert seen == [[8, 79, "GPU-a"], [8, 79, "GPU-a"], "NVMLError_Timeout"]
    nvml.run("nvmlDeviceRegisterEvents(gpu(1), nvmlEventTypeXidCriticalError, events)")
    fake_nvml.write(machine + "xid gpu=1 code=95")
    assert [nvml.ask(WAIT.format(0)) for _ in range(2)] == [[8, 95, "GPU-b"], "NVMLError_Timeout"]


def test_an_event_wakes_the_one_who_waits_and_lets_others_call_meanwhile(fake_nvml, nvml):
    nvml.run(
        "events, seen = nvmlEventSetCreate(), []\n"
        "nvmlDeviceRegisterEvents(gpu(0), nvmlEventTypeXidCriticalError, events)\n"
        "thread = threading.Thread(target=lambda: seen.append(nvmlEventSetWait(events, 60000).eventData))\n"
        "thread.start()"
    )
    assert nvml.ask("[nvmlDeviceGetTemperature(gpu(0), 0), seen]") == [28, []]
    fake_nvml.write("gpu 0\ngpu 1\nxid gpu=0 code=79")
    assert nvml.ask("seen", run="thread.join()") == [79]


def test_waiting_for_no_event_times_out_after_its_time(nvml):
    nvml.run("events = nvmlEventSetCreate()")
    begin = time.monotonic()
    assert nvml.ask("nvmlEventSetWait(events, 50)") == "NVMLError_Timeout"
    assert time.monotonic() - begin >= 0.05


def test_event_types_register_all_or_none_and_a_freed_set_is_invalid(fake_nvml, nvml):
    fake_nvml.write("gpu 0 event_types=0xB")
    nvml.run("events = nvmlEventSetCreate()")
    assert nvml.ask("nvmlDeviceRegisterEvents(gpu(0), 0x8 | 0x4, events)") == "NVMLError_NotSupported"
    fake_nvml.write("gpu 0 event_types=0xB\nxid gpu=0 code=79")
    assert nvml.ask("nvmlEventSetWait(events, 0)") == "NVMLError_Timeout"
    nvml.run("nvmlEventSetFree(events)")
    assert nvml.ask("nvmlEventSetFree(events)") == "NVMLError_InvalidArgument"


REGISTER = "nvmlDeviceRegisterEvents(gpu({}), {:#x}, events)"
TYPES = {0x1: 5, 0x2: 6, 0x4: 2, 0x200: 0, 0x400: 0, 0x800: 0, 0x1000: 0, 0x2000: 0, 0x4000: 0, 0x8000: 2}


def test_an_event_of_every_type_reaches_who_registered_that_type(fake_nvml, nvml):
    machine = "gpu 0\nevents gpu=0 supported=0xFE0F\n"
    fake_nvml.write(machine)
    assert nvml.ask("nvmlDeviceGetSupportedEventTypes(gpu(0))") == 0xFE0F
    nvml.run(f"events = nvmlEventSetCreate(); {REGISTER.format(0, 0xFE0F & ~0x1000)}")
    fake_nvml.write(machine + "".join(f"event gpu=0 type={kind:#x} data={data}\n" for kind, data in TYPES.items()))
    registered = [kind for kind in TYPES if kind != 0x1000]
    seen = [nvml.ask(WAIT.format(0))[:2] for _ in registered]
    assert seen == [[kind, TYPES[kind]] for kind in registered]
    assert nvml.ask(WAIT.format(0)) == "NVMLError_Timeout"


def test_events_and_xids_are_one_sequence_in_the_order_of_their_lines(fake_nvml, nvml):
    machine = "gpu 0 uuid=GPU-a\nevents gpu=0 supported=0x800C\nxid gpu=0 code=13\nevent gpu=0 type=4 data=2\n"
    fake_nvml.write(machine)
    nvml.run(f"events = nvmlEventSetCreate(); {REGISTER.format(0, 0x800C)}")
    fake_nvml.write(
        f"{machine}event gpu=0 type=0x8000 data=1\nxid gpu=0 code=79 gi=3 ci=1\nevent gpu=0 type=4 data=0\n"
    )
    nvml.run("seen = [nvmlEventSetWait(events, 0) for _ in range(3)]")
    fields = "[event.eventType, event.eventData, event.gpuInstanceId, event.computeInstanceId]"
    none = 0xFFFFFFFF
    assert nvml.ask(f"[{fields} for event in seen]") == [[0x8000, 1, none, none], [8, 79, 3, 1], [4, 0, none, none]]
    assert nvml.ask(WAIT.format(0)) == "NVMLError_Timeout"


def test_one_unsupported_type_refuses_the_whole_mask_and_the_rest_can_be_registered(fake_nvml, nvml):
    machine = "gpu 0\nevents gpu=0 supported=0xF\n"
    fake_nvml.write(machine)
    nvml.run("events = nvmlEventSetCreate()")
    assert nvml.ask(REGISTER.format(0, 0x8008)) == "NVMLError_NotSupported"
    fake_nvml.write(f"{machine}xid gpu=0 code=31\n")
    assert nvml.ask(WAIT.format(0)) == "NVMLError_Timeout"
    nvml.run(REGISTER.format(0, 0x8))
    fake_nvml.write(f"{machine}xid gpu=0 code=31\nxid gpu=0 code=79\n")
    assert nvml.ask(WAIT.format(0))[:2] == [8, 79]


def test_a_wait_ends_when_a_registered_gpu_is_lost_after_what_came_before(fake_nvml, nvml):
    machine = "gpu 0 uuid=GPU-a\ngpu 1 uuid=GPU-b\n"
    fake_nvml.write(machine)
    nvml.run(f"events, device = nvmlEventSetCreate(), gpu(1); {REGISTER.format(1, 0x8)}")
    fake_nvml.write("gpu 0 uuid=GPU-b\nxid gpu=0 code=79\n")
    assert nvml.ask(WAIT.format(0)) == [8, 79, "GPU-b"]
    nvml.run("seen = []")
    nvml.run(
        "def wait():\n"
        "    try: nvmlEventSetWait(events, 60000)\n"
        "    except NVMLError as error: seen.append(error.value)\n"
        "thread = threading.Thread(target=wait); thread.start()"
    )
    fake_nvml.write("gpu 0 uuid=GPU-a\n")
    assert nvml.ask("seen", run="thread.join()") == [15]
    assert nvml.ask(WAIT.format(0)) == "NVMLError_GpuIsLost"  # as long as it is away
    fake_nvml.write(machine)
    assert nvml.ask(WAIT.format(0)) == "NVMLError_Timeout"


def test_a_wait_ends_by_a_failure_that_the_scenario_brings_meanwhile(fake_nvml, nvml):
    nvml.run(
        "events, seen = nvmlEventSetCreate(), []\n"
        "wait = lambda: seen.append(call('nvmlEventSetWait_v2', events, ctypes.byref(c_nvmlEventData_t()), 60000))\n"
        "thread = threading.Thread(target=wait); thread.start()"
    )
    fake_nvml.write("gpu 0\nfail nvmlEventSetWait 999")
    assert nvml.ask("seen", run="thread.join()") == [999]


def test_a_mig_device_registers_no_events(fake_nvml, nvml):
    fake_nvml.write("gpu 0\nmig gpu=0 gi=1 ci=0 uuid=MIG-1 profile=1g.18gb memory_total=5")
    register = "nvmlDeviceRegisterEvents(nvmlDeviceGetHandleByUUID('MIG-1'), 8, nvmlEventSetCreate())"
    assert nvml.ask(register) == "NVMLError_NotSupported"


WRONG_LINES = {
    "event gpu=0 data=5": "of which type: event",
    "event gpu=0 type=xid": "not a number: xid",
    "event gpu=0 type=0": "no such type of event: 0",
    "event gpu=0 type=8 code=79": "no such setting: code",
    "events gpu=0": "of which supported: events",
}


@pytest.mark.parametrize(("line", "complaint"), WRONG_LINES.items(), ids=WRONG_LINES)
def test_a_wrong_line_about_events_is_told(fake_nvml, started, line, complaint):
    fake_nvml.write(f"gpu 0\n{line}\n")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:2: {complaint}\n"
