"""MIG of the stand-in: instances as devices of their own, and what neither they nor their parent can tell."""

import pytest

NOT_SUPPORTED, INVALID_ARGUMENT = "NVMLError_NotSupported", "NVMLError_InvalidArgument"

TWO_INSTANCES = """
gpu 0 uuid=GPU-a name="NVIDIA H200"
gpu 1 uuid=GPU-b mig=0
gpu 2 uuid=GPU-c
mig gpu=0 gi=1 ci=0 uuid=MIG-1 profile=1g.18gb memory_total=18253611008 memory_used=1000 sms=16 \
  copy_engines=1 decoders=2 encoders=3 jpegs=4 ofas=5
mig gpu=0 gi=5 ci=2 uuid=MIG-5 profile=1c.2g.35gb memory_total=37580963840 sms=32
process gpu=0 pid=11 memory=5 type=compute gi=1 ci=0
process gpu=0 pid=12 memory=6 type=compute gi=5 ci=2
process gpu=0 pid=13 memory=7 type=compute gi=5 ci=1
"""


@pytest.fixture
def mig(fake_nvml, nvml):
    fake_nvml.write(TWO_INSTANCES)
    nvml.run(
        "def mig(index):\n    return nvmlDeviceGetMigDeviceHandleByIndex(gpu(0), index)\n"
        "def attributes(device):\n    return list(plain(nvmlDeviceGetAttributes(device)).values())"
    )
    return nvml


ANSWERS = {
    "[nvmlDeviceGetMigMode(gpu(index)) for index in range(2)]": [[1, 1], [0, 0]],
    "nvmlDeviceGetMigMode(gpu(2))": NOT_SUPPORTED,
    "[nvmlDeviceGetMaxMigDeviceCount(gpu(index)) for index in range(3)]": [7, 0, 0],
    "[mig(0), mig(1)]": ["MIG-1", "MIG-5"],
    "mig(2)": "NVMLError_NotFound",
    "mig(7)": INVALID_ARGUMENT,
    "nvmlDeviceGetMigDeviceHandleByIndex(gpu(1), 0)": NOT_SUPPORTED,
    "nvmlDeviceGetMigDeviceHandleByIndex(mig(0), 0)": NOT_SUPPORTED,
    "nvmlDeviceGetHandleByUUID('MIG-5')": "MIG-5",
    "[nvmlDeviceIsMigDeviceHandle(device).value for device in (gpu(0), mig(0))]": [0, 1],
    "[nvmlDeviceGetGpuInstanceId(mig(index)) for index in range(2)]": [1, 5],
    "[nvmlDeviceGetComputeInstanceId(mig(index)) for index in range(2)]": [0, 2],
    "nvmlDeviceGetGpuInstanceId(gpu(0))": NOT_SUPPORTED,
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig(1))": "GPU-a",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu(0))": INVALID_ARGUMENT,
    "[nvmlDeviceGetName(device) for device in (gpu(0), mig(1))]": ["NVIDIA H200", "NVIDIA H200 MIG 1c.2g.35gb"],
    # the structure's order: SMs, copy engines, decoders, encoders, JPEG, OFA, slices of GPU and compute, MiB
    "attributes(mig(0))": [16, 1, 2, 3, 4, 5, 1, 1, 17408],
    "attributes(mig(1))": [32, 0, 0, 0, 0, 0, 2, 1, 35840],
    "attributes(gpu(0))": NOT_SUPPORTED,
    "nvmlDeviceGetMemoryInfo(mig(0))": {"total": 18253611008, "free": 18253610008, "used": 1000},
    "nvmlDeviceGetMemoryInfo(mig(0), version=nvmlMemory_v2)": {
        "version": 0x02000028,
        "total": 18253611008,
        "reserved": 0,
        "free": 18253610008,
        "used": 1000,
    },
    "nvmlDeviceGetMemoryInfo(gpu(0)).total": 150754820096,
    "[process.pid for process in nvmlDeviceGetComputeRunningProcesses(gpu(0))]": [11, 12, 13],
    "[process.pid for process in nvmlDeviceGetComputeRunningProcesses(mig(0))]": [11],
    "[process.pid for process in nvmlDeviceGetComputeRunningProcesses(mig(1))]": [12],
    "nvmlDeviceGetTemperature(gpu(0), 0)": 28,
    "nvmlDeviceGetTemperature(mig(0), 0)": NOT_SUPPORTED,
    "nvmlDeviceGetPowerUsage(mig(0))": NOT_SUPPORTED,
    "nvmlDeviceGetFieldValues(mig(0), [82])": NOT_SUPPORTED,
    "nvmlDeviceGetRemappedRows(gpu(0))": NOT_SUPPORTED,
    "nvmlDeviceGetRemappedRows(gpu(1))": [0, 0, 0, 0],
}


def test_every_question_about_mig_is_answered_from_the_scenario(mig):
    assert {question: mig.ask(question) for question in ANSWERS} == ANSWERS


UTILIZATION = [
    "nvmlDeviceGetUtilizationRates({})",
    "nvmlDeviceGetEncoderUtilization({})",
    "nvmlDeviceGetDecoderUtilization({})",
    "nvmlDeviceGetJpgUtilization({})",
    "nvmlDeviceGetOfaUtilization({})",
    "nvmlDeviceGetProcessUtilization({}, 0)",
    "nvmlDeviceGetProcessesUtilizationInfo({}, 0)",
    *(f"nvmlDeviceGetSamples({{}}, {kind}, 0)" for kind in range(1, 5)),
]


def test_neither_a_gpu_with_mig_nor_its_instances_tell_utilization(fake_nvml, mig):
    busy = "process gpu=0 pid=11 type=compute sm=40\n"
    buffers = "".join(f"sample gpu=0 type={kind} t_us=1 value=5\n" for kind in range(5))
    fake_nvml.write(f"{TWO_INSTANCES}\ngpu 0 util=50\n{busy}{buffers}")
    asked = [question.format(device) for question in UTILIZATION for device in ("gpu(0)", "mig(0)")]
    assert {question: mig.ask(question) for question in asked} == dict.fromkeys(asked, NOT_SUPPORTED)
    assert mig.ask("nvmlDeviceGetSamples(gpu(0), 0, 0)[1][0].sampleValue.uiVal") == 5  # power is the board's


def test_an_instance_that_is_destroyed_makes_its_handle_invalid_until_it_is_back(fake_nvml, mig):
    mig.run("one, five, parent = mig(0), mig(1), gpu(0)")
    fake_nvml.write(TWO_INSTANCES.replace("mig gpu=0 gi=1 ", "# "))
    assert mig.ask("nvmlDeviceGetMemoryInfo(one)") == INVALID_ARGUMENT
    assert mig.ask("[nvmlDeviceGetGpuInstanceId(five), nvmlDeviceGetGpuInstanceId(mig(0))]") == [5, 5]
    fake_nvml.write("gpu 0 uuid=GPU-a mig=0")
    assert mig.ask("mig(0)") == NOT_SUPPORTED
    assert mig.ask("nvmlDeviceGetUtilizationRates(parent).gpu") == 0
    fake_nvml.write(TWO_INSTANCES)
    assert mig.ask("nvmlDeviceGetMemoryInfo(one).used") == 1000


def test_an_instance_is_lost_with_its_gpu(fake_nvml, mig):
    mig.run("one = mig(0)")
    fake_nvml.write(TWO_INSTANCES + "gpu 0 lost_after=0")
    assert mig.ask("nvmlDeviceGetMemoryInfo(one)") == "NVMLError_GpuIsLost"


def test_the_pending_mode_can_differ_from_the_current_one(fake_nvml, nvml):
    fake_nvml.write("gpu 0 mig=0 mig_pending=1")
    assert nvml.ask("nvmlDeviceGetMigMode(gpu(0))") == [0, 1]


def test_gpm_tells_how_busy_an_instance_is_by_its_handle_or_its_number(fake_nvml, mig):
    fake_nvml.write(f"{TWO_INSTANCES}\ngpm gpu=0 gi=1 1=50 2=40\ngpm gpu=0 gi=5 1=99\ngpm gpu=0 1=75\n")
    mig.run(
        "get = c_nvmlGpmMetricsGet_t(version=NVML_GPM_METRICS_GET_VERSION, numMetrics=1)\n"
        "get.metrics[0].metricId = 1\n"
        "def graphics(take):\n"
        "    get.sample1, get.sample2 = take(nvmlGpmSampleAlloc()), take(nvmlGpmSampleAlloc())\n"
        "    return nvmlGpmMetricsGet(get).metrics[0].value\n"
    )
    answers = [
        mig.ask("graphics(lambda sample: nvmlGpmSampleGet(mig(0), sample))"),
        mig.ask("graphics(lambda sample: nvmlGpmMigSampleGet(gpu(0), 5, sample))"),
        mig.ask("graphics(lambda sample: nvmlGpmSampleGet(gpu(0), sample))"),
        mig.ask("nvmlGpmQueryDeviceSupport(mig(0)).isSupportedDevice"),
    ]
    assert answers == [50.0, 99.0, 75.0, 1]
    mixed = "nvmlGpmMigSampleGet(gpu(0), 1, get.sample1), nvmlGpmMigSampleGet(gpu(0), 5, get.sample2)"
    assert mig.ask("nvmlGpmMetricsGet(get)", run=mixed) == INVALID_ARGUMENT


WRONG_LINES = {
    "mig gpu=0 gi=1 ci=0 profile=1g.18gb memory_total=5": "of which uuid: mig",
    "mig gpu=0 gi=1 ci=0 uuid=MIG-1 profile=1g.18gb memory_total=5 slices=1": "no such setting: slices",
    "mig gpu=1 gi=1 ci=0 uuid=MIG-1 profile=1g.18gb memory_total=5": "no such GPU: mig",
}


@pytest.mark.parametrize(("line", "complaint"), WRONG_LINES.items(), ids=WRONG_LINES)
def test_a_wrong_line_about_mig_is_told(fake_nvml, started, line, complaint):
    fake_nvml.write(f"gpu 0\n{line}\n")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:2: {complaint}\n"


def test_an_instance_of_a_gpu_whose_mig_is_off_is_told(fake_nvml, started):
    fake_nvml.write("gpu 0 mig=0\nmig gpu=0 gi=1 ci=0 uuid=MIG-1 profile=1g.18gb memory_total=5\n")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:2: MIG is off on that GPU: mig\n"
