"""The buffers of samples and of process utilization that the stand-in's driver keeps, drained through nvidia-ml-py."""

import time

import pytest

NOT_FOUND, NOT_SUPPORTED = "NVMLError_NotFound", "NVMLError_NotSupported"
INVALID_ARGUMENT = "NVMLError_InvalidArgument"


def drained(nvml, kind, last_seen_us=0, index=0, member="uiVal"):
    """What nvmlDeviceGetSamples gives: the value type, then [time, value] of each."""
    return nvml.ask(
        f"[kind, *([sample.timeStamp, sample.sampleValue.{member}] for sample in samples)]",
        run=f"kind, samples = nvmlDeviceGetSamples(gpu({index}), {kind}, {last_seen_us})",
    )


def test_samples_of_each_type_come_as_their_lines_stand(fake_nvml, nvml):
    fake_nvml.write(
        """
        gpu 0
        gpu 1
        sample gpu=0 type=0 t_us=1000 value=300000
        sample gpu=0 type=0 t_us=2000 value=310000
        sample gpu=0 type=1 t_us=1500 value=87
        sample gpu=0 type=2 t_us=1500 value=12
        sample gpu=0 type=3 t_us=1500 value=1
        sample gpu=0 type=4 t_us=1500 value=2
        sample gpu=0 type=5 t_us=1500 value=1980
        sample gpu=0 type=6 t_us=1500 value=3201
        sample gpu=1 type=0 t_us=7 value=8
        """
    )
    assert [drained(nvml, kind) for kind in range(8)] == [
        [1, [1000, 300000], [2000, 310000]],
        [1, [1500, 87]],
        [1, [1500, 12]],
        [1, [1500, 1]],
        [1, [1500, 2]],
        [1, [1500, 1980]],
        [1, [1500, 3201]],
        NOT_SUPPORTED,  # no line speaks of module power
    ]
    assert drained(nvml, 0, index=1) == [1, [7, 8]]


def test_only_newer_samples_come_and_none_is_not_found_until_one_joins(fake_nvml, nvml):
    lines = "gpu 0\nsample gpu=0 type=0 t_us=1000 value=1\nsample gpu=0 type=0 t_us=2000 value=2\n"
    fake_nvml.write(lines)
    assert [drained(nvml, 0, last) for last in (999, 1000, 2000)] == [
        [1, [1000, 1], [2000, 2]],
        [1, [2000, 2]],
        NOT_FOUND,
    ]
    fake_nvml.write(f"{lines}sample gpu=0 type=0 t_us=3000 value=3\n")
    assert drained(nvml, 0, 2000) == [1, [3000, 3]]


def test_the_size_call_tells_the_whole_buffer_and_a_small_array_is_filled(fake_nvml, nvml):
    fake_nvml.write("gpu 0\n" + "".join(f"sample gpu=0 type=1 t_us={t} value={t}\n" for t in (1, 2, 3)))
    nvml.run("kind, count, found = c_uint(), c_uint(), (c_nvmlSample_t * 2)()")
    fetch = (
        "call('nvmlDeviceGetSamples', gpu(0), 1, ctypes.c_ulonglong({}), ctypes.byref(kind), ctypes.byref(count), {})"
    )
    assert nvml.ask(f"[{fetch.format(2, None)}, kind.value, count.value]") == [0, 1, 3]
    nvml.run("count.value = 2")
    times = "[sample.timeStamp for sample in found]"
    assert nvml.ask(f"[{fetch.format(0, 'found')}, count.value, {times}]") == [0, 2, [1, 2]]
    assert nvml.ask(f"[{fetch.format(2, 'found')}, count.value, {times}]") == [0, 1, [3, 2]]


def test_placeholders_old_and_unsorted_samples_come_along_when_the_scenario_has_them(fake_nvml, nvml):
    fake_nvml.write(
        """
        gpu 0
        sample gpu=0 type=0 t_us=3000 value=3
        sample gpu=0 type=0 t_us=0 value=0
        sample gpu=0 type=0 t_us=1000 value=1
        sample gpu=0 type=0 t_us=1500 value=15 stale=1
        sample gpu=0 type=0 t_us=2500 value=2
        """
    )
    assert drained(nvml, 0, 2000) == [1, [3000, 3], [0, 0], [1500, 15], [2500, 2]]
    assert drained(nvml, 0, 3000) == NOT_FOUND  # those alone are nothing new


def test_a_series_has_one_sample_each_period_of_a_clock_that_the_scenario_moves(fake_nvml, nvml):
    line = "samples gpu=0 type=0 period_us=20000 depth=4 values=300,310,320\n"
    fake_nvml.write(f"gpu 0\nclock_us 1000000\n{line}")
    first = [1, [940000, 320], [960000, 300], [980000, 310], [1000000, 320]]
    assert [drained(nvml, 0), drained(nvml, 0, 980000), drained(nvml, 0, 1000000)] == [
        first,
        [1, [1000000, 320]],
        NOT_FOUND,
    ]
    fake_nvml.write(f"gpu 0\nclock_us 1059999\n{line}")
    assert drained(nvml, 0, 1000000) == [1, [1020000, 300], [1040000, 310]]
    fake_nvml.write(f"gpu 0\nclock_us 9000000\n{line}")  # what fell out of the buffer is gone
    assert drained(nvml, 0, 1000000) == [1, [8940000, 300], [8960000, 310], [8980000, 320], [9000000, 300]]


def test_a_series_can_be_unsorted_as_a_ring_and_padded_with_placeholders(fake_nvml, nvml):
    fake_nvml.write(
        "gpu 0\nclock_us 50\nsamples gpu=0 type=1 period_us=10 depth=4 values=0,1,2,3,4,5 unsorted=1 placeholders=2"
    )
    assert drained(nvml, 1) == [1, [40, 4], [50, 5], [20, 2], [30, 3], [0, 0], [0, 0]]


def test_a_series_goes_with_the_real_clock_without_one_in_the_scenario(fake_nvml, nvml):
    fake_nvml.write("gpu 0\nsamples gpu=0 type=1 period_us=100 depth=1 values=5")
    before_us = time.time_ns() // 1000
    (at_us, value) = drained(nvml, 1)[1]
    assert before_us - 100 <= at_us <= time.time_ns() // 1000
    assert value == 5


def test_a_field_carries_the_time_at_which_the_clock_of_the_scenario_stands(fake_nvml, nvml):
    fake_nvml.write("gpu 0\nclock_us 1795435200000001")
    assert nvml.ask("nvmlDeviceGetFieldValues(gpu(0), [82])[0].timestamp") == 1795435200000001


def test_an_empty_buffer_is_not_found_or_empty_as_the_scenario_says(fake_nvml, nvml):
    fake_nvml.write("gpu 0\nsamples gpu=0 type=1")
    assert drained(nvml, 1) == NOT_FOUND
    fake_nvml.write("gpu 0 nothing_new=0\nsamples gpu=0 type=1")
    assert drained(nvml, 1) == INVALID_ARGUMENT  # pynvml fetches into an array of no elements
    size = "call('nvmlDeviceGetSamples', gpu(0), 1, ctypes.c_ulonglong(0), *map(ctypes.byref, (kind, count)), None)"
    assert nvml.ask(f"[{size}, count.value]", run="kind, count = c_uint(), c_uint(9)") == [0, 0]


def test_samples_can_be_doubles(fake_nvml, nvml):
    fake_nvml.write("gpu 0\nclock_us 10\nsamples gpu=0 type=0 period_us=10 depth=1 values=87 value_type=0")
    assert drained(nvml, 0, member="dVal") == [0, [10, 87.0]]


def test_a_sampling_type_that_nvml_does_not_have_is_invalid(fake_nvml, nvml):
    assert drained(nvml, "NVML_SAMPLINGTYPE_COUNT") == INVALID_ARGUMENT


PROCESSES = """
gpu 0
gpu 1
process gpu=0 pid=11 type=compute memory=5 sm=40 mem=10 enc=1 dec=2 jpg=3 ofa=4 t_us=1000
process gpu=0 pid=12 type=graphics sm=0 t_us=2000
process gpu=0 pid=13 type=compute memory=6
process gpu=1 pid=14 type=mps sm=99 t_us=3000
"""


def process(pid, at_us, sm, *others):
    names = ("memUtil", "encUtil", "decUtil", "jpgUtil", "ofaUtil")
    return {"pid": pid, "timeStamp": at_us, "smUtil": sm} | dict(zip(names, others, strict=False))


def test_the_utilization_of_processes_comes_from_both_functions(fake_nvml, nvml):
    fake_nvml.write(PROCESSES)
    both = "[nvmlDeviceGet{}(gpu({}), {}) for _ in (0,)][0]"

    def asked(function, index, last_seen_us=0):
        return nvml.ask(both.format(function, index, last_seen_us))

    assert asked("ProcessUtilization", 0) == [process(11, 1000, 40, 10, 1, 2), process(12, 2000, 0, 0, 0, 0)]
    assert asked("ProcessUtilization", 0, 1000) == [process(12, 2000, 0, 0, 0, 0)]
    assert asked("ProcessUtilization", 1) == [process(14, 3000, 99, 0, 0, 0)]
    assert asked("ProcessesUtilizationInfo", 0) == [
        process(11, 1000, 40, 10, 1, 2, 3, 4),
        process(12, 2000, 0, 0, 0, 0, 0, 0),
    ]
    assert asked("ProcessesUtilizationInfo", 0, 1000) == [process(12, 2000, 0, 0, 0, 0, 0, 0)]
    assert [asked(name, 0, 2000) for name in ("ProcessUtilization", "ProcessesUtilizationInfo")] == [NOT_FOUND] * 2


def test_an_idle_gpu_has_no_process_to_be_found_or_a_success_without_any(fake_nvml, nvml):
    questions = [f"nvmlDeviceGet{name}(gpu(0), 0)" for name in ("ProcessUtilization", "ProcessesUtilizationInfo")]
    assert [nvml.ask(question) for question in questions] == [NOT_FOUND] * 2
    fake_nvml.write("gpu 0 nothing_new=0")
    caught = "try:\n    {}\nexcept NVMLError as error:\n    code = error.value"
    assert [nvml.ask("code", run=caught.format(question)) for question in questions] == [0, 0]  # an error: SUCCESS


def test_a_busy_process_without_a_time_is_always_new(fake_nvml, nvml):
    fake_nvml.write("gpu 0\nprocess gpu=0 pid=11 type=compute sm=40")
    before_us = time.time_ns() // 1000
    (found,) = nvml.ask(f"nvmlDeviceGetProcessUtilization(gpu(0), {before_us - 1})")
    assert before_us <= found["timeStamp"] <= time.time_ns() // 1000


def test_too_small_an_array_of_process_samples_is_filled_and_told_the_size(fake_nvml, nvml):
    fake_nvml.write(PROCESSES)
    answer = nvml.ask(
        "[result, count.value, found[0].pid]",
        run="count, found = c_uint(1), (c_nvmlProcessUtilizationSample_t * 1)()\n"
        "result = call('nvmlDeviceGetProcessUtilization', gpu(0), found, ctypes.byref(count), ctypes.c_ulonglong(0))",
    )
    assert answer == [7, 2, 11]


def test_another_version_of_the_process_structure_is_refused(nvml):
    answer = nvml.ask(
        "call('nvmlDeviceGetProcessesUtilizationInfo', gpu(0), ctypes.byref(info))",
        run="info = c_nvmlProcessesUtilizationInfo_v1_t()\ninfo.version = 0x02000018",
    )
    assert answer == 25


def test_an_old_driver_has_the_older_of_the_two_functions(fake_nvml_old_driver, started):
    fake_nvml_old_driver.write(PROCESSES)
    nvml = started(fake_nvml_old_driver.environment)
    assert nvml.ask("nvmlDeviceGetProcessUtilization(gpu(1), 0)[0].pid", run="nvmlInit()") == 14
    assert nvml.ask("nvmlDeviceGetProcessesUtilizationInfo(gpu(1), 0)") == "NVMLError_FunctionNotFound"


WRONG_LINES = {
    "sample gpu=0 type=0 value=5": "of which t_us: sample",
    "sample gpu=0 type=watts t_us=1 value=5": "not a number: watts",
    "samples gpu=0 type=0 values=1,much": "not a number: much",
    "samples gpu=0 type=0 values=1;2": "not a list of numbers: 1;2",
    "samples gpu=0 type=0 period_us=0": "a period is above 0, a depth up to 4096: samples",
    "samples gpu=0 type=0 depth=5000": "a period is above 0, a depth up to 4096: samples",
    "sample gpu=0 type=10 t_us=1 value=5": "no such type of sample: 10",
    "samples gpu=0 type=0 sm=5": "no such setting: sm",
    "clock_us soon": "not a number: soon",
    "process gpu=0 type=compute utilization=5": "no such setting: utilization",
}


@pytest.mark.parametrize(("line", "complaint"), WRONG_LINES.items(), ids=WRONG_LINES)
def test_a_wrong_line_about_samples_is_told(fake_nvml, started, line, complaint):
    fake_nvml.write(f"gpu 0\n{line}\n")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:2: {complaint}\n"
