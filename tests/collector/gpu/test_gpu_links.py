"""NVLinks, a row each, through the real nvidia-ml-py on the stand-in driver."""

import pytest

from store.events import NVLINK_SAMPLE

GPU = "gpu 0 uuid=GPU-a\n"
HOPPER = (
    "nvlink gpu=0 link=0 version=6 remote=00000000:cd:00.0 remote_type=2 remote_link=11 speed_mb_per_s=26562 "
    "tx_kib=1000 rx_kib=2000 raw_tx_kib=1100 raw_rx_kib=2200 "
    "replays=1 recoveries=2 crc_flit_errors=3 crc_data_errors=4 ecc_errors=5\n"
)
BLACKWELL = (
    "nvlink gpu=0 link=3 version=7 remote=00000000:1c:00.0 remote_type=0 speed_mb_per_s=53125 tx_bytes=1234567 "
    "rx_bytes=7654321 tx_packets=10 rx_packets=11 malformed=12 overruns=13 rx_errors=14 rx_remote_errors=15 "
    "rx_general_errors=16 integrity_errors=17 tx_discards=18 recovered=19 not_recovered=20 effective_errors=21 "
    "effective_ber=0x50f symbol_errors=22 symbol_ber=0xffff "
    "values=900,80,7,0,0,0,0,0,0,0,0,0,0,0,0,1\n"
)
DOWN = "nvlink gpu=0 link=5 state=0\n"
IDENTITY = {"gpu_uuid": "GPU-a", "gpu_index": 0, "interval_seconds": 60.0, "counter_epoch": 1_795_435_201}
COUNTERS = [column.name for column in NVLINK_SAMPLE.fields if column.instrument == "counter"]


@pytest.fixture
def machine(gpu_machine, fake_nvml):
    def start(scenario):
        fake_nvml.write(GPU + scenario)
        return gpu_machine(fake_nvml)

    return start


def links(seen):
    return seen.of("nvlink_sample")


def test_a_link_of_hopper_is_a_row_in_the_columns_units(machine):
    (row,) = links(machine(HOPPER).read())
    absence = row.pop("absence")
    assert row == {
        **IDENTITY,
        "link": 0,
        "active": True,
        "version": 6,
        "remote_kind": "nvswitch",
        "remote_pci_bus_id": "00000000:CD:00.0",
        "remote_link": 11,
        "speed_bytes_per_second": 26_562_000_000,
        "tx_bytes": 1_024_000,
        "rx_bytes": 2_048_000,
        "raw_tx_bytes": 1_126_400,
        "raw_rx_bytes": 2_252_800,
        "replay_error_count": 1,
        "recovery_error_count": 2,
        "crc_flit_error_count": 3,
        "crc_data_error_count": 4,
        "ecc_error_count": 5,
    }
    told = {*row, *absence, "absence"}
    assert absence == dict.fromkeys(absence, "not_supported")  # what only Blackwell tells
    assert {column.name for column in NVLINK_SAMPLE.fields} == told


def test_a_link_of_blackwell_is_a_row_in_the_columns_units(machine):
    (row,) = links(machine(BLACKWELL).read())
    absence = row.pop("absence")
    assert row == {
        **IDENTITY,
        "link": 3,
        "active": True,
        "version": 7,
        "remote_kind": "gpu",
        "remote_pci_bus_id": "00000000:1C:00.0",
        "speed_bytes_per_second": 53_125_000_000,
        "tx_bytes": 1_234_567,
        "rx_bytes": 7_654_321,
        "tx_packets_count": 10,
        "rx_packets_count": 11,
        "malformed_packets_count": 12,
        "buffer_overruns_count": 13,
        "rx_errors_count": 14,
        "rx_remote_errors_count": 15,
        "rx_general_errors_count": 16,
        "link_integrity_errors_count": 17,
        "tx_discards_count": 18,
        "recoveries_count": 19,
        "failed_recoveries_count": 20,
        "effective_errors_count": 21,
        "effective_bit_errors_ratio": 5e-15,
        "symbol_errors_count": 22,
        "symbol_bit_errors_ratio": 15e-255,
        "fec_histogram": [900, 80, 7, *[0] * 12, 1],
    }
    assert absence == dict.fromkeys(
        [
            "remote_link",
            "raw_tx_bytes",
            "raw_rx_bytes",
            "replay_error_count",
            "recovery_error_count",
            "crc_flit_error_count",
            "crc_data_error_count",
            "ecc_error_count",
        ],
        "not_supported",
    )


def test_links_are_read_every_minute_and_keep_their_numbers(machine):
    probe = machine(HOPPER + BLACKWELL + DOWN)
    read = [[row["link"] for row in links(probe.read())] for _ in range(61)]
    assert read == [[0, 3, 5], *[[]] * 59, [0, 3, 5]]


def test_a_link_that_is_down_is_a_row_without_a_far_end_and_never_0(machine):
    (row,) = links(machine(DOWN).read())
    assert (row["active"], row["link"]) == (False, 5)
    assert not {"version", "remote_kind", "remote_pci_bus_id", *COUNTERS} & set(row)
    assert [row["absence"][column] for column in ("remote_kind", "tx_bytes", "replay_error_count")] == [
        "no_data",
        "not_supported",
        "not_supported",
    ]


def test_what_is_at_the_far_end_is_asked_again_when_the_link_has_been_down(machine):
    probe = machine(HOPPER)
    probe.read()
    probe.becomes(GPU + HOPPER.replace("link=0", "link=0 state=0"))
    (down,) = links(probe.read(after_s=60))
    assert "remote_pci_bus_id" not in down
    probe.becomes(GPU + HOPPER.replace("cd:00.0", "ce:00.0"))
    (up,) = links(probe.read(after_s=60))
    assert up["remote_pci_bus_id"] == "00000000:CE:00.0"


@pytest.mark.parametrize(
    ("line", "columns", "reason"),
    [
        ("fail nvmlDeviceGetNvLinkErrorCounter 4", COUNTERS[4:9], "no_permission"),
        ("field 138 999", ["tx_bytes"], "no_data"),
        ("fail nvmlDeviceGetNvLinkRemotePciInfo 3", ["remote_pci_bus_id"], "not_supported"),
        ("fail nvmlDeviceGetFieldValues 4", ["tx_bytes", "raw_rx_bytes", "fec_histogram"], "no_permission"),
    ],
)
def test_what_a_link_does_not_tell_is_null_with_its_reason(machine, line, columns, reason):
    (row,) = links(machine(f"{HOPPER}{line}\n").read())
    assert not set(columns) & set(row)
    assert {row["absence"][column] for column in columns} == {reason}
    assert row["active"]


def test_a_field_that_no_link_has_is_asked_again_after_ten_minutes(machine):
    probe = machine(HOPPER)
    assert "tx_packets_count" not in links(probe.read())[0]
    probe.becomes(GPU + HOPPER.replace("tx_kib=1000", "tx_kib=3000 tx_packets=5"))
    for _ in range(9):
        (row,) = links(probe.read(after_s=60))
        assert (row["tx_bytes"], row["absence"]["tx_packets_count"]) == (3_072_000, "not_supported")
    assert links(probe.read(after_s=60))[0]["tx_packets_count"] == 5


def test_a_field_that_one_link_of_several_lacks_is_asked_of_the_others(machine):
    probe = machine(HOPPER + DOWN)
    for _ in range(3):
        up, down = links(probe.read(after_s=60))
        assert (up["tx_bytes"], down["absence"]["tx_bytes"]) == (1_024_000, "not_supported")


def test_the_two_byte_counters_of_a_link_are_never_mixed(machine):
    both = HOPPER.replace("tx_kib=1000", "tx_kib=1000 tx_bytes=5")
    probe = machine(both)
    assert links(probe.read())[0]["tx_bytes"] == 1_024_000
    probe.becomes(f"{GPU}{both}field 138 999\n")
    (row,) = links(probe.read(after_s=60))
    assert "tx_bytes" not in row
    assert row["absence"]["tx_bytes"] == "no_data"


def test_counters_that_fall_begin_a_new_epoch_of_their_link_alone(machine):
    other = HOPPER.replace("link=0", "link=1")
    probe = machine(HOPPER + other)
    first = [row["counter_epoch"] for row in links(probe.read())]
    probe.becomes(GPU + HOPPER.replace("replays=1", "replays=0") + other)
    later = [row["counter_epoch"] for row in links(probe.read(after_s=60))]
    assert later == [first[0] + 60, first[1]]


def test_a_reset_of_the_gpu_begins_a_new_epoch_of_its_links(machine):
    probe = machine("gpu 0 energy_mj=5000\n" + HOPPER)
    (first,) = links(probe.read())
    probe.becomes(GPU + "gpu 0 energy_mj=5\n" + HOPPER)
    probe.read()
    (later,) = links(probe.read(after_s=60))
    assert later["counter_epoch"] > first["counter_epoch"]


def test_a_gpu_without_nvlink_has_no_rows_and_is_asked_again_later(machine):
    probe = machine("")
    assert links(probe.read()) == []
    probe.becomes(GPU + HOPPER)
    assert [row["link"] for row in links(probe.read(after_s=60))] == [0]


def test_a_lost_gpu_has_no_rows_of_links(machine):
    probe = machine(HOPPER)
    probe.read()
    probe.becomes(GPU + HOPPER + "gpu 0 lost_after=0\n")
    assert links(probe.read(after_s=60)) == []
