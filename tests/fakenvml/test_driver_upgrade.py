"""A driver that is replaced under a process: nothing answers until its library is unmapped and loaded anew."""

import pytest

MISMATCH = "NVMLError_LibRmVersionMismatch"
# What a program must do beyond nvmlShutdown, which leaves the library mapped.
UNMAP = """
import _ctypes
def unmap():
    _ctypes.dlclose(pynvml.nvmlLib._handle)
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()
def is_mapped():
    return any("libnvidia-ml" in line for line in open("/proc/self/maps"))
"""
OLD = "driver 570.12.34\ngpu 0 uuid=GPU-a\n"
NEW = "driver 580.95.05\nmismatch 1\ngpu 0 uuid=GPU-a temp=41\n"


@pytest.fixture
def nvml(fake_nvml, started):
    fake_nvml.write(OLD)
    client = started(fake_nvml.environment)
    client.run(
        f"nvmlInit(); device, events = gpu(0), nvmlEventSetCreate(); version = nvmlSystemGetDriverVersion{UNMAP}"
    )
    return client


CALLS = [
    "nvmlDeviceGetCount()",
    "version()",
    "gpu(0)",
    "nvmlDeviceGetTemperature(device, 0)",
    "nvmlDeviceGetFieldValues(device, [82])",
    "nvmlDeviceGetSamples(device, 0, 0)",
    "nvmlGpmQueryDeviceSupport(device)",
    "nvmlEventSetWait(events, 0)",
    "nvmlInit()",
    "nvmlShutdown()",
]


def test_a_replaced_driver_answers_nothing_whatever_is_tried_but_unmapping(fake_nvml, nvml):
    assert nvml.ask("[version(), nvmlDeviceGetTemperature(device, 0)]") == ["570.12.34", 28]
    fake_nvml.write(NEW)
    assert {question: nvml.ask(question) for question in CALLS} == dict.fromkeys(CALLS, MISMATCH)
    forgotten = "pynvml.nvmlLib = None; pynvml._nvmlGetFunctionPointer_cache.clear()"  # the old image is still mapped
    assert nvml.ask("nvmlInit()", run=forgotten) == MISMATCH


def test_a_library_that_is_unmapped_and_loaded_anew_is_the_new_drivers(fake_nvml, nvml):
    fake_nvml.write(NEW)
    assert nvml.ask("version()") == MISMATCH
    assert nvml.ask("is_mapped()", run="unmap()") is False
    assert nvml.ask("version()", run="nvmlInit()") == "580.95.05"
    assert nvml.ask("nvmlDeviceGetTemperature(gpu(0), 0)") == 41
    fake_nvml.write(NEW.replace("580.95.05", "590.10"))
    assert nvml.ask("version()") == MISMATCH  # the next upgrade, the same again
    assert nvml.ask("version()", run="unmap(); nvmlInit()") == "590.10"


def test_an_image_that_is_the_drivers_again_answers_again(fake_nvml, nvml):
    fake_nvml.write(NEW)
    assert nvml.ask("nvmlDeviceGetCount()") == MISMATCH
    fake_nvml.write(OLD + "mismatch 1\n")
    assert nvml.ask("[version(), nvmlDeviceGetTemperature(device, 0)]") == ["570.12.34", 28]


def test_a_changed_driver_without_a_mismatch_is_only_another_answer(fake_nvml, nvml):
    fake_nvml.write(NEW.replace("mismatch 1", "mismatch 0"))
    assert nvml.ask("[version(), nvmlDeviceGetTemperature(device, 0)]") == ["580.95.05", 41]


def test_a_wait_ends_when_the_driver_is_replaced(fake_nvml, nvml):
    nvml.run(
        "seen = []\n"
        "wait = lambda: seen.append(call('nvmlEventSetWait_v2', events, ctypes.byref(c_nvmlEventData_t()), 60000))\n"
        "thread = threading.Thread(target=wait); thread.start()"
    )
    fake_nvml.write(NEW)
    assert nvml.ask("seen", run="thread.join()") == [18]
