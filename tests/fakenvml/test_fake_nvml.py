"""The stand-in NVML library, asked through the real nvidia-ml-py in a process of its own."""

import shutil
import time

import pytest

ONE_BUSY_GPU = """
driver 570.12.34     # the machine
cuda 12080
gpu 0 uuid=GPU-1b name="NVIDIA H200 NVL" pci=00000000:1B:00.0 serial=165 vbios=96.00.01 brand=14
gpu 0 architecture=9 cc_major=9 cc_minor=0 cores=16896 minor_number=3 pci_device_id=0x233B10DE
gpu 0 pci_subsystem_id=0x199610DE memory_total=150754820096 memory_used=40000000000
gpu 0 memory_reserved=643825664 bar1_total=274877906944 bar1_used=5000 util=37 mem_util=12
gpu 0 encoder_util=1 decoder_util=2 jpg_util=3 ofa_util=4 sampling_period_us=100000 temp=52 mem_temp=61
gpu 0 temp_margin=35 temp_shutdown=97 temp_slowdown=94 temp_mem_max=95 temp_gpu_max=87 power_mw=312345
gpu 0 power_instant_mw=333333 power_limit_mw=600000 power_default_limit_mw=700000
gpu 0 power_min_limit_mw=200000 power_max_limit_mw=700001 energy_mj=5000000000 clock_gr=1900
gpu 0 clock_sm=1980 clock_mem=2619 clock_video=1500 max_clock_gr=1981 max_clock_sm=1982
gpu 0 max_clock_mem=3201 max_clock_video=1545 pstate=2 reasons=0x4 supported_reasons=0x1EF fan=44 fans=2
gpu 0 ecc=1 mig=0 persistence=1 compute_mode=3 pcie_gen=4 pcie_width=8 max_pcie_gen=5 max_pcie_width=16
gpu 0 pcie_replay=6 event_types=0x800f pcie_tx_kb_per_s=1234 pcie_rx_kb_per_s=5678 fan_min=30 fan_max=100
gpu 0 temp_acoustic_min=60 temp_acoustic=83 temp_acoustic_max=91 temp_gps=80 numa_node=1 cpus=0-3,64,66-67
gpu 0 inforom=G520.0200.00.05 gsp_firmware=570.12
"""

ANSWERS = {
    "nvmlSystemGetDriverVersion()": "570.12.34",
    "nvmlSystemGetNVMLVersion()": "12.570.12.34",
    "nvmlSystemGetCudaDriverVersion()": 12080,
    "nvmlSystemGetCudaDriverVersion_v2()": 12080,
    "nvmlErrorString(15)": "GPU is lost",
    "nvmlErrorString(999)": "Unknown Error",
    "nvmlDeviceGetCount()": 1,
    "nvmlDeviceGetHandleByIndex(0)": "GPU-1b",
    "nvmlDeviceGetHandleByIndex(1)": "NVMLError_InvalidArgument",
    "nvmlDeviceGetHandleByUUID('GPU-1b')": "GPU-1b",
    "nvmlDeviceGetHandleByUUID('GPU-2')": "NVMLError_NotFound",
    "nvmlDeviceGetHandleByPciBusId('0000:1b:00.0')": "GPU-1b",
    "nvmlDeviceGetHandleByPciBusId('0000:1c:00.0')": "NVMLError_NotFound",
    "nvmlDeviceGetIndex(gpu(0))": 0,
    "nvmlDeviceGetName(gpu(0))": "NVIDIA H200 NVL",
    "nvmlDeviceGetUUID(gpu(0))": "GPU-1b",
    "nvmlDeviceGetSerial(gpu(0))": "165",
    "nvmlDeviceGetVbiosVersion(gpu(0))": "96.00.01",
    "nvmlDeviceGetPciInfo(gpu(0))": {
        "busIdLegacy": "0000:1B:00.0",
        "domain": 0,
        "bus": 0x1B,
        "device": 0,
        "pciDeviceId": 0x233B10DE,
        "pciSubSystemId": 0x199610DE,
        "busId": "00000000:1B:00.0",
    },
    "nvmlDeviceGetBrand(gpu(0))": 14,
    "nvmlDeviceGetArchitecture(gpu(0))": 9,
    "nvmlDeviceGetCudaComputeCapability(gpu(0))": [9, 0],
    "nvmlDeviceGetNumGpuCores(gpu(0))": 16896,
    "nvmlDeviceGetMinorNumber(gpu(0))": 3,
    "nvmlDeviceGetUtilizationRates(gpu(0))": {"gpu": 37, "memory": 12},
    "nvmlDeviceGetEncoderUtilization(gpu(0))": [1, 100000],
    "nvmlDeviceGetDecoderUtilization(gpu(0))": [2, 100000],
    "nvmlDeviceGetJpgUtilization(gpu(0))": [3, 100000],
    "nvmlDeviceGetOfaUtilization(gpu(0))": [4, 100000],
    "nvmlDeviceGetMemoryInfo(gpu(0))": {
        "total": 150754820096,
        "free": 110110994432,
        "used": 40643825664,  # the old question counts what the driver reserves as used
    },
    "nvmlDeviceGetMemoryInfo(gpu(0), version=nvmlMemory_v2)": {
        "version": 0x02000028,
        "total": 150754820096,
        "reserved": 643825664,
        "free": 110110994432,
        "used": 40000000000,
    },
    "nvmlDeviceGetMemoryInfo(gpu(0), version=0x03000028)": "NVMLError_ArgumentVersionMismatch",
    "nvmlDeviceGetBAR1MemoryInfo(gpu(0))": {
        "bar1Total": 274877906944,
        "bar1Free": 274877901944,
        "bar1Used": 5000,
    },
    "nvmlDeviceGetTemperature(gpu(0), NVML_TEMPERATURE_GPU)": 52,
    "nvmlDeviceGetTemperatureV(gpu(0), NVML_TEMPERATURE_GPU)": 52,
    "nvmlDeviceGetTemperatureV(gpu(0), 7)": "NVMLError_InvalidArgument",
    "[nvmlDeviceGetTemperatureThreshold(gpu(0), kind) for kind in range(8)]": [97, 94, 95, 87, 60, 83, 91, 80],
    "nvmlDeviceGetTemperatureThreshold(gpu(0), NVML_TEMPERATURE_THRESHOLD_COUNT)": "NVMLError_InvalidArgument",
    "nvmlDeviceGetMarginTemperature(gpu(0))": 35,
    "[nvmlDeviceGetClockInfo(gpu(0), domain) for domain in range(4)]": [1900, 1980, 2619, 1500],
    "[nvmlDeviceGetMaxClockInfo(gpu(0), domain) for domain in range(4)]": [1981, 1982, 3201, 1545],
    "nvmlDeviceGetPerformanceState(gpu(0))": 2,
    "nvmlDeviceGetPowerState(gpu(0))": 2,
    "nvmlDeviceGetCurrentClocksEventReasons(gpu(0))": 0x4,
    "nvmlDeviceGetCurrentClocksThrottleReasons(gpu(0))": 0x4,
    "nvmlDeviceGetSupportedClocksEventReasons(gpu(0))": 0x1EF,
    "nvmlDeviceGetSupportedClocksThrottleReasons(gpu(0))": 0x1EF,
    "nvmlDeviceGetPowerUsage(gpu(0))": 312345,
    "nvmlDeviceGetEnforcedPowerLimit(gpu(0))": 600000,
    "nvmlDeviceGetPowerManagementLimit(gpu(0))": 600000,
    "nvmlDeviceGetPowerManagementDefaultLimit(gpu(0))": 700000,
    "nvmlDeviceGetPowerManagementLimitConstraints(gpu(0))": [200000, 700001],
    "nvmlDeviceGetTotalEnergyConsumption(gpu(0))": 5000000000,
    "nvmlDeviceGetFanSpeed(gpu(0))": 44,
    "nvmlDeviceGetFanSpeed_v2(gpu(0), 1)": 44,
    "nvmlDeviceGetFanSpeed_v2(gpu(0), 2)": "NVMLError_InvalidArgument",
    "nvmlDeviceGetNumFans(gpu(0))": 2,
    "nvmlDeviceGetMinMaxFanSpeed(gpu(0))": [30, 100],
    "nvmlDeviceGetEccMode(gpu(0))": [1, 1],
    "nvmlDeviceGetMigMode(gpu(0))": [0, 0],
    "nvmlDeviceGetPersistenceMode(gpu(0))": 1,
    "nvmlDeviceGetComputeMode(gpu(0))": 3,
    "nvmlDeviceGetCurrPcieLinkGeneration(gpu(0))": 4,
    "nvmlDeviceGetCurrPcieLinkWidth(gpu(0))": 8,
    "nvmlDeviceGetMaxPcieLinkGeneration(gpu(0))": 5,
    "nvmlDeviceGetMaxPcieLinkWidth(gpu(0))": 16,
    "nvmlDeviceGetPcieReplayCounter(gpu(0))": 6,
    "[nvmlDeviceGetPcieThroughput(gpu(0), counter) for counter in range(2)]": [1234, 5678],
    "nvmlDeviceGetPcieThroughput(gpu(0), NVML_PCIE_UTIL_COUNT)": "NVMLError_InvalidArgument",
    "nvmlDeviceGetNumaNodeId(gpu(0))": 1,
    "nvmlDeviceGetCpuAffinity(gpu(0), 3)": [0b1111, 0b1101, 0],
    "nvmlDeviceGetCpuAffinity(gpu(0), 1)": [0b1111],
    "nvmlDeviceGetCpuAffinityWithinScope(gpu(0), 2, NVML_AFFINITY_SCOPE_SOCKET)": [0b1111, 0b1101],
    "nvmlDeviceGetCpuAffinityWithinScope(gpu(0), 2, 2)": "NVMLError_InvalidArgument",
    "nvmlDeviceGetGspFirmwareVersion(gpu(0))": "570.12",
    "nvmlDeviceGetInforomImageVersion(gpu(0))": "G520.0200.00.05",
    "nvmlDeviceGetSupportedEventTypes(gpu(0))": 0x800F,
    "nvmlDeviceGetComputeRunningProcesses(gpu(0))": [],
}


def test_every_function_answers_with_the_value_of_the_scenario(fake_nvml, nvml):
    fake_nvml.write(ONE_BUSY_GPU)
    assert {question: nvml.ask(question) for question in ANSWERS} == ANSWERS


def test_two_idle_h200_are_there_without_a_scenario(fake_nvml, started):
    environment = fake_nvml.environment
    del environment["FAKE_NVML_SCENARIO"]
    nvml = started(environment)
    names = nvml.ask("[nvmlDeviceGetName(gpu(i)) for i in range(nvmlDeviceGetCount())]", run="nvmlInit()")
    assert names == ["NVIDIA H200", "NVIDIA H200"]
    assert nvml.ask("nvmlDeviceGetUUID(gpu(0)) == nvmlDeviceGetUUID(gpu(1))") is False
    assert nvml.close() == ""


NOT_SUPPORTED = {
    "fan=none": "nvmlDeviceGetFanSpeed(gpu(0))",
    "fan_max=none": "nvmlDeviceGetMinMaxFanSpeed(gpu(0))",
    "temp_acoustic=none": "nvmlDeviceGetTemperatureThreshold(gpu(0), NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR)",
    "numa_node=none": "nvmlDeviceGetNumaNodeId(gpu(0))",
    "cpus=none": "nvmlDeviceGetCpuAffinity(gpu(0), 1)",
    "inforom=none": "nvmlDeviceGetInforomImageVersion(gpu(0))",
    "gsp_firmware=none": "nvmlDeviceGetGspFirmwareVersion(gpu(0))",
    "mig=none": "nvmlDeviceGetMigMode(gpu(0))",
    "serial=none": "nvmlDeviceGetSerial(gpu(0))",
    "util=none": "nvmlDeviceGetUtilizationRates(gpu(0))",
    "temp=none": "nvmlDeviceGetTemperatureV(gpu(0), 0)",
    "temp_slowdown=none": "nvmlDeviceGetTemperatureThreshold(gpu(0), 1)",
    "memory_total=none": "nvmlDeviceGetMemoryInfo(gpu(0), version=nvmlMemory_v2)",
    "energy_mj=none": "nvmlDeviceGetTotalEnergyConsumption(gpu(0))",
}


@pytest.mark.parametrize(("setting", "question"), NOT_SUPPORTED.items(), ids=NOT_SUPPORTED)
def test_a_value_of_none_is_not_supported(fake_nvml, nvml, setting, question):
    fake_nvml.write(f"gpu 0 {setting}")
    assert nvml.ask(question) == "NVMLError_NotSupported"


def test_a_unified_gpu_has_no_memory_of_its_own_in_either_way_of_saying_so(fake_nvml, nvml):
    fake_nvml.write("gpu 0 unified=1\ngpu 1 unified=total0")
    v1, v2 = "nvmlDeviceGetMemoryInfo(gpu({}))", "nvmlDeviceGetMemoryInfo(gpu({}), version=nvmlMemory_v2)"
    assert [nvml.ask(v1.format(0)), nvml.ask(v2.format(0))] == ["NVMLError_NotSupported"] * 2
    assert [nvml.ask(v1.format(1)), nvml.ask(v2.format(1))] == [
        {"total": 0, "free": 0, "used": 0},
        {"version": 0x02000028, "total": 0, "reserved": 0, "free": 0, "used": 0},
    ]


FIELDS = """
gpu 0 mem_temp=61 energy_mj=9000000000 power_mw=300 power_instant_mw=301 power_limit_mw=302
gpu 0 power_min_limit_mw=303 power_max_limit_mw=304 power_default_limit_mw=305 throttle_sw_power_ns=74
gpu 0 throttle_thermal_ns=75 throttle_sync_boost_ns=76 throttle_board_limit_ns=77
gpu 0 throttle_low_utilization_ns=78 throttle_reliability_ns=79 throttle_sw_thermal_ns=269
gpu 0 throttle_hw_thermal_ns=270 throttle_hw_power_brake_ns=271 pcie_replay=94 pcie_tx=197 pcie_rx=198
gpu 0 nvlink_tx=138 nvlink_rx=139 ecc_corrected_volatile=1003 ecc_uncorrected_volatile=1004
gpu 0 ecc_corrected_aggregate=1005 ecc_uncorrected_aggregate=1006 retired_sbe=29 retired_dbe=30
gpu 0 retired_pending=1 remapped_correctable=142 remapped_uncorrectable=143 remapped_pending=1
gpu 0 remapped_failed=0 recovery_action=2 tlimit_shutdown=-8 tlimit_slowdown=-2 tlimit_mem_max=1
gpu 0 tlimit_gpu_max=0 power_requested_limit_mw=306 bank_remaps_active=3 bank_remaps_inactive=4
gpu 0 bank_spares_max=5 bank_spares_none=6 bank_remap_pending=1
gpu 0 throttle_application_clocks_ns=80 throttle_base_clocks_ns=81 c2c_links=170 c2c_interrupts=231 c2c_replays=232
gpu 0 c2c_replays_b2b=233 edpp_percent=274 remapped_correctable_inactive=301 remapped_uncorrectable_inactive=302
nvlink gpu=0 link=0 ecc_errors=160 replays=161 recoveries=162 crc_errors=163 speed_mb_per_s=26562 version=6 \
  tx_packets=201 tx_bytes=202 rx_packets=203 rx_bytes=204 vl15_dropped=205 malformed=206 overruns=207 \
  rx_errors=208 rx_remote_errors=209 rx_general_errors=210 integrity_errors=211 tx_discards=212 recovered=213 \
  not_recovered=214 effective_errors=219 effective_ber=220 symbol_errors=221 symbol_ber=222 tx_kib=138 rx_kib=139 \
  raw_tx_kib=140 raw_rx_kib=141 remote_link=146 \
  values=235,236,237,238,239,240,241,242,243,244,245,246,247,248,249,250
"""
UINT, ULL, INT = 1, 3, 5  # nvmlValueType_t
FIELD_VALUES = {
    3: (ULL, 1003),
    4: (ULL, 1004),
    5: (ULL, 1005),
    6: (ULL, 1006),
    29: (ULL, 29),
    30: (ULL, 30),
    31: (ULL, 1),
    74: (ULL, 74),
    75: (ULL, 75),
    76: (ULL, 76),
    77: (ULL, 77),
    78: (ULL, 78),
    79: (ULL, 79),
    80: (ULL, 80),
    81: (ULL, 81),
    82: (UINT, 61),
    83: (ULL, 9000000000),
    94: (UINT, 94),
    138: (ULL, 138),
    139: (ULL, 139),
    140: (ULL, 140),
    141: (ULL, 141),
    142: (UINT, 142),
    143: (UINT, 143),
    144: (UINT, 1),
    145: (UINT, 0),
    146: (UINT, 146),
    160: (ULL, 160),
    161: (ULL, 161),
    162: (ULL, 162),
    163: (ULL, 163),
    164: (UINT, 26562),
    165: (UINT, 1),
    166: (UINT, 6),
    170: (UINT, 170),
    185: (UINT, 300),
    186: (UINT, 301),
    187: (UINT, 303),
    188: (UINT, 304),
    189: (UINT, 305),
    190: (UINT, 302),
    191: (ULL, 9000000000),
    192: (UINT, 306),
    193: (INT, -8),
    194: (INT, -2),
    195: (INT, 1),
    196: (INT, 0),
    197: (ULL, 197),
    198: (ULL, 198),
    **{number: (ULL, number) for number in (*range(201, 215), *range(219, 223))},
    230: (UINT, 2),
    **{number: (ULL, number) for number in (*range(231, 234), *range(235, 251))},
    269: (ULL, 269),
    270: (ULL, 270),
    271: (ULL, 271),
    **{number: (UINT, number) for number in (274, 301, 302)},
    303: (UINT, 3),
    304: (UINT, 4),
    305: (UINT, 5),
    306: (UINT, 6),
    307: (UINT, 1),
}


def test_every_field_answers_with_the_value_of_the_scenario_and_others_are_not_supported(fake_nvml, nvml):
    fake_nvml.write(FIELDS)
    answer = nvml.ask("nvmlDeviceGetFieldValues(gpu(0), list(range(1, NVML_FI_MAX)))")
    assert answer == [
        [number, 0, 0, *FIELD_VALUES[number]] if number in FIELD_VALUES else [number, 0, 3, UINT, 0]
        for number in range(1, 308)
    ]


def test_a_field_carries_the_time_it_was_read(nvml):
    before_us = time.time_ns() // 1000
    at_us, latency_us = nvml.ask(
        "[value.timestamp, value.latencyUsec]", run="value = nvmlDeviceGetFieldValues(gpu(0), [82])[0]"
    )
    assert before_us <= at_us <= time.time_ns() // 1000
    assert latency_us == 3


def test_a_field_of_another_scope_is_not_supported_except_nvlink(fake_nvml, nvml):
    fake_nvml.write("gpu 0 nvlink_tx=7")
    answer = nvml.ask("nvmlDeviceGetFieldValues(gpu(0), [(186, 2), (138, 0xFFFFFFFF)])")
    assert answer == [[186, 2, 3, UINT, 0], [138, 0xFFFFFFFF, 0, ULL, 7]]


def test_a_scripted_field_fails_or_answers_alone_and_only_on_its_gpu(fake_nvml, nvml):
    fake_nvml.write(
        """
        gpu 0 energy_mj=5
        gpu 1 energy_mj=6
        field 82 3 gpu=0
        field 83 15 gpu=1
        field 297 0 value=12 type=5
        """
    )
    batch = "nvmlDeviceGetFieldValues(gpu({}), [82, 83, 297])"
    assert nvml.ask(batch.format(0)) == [[82, 0, 3, UINT, 0], [83, 0, 0, ULL, 5], [297, 0, 0, INT, 12]]
    assert nvml.ask(batch.format(1)) == [[82, 0, 0, UINT, 34], [83, 0, 15, ULL, 0], [297, 0, 0, INT, 12]]


def energy_mj(nvml):
    return nvml.ask("nvmlDeviceGetFieldValues(gpu(0), [83])[0].value.ullVal")


def test_counters_grow_by_their_step_with_each_batch_of_fields(fake_nvml, nvml):
    fake_nvml.write("gpu 0 energy_mj=1000 energy_step_mj=250 pcie_tx=10 pcie_tx_step=3 nvlink_rx=5")
    batch = "nvmlDeviceGetFieldValues(gpu(0), [83, 197, 139])"
    assert [[value for *_, value in nvml.ask(batch)] for _ in range(3)] == [
        [1000, 10, 5],
        [1250, 13, 5],
        [1500, 16, 5],
    ]
    assert nvml.ask("nvmlDeviceGetTotalEnergyConsumption(gpu(0))") == 1750


def test_counters_go_on_under_a_new_scenario_and_restart_only_where_it_moves_them(fake_nvml, nvml):
    fake_nvml.write("gpu 0 energy_mj=1000 energy_step_mj=250")
    seen = [energy_mj(nvml), energy_mj(nvml)]
    fake_nvml.write("gpu 0 energy_mj=1000 energy_step_mj=1 util=99")
    seen += [energy_mj(nvml), energy_mj(nvml)]
    fake_nvml.write("gpu 0 energy_mj=0 energy_step_mj=1 util=99")
    seen += [energy_mj(nvml), energy_mj(nvml)]
    assert seen == [1000, 1250, 1500, 1501, 0, 1]


def test_a_counter_wraps_at_64_bits(fake_nvml, nvml):
    fake_nvml.write(f"gpu 0 pcie_tx={2**63 - 1} pcie_tx_step={2**63 - 1}")
    field = "nvmlDeviceGetFieldValues(gpu(0), [197])[0].value.ullVal"
    assert [nvml.ask(field) for _ in range(4)] == [2**63 - 1, 2**64 - 2, 2**63 - 3, 2**64 - 4]


def test_a_changed_scenario_changes_the_machine_at_the_next_call(fake_nvml, nvml):
    seen = [nvml.ask("nvmlDeviceGetUtilizationRates(gpu(0)).gpu")]
    for percent in (10, 11, 12):
        fake_nvml.write("gpu 0 util=99")
        fake_nvml.write(f"gpu 0 util={percent}")  # of the same length, within the same tick, often the same inode
        seen.append(nvml.ask("nvmlDeviceGetUtilizationRates(gpu(0)).gpu"))
    assert seen == [0, 10, 11, 12]
    assert nvml.ask("nvmlDeviceGetCount()") == 1


def test_a_gpu_that_leaves_is_lost_to_its_handle_until_it_returns_under_whatever_index(fake_nvml, nvml):
    fake_nvml.write("gpu 0 uuid=GPU-a\ngpu 1 uuid=GPU-b temp=40")
    nvml.run("a, b = gpu(0), gpu(1)")
    fake_nvml.write("gpu 0 uuid=GPU-b temp=41")
    assert nvml.ask("nvmlDeviceGetTemperature(a, 0)") == "NVMLError_GpuIsLost"
    assert nvml.ask("[nvmlDeviceGetIndex(b), nvmlDeviceGetTemperature(b, 0)]") == [0, 41]
    fake_nvml.write("gpu 0 uuid=GPU-b\ngpu 1 uuid=GPU-a temp=42")
    assert nvml.ask("[nvmlDeviceGetIndex(a), nvmlDeviceGetTemperature(a, 0)]") == [1, 42]


def test_a_gpu_is_lost_after_its_calls_and_the_other_one_is_not(fake_nvml, nvml):
    fake_nvml.write("gpu 0\ngpu 1 lost_after=2")
    nvml.run("stays, goes = gpu(0), gpu(1)")
    temperatures = [nvml.ask("nvmlDeviceGetTemperature(goes, 0)") for _ in range(3)]
    assert temperatures == [28, 28, "NVMLError_GpuIsLost"]
    assert nvml.ask("nvmlDeviceGetHandleByIndex(1)") == "NVMLError_GpuIsLost"
    assert nvml.ask("nvmlDeviceGetFieldValues(goes, [82])") == "NVMLError_GpuIsLost"
    assert nvml.ask("[nvmlDeviceGetCount(), nvmlDeviceGetTemperature(stays, 0)]") == [2, 28]
    fake_nvml.write("gpu 0\ngpu 1")
    assert nvml.ask("nvmlDeviceGetTemperature(goes, 0)") == 28


def test_calls_are_counted_on_across_scenarios_and_anew_under_a_changed_number(fake_nvml, nvml):
    fake_nvml.write("gpu 0 lost_after=2")
    nvml.run("handle = gpu(0)")
    seen = [nvml.ask("nvmlDeviceGetTemperature(handle, 0)")]
    fake_nvml.write("gpu 0 lost_after=2 temp=40")
    seen += [nvml.ask("nvmlDeviceGetTemperature(handle, 0)") for _ in range(2)]
    fake_nvml.write("gpu 0 lost_after=1 temp=41")
    seen += [nvml.ask("nvmlDeviceGetTemperature(handle, 0)") for _ in range(2)]
    assert seen == [28, 40, "NVMLError_GpuIsLost", 41, "NVMLError_GpuIsLost"]


def test_a_function_fails_by_its_name_on_its_gpu_and_in_all_its_versions(fake_nvml, nvml):
    fake_nvml.write(
        """
        gpu 0
        gpu 1
        fail nvmlDeviceGetTemperatureV 3 gpu=1
        fail nvmlDeviceGetMemoryInfo 4 gpu=0
        missing nvmlDeviceGetMarginTemperature
        fail nvmlDeviceGetHandleByIndex 16 gpu=1
        """
    )
    zero, one = (f"nvmlDeviceGetHandleByPciBusId('0000:{bus}:00.0')" for bus in ("1b", "1c"))
    assert nvml.ask(f"nvmlDeviceGetTemperatureV({zero}, 0)") == 28
    assert nvml.ask(f"nvmlDeviceGetTemperatureV({one}, 0)") == "NVMLError_NotSupported"
    assert nvml.ask(f"nvmlDeviceGetMemoryInfo({zero})") == "NVMLError_NoPermission"
    assert nvml.ask(f"nvmlDeviceGetMemoryInfo({zero}, version=nvmlMemory_v2)") == "NVMLError_NoPermission"
    assert nvml.ask(f"nvmlDeviceGetMemoryInfo({one}).total") == 150754820096
    assert nvml.ask(f"nvmlDeviceGetMarginTemperature({one})") == "NVMLError_FunctionNotFound"
    assert nvml.ask("nvmlDeviceGetHandleByIndex(1)") == "NVMLError_ResetRequired"


def test_a_driver_that_is_not_loaded_fails_the_start_until_it_is_loaded(fake_nvml, started):
    fake_nvml.write("fail nvmlInit 9")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_DriverNotLoaded"
    assert nvml.ask("nvmlDeviceGetCount()") == "NVMLError_Uninitialized"
    fake_nvml.write("gpu 0")
    assert nvml.ask("nvmlDeviceGetCount()", run="nvmlInit()") == 1


def test_a_star_fails_every_function(fake_nvml, nvml):
    fake_nvml.write("gpu 0\nfail * 18")
    assert nvml.ask("nvmlDeviceGetCount()") == "NVMLError_LibRmVersionMismatch"
    assert nvml.ask("nvmlInit()") == "NVMLError_LibRmVersionMismatch"


def test_init_counts_and_the_last_shutdown_ends_everything(nvml):
    nvml.run("nvmlInit(); handle = gpu(0); events = nvmlEventSetCreate(); nvmlShutdown()")
    assert nvml.ask("nvmlDeviceGetIndex(handle)") == 0
    nvml.run("nvmlShutdown()")
    assert nvml.ask("nvmlDeviceGetIndex(handle)") == "NVMLError_Uninitialized"
    assert nvml.ask("nvmlShutdown()") == "NVMLError_Uninitialized"
    nvml.run("nvmlInit()")
    assert nvml.ask("nvmlEventSetWait(events, 0)") == "NVMLError_InvalidArgument"


NULLS = [
    "call('nvmlSystemGetDriverVersion', None, 80)",
    "call('nvmlDeviceGetCount_v2', None)",
    "call('nvmlDeviceGetHandleByUUID', None, ctypes.byref(gpu(0)))",
    "call('nvmlDeviceGetHandleByIndex_v2', 0, None)",
    "call('nvmlDeviceGetName', gpu(0), None, 96)",
    "call('nvmlDeviceGetPowerUsage', gpu(0), None)",
    "call('nvmlDeviceGetPowerUsage', None, None)",
    "call('nvmlDeviceGetPowerUsage', ctypes.c_void_p(4096), ctypes.byref(ctypes.c_uint()))",
    "call('nvmlDeviceGetEccMode', gpu(0), ctypes.byref(ctypes.c_uint()), None)",
    "call('nvmlDeviceGetClockInfo', gpu(0), 0, None)",
    "call('nvmlDeviceGetMemoryInfo_v2', gpu(0), None)",
    "call('nvmlDeviceGetFieldValues', gpu(0), 1, None)",
    "call('nvmlDeviceGetComputeRunningProcesses_v3', gpu(0), None, None)",
    "call('nvmlEventSetCreate', None)",
    "call('nvmlEventSetWait_v2', None, None, 0)",
]


def test_null_arguments_are_invalid_and_kill_nobody(nvml):
    assert {question: nvml.ask(question) for question in NULLS} == dict.fromkeys(NULLS, 2)


def test_a_short_buffer_is_an_insufficient_size(nvml):
    assert nvml.ask("call('nvmlDeviceGetName', gpu(0), ctypes.create_string_buffer(4), 4)") == 7


PROCESSES = """
gpu 0
gpu 1
process gpu=0 pid=11 memory=1048576 type=compute
process gpu=0 pid=12 memory=none type=compute gi=3 ci=1
process gpu=0 pid=13 memory=5 type=graphics
process gpu=1 pid=14 memory=6 type=mps
"""


def test_processes_are_listed_by_gpu_and_type(fake_nvml, nvml):
    fake_nvml.write(PROCESSES)
    none = 0xFFFFFFFF

    def process(pid, memory, gi=none, ci=none):
        return {"pid": pid, "usedGpuMemory": memory, "gpuInstanceId": gi, "computeInstanceId": ci}

    kinds = ("Compute", "Graphics", "MPSCompute")
    listed = {
        (index, kind, version): nvml.ask(f"nvmlDeviceGet{kind}RunningProcesses{version}(gpu({index}))")
        for index in (0, 1)
        for kind in kinds
        for version in ("", "_v2")
    }
    expected = {key: [] for key in listed}
    for version in ("", "_v2"):
        expected[0, "Compute", version] = [process(11, 1048576), process(12, None, 3, 1)]
        expected[0, "Graphics", version] = [process(13, 5)]
        expected[1, "MPSCompute", version] = [process(14, 6)]
    assert listed == expected


def test_too_small_an_array_of_processes_is_filled_and_told_the_size(fake_nvml, nvml):
    fake_nvml.write(PROCESSES)
    answer = nvml.ask(
        "[result, count.value, found[0].pid, found[1].pid]",
        run="count = c_uint(1); found = (c_nvmlProcessInfo_v3_t * 2)()\n"
        "result = call('nvmlDeviceGetComputeRunningProcesses_v3', gpu(0), ctypes.byref(count), found)",
    )
    assert answer == [7, 2, 11, 0]


def test_a_hanging_call_holds_nobody_else_up_and_ends_when_its_line_is_gone(fake_nvml, nvml):
    fake_nvml.write("gpu 0 util=1\ngpu 1 temp=33\nhang nvmlDeviceGetUtilizationRates 60000 gpu=0")
    nvml.run(
        "zero, one, seen = gpu(0), gpu(1), []\n"
        "thread = threading.Thread(target=lambda: seen.append(nvmlDeviceGetUtilizationRates(zero).gpu))\n"
        "thread.start()"
    )
    others = "[nvmlDeviceGetUtilizationRates(one).gpu, nvmlDeviceGetTemperature(zero, 0)]"
    assert [nvml.ask(others), nvml.ask("[thread.is_alive(), seen]")] == [[0, 28], [True, []]]
    fake_nvml.write("gpu 0 util=2\ngpu 1")
    assert nvml.ask("seen", run="thread.join()") == [2]


def test_a_hang_ends_after_its_time(fake_nvml, nvml):
    fake_nvml.write("gpu 0 util=7\nhang nvmlDeviceGetUtilizationRates 50")
    begin = time.monotonic()
    assert nvml.ask("nvmlDeviceGetUtilizationRates(gpu(0)).gpu") == 7
    assert time.monotonic() - begin >= 0.05


LATER_THAN_THE_OLD_DRIVER = [
    "nvmlDeviceGetTemperatureV(gpu(0), 0)",
    "nvmlDeviceGetMarginTemperature(gpu(0))",
    "nvmlDeviceGetMemoryInfo(gpu(0), version=nvmlMemory_v2)",
    "nvmlDeviceGetCurrentClocksEventReasons(gpu(0))",
    "nvmlDeviceGetJpgUtilization(gpu(0))",
    "nvmlDeviceGetComputeRunningProcesses_v3(gpu(0))",
]


def test_an_old_driver_lacks_later_functions_and_has_their_forerunners(fake_nvml_old_driver, started):
    fake_nvml_old_driver.write("gpu 0 temp=44 reasons=0x8 memory_used=5\nprocess gpu=0 pid=9 type=compute")
    nvml = started(fake_nvml_old_driver.environment)
    nvml.run("nvmlInit()")
    assert {question: nvml.ask(question) for question in LATER_THAN_THE_OLD_DRIVER} == dict.fromkeys(
        LATER_THAN_THE_OLD_DRIVER, "NVMLError_FunctionNotFound"
    )
    # pynvml gives the unversioned name an error that is no NVMLError
    assert nvml.ask("nvmlDeviceGetComputeRunningProcesses(gpu(0))") == "NVMLLibraryMismatchError"
    assert nvml.ask("nvmlDeviceGetComputeRunningProcesses_v2(gpu(0))[0].pid") == 9
    assert nvml.ask("nvmlDeviceGetTemperature(gpu(0), 0)") == 44
    assert nvml.ask("nvmlDeviceGetMemoryInfo(gpu(0)).used") == 643825669
    assert nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons(gpu(0))") == 0x8
    assert nvml.ask("nvmlSystemGetNVMLVersion()") == "11.470.256.02"


def test_an_old_driver_does_not_know_later_fields(fake_nvml_old_driver, started):
    nvml = started(fake_nvml_old_driver.environment)
    answer = nvml.ask("nvmlDeviceGetFieldValues(gpu(0), [82, 186])", run="nvmlInit()")
    assert answer == [[82, 0, 0, UINT, 34], [186, 0, 3, UINT, 0]]


WRONG_LINES = {
    "gpu 0 utility=3": "no such setting: utility",
    "gpu 0 util=much": "not a number: much",
    "gpu 1": "GPUs are numbered from 0 without gaps: 1",
    "fails nvmlInit 3": "no such line, or not with so many words: fails",
    "fail nvmlInit": "no such line, or not with so many words: fail",
    "fail nvmlInit 3 4": "one word too many: 4",
    "process gpu=0 pid=1 type=game": "no such type of process: game",
    "process pid=1 type=compute": "of which gpu: process",
    "xid code=79": "of which gpu: xid",
    "field temp 3": "not a number: temp",
    "pid=3": "no line begins with: pid",
    'gpu 0 name="NVIDIA H200': "a quote has no end",
    "xid gpu=0 pid=79": "no such setting: pid",
    f"gpu 0 name={'x' * 96}": "too long: name",
}


@pytest.mark.parametrize(("line", "complaint"), WRONG_LINES.items(), ids=WRONG_LINES)
def test_a_wrong_line_is_told_and_no_call_succeeds_until_it_is_right(fake_nvml, started, line, complaint):
    fake_nvml.write(f"# wrong\n{line}\n")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    fake_nvml.write("gpu 0")
    assert nvml.ask("nvmlDeviceGetCount()", run="nvmlInit()") == 1
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:2: {complaint}\n"


def test_a_line_about_a_gpu_that_is_not_there_is_told(fake_nvml, started):
    fake_nvml.write("xid gpu=1 code=79\ngpu 0\n")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:2: no such GPU: xid\n"


def test_a_scenario_that_is_not_there_is_told(fake_nvml, started):
    fake_nvml.scenario_path.unlink()
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:0: no such file\n"


def test_no_compiler_is_a_clear_error(pytestconfig, monkeypatch, tmp_path):
    plugin = pytestconfig.pluginmanager.get_plugin("fakenvml")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(plugin.NoCompilerError, match="needs cc or gcc on PATH"):
        plugin.build(tmp_path)
    assert list(tmp_path.iterdir()) == []
