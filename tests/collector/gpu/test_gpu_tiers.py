"""The slower tiers of a GPU's row, through the real nvidia-ml-py on the stand-in driver."""

import pytest

from store.events import GPU_SAMPLE

WARM = {
    "encoder_utilization_percent": 11,
    "decoder_utilization_percent": 22,
    "jpeg_utilization_percent": 33,
    "ofa_utilization_percent": 44,
    "bar1_used_bytes": 1_048_576,
    "bar1_total_bytes": 274_877_906_944,
    "fan_speed_percent": 70,
    "thermal_margin_celsius": 35,
    "pcie_link_generation": 4,
    "pcie_link_width_lanes": 8,
    "encoder_sessions_count": 3,
    "encoder_frame_rate_hertz": 60,
    "encoder_latency_seconds": 0.0015,
    "capture_sessions_count": 2,
    "capture_frame_rate_hertz": 30,
    "capture_latency_seconds": 0.0025,
    "protected_memory_total_bytes": 8_589_934_592,
    "protected_memory_used_bytes": 1_073_741_824,
    "process_count": 0,
}
COLD = {
    "ecc_corrected_volatile_count": 1,
    "ecc_uncorrected_volatile_count": 2,
    "ecc_corrected_aggregate_count": 3,
    "ecc_uncorrected_aggregate_count": 4,
    "retired_pages_single_bit_count": 5,
    "retired_pages_double_bit_count": 6,
    "retired_pages_pending": True,
    "remapped_rows_corrected_count": 7,
    "remapped_rows_uncorrected_count": 8,
    "row_remap_pending": False,
    "row_remap_failed": True,
    "shutdown_margin_celsius": -5,
    "slowdown_margin_celsius": 2,
    "recovery_action": 1,
    "slowdown_temperature_celsius": 87,
    "shutdown_temperature_celsius": 92,
    "memory_maximum_temperature_celsius": 95,
    "maximum_temperature_celsius": 85,
    "target_minimum_temperature_celsius": 65,
    "target_temperature_celsius": 83,
    "target_maximum_temperature_celsius": 91,
    "memory_maximum_margin_celsius": 3,
    "maximum_margin_celsius": -1,
    "power_limit_requested_watts": 690.5,
    "power_edpp_multiplier_percent": 110,
    "module_power_limit_watts": 1000.5,
    "remapped_rows_corrected_inactive_count": 9,
    "remapped_rows_uncorrected_inactive_count": 10,
    "remap_banks_maximum_count": 630,
    "remap_banks_high_count": 4,
    "remap_banks_partial_count": 3,
    "remap_banks_low_count": 2,
    "remap_banks_none_count": 1,
    "ecc_corrected_volatile_dram_count": 11,
    "ecc_corrected_volatile_sram_count": 12,
    "ecc_corrected_aggregate_dram_count": 13,
    "ecc_corrected_aggregate_sram_count": 14,
    "ecc_uncorrected_volatile_dram_count": 15,
    "ecc_uncorrected_volatile_sram_count": 16,
    "ecc_uncorrected_aggregate_dram_count": 17,
    "ecc_uncorrected_aggregate_sram_count": 4_294_967_318,
    "ecc_sram_parity_volatile_count": 21,
    "ecc_sram_parity_aggregate_count": 22,
    "ecc_sram_secded_volatile_count": 23,
    "ecc_sram_secded_aggregate_count": 24,
    "ecc_sram_l2_aggregate_count": 25,
    "ecc_sram_sm_aggregate_count": 26,
    "ecc_sram_pcie_aggregate_count": 27,
    "ecc_sram_microcontroller_aggregate_count": 28,
    "ecc_sram_other_aggregate_count": 29,
    "ecc_sram_threshold_exceeded": True,
    "channel_repair_pending": True,
    "tpc_repair_pending": False,
    "memory_unrepairable": True,
    "fabric_state": 3,
    "fabric_status": 0,
    "fabric_health": 2,
    "fabric_health_bitmask": 0x21,
    "c2c_links_count": 5,
    "c2c_crc_error_count": 31,
    "c2c_replay_error_count": 32,
    "c2c_replay_back_to_back_error_count": 33,
}
MACHINE = """
gpu 0 uuid=GPU-a encoder_util=11 decoder_util=22 jpg_util=33 ofa_util=44 fan=70 fans=2 temp_margin=35 pcie_gen=4 pcie_width=8
gpu 0 bar1_used=1048576 bar1_total=274877906944 temp_slowdown=87 temp_shutdown=92
gpu 0 encoder_sessions=3 encoder_fps=60 encoder_latency_us=1500 fbc_sessions=2 fbc_fps=30 fbc_latency_us=2500
gpu 0 protected_total=8589934592 protected_used=1073741824 power_requested_limit_mw=690500 edpp_percent=110
gpu 0 temp_mem_max=95 temp_gpu_max=85 temp_acoustic_min=65 temp_acoustic=83 temp_acoustic_max=91 tlimit_mem_max=3
gpu 0 tlimit_gpu_max=-1 module_power_limit_mw=1000500 remapped_correctable_inactive=9 remapped_uncorrectable_inactive=10
gpu 0 spares_max=630 spares_high=4 spares_partial=3 spares_low=2 spares_none=1
gpu 0 corrected_volatile_dram=11 corrected_volatile_sram=12 corrected_aggregate_dram=13 corrected_aggregate_sram=14
gpu 0 uncorrected_volatile_dram=15 uncorrected_volatile_sram=16 uncorrected_aggregate_dram=17
gpu 0 uncorrected_aggregate_sram=4294967318
gpu 0 sram_parity_volatile=21 sram_parity_aggregate=22 sram_secded_volatile=23 sram_secded_aggregate=24 sram_l2=25
gpu 0 sram_sm=26 sram_pcie=27 sram_microcontroller=28 sram_other=29 sram_exceeded=1
gpu 0 channel_repair=1 tpc_repair=0 unrepairable=1
gpu 0 fabric_state=3 fabric_status=0 fabric_clique=7 fabric_health=2 fabric_health_mask=0x21
gpu 0 c2c_links=5 c2c_interrupts=31 c2c_replays=32 c2c_replays_b2b=33
field 3 0 value=1 type=3
field 4 0 value=2 type=3
field 5 0 value=3 type=3
field 6 0 value=4 type=3
field 29 0 value=5 type=1
field 30 0 value=6 type=1
field 31 0 value=1 type=1
field 142 0 value=7 type=1
field 143 0 value=8 type=1
field 144 0 value=0 type=1
field 145 0 value=1 type=1
field 193 0 value=-5 type=5
field 194 0 value=2 type=5
field 230 0 value=1 type=1
"""


@pytest.fixture
def machine(gpu_machine, fake_nvml):
    def start(scenario=MACHINE):
        fake_nvml.write(scenario)
        return gpu_machine(fake_nvml)

    return start


def test_every_column_of_a_slower_tier_is_tried_here():
    slower = {column.name for column in GPU_SAMPLE.fields if column.every_seconds}
    assert {*WARM, *COLD} == slower


def of_columns(row, columns):
    return {column: row[column] for column in columns if column in row}


def test_the_first_row_has_every_tier_in_the_columns_units(machine):
    (row,) = machine().read().whole_rows
    assert of_columns(row, WARM) == WARM
    assert of_columns(row, COLD) == COLD


def test_warm_columns_are_read_every_five_seconds_and_cold_ones_every_minute(machine):
    probe = machine()
    rows = [probe.read().whole_rows[0] for _ in range(121)]
    warm = [number for number, row in enumerate(rows) if "fan_speed_percent" in row]
    cold = [number for number, row in enumerate(rows) if "recovery_action" in row]
    assert warm == list(range(0, 121, 5))
    assert cold == [0, 60, 120]


def test_what_is_not_asked_in_a_row_has_neither_value_nor_reason(machine):
    probe = machine()
    probe.read()
    (row,) = probe.read().whole_rows
    assert of_columns(row, {*WARM, *COLD}) == {}
    assert not {*row["absence"]} & {*WARM, *COLD}


def test_a_fanless_gpu_has_no_fan_speed_and_says_so(machine):
    (row,) = machine("gpu 0 fan=none").read().whole_rows
    assert "fan_speed_percent" not in row
    assert row["absence"]["fan_speed_percent"] == "not_supported"


SRAM = [column for column in COLD if column.startswith("ecc_sram_")]
PLACES = [column for column in COLD if column.endswith(("_dram_count", "_sram_count"))]
FABRIC = ["fabric_state", "fabric_status", "fabric_health", "fabric_health_bitmask"]


@pytest.mark.parametrize(
    ("lines", "columns", "reason"),
    [
        ("fail nvmlDeviceGetSramEccErrorStatus 4", SRAM, "no_permission"),
        ("missing nvmlDeviceGetSramEccErrorStatus", SRAM, "not_supported"),
        ("gpu 0 ecc=0", [*SRAM, *PLACES], "not_supported"),
        ("fail nvmlDeviceGetMemoryErrorCounter 999", PLACES, "no_data"),
        ("gpu 0 spares_max=none", [column for column in COLD if column.startswith("remap_banks_")], "not_supported"),
        ("missing nvmlDeviceGetRepairStatus", ["channel_repair_pending", "tpc_repair_pending"], "not_supported"),
        ("missing nvmlDeviceGetUnrepairableMemoryFlag_v1", ["memory_unrepairable"], "not_supported"),
        ("gpu 0 fabric_state=none", FABRIC, "not_supported"),
        ("gpu 0 fabric_state=0", FABRIC, "not_supported"),
        ("fail nvmlDeviceGetGpuFabricInfoV 4", FABRIC, "no_permission"),
        ("gpu 0 protected_total=none", ["protected_memory_total_bytes", "protected_memory_used_bytes"], "not_supported"),
        ("gpu 0 protected_total=0", ["protected_memory_total_bytes", "protected_memory_used_bytes"], "not_supported"),
        ("gpu 0 encoder_sessions=0", ["encoder_frame_rate_hertz", "encoder_latency_seconds"], "no_data"),
        ("gpu 0 fbc_sessions=0", ["capture_frame_rate_hertz", "capture_latency_seconds"], "no_data"),
        ("fail nvmlDeviceGetEncoderStats 4",
         ["encoder_sessions_count", "encoder_frame_rate_hertz", "encoder_latency_seconds"], "no_permission"),
        ("gpu 0 temp_acoustic=none", ["target_temperature_celsius"], "not_supported"),
        ("field 274 3", ["power_edpp_multiplier_percent"], "not_supported"),
        ("field 301 4\nfield 302 4",
         ["remapped_rows_corrected_inactive_count", "remapped_rows_uncorrected_inactive_count"], "no_permission"),
    ],
)  # fmt: skip
def test_what_is_not_told_is_null_with_its_reason_and_the_rest_of_its_tier_is_not(machine, lines, columns, reason):
    (row,) = machine(f"{MACHINE}{lines}\n").read().whole_rows
    assert of_columns(row["absence"], {*WARM, *COLD}) == dict.fromkeys(columns, reason)
    others = {column: value for column, value in {**WARM, **COLD}.items() if column not in columns}
    assert of_columns(row, {*WARM, *COLD}) == others | of_columns(row, ["encoder_sessions_count"]) | of_columns(
        row, ["capture_sessions_count"]
    )


def test_no_session_of_the_encoder_is_0_and_not_null(machine):
    (row,) = machine(f"{MACHINE}gpu 0 encoder_sessions=0\n").read().whole_rows
    assert row["encoder_sessions_count"] == 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("gpu 0 fabric_health=none", [3, 0, "not_supported", 0x21]),  # a driver that knows version 2
        ("missing nvmlDeviceGetGpuFabricInfoV", [3, 0, "not_supported", "not_supported"]),
        ("gpu 0 fabric_health=0", [3, 0, "not_supported", 0x21]),
        ("gpu 0 fabric_status=999", [3, 999, 2, 0x21]),
        ("gpu 0 fabric_state=2 fabric_status=999", [2, "no_data", 2, 0x21]),  # of what has not ended
    ],
)
def test_the_fabric_is_told_as_far_as_the_driver_and_its_progress_go(machine, lines, told):
    (row,) = machine(f"{MACHINE}{lines}\n").read().whole_rows
    assert [row.get(column, row["absence"].get(column)) for column in FABRIC] == told


def test_the_power_limit_asked_for_comes_from_its_own_call_where_the_field_is_not_served(machine):
    (row,) = machine(f"{MACHINE}field 192 3\ngpu 0 power_limit_mw=650000\n").read().whole_rows
    assert row["power_limit_requested_watts"] == 650.0
    assert "power_limit_requested_watts" not in row["absence"]


def test_a_gpu_on_the_470_branch_has_the_older_columns_of_each_tier(gpu_machine, fake_nvml_old_driver):
    row, _ = gpu_machine(fake_nvml_old_driver).read().whole_rows
    assert {"bar1_total_bytes", "pcie_link_generation", "slowdown_temperature_celsius"} <= set(row)
    assert row["absence"]["jpeg_utilization_percent"] == "not_supported"
    assert row["absence"]["recovery_action"] == "not_supported"
