"""The slower tiers of a GPU's row, through the real nvidia-ml-py on the stand-in driver."""

import pytest

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
}
MACHINE = """
gpu 0 uuid=GPU-a encoder_util=11 decoder_util=22 jpg_util=33 ofa_util=44 fan=70 fans=2 temp_margin=35 pcie_gen=4 pcie_width=8
gpu 0 bar1_used=1048576 bar1_total=274877906944 temp_slowdown=87 temp_shutdown=92
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


def test_a_gpu_on_the_470_branch_has_the_older_columns_of_each_tier(gpu_machine, fake_nvml_old_driver):
    row, _ = gpu_machine(fake_nvml_old_driver).read().whole_rows
    assert {"bar1_total_bytes", "pcie_link_generation", "slowdown_temperature_celsius"} <= set(row)
    assert row["absence"]["jpeg_utilization_percent"] == "not_supported"
    assert row["absence"]["recovery_action"] == "not_supported"
