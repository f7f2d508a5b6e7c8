"""The GPU probe, through the real nvidia-ml-py on the stand-in driver (tests/fakenvml)."""

import pytest

from store.events import GPU_SAMPLE

PAST_EVERY_REST_S = 601.0
LOST, NO_DATA, NO_PERMISSION, NOT_SUPPORTED = "lost", "no_data", "no_permission", "not_supported"

BUSY = """
driver 580.95.05
cuda 13000
gpu 0 uuid=GPU-a name="NVIDIA H200" pci=00000000:1B:00.0 serial=165 vbios=96.00.BF.00.01
gpu 0 util=37 mem_util=12 temp=52 mem_temp=61 clock_sm=1980 clock_mem=3201 clock_gr=1965 clock_video=1545
gpu 0 pstate=2 reasons=0x24 memory_total=150754820096 memory_used=40000000000 memory_reserved=643825664
gpu 0 power_mw=612345 power_instant_mw=623456 power_limit_mw=650000 power_default_limit_mw=700000
gpu 0 energy_mj=5000000123 throttle_sw_power_ns=1500000000 throttle_sync_boost_ns=2250000000
gpu 0 throttle_sw_thermal_ns=3125000000 throttle_hw_thermal_ns=4000000000 throttle_hw_power_brake_ns=5000000
gpu 0 pcie_tx=1111111 pcie_rx=2222222 pcie_replay=7 nvlink_tx=3000 nvlink_rx=4000
gpu 0 module_power_mw=812500 module_power_instant_mw=823250 memory_power_mw=61125 nvlink_raw_tx=3500 nvlink_raw_rx=4500
gpu 0 throttle_thermal_ns=7000000000 throttle_board_limit_ns=8000000 throttle_low_utilization_ns=9500000000
gpu 0 throttle_reliability_ns=10000000 throttle_application_clocks_ns=11000000000 throttle_base_clocks_ns=12000000
gpu 0 max_clock_sm=1985 max_clock_mem=3202 max_pcie_gen=5 max_pcie_width=16 ecc=1 mig=0 persistence=1
"""

HOT = {
    "utilization_percent": 37,
    "memory_utilization_percent": 12,
    "temperature_celsius": 52,
    "clock_sm_hertz": 1_980_000_000,
    "clock_memory_hertz": 3_201_000_000,
    "clock_graphics_hertz": 1_965_000_000,
    "clock_video_hertz": 1_545_000_000,
    "performance_state": 2,
    "clock_event_reasons_bitmask": 0x24,
    "memory_kind": "dedicated",
    "memory_used_bytes": 40_000_000_000,
    "memory_total_bytes": 150_754_820_096,
    "memory_free_bytes": 110_110_994_432,
    "memory_reserved_bytes": 643_825_664,
    "memory_temperature_celsius": 61,
    "energy_joules": 5_000_000.123,
    "power_watts": 612.345,
    "power_instant_watts": 623.456,
    "power_limit_watts": 650.0,
    "module_power_watts": 812.5,
    "module_power_instant_watts": 823.25,
    "memory_power_watts": 61.125,
    "throttle_sw_power_cap_seconds": 1.5,
    "throttle_sync_boost_seconds": 2.25,
    "throttle_sw_thermal_seconds": 3.125,
    "throttle_hw_thermal_seconds": 4.0,
    "throttle_hw_power_brake_seconds": 0.005,
    "throttle_thermal_seconds": 7.0,
    "throttle_board_limit_seconds": 0.008,
    "throttle_low_utilization_seconds": 9.5,
    "throttle_reliability_seconds": 0.01,
    "throttle_application_clocks_seconds": 11.0,
    "throttle_base_clocks_seconds": 0.012,
    "pcie_replay_count": 7,
    "pcie_tx_bytes": 1_111_111,
    "pcie_rx_bytes": 2_222_222,
    "nvlink_tx_bytes": 3_072_000,
    "nvlink_rx_bytes": 4_096_000,
    "nvlink_raw_tx_bytes": 3_584_000,
    "nvlink_raw_rx_bytes": 4_608_000,
}
"""What a row says of the machine above, in the columns' units."""

MEMINFO = "MemTotal:       125000000 kB\nMemFree:          90000 kB\nMemAvailable:   98000000 kB\n"
MEMORY_COLUMNS = {column for column in HOT if column.startswith("memory_") and column.endswith(("_bytes", "_kind"))}
FIELD_COLUMNS = {
    82: "memory_temperature_celsius",
    83: "energy_joules",
    185: "power_watts",
    186: "power_instant_watts",
    190: "power_limit_watts",
    74: "throttle_sw_power_cap_seconds",
    76: "throttle_sync_boost_seconds",
    269: "throttle_sw_thermal_seconds",
    270: "throttle_hw_thermal_seconds",
    271: "throttle_hw_power_brake_seconds",
    94: "pcie_replay_count",
    197: "pcie_tx_bytes",
    198: "pcie_rx_bytes",
    138: "nvlink_tx_bytes",
    139: "nvlink_rx_bytes",
    75: "throttle_thermal_seconds",
    77: "throttle_board_limit_seconds",
    78: "throttle_low_utilization_seconds",
    79: "throttle_reliability_seconds",
    80: "throttle_application_clocks_seconds",
    81: "throttle_base_clocks_seconds",
    140: "nvlink_raw_tx_bytes",
    141: "nvlink_raw_rx_bytes",
}
OTHER_SCOPES = {185: ("module_power_watts", "memory_power_watts"), 186: ("module_power_instant_watts",)}
"""Columns of a field that is asked for the module or the memory, too."""
NO_MODULE = dict.fromkeys(("module_power_watts", "module_power_instant_watts", "memory_power_watts"), NOT_SUPPORTED)
"""What a GPU says that is no part of a module, and does not measure its memory."""
CALL_COLUMNS = {
    "nvmlDeviceGetUtilizationRates": {"utilization_percent", "memory_utilization_percent"},
    "nvmlDeviceGetClockInfo": {column for column in HOT if column.startswith("clock_") and column.endswith("_hertz")},
    "nvmlDeviceGetMemoryInfo": MEMORY_COLUMNS,
    "nvmlDeviceGetFieldValues": {*FIELD_COLUMNS.values(), *NO_MODULE, "driver_sampled_at"}
    - {"power_watts", "power_limit_watts"},
}
"""Each call that has no second name to fall back on, and the columns that fail with it."""
CALL_PAIRS_COLUMNS = {
    ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"): {"temperature_celsius"},
    ("nvmlDeviceGetPerformanceState", "nvmlDeviceGetPowerState"): {"performance_state"},
    ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"): {
        "clock_event_reasons_bitmask"
    },
}
ERRORS = {
    2: NOT_SUPPORTED,  # INVALID_ARGUMENT
    3: NOT_SUPPORTED,
    4: NO_PERMISSION,
    6: NO_DATA,  # NOT_FOUND
    10: NO_DATA,  # TIMEOUT
    11: NO_DATA,  # IRQ_ISSUE
    13: NOT_SUPPORTED,  # FUNCTION_NOT_FOUND
    15: LOST,
    16: LOST,  # RESET_REQUIRED
    21: NO_DATA,
    25: NOT_SUPPORTED,  # ARGUMENT_VERSION_MISMATCH
    28: LOST,  # GPU_NOT_FOUND
    999: NO_DATA,  # UNKNOWN
}
"""Every return code that concerns one call, and the reason beside the NULL."""


@pytest.fixture
def proc(tmp_path):
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "meminfo").write_text(MEMINFO)
    return str(folder)


@pytest.fixture
def machine(gpu_machine, fake_nvml, proc):
    """Start a probe on this machine."""

    def start(scenario=BUSY, **options):
        fake_nvml.write(scenario)
        return gpu_machine(fake_nvml, proc=proc, **options)

    return start


def identity(**changes):
    """What stands in every row beside its readings."""
    return {
        "gpu_uuid": "GPU-a",
        "gpu_index": 0,
        "interval_seconds": 1.0,
        "counter_epoch": 1_795_435_201,
        "up": True,
        **changes,
    }


def readings(row):
    """The row without its identity and its reasons; the stand-in stamps fields with the real time."""
    return {
        column: value for column, value in row.items() if column not in {*identity(), "absence", "driver_sampled_at"}
    }


def lost_row(**changes):
    return identity(up=False, absence={"*": LOST}, **changes)


# --- what a row says


def test_every_hot_column_has_the_drivers_value_in_its_own_unit(machine):
    row = machine().read().row
    sampled_at_us = row.pop("driver_sampled_at")
    assert row == {**identity(), **HOT}
    assert sampled_at_us > 0
    assert set(row) <= set(GPU_SAMPLE.by_name)


def test_the_inventory_says_once_what_the_gpu_is(machine):
    probe = machine()
    (description,) = probe.read().of("inventory")
    capabilities = description.pop("capabilities")
    assert set(capabilities.values()) == {"ok", NOT_SUPPORTED}
    assert capabilities["nvmlDeviceGetUtilizationRates"] == capabilities["field 83"] == "ok"
    assert description == {
        "subject": "gpu",
        "source": "nvml",
        "gpu_uuid": "GPU-a",
        "gpu_index": 0,
        "name": "NVIDIA H200",
        "serial": "165",
        "brand": "NVIDIA",
        "board_part_number": "699-2G530-0215-500",
        "pci_bus_id": "00000000:1B:00.0",
        "pci_device_id": "10de:2335",
        "pci_subsystem_id": "10de:18be",
        "architecture": "Hopper",
        "compute_capability": "9.0",
        "vbios_version": "96.00.BF.00.01",
        "driver_version": "580.95.05",
        "nvml_version": "13.580.95.05",
        "cuda_version": "13.0",
        "mig_enabled": False,
        "mig_pending_enabled": False,
        "ecc_enabled": True,
        "ecc_pending_enabled": True,
        "accounting_enabled": False,
        "display_attached": False,
        "display_active": False,
        "virtualization_mode": "none",
        "gsp_enabled": True,
        "persistence_enabled": True,
        "compute_mode": "default",
        "gsp_firmware_version": "580.95.05",
        "inforom_version": "G520.0280.00.05",
        "attributes": {"cores_count": 16896, "cpu_affinity": "0-31"},
        "memory_kind": "dedicated",
        "memory_total_bytes": 150_754_820_096,
        "power_limit_watts": 650.0,
        "power_limit_default_watts": 700.0,
        "power_limit_minimum_watts": 200.0,
        "power_limit_maximum_watts": 700.0,
        "clock_sm_maximum_hertz": 1_985_000_000,
        "clock_memory_maximum_hertz": 3_202_000_000,
        "clock_graphics_maximum_hertz": 1_980_000_000,
        "clock_video_maximum_hertz": 1_545_000_000,
        "clock_event_reasons_supported_bitmask": 0x1FF,
        "pcie_link_maximum_generation": 5,
        "pcie_link_maximum_width_lanes": 16,
    }
    assert probe.read().of("inventory") == []
    assert probe.read(after_s=60).of("inventory") == []


def test_what_a_gpu_cannot_say_of_itself_stands_in_its_capabilities(machine):
    probe = machine(f"{BUSY}\ngpu 0 serial=none mig=none architecture=99\nfail nvmlDeviceGetEccMode 4\n"
                    "fail nvmlDeviceGetComputeMode 999\nmissing nvmlDeviceGetGspFirmwareVersion\n")  # fmt: skip
    (description,) = probe.read().of("inventory")
    asked = ("Serial", "MigMode", "EccMode", "ComputeMode", "GspFirmwareVersion")
    assert [description["capabilities"][f"nvmlDeviceGet{name}"] for name in asked] == [
        NOT_SUPPORTED,
        NOT_SUPPORTED,
        NO_PERMISSION,
        "error 999",
        "missing_symbol",
    ]
    columns = {"serial", "mig_enabled", "ecc_enabled", "compute_mode", "gsp_firmware_version", "architecture"}
    assert not columns & set(description)


def test_what_a_gpu_is_is_written_again_when_it_changes(machine):
    probe = machine()
    probe.read()
    probe.becomes(BUSY.replace("power_limit_mw=650000", "power_limit_mw=500000"))
    assert [one.of("inventory") for one in (probe.read(after_s=30), probe.read(after_s=29))] == [[], []]
    (description,) = probe.read(after_s=1).of("inventory")  # what a GPU is is looked at once a minute
    assert description["power_limit_watts"] == 500.0


def test_an_idle_gpu_that_says_0_is_0_and_not_null(machine):
    row = machine("gpu 0 uuid=GPU-a util=0 mem_util=0 energy_mj=0 reasons=0 pcie_tx=0 mem_temp=0\n").read().row
    zeros = ("utilization_percent", "memory_utilization_percent", "energy_joules", "clock_event_reasons_bitmask")
    zeros += ("pcie_tx_bytes", "memory_temperature_celsius")
    assert {column: row[column] for column in zeros} == dict.fromkeys(zeros, 0)
    assert row["absence"] == NO_MODULE


def test_a_zero_that_cannot_be_true_is_null_and_suspect(machine):
    row = machine("gpu 0 uuid=GPU-a temp=0 power_mw=0 clock_sm=0 module_power_mw=0 memory_power_mw=0\n").read().row
    columns = ("temperature_celsius", "power_watts", "clock_sm_hertz", "module_power_watts", "memory_power_watts")
    suspects = {**dict.fromkeys(columns, "suspect"), "module_power_instant_watts": NOT_SUPPORTED}
    assert row["absence"] == suspects
    assert not set(suspects) & set(row)


def test_every_value_type_of_a_field_is_read_from_its_own_member(machine):
    probe = machine()
    for value_type, written, read in [
        (0, 71, 71.0),
        (1, 72, 72),
        (2, 73, 73),
        (3, 74, 74),
        (4, 75, 75),
        (5, -6, -6),
        (6, 77, 77),
    ]:
        probe.begin()
        probe.becomes(f"{BUSY}\nfield 82 0 value={written} type={value_type}\n")
        assert probe.read().row["memory_temperature_celsius"] == read


def test_a_field_of_a_type_that_is_not_known_or_that_says_not_available_is_null(machine):
    probe = machine(f"{BUSY}\nfield 82 0 value=71 type=9\nfield 186 0 value=0xFFFFFFFF\nfield 83 0 value=-1\n")
    row = probe.read().row
    absent = {"memory_temperature_celsius": NOT_SUPPORTED, "energy_joules": NO_DATA}
    absent |= dict.fromkeys(("power_instant_watts", "module_power_instant_watts"), NO_DATA)
    assert row["absence"] == absent
    assert readings(row) == {column: value for column, value in HOT.items() if column not in absent}


# --- what is absent, and why


def test_a_field_that_fails_is_null_with_its_reason_and_never_0(machine):
    probe = machine()
    for field_id, column in FIELD_COLUMNS.items():
        for code, reason in ERRORS.items():
            probe.becomes(f"{BUSY}\nfield {field_id} {code}\nfail nvmlDeviceGetPowerUsage {code}\n"
                            f"fail nvmlDeviceGetEnforcedPowerLimit {code}\n")  # fmt: skip
            row = probe.read(after_s=PAST_EVERY_REST_S).row
            columns = (column, *OTHER_SCOPES.get(field_id, ()))
            expected = {name: value for name, value in HOT.items() if name not in columns}
            assert (field_id, code, readings(row)) == (field_id, code, expected)
            assert row["absence"] == dict.fromkeys(columns, reason)
            assert row["up"]


def test_a_call_that_fails_is_null_with_its_reason_and_never_0(machine):
    probe = machine()
    calls = {(name,): columns for name, columns in CALL_COLUMNS.items()} | CALL_PAIRS_COLUMNS
    for names, columns in calls.items():
        for code, reason in ERRORS.items():
            if names == ("nvmlDeviceGetMemoryInfo",) and code == 3:
                continue  # says that the GPU shares the host's memory: see below
            probe.becomes(BUSY + "".join(f"fail {name} {code}\n" for name in names))
            row = probe.read(after_s=PAST_EVERY_REST_S).row
            expected = {name: value for name, value in HOT.items() if name not in columns}
            assert (names, code, readings(row)) == (names, code, expected)
            assert row["absence"] == dict.fromkeys(columns, reason)
            assert row["up"]


def test_a_batch_that_fails_does_not_give_the_time_of_the_one_before(machine):
    probe = machine()
    assert probe.read().row["driver_sampled_at"] > 0
    probe.becomes(f"{BUSY}\nfail nvmlDeviceGetFieldValues 4\n")
    row = probe.read().row
    assert "driver_sampled_at" not in row
    assert row["absence"]["driver_sampled_at"] == NO_PERMISSION


def test_a_performance_state_that_the_driver_does_not_know_is_no_data(machine):
    row = machine(f"{BUSY}\ngpu 0 pstate=32\n").read().row
    assert row["absence"] == {"performance_state": NO_DATA}
    assert "performance_state" not in row


def test_power_comes_from_the_older_calls_where_the_driver_serves_no_such_field(machine):
    row = machine(f"{BUSY}\nfield 185 3\nfield 190 3\n").read().row
    other_scopes = dict.fromkeys(OTHER_SCOPES[185], NOT_SUPPORTED)
    assert readings(row) == {column: value for column, value in HOT.items() if column not in other_scopes}
    assert row["absence"] == other_scopes


@pytest.mark.parametrize("code", [3, 4, 13])
def test_a_reading_that_is_not_supported_or_refused_is_asked_again_ever_more_seldom(machine, code):
    failing = f"{BUSY}\nfail nvmlDeviceGetUtilizationRates {code}\n"
    probe = machine(failing)
    absent = dict.fromkeys(CALL_COLUMNS["nvmlDeviceGetUtilizationRates"], ERRORS[code])
    assert probe.read().row["absence"] == absent
    for rest_s in (60, 120, 240, 480, 600, 600):
        probe.becomes(BUSY)
        assert probe.read(after_s=rest_s - 1).row["absence"] == absent
        probe.becomes(failing)
        assert probe.read(after_s=1).row["absence"] == absent
    probe.becomes(BUSY)
    assert "absence" in probe.read(after_s=599).row
    row = probe.read(after_s=1).row
    assert readings(row) == HOT
    assert "absence" not in row


@pytest.mark.parametrize("code", [10, 999])
def test_a_reading_that_failed_is_asked_again_at_the_next_tick(machine, code):
    probe = machine(f"{BUSY}\nfail nvmlDeviceGetUtilizationRates {code}\n")
    assert "utilization_percent" in probe.read().row["absence"]
    probe.becomes(BUSY)
    assert readings(probe.read().row) == HOT


# --- unified memory


UNIFIED = """
gpu 0 uuid=GPU-a name="NVIDIA GB10" unified={how}
process gpu=0 pid=11 memory=1000000 type=compute
process gpu=0 pid=12 memory=500000 type=compute
process gpu=0 pid=12 memory=500000 type=graphics
process gpu=0 pid=13 memory=30000 type=graphics
"""


def memory_of(row):
    return {
        column: row[column]
        for column in row
        if column in MEMORY_COLUMNS | {"memory_available_bytes", "memory_process_bytes"}
    }


@pytest.mark.parametrize("how", ["1", "total0"])
def test_unified_memory_is_the_hosts_and_used_is_the_sum_of_the_processes(machine, how):
    seen = machine(UNIFIED.format(how=how)).read()
    assert memory_of(seen.row) == {
        "memory_kind": "unified",
        "memory_total_bytes": 125_000_000 * 1024,
        "memory_available_bytes": 98_000_000 * 1024,
        "memory_used_bytes": 1_530_000,
        "memory_process_bytes": 1_530_000,
    }
    absent = dict.fromkeys(("memory_free_bytes", "memory_reserved_bytes"), NOT_SUPPORTED)
    assert seen.row["absence"] == NO_MODULE | absent
    (description,) = seen.of("inventory")
    assert description["memory_kind"] == "unified"
    assert "memory_total_bytes" not in description


def test_unified_memory_without_processes_is_used_by_none(machine):
    row = machine("gpu 0 uuid=GPU-a unified=1\n").read().row
    assert (row["memory_used_bytes"], row["memory_process_bytes"]) == (0, 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("process gpu=0 pid=14 memory=none type=compute", NO_DATA),
        ("fail nvmlDeviceGetComputeRunningProcesses 4", NO_PERMISSION),
        ("fail nvmlDeviceGetComputeRunningProcesses 3", NOT_SUPPORTED),
        ("fail nvmlDeviceGetGraphicsRunningProcesses 999", NO_DATA),
    ],
)
def test_a_process_whose_memory_is_not_told_makes_the_sum_null_with_the_reason(machine, line, reason):
    row = machine(UNIFIED.format(how="1") + line).read().row
    assert memory_of(row) == {
        "memory_kind": "unified",
        "memory_total_bytes": 125_000_000 * 1024,
        "memory_available_bytes": 98_000_000 * 1024,
    }
    absent = dict.fromkeys(("memory_used_bytes", "memory_process_bytes"), reason)
    assert row["absence"] == {
        **NO_MODULE,
        **absent,
        "memory_free_bytes": NOT_SUPPORTED,
        "memory_reserved_bytes": NOT_SUPPORTED,
    }


def test_a_proc_without_meminfo_costs_unified_memory_its_total_and_nothing_else(machine, tmp_path):
    probe = machine(UNIFIED.format(how="1"))
    (tmp_path / "proc/meminfo").unlink()
    row = probe.read().row
    assert memory_of(row) == {
        "memory_kind": "unified",
        "memory_used_bytes": 1_530_000,
        "memory_process_bytes": 1_530_000,
    }
    assert row["temperature_celsius"] == 28


def test_a_gpu_with_memory_of_its_own_is_not_asked_for_its_processes(machine):
    row = machine(f"{BUSY}\nprocess gpu=0 pid=11 memory=1000000 type=compute\n").read().row
    assert readings(row) == HOT


# --- older drivers and older nvidia-ml-py


def test_a_driver_of_the_470_branch_is_asked_by_the_older_names(gpu_machine, fake_nvml_old_driver):
    fake_nvml_old_driver.write(BUSY.replace("580.95.05", "470.256.02").replace("13000", "11040"))
    row = gpu_machine(fake_nvml_old_driver).read().row
    later_fields = {FIELD_COLUMNS[field_id] for field_id in (186, 197, 198, 269, 270, 271)}
    assert row["absence"] == dict.fromkeys({*later_fields, *NO_MODULE, "memory_reserved_bytes"}, NOT_SUPPORTED)
    expected = {column: value for column, value in HOT.items() if column not in row["absence"]}
    assert readings(row) == {**expected, "memory_used_bytes": 40_643_825_664}  # with what is reserved


@pytest.mark.parametrize("how", ["1", "total0"])
def test_unified_memory_is_known_under_an_old_driver_too(gpu_machine, fake_nvml_old_driver, proc, how):
    fake_nvml_old_driver.write(UNIFIED.format(how=how))
    row = gpu_machine(fake_nvml_old_driver, proc=proc).read().row
    assert (row["memory_kind"], row["memory_used_bytes"]) == ("unified", 1_530_000)


NEWER_NAMES = (
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetRepairStatus",
    "nvmlDeviceGetPlatformInfo",
    "nvmlDeviceGetAddressingMode",
    "nvmlDeviceGetDramEncryptionMode",
    "c_nvmlGpuFabricInfo_v2_t",
    "c_nvmlGpuFabricInfo_v3_t",
    "nvmlDeviceGetGspFirmwareVersion",  # and what took other arguments then
    "nvmlDeviceGetGspFirmwareMode",
    "nvmlDeviceGetModuleId",
)
"""What the oldest nvidia-ml-py that is supported lacks, or has in another way."""


def test_an_nvidia_ml_py_without_the_newer_names_records_as_much(machine):
    told = "gpu 0 module_id=3 addressing=1 dram_encryption=0 fabric_state=3 fabric_clique=7 chassis=1\n"
    probe = machine(f"{BUSY}\n{told}")
    first = probe.read()
    probe.run(f"for name in {NEWER_NAMES}: delattr(pynvml, name)")
    probe.begin()
    seen = probe.read()
    assert readings(seen.row) == HOT
    assert "absence" not in seen.row
    assert seen.of("inventory") == first.of("inventory")
    assert {column for row in seen.whole_rows for column in row} == {
        column for row in first.whole_rows for column in row
    }


# --- GPUs that come and go


TWO = """
gpu 0 uuid=GPU-a util=11
gpu 1 uuid=GPU-b util=22
"""


def by_uuid(seen):
    return {row["gpu_uuid"]: row for row in seen.rows}


def test_a_lost_gpu_goes_on_as_null_rows_with_one_event_and_leaves_the_others_alone(machine):
    probe = machine(TWO)
    assert probe.read().told == []
    probe.becomes(f"{TWO}\ngpu 1 lost_after=0\n")
    lost = probe.read()
    assert by_uuid(lost)["GPU-b"] == lost_row(gpu_uuid="GPU-b", gpu_index=1)
    (event,) = lost.of("gpu_event")
    assert event == {
        "event": "lost",
        "gpu_uuid": "GPU-b",
        "gpu_index": 1,
        "pci_bus_id": "00000000:1C:00.0",
        "source": "sampler",
        "severity": "critical",
        "message": "GPU 1 lost: the driver says that it is lost",
    }
    for _ in range(25):  # past two readings of the list
        later = probe.read()
        assert later.told == []
        assert readings(by_uuid(later)["GPU-b"]) == {}
        assert by_uuid(later)["GPU-b"]["absence"] == {"*": LOST}
        assert by_uuid(later)["GPU-a"]["utilization_percent"] == 11
        assert by_uuid(later)["GPU-a"]["absence"] == NO_MODULE


def test_a_lost_gpu_that_answers_again_is_recovered_once(machine):
    probe = machine(TWO)
    probe.read()
    probe.becomes(f"{TWO}\ngpu 1 lost_after=0\n")
    probe.read()
    probe.becomes(TWO)
    recovered = probe.read()
    assert recovered.told == ["GPU 1 recovered: it answers again"]
    assert by_uuid(recovered)["GPU-b"]["utilization_percent"] == 22
    assert by_uuid(recovered)["GPU-b"]["up"]
    assert probe.read().told == []


def test_a_gpu_that_is_no_longer_listed_is_lost_until_it_is_listed_again(machine):
    probe = machine(TWO)
    first_epoch = by_uuid(probe.read())["GPU-b"]["counter_epoch"]
    probe.becomes("gpu 0 uuid=GPU-a\n")
    told = [message for _ in range(12) for message in probe.read().told]
    assert told == ["GPU 1 lost: the driver says that it is lost"]
    probe.becomes(TWO)
    seen = [probe.read() for _ in range(12)]
    assert [message for one in seen for message in one.told] == ["GPU 1 recovered: it answers again"]
    assert by_uuid(seen[-1])["GPU-b"]["utilization_percent"] == 22
    assert by_uuid(seen[-1])["GPU-b"]["counter_epoch"] > first_epoch


def test_a_gpu_whose_stale_handle_answers_nonsense_is_not_taken_for_recovered(machine):
    probe = machine(TWO)
    probe.read()
    probe.becomes(f"{TWO}\nfail * 15 gpu=1\n")
    assert probe.read().told == ["GPU 1 lost: the driver says that it is lost"]
    probe.becomes(f"{TWO}\nfail * 2 gpu=1\n")  # INVALID_ARGUMENT
    later = [probe.read() for _ in range(12)]
    assert [message for one in later for message in one.told] == []
    assert [by_uuid(one)["GPU-b"]["up"] for one in later] == [False] * 12


def test_a_gpu_that_is_refused_to_this_user_is_up_with_no_permission(machine):
    row = machine("gpu 0 uuid=GPU-a\nfail nvmlDeviceGetUtilizationRates 4\n").read().row
    assert row["up"]
    assert row["absence"]["utilization_percent"] == NO_PERMISSION


def test_a_second_gpu_that_appears_is_told_of_and_described(machine):
    probe = machine("gpu 0 uuid=GPU-a util=11\n")
    assert probe.read().status == "1 GPU"
    probe.becomes(TWO)
    seen = [probe.read() for _ in range(10)]
    appeared = seen[-1]
    assert [one.of("gpu_event") for one in seen[:-1]] == [[]] * 9
    (event,) = appeared.of("gpu_event")
    assert event == {
        "event": "appeared",
        "gpu_uuid": "GPU-b",
        "gpu_index": 1,
        "pci_bus_id": "00000000:1C:00.0",
        "source": "sampler",
        "severity": "info",
        "message": "GPU 1 appeared: it was not there when recording began",
    }
    assert [values["gpu_uuid"] for values in appeared.of("inventory")] == ["GPU-b"]
    assert by_uuid(appeared)["GPU-b"]["utilization_percent"] == 22
    assert appeared.status == "2 GPUs"


def test_gpus_in_another_order_are_still_themselves_and_are_described_anew(machine):
    probe = machine(TWO)
    probe.read()
    probe.becomes("gpu 0 uuid=GPU-b util=22\ngpu 1 uuid=GPU-a util=11\n")
    seen = [probe.read() for _ in range(10)][-1]
    values = {uuid: (row["gpu_index"], row["utilization_percent"]) for uuid, row in by_uuid(seen).items()}
    assert values == {"GPU-a": (1, 11), "GPU-b": (0, 22)}
    assert seen.told == []
    assert {one["gpu_uuid"]: one["gpu_index"] for one in seen.of("inventory")} == {"GPU-a": 1, "GPU-b": 0}


@pytest.mark.parametrize("code", [4, 10, 999])
def test_a_driver_that_fails_to_list_its_gpus_for_once_costs_no_row(machine, code):
    probe = machine(TWO)
    probe.read()
    probe.becomes(f"{TWO}\nfail nvmlDeviceGetCount {code}\n")
    seen = [probe.read() for _ in range(10)]
    assert [len(one.rows) for one in seen] == [2] * 10
    assert seen[-1].status.startswith("the NVIDIA driver does not list its GPUs (")
    probe.becomes(TWO)
    assert [probe.read() for _ in range(10)][-1].status == "2 GPUs"


def test_a_driver_without_gpus_is_said_in_the_status(machine):
    seen = machine("").read()
    assert (seen.events, seen.status) == ([], "no GPU: the NVIDIA driver lists none")


# --- a driver that comes and goes


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "no GPU: the NVIDIA kernel driver is not loaded"),
        (4, "no GPU: this user may not talk to the NVIDIA driver"),
        (999, "no GPU: NVML cannot be initialised (Unknown Error)"),
    ],
)
def test_a_driver_that_is_not_there_at_first_is_found_at_the_retry(machine, code, words):
    probe = machine(f"{BUSY}\nfail nvmlInit {code}\n")
    first = probe.read()
    assert (first.events, first.status) == ([], words)
    probe.becomes(BUSY)
    assert probe.read(after_s=59.0).events == []
    seen = probe.read(after_s=1.0)
    assert seen.told == ["GPU 0 appeared: it was not there when recording began"]
    assert [values["gpu_uuid"] for values in seen.of("inventory")] == ["GPU-a"]
    assert readings(seen.row) == HOT
    assert seen.status == "1 GPU"


def test_a_library_that_is_not_installed_is_found_when_it_is(gpu_machine, fake_nvml, tmp_path):
    empty = tmp_path / "lib"
    empty.mkdir()
    library = fake_nvml.library_folder / "libnvidia-ml.so.1"
    fake_nvml.library_folder = empty
    fake_nvml.write(BUSY)
    probe = gpu_machine(fake_nvml)
    first = probe.read()
    if first.events:
        pytest.skip("this machine has an NVIDIA driver of its own")
    assert first.status == "no GPU: no NVIDIA driver library (libnvidia-ml.so.1) on this machine"
    (empty / library.name).symlink_to(library)
    assert probe.read(after_s=30.0).events == []
    assert readings(probe.read(after_s=30.0).row) == HOT


def test_a_driver_that_is_replaced_under_the_recorder_is_recorded_again_when_it_is_back(machine):
    probe = machine(BUSY)
    first = probe.read()
    probe.becomes(f"{BUSY}\nfail * 18\n")
    away = probe.read()
    assert away.row == lost_row(counter_epoch=first.row["counter_epoch"])
    reason = "the NVIDIA library and kernel driver are of different versions; reload the module or reboot, "
    reason += "recording resumes by itself"
    assert away.told == [f"GPU 0 lost: {reason}"]
    assert away.status == f"no GPU: {reason}"
    still_away = [probe.read(after_s=30.0) for _ in range(4)]
    assert [(one.told, one.row["up"]) for one in still_away] == [([], False)] * 4
    probe.becomes(BUSY.replace("580.95.05", "590.10").replace("energy_mj=5000000123", "energy_mj=7"))
    assert probe.read(after_s=30.0).told == []  # it is looked for once a minute
    back = probe.read(after_s=30.0)
    changed = "the NVIDIA driver is now 590.10, it was 580.95.05"
    assert back.told == [changed, "GPU 0 recovered: it answers again"]
    assert readings(back.row) == {**HOT, "energy_joules": 0.007}
    assert [values["driver_version"] for values in back.of("inventory")] == ["590.10"]
    assert back.row["counter_epoch"] > first.row["counter_epoch"]
    assert back.status == "1 GPU"
    assert probe.read().row["counter_epoch"] == back.row["counter_epoch"]


def test_a_driver_that_goes_while_a_row_is_read_takes_no_row_that_was_read_before(machine):
    probe = machine(TWO)
    probe.read()
    probe.becomes(f"{TWO}\nfail nvmlDeviceGetClockInfo 1 gpu=1\n")  # UNINITIALIZED
    seen = probe.read()
    assert by_uuid(seen)["GPU-a"]["utilization_percent"] == 11
    assert by_uuid(seen)["GPU-b"]["absence"] == {"*": LOST}
    assert readings(by_uuid(seen)["GPU-b"]) == {}
    assert seen.told == ["GPU 1 lost: the NVIDIA driver went away"]
    assert [row["up"] for row in probe.read().rows] == [False, False]
    probe.becomes(TWO)
    back = probe.read(after_s=60.0)
    assert back.told == ["GPU 0 recovered: it answers again", "GPU 1 recovered: it answers again"]


def test_a_driver_upgraded_in_place_is_mapped_anew(gpu_machine, fake_nvml, fake_nvml_old_library, tmp_path):
    folder = tmp_path / "lib"
    folder.mkdir()
    library = folder / "libnvidia-ml.so.1"
    library.symlink_to(fake_nvml_old_library / library.name)
    new_library = fake_nvml.library_folder / library.name
    fake_nvml.library_folder = folder
    scenario = "gpu 0 uuid=GPU-a\n"
    fake_nvml.write(scenario)
    probe = gpu_machine(fake_nvml)
    assert [values["driver_version"] for values in probe.read().of("inventory")] == ["470.256.02"]
    library.unlink()
    library.symlink_to(new_library)
    fake_nvml.write(f"{scenario}fail * 18\n")
    assert probe.read().status.startswith("no GPU: the NVIDIA library and kernel driver are of different versions")
    fake_nvml.write(scenario)
    back = probe.read(after_s=60.0)
    assert [values["driver_version"] for values in back.of("inventory")] == ["580.95.05"]
    assert "memory_reserved_bytes" in back.row  # which only the newer library tells


# --- counters


def test_a_counter_that_goes_back_begins_a_new_epoch_that_no_other_start_has(machine):
    probe = machine(f"{BUSY}\ngpu 0 energy_step_mj=1000\n")
    rows = [probe.read().row for _ in range(3)]
    assert [row["counter_epoch"] for row in rows] == [1_795_435_201] * 3
    assert [row["energy_joules"] for row in rows] == pytest.approx([5_000_000.123, 5_000_001.123, 5_000_002.123])
    probe.becomes(BUSY.replace("energy_mj=5000000123", "energy_mj=5000"))
    rows = [probe.read().row for _ in range(2)]
    assert [(row["counter_epoch"], row["energy_joules"]) for row in rows] == [(1_795_435_204, 5.0)] * 2
    probe.begin()
    assert probe.read().row["counter_epoch"] == 1_795_435_206


def test_a_pcie_counter_that_wraps_goes_on_and_begins_no_epoch(machine):
    probe = machine(BUSY.replace("pcie_tx=1111111", "pcie_tx=4294967290"))
    epoch = probe.read().row["counter_epoch"]
    for raw, told in ((3, 2**32 + 3), (9, 2**32 + 9), (1, 2 * 2**32 + 1)):
        probe.becomes(BUSY.replace("pcie_tx=1111111", f"pcie_tx={raw}"))
        row = probe.read().row
        assert (row["pcie_tx_bytes"], row["counter_epoch"]) == (told, epoch)


def test_a_pcie_counter_of_more_than_32_bits_that_falls_was_restarted(machine):
    probe = machine(BUSY.replace("pcie_tx=1111111", "pcie_tx=5000000000"))
    epoch = probe.read().row["counter_epoch"]
    probe.becomes(BUSY.replace("pcie_tx=1111111", "pcie_tx=3"))
    seen = probe.read()
    assert seen.row["pcie_tx_bytes"] == 3
    assert seen.row["counter_epoch"] > epoch
    assert seen.told == ["GPU 0 reset: its counters began anew: it was reset, or its driver reloaded"]


def test_a_counter_that_is_absent_for_a_while_is_compared_with_its_last_value(machine):
    probe = machine()
    epoch = probe.read().row["counter_epoch"]
    probe.becomes(f"{BUSY}\nfield 83 999\n")
    assert probe.read().row["counter_epoch"] == epoch
    probe.becomes(BUSY.replace("energy_mj=5000000123", "energy_mj=5000"))
    assert probe.read().row["counter_epoch"] > epoch


def test_a_closed_probe_begins_again_from_nothing(machine):
    probe = machine()
    probe.read()
    probe.begin()
    seen = probe.read()
    assert readings(seen.row) == HOT
    assert seen.told == []
    assert len(seen.of("inventory")) == 1
