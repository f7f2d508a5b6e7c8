"""What a GPU did between two ticks, through the real nvidia-ml-py on the stand-in driver."""

import pytest

POWER = ("power_minimum_watts", "power_maximum_watts", "power_mean_watts", "power_sample_count")
UTILIZATION = (
    "utilization_minimum_percent",
    "utilization_maximum_percent",
    "utilization_mean_percent",
    "utilization_sample_count",
)
GPM = {
    1: "graphics_active_ratio",
    2: "sm_active_ratio",
    3: "sm_occupancy_ratio",
    4: "integer_active_ratio",
    5: "tensor_active_ratio",
    6: "tensor_dfma_active_ratio",
    7: "tensor_hmma_active_ratio",
    9: "tensor_imma_active_ratio",
    10: "dram_active_ratio",
    11: "fp64_active_ratio",
    12: "fp32_active_ratio",
    13: "fp16_active_ratio",
}
RATES = {
    20: "pcie_tx_bytes_per_second",
    21: "pcie_rx_bytes_per_second",
    60: "nvlink_rx_bytes_per_second",
    61: "nvlink_tx_bytes_per_second",
}
MACHINE = "gpu 0 uuid=GPU-a\n"
BUFFER = MACHINE + "".join(f"sample gpu=0 type=0 t_us={number} value={100_000 + number}\n" for number in (1000, 2000))


@pytest.fixture
def machine(gpu_machine, fake_nvml):
    def start(scenario):
        fake_nvml.write(scenario)
        return gpu_machine(fake_nvml)

    return start


def measured(seen, columns):
    (row,) = seen.whole_rows
    return tuple(row.get(column, row.get("absence", {}).get(column)) for column in columns)


def test_each_row_has_the_least_greatest_mean_and_count_of_the_samples_since_the_row_before(machine):
    probe = machine(BUFFER)
    assert measured(probe.read(), POWER) == ("no_data",) * 4  # the buffer tells of a time before the recording
    probe.becomes(
        BUFFER + "".join(f"sample gpu=0 type=0 t_us={t} value={v}\n" for t, v in ((3000, 300_000), (4000, 500_500)))
    )
    assert measured(probe.read(), POWER) == (300.0, 500.5, 400.25, 2)
    assert measured(probe.read(), POWER) == ("no_data",) * 4


def test_placeholders_entries_out_of_order_and_entries_told_before_do_not_count(machine):
    probe = machine(BUFFER)
    probe.read()
    later = ((4000, 400_000), (0, 999_000), (3000, 300_000))
    stale = "sample gpu=0 type=0 t_us=2000 value=900000 stale=1\n"
    probe.becomes(BUFFER + stale + "".join(f"sample gpu=0 type=0 t_us={t} value={v}\n" for t, v in later))
    assert measured(probe.read(), POWER) == (300.0, 400.0, 350.0, 2)


def test_utilization_has_a_buffer_of_its_own(machine):
    first = "sample gpu=0 type=1 t_us=1000 value=5\n"
    probe = machine(MACHINE + first)
    probe.read()
    probe.becomes(MACHINE + first + "sample gpu=0 type=1 t_us=2000 value=20\nsample gpu=0 type=1 t_us=3000 value=90\n")
    assert measured(probe.read(), UTILIZATION) == (20, 90, 55.0, 2)


@pytest.mark.parametrize("answer", ["6", "0"])
def test_a_buffer_with_nothing_new_is_no_data_and_is_asked_again_at_once(machine, answer):
    quiet = MACHINE + f"gpu 0 nothing_new={answer}\n" + "sample gpu=0 type=0 t_us=1000 value=100000\n"
    probe = machine(quiet)
    probe.read()
    assert measured(probe.read(), POWER) == ("no_data",) * 4
    probe.becomes(quiet + "sample gpu=0 type=0 t_us=2000 value=200000\n")
    assert measured(probe.read(), POWER) == (200.0, 200.0, 200.0, 1)


def test_a_gpu_without_buffers_says_so(machine):
    assert measured(machine(MACHINE).read(), POWER) == ("not_supported",) * 4


def test_gpm_gives_shares_of_the_time_since_the_row_before(machine):
    values = " ".join(f"{metric}={10 * number + 2.5}" for number, metric in enumerate(GPM))
    probe = machine(MACHINE + f"gpm gpu=0 {values}\n")
    assert measured(probe.read(), GPM.values()) == ("no_data",) * len(GPM)  # a share of time needs two samples
    for _ in range(3):
        assert measured(probe.read(), GPM.values()) == pytest.approx([(10 * n + 2.5) / 100 for n in range(len(GPM))])


def test_gpm_gives_what_went_over_the_buses_in_bytes_per_second(machine):
    probe = machine(MACHINE + "gpm gpu=0 20=1 21=2.5 60=0 61=40000\n")  # the vendor's MiB/s
    assert measured(probe.read(), RATES.values()) == ("no_data",) * 4
    assert measured(probe.read(), RATES.values()) == (1_048_576, 2_621_440, 0, 41_943_040_000)


def test_a_rate_that_the_gpu_lacks_is_null_with_its_reason(machine):
    probe = machine(MACHINE + "gpm gpu=0 20=1 21=none\n")
    probe.read()
    absent = ("not_supported",) * 3
    assert measured(probe.read(), RATES.values()) == (1_048_576, *absent)


def test_a_metric_that_the_gpu_lacks_is_null_and_the_others_are_not(machine):
    probe = machine(MACHINE + "gpm gpu=0 1=50 2=40\nmetric 5 3 gpu=0\n")
    probe.read()
    graphics, sm, *_ = measured(probe.read(), GPM.values())
    assert (graphics, sm) == (0.5, 0.4)
    assert measured(probe.read(), ["tensor_active_ratio"]) == ("not_supported",)


def test_a_gpu_before_hopper_has_no_gpm_and_says_so(machine):
    assert measured(machine(MACHINE + "gpm gpu=0 supported=0\n").read(), GPM.values()) == ("not_supported",) * len(GPM)


def test_gpm_that_is_refused_after_a_while_is_no_permission_and_comes_back(machine):
    granted = MACHINE + "gpm gpu=0 2=40\n"
    probe = machine(granted)
    probe.read()
    assert measured(probe.read(), ["sm_active_ratio"]) == (0.4,)
    probe.becomes(granted + "gpm gpu=0 no_permission_after=0\n")
    assert measured(probe.read(), ["sm_active_ratio"]) == ("no_permission",)
    probe.becomes(granted)
    assert measured(probe.read(after_s=59), ["sm_active_ratio"]) == ("no_permission",)
    probe.read(after_s=1)
    assert measured(probe.read(), ["sm_active_ratio"]) == (0.4,)


def test_activity_goes_on_after_the_driver_was_away(machine):
    busy = MACHINE + "gpm gpu=0 2=40\n"
    probe = machine(busy)
    probe.read()
    probe.becomes("fail * 9\n" + busy)
    probe.read()
    probe.becomes(busy)
    probe.read(after_s=61.0)
    assert measured(probe.read(), ["sm_active_ratio"]) == (0.4,)
