"""The stand-in's errors by place, spare rows, repairs, sessions, fabric and protected memory."""

NOT_SUPPORTED, INVALID_ARGUMENT = "NVMLError_NotSupported", "NVMLError_InvalidArgument"
OTHER_VERSION = "NVMLError_ArgumentVersionMismatch"


def test_ecc_errors_are_told_by_place(fake_nvml, nvml):
    fake_nvml.write("gpu 0 corrected_volatile_dram=1 uncorrected_aggregate_sram=2\ngpu 1 ecc=0")
    ask = "nvmlDeviceGetMemoryErrorCounter(gpu({}), {}, {}, {})"
    assert nvml.ask(ask.format(0, 0, 0, 2)) == 1
    assert nvml.ask(ask.format(0, 1, 1, 7)) == 2
    assert nvml.ask(ask.format(0, 0, 0, 1)) == NOT_SUPPORTED  # the L2 cache, of Volta and older
    assert nvml.ask(ask.format(0, 0, 0, 8)) == INVALID_ARGUMENT
    assert nvml.ask(ask.format(1, 0, 0, 2)) == NOT_SUPPORTED


def test_errors_of_sram_are_told_by_check_and_unit(fake_nvml, nvml):
    fake_nvml.write(
        "gpu 0 sram_parity_volatile=1 sram_parity_aggregate=2 sram_secded_volatile=3 sram_secded_aggregate=4 "
        "sram_l2=5 sram_sm=6 sram_pcie=7 sram_microcontroller=8 sram_other=9 sram_exceeded=1"
    )
    run = "status = c_nvmlEccSramErrorStatus_v1_t(); {}nvmlDeviceGetSramEccErrorStatus(gpu(0), ctypes.byref(status))"
    assert nvml.ask("status", run=run.format("")) == {
        "version": 0x01000068,
        "aggregateUncParity": 2,
        "aggregateUncSecDed": 4,
        "aggregateCor": 0,
        "volatileUncParity": 1,
        "volatileUncSecDed": 3,
        "volatileCor": 0,
        "aggregateUncBucketL2": 5,
        "aggregateUncBucketSm": 6,
        "aggregateUncBucketPcie": 7,
        "aggregateUncBucketMcu": 8,
        "aggregateUncBucketOther": 9,
        "bThresholdExceeded": 1,
    }
    assert nvml.ask("status", run=run.format("status.version = 5; ")) == OTHER_VERSION


def test_spare_rows_are_a_histogram_over_banks(fake_nvml, nvml):
    fake_nvml.write(
        "gpu 0 spares_max=630 spares_high=4 spares_partial=3 spares_low=2 spares_none=1\ngpu 1 spares_max=none"
    )
    histogram = {"max": 630, "high": 4, "partial": 3, "low": 2, "none": 1}
    assert nvml.ask("nvmlDeviceGetRowRemapperHistogram(gpu(0))") == histogram
    assert nvml.ask("nvmlDeviceGetRowRemapperHistogram(gpu(1))") == NOT_SUPPORTED


def test_repairs_and_memory_that_cannot_be_repaired(fake_nvml, nvml):
    fake_nvml.write("gpu 0 channel_repair=1 tpc_repair=0 unrepairable=1\ngpu 1 channel_repair=none unrepairable=none")
    assert nvml.ask("nvmlDeviceGetRepairStatus(gpu(0))") == [1, 0]
    assert nvml.ask("nvmlDeviceGetUnrepairableMemoryFlag_v1(gpu(0))") == 1
    assert nvml.ask("nvmlDeviceGetRepairStatus(gpu(1))") == NOT_SUPPORTED
    assert nvml.ask("nvmlDeviceGetUnrepairableMemoryFlag_v1(gpu(1))") == NOT_SUPPORTED


def test_sessions_of_the_encoder_and_of_capture(fake_nvml, nvml):
    fake_nvml.write("gpu 0 encoder_sessions=3 encoder_fps=60 encoder_latency_us=1500 fbc_sessions=2 fbc_fps=30")
    assert nvml.ask("nvmlDeviceGetEncoderStats(gpu(0))") == [3, 60, 1500]
    assert nvml.ask("nvmlDeviceGetFBCStats(gpu(0))") == {"sessionsCount": 2, "averageFPS": 30, "averageLatency": 0}


def test_the_fabric_is_told_in_three_versions(fake_nvml, nvml):
    cluster = list(range(16))
    known = {"clusterUuid": cluster, "status": 999, "cliqueId": 7, "state": 3}
    line = f"gpu 0 cluster={bytes(cluster).hex()} fabric_state=3 fabric_status=999 fabric_clique=7 fabric_health_mask=5"
    fake_nvml.write(f"{line} fabric_health=1\ngpu 1")
    ask = "info = c_nvmlGpuFabricInfo_{}_t(); nvmlDeviceGetGpuFabricInfoV(gpu(0), ctypes.byref(info))"
    v2 = {"version": 0x02000024, **known, "healthMask": 5}
    v3 = {"version": 0x03000028, **known, "healthMask": 5, "healthSummary": 1}
    assert nvml.ask("info", run=ask.format("v3")) == v3
    assert nvml.ask("info", run=ask.format("v2")) == v2
    v1 = "info = c_nvmlGpuFabricInfo_t(); nvmlDeviceGetGpuFabricInfo(gpu({}), ctypes.byref(info))"
    assert nvml.ask("info", run=v1.format(0)) == known
    assert nvml.ask("info", run=v1.format(1)) == NOT_SUPPORTED
    fake_nvml.write(f"{line} fabric_health=none")
    assert nvml.ask("info", run=ask.format("v3")) == OTHER_VERSION
    assert nvml.ask("info", run=ask.format("v2")) == v2


def test_protected_memory(fake_nvml, nvml):
    fake_nvml.write("gpu 0 protected_total=100 protected_used=30\ngpu 1")
    ask = "nvmlDeviceGetConfComputeProtectedMemoryUsage(gpu({}))"
    assert nvml.ask(ask.format(0)) == {"total": 100, "free": 70, "used": 30}
    assert nvml.ask(ask.format(1)) == NOT_SUPPORTED
