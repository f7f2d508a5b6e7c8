"""GPM of the stand-in: two samples, the metrics between them, and what a careless caller gets."""

import pytest

METRICS = """
def metrics(sample1, sample2, ids, version=NVML_GPM_METRICS_GET_VERSION):
    get = c_nvmlGpmMetricsGet_t()
    get.version, get.numMetrics, get.sample1, get.sample2 = version, len(ids), sample1, sample2
    for slot, metric in zip(get.metrics, ids):
        slot.metricId, slot.nvmlReturn, slot.value = metric, 77, -1
    nvmlGpmMetricsGet(get)
    return [[slot.metricId, slot.nvmlReturn, slot.value] for slot in get.metrics[:len(ids)]]

def sampled(device):
    return nvmlGpmSampleGet(device, nvmlGpmSampleAlloc())
"""
TWO_GPUS = """
gpu 0 uuid=GPU-a
gpu 1 uuid=GPU-b
gpm gpu=0 1=87.5 2=80 3=0.25 7=none
gpm gpu=0 20=1234.5
gpm gpu=1 1=5
"""


@pytest.fixture
def gpm(fake_nvml, nvml):
    fake_nvml.write(TWO_GPUS)
    nvml.run(METRICS)
    return nvml


def test_metrics_between_two_samples_have_the_values_of_the_scenario(gpm):
    gpm.run("a1, a2, b1, b2 = sampled(gpu(0)), sampled(gpu(0)), sampled(gpu(1)), sampled(gpu(1))")
    assert gpm.ask("metrics(a1, a2, [20, 1, 2, 3, 7, 10])") == [
        [20, 0, 1234.5],
        [1, 0, 87.5],
        [2, 0, 80.0],
        [3, 0, 0.25],
        [7, 3, 0.0],  # `none` and what no line tells are not supported
        [10, 3, 0.0],
    ]
    assert gpm.ask("metrics(b1, b2, [1, 2])") == [[1, 0, 5.0], [2, 3, 0.0]]
    assert gpm.ask("metrics(a1, a2, [])") == []


def test_a_sample_is_taken_again_and_again_and_metrics_follow_the_scenario(fake_nvml, gpm):
    gpm.run("one, two = sampled(gpu(0)), sampled(gpu(0))")
    assert gpm.ask("metrics(one, two, [1])") == [[1, 0, 87.5]]
    fake_nvml.write(TWO_GPUS.replace("1=87.5", "1=12"))
    assert gpm.ask("metrics(two, one, [1])", run="nvmlGpmSampleGet(gpu(0), one)") == [[1, 0, 12.0]]


INVALID_SAMPLES = {
    "metrics(a1, a1, [1])": "the same one",
    "metrics(a2, a1, [1])": "the newer one first",
    "metrics(a1, nvmlGpmSampleAlloc(), [1])": "one that was never taken",
    "metrics(nvmlGpmSampleAlloc(), a1, [1])": "none before",
    "metrics(a1, None, [1])": "a null",
    "metrics(a1, freed, [1])": "a freed one",
    "metrics(a1, b, [1])": "two GPUs",
    "nvmlGpmSampleFree(freed)": "freed twice",
    "nvmlGpmSampleGet(gpu(0), freed)": "read into a freed one",
    "nvmlGpmMigSampleGet(gpu(0), 1, a1)": "an instance that is not there",
}


def test_samples_that_make_no_pair_are_invalid(gpm):
    gpm.run("a1, a2, b, freed = sampled(gpu(0)), sampled(gpu(0)), sampled(gpu(1)), sampled(gpu(0))")
    gpm.run("nvmlGpmSampleFree(freed)")
    answers = {question: gpm.ask(question) for question in INVALID_SAMPLES}
    assert answers == dict.fromkeys(INVALID_SAMPLES, "NVMLError_InvalidArgument")
    assert gpm.ask("metrics(a1, a2, [1])") == [[1, 0, 87.5]]


def test_a_metric_fails_alone_by_its_code(fake_nvml, gpm):
    fake_nvml.write(f"{TWO_GPUS}\nmetric 1 4 gpu=0\nmetric 2 21 gpu=1\n")
    gpm.run("one, two = sampled(gpu(0)), sampled(gpu(0))")
    assert gpm.ask("metrics(one, two, [1, 2])") == [[1, 4, 0.0], [2, 0, 80.0]]


def test_permission_ends_after_so_many_samples_and_a_changed_number_counts_anew(fake_nvml, gpm):
    fake_nvml.write(f"{TWO_GPUS}\ngpm gpu=0 no_permission_after=2\n")
    gpm.run("sample = nvmlGpmSampleAlloc()")
    take = "nvmlGpmSampleGet(gpu(0), sample) and 'taken'"
    denied = "NVMLError_NoPermission"
    assert [gpm.ask(take) for _ in range(4)] == ["taken", "taken", denied, denied]
    assert gpm.ask("nvmlGpmSampleGet(gpu(1), sample) and 'taken'") == "taken"
    fake_nvml.write(f"{TWO_GPUS.replace('1=5', '1=6')}\ngpm gpu=0 no_permission_after=2\n")
    assert gpm.ask(take) == denied
    fake_nvml.write(f"{TWO_GPUS}\ngpm gpu=0 no_permission_after=1\n")
    assert [gpm.ask(take) for _ in range(2)] == ["taken", denied]
    fake_nvml.write(TWO_GPUS)
    assert gpm.ask(take) == "taken"


def test_a_gpu_without_a_line_or_with_a_line_that_says_so_has_no_gpm(fake_nvml, gpm):
    fake_nvml.write("gpu 0\ngpu 1\ngpu 2\ngpm gpu=1 supported=0 1=5\ngpm gpu=2 streaming=1")
    supported = "[nvmlGpmQueryDeviceSupport(gpu(index)).isSupportedDevice for index in range(3)]"
    assert gpm.ask(supported) == [0, 0, 1]
    no = "NVMLError_NotSupported"
    assert [gpm.ask(f"sampled(gpu({index})) and 'taken'") for index in range(3)] == [no, no, "taken"]
    assert [gpm.ask(f"nvmlGpmQueryIfStreamingEnabled(gpu({index}))") for index in range(3)] == [no, no, 1]


def test_streaming_is_off_unless_the_scenario_turns_it_on(gpm):
    assert gpm.ask("nvmlGpmQueryIfStreamingEnabled(gpu(0))") == 0


def test_another_version_of_a_gpm_structure_is_refused(gpm):
    gpm.run("one, two, support = sampled(gpu(0)), sampled(gpu(0)), c_nvmlGpmSupport_t(version=2)")
    assert gpm.ask("metrics(one, two, [1], version=2)") == "NVMLError_ArgumentVersionMismatch"
    assert gpm.ask("call('nvmlGpmQueryDeviceSupport', gpu(0), ctypes.byref(support))") == 25


def test_a_lost_gpu_is_lost_to_gpm_too(fake_nvml, gpm):
    gpm.run("device, one, two = gpu(0), sampled(gpu(0)), sampled(gpu(0))")
    fake_nvml.write("gpu 0 uuid=GPU-b\ngpm gpu=0 1=5")
    assert gpm.ask("nvmlGpmSampleGet(device, one)") == "NVMLError_GpuIsLost"
    assert gpm.ask("metrics(one, two, [1])") == "NVMLError_GpuIsLost"


def test_samples_that_are_never_freed_run_out(gpm):
    gpm.run("samples = [nvmlGpmSampleAlloc() for _ in range(256)]")
    assert gpm.ask("nvmlGpmSampleAlloc()") == "NVMLError_Memory"
    assert gpm.ask("nvmlGpmSampleAlloc() and 'allocated'", run="nvmlGpmSampleFree(samples[7])") == "allocated"
    assert gpm.close() == "fake_nvml: 256 GPM samples are in use: is none freed?\n"


def test_of_two_threads_in_gpm_at_once_one_fails_and_it_is_told(fake_nvml, gpm):
    gpm.run("zero, one, first, second = gpu(0), gpu(1), nvmlGpmSampleAlloc(), nvmlGpmSampleAlloc()")
    fake_nvml.write(f"{TWO_GPUS}\nhang nvmlGpmSampleGet 60000 gpu=0\n")
    gpm.run(
        "take, ended, answers = pynvml.nvmlLib.nvmlGpmSampleGet, [], []\n"
        "until_alone = lambda: next(code for code in iter(lambda: take(zero, first), None) if code != 999)\n"
        "thread = threading.Thread(target=lambda: ended.append(until_alone()))\n"
        "thread.start()\n"
        "while 999 not in answers: answers.append(take(one, second))"
    )
    fake_nvml.write(TWO_GPUS)
    assert gpm.ask("ended + answers[-1:]", run="thread.join()") == [0, 999]
    assert gpm.ask("nvmlGpmSampleGet(one, second) and 'taken'") == "taken"
    assert set(gpm.close().splitlines()) == {"fake_nvml: two threads are inside GPM at once: nvmlGpmSampleGet"}


def test_an_old_driver_has_no_gpm(fake_nvml_old_driver, started):
    nvml = started(fake_nvml_old_driver.environment)
    assert nvml.ask("nvmlGpmQueryDeviceSupport(gpu(0))", run="nvmlInit()") == "NVMLError_FunctionNotFound"


WRONG_LINES = {
    "gpm 1=5": "of which gpu: gpm",
    "gpm gpu=0 1=much": "not a number: much",
    "gpm gpu=0 1=5%": "not a number: 5%",
    "gpm gpu=0 sm=5": "no such setting: sm",
    "metric sm 3": "not a number: sm",
    "gpm gpu=7 1=5": "no such GPU: gpm",
}


@pytest.mark.parametrize(("line", "complaint"), WRONG_LINES.items(), ids=WRONG_LINES)
def test_a_wrong_line_about_gpm_is_told(fake_nvml, started, line, complaint):
    fake_nvml.write(f"gpu 0\n{line}\n")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:2: {complaint}\n"
