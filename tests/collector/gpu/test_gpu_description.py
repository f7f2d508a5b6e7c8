"""What a GPU is and has around it, through the real nvidia-ml-py on the stand-in driver."""

import pytest

GPU = "gpu 0 uuid=GPU-a\n"
GRACE = (
    "gpu 0 brand=13 module_id=3 addressing=2 dram_encryption=1 c2c=1 virtualization=1 licensed=1 "
    "display_attached=1 display_active=1 accounting=1 gsp_enabled=0 ecc=1 ecc_pending=0 mig=0 mig_pending=1 "
    "max_clock_gr=1980 max_clock_video=1545 app_clock_gr=1500 app_clock_mem=2619 board_part=900-1 "
    "pci_device_id=0x29bc10de pci_subsystem_id=0x1a1d10de "
    "fabric_state=3 fabric_clique=7 cluster=000102030405060708090a0b0c0d0e0f "
    "chassis=1820325190001 slot=5 tray=2 host_id=1 peer_type=1\n"
)
TOLD = {
    "brand": "NVIDIA RTX",
    "board_part_number": "900-1",
    "module_id": 3,
    "pci_device_id": "10de:29bc",
    "pci_subsystem_id": "10de:1a1d",
    "addressing_mode": "ats",
    "dram_encryption_enabled": True,
    "c2c_enabled": True,
    "virtualization_mode": "passthrough",
    "vgpu_licensed": True,
    "display_attached": True,
    "display_active": True,
    "accounting_enabled": True,
    "gsp_enabled": False,
    "ecc_enabled": True,
    "ecc_pending_enabled": False,
    "mig_enabled": False,
    "mig_pending_enabled": True,
    "clock_graphics_maximum_hertz": 1_980_000_000,
    "clock_video_maximum_hertz": 1_545_000_000,
    "clock_application_graphics_hertz": 1_500_000_000,
    "clock_application_memory_hertz": 2_619_000_000,
    "fabric_clique_id": 7,
    "fabric_cluster_uuid": "000102030405060708090a0b0c0d0e0f",
}


@pytest.fixture
def description(gpu_machine, fake_nvml):
    """Give the inventory of the first GPU of a machine."""

    def read(scenario):
        fake_nvml.write(GPU + scenario)
        return gpu_machine(fake_nvml).read().of("inventory")[0]

    return read


def test_what_a_gpu_is_is_told_in_the_columns_units_and_words(description):
    found = description(GRACE)
    assert {column: found.get(column) for column in TOLD} == TOLD
    assert found["attributes"]["platform"] == {
        "chassis_serial": "1820325190001",
        "slot_number": 5,
        "tray_index": 2,
        "host_id": 1,
        "peer_type": 1,
        "module_id": 3,
        "infiniband_guid": "0" * 32,
    }


@pytest.mark.parametrize(
    ("line", "columns", "call", "told"),
    [
        ("gpu 0 module_id=none chassis=none", ["module_id"], "nvmlDeviceGetModuleId", "not_supported"),
        ("missing nvmlDeviceGetAddressingMode", ["addressing_mode"], "nvmlDeviceGetAddressingMode", "missing_symbol"),
        ("fail nvmlDeviceGetDramEncryptionMode 4", ["dram_encryption_enabled"],
         "nvmlDeviceGetDramEncryptionMode", "no_permission"),
        ("gpu 0 licensed=none", ["vgpu_licensed"], "nvmlDeviceGetGridLicensableFeatures_v4", "not_supported"),
        ("fail nvmlDeviceGetGspFirmwareVersion 999", ["gsp_firmware_version"],
         "nvmlDeviceGetGspFirmwareVersion", "error 999"),
        ("gpu 0 fabric_state=0", ["fabric_clique_id", "fabric_cluster_uuid"],
         "nvmlDeviceGetGpuFabricInfoV", "not_supported"),
        ("gpu 0 app_clock_gr=none", ["clock_application_graphics_hertz"],
         "nvmlDeviceGetApplicationsClock", "not_supported"),
    ],
)  # fmt: skip
def test_what_a_gpu_does_not_say_of_itself_is_left_out_and_says_why(description, line, columns, call, told):
    found = description(f"{GRACE}{line}\n")
    assert not set(columns) & set(found)
    assert found["capabilities"][call] == told
    others = {column: value for column, value in TOLD.items() if column not in columns}
    assert {column: found.get(column) for column in others} == others


def test_a_fabric_that_is_not_ready_has_no_clique(description):
    assert "fabric_clique_id" not in description(f"{GRACE}gpu 0 fabric_state=2\n")


def test_a_licence_that_is_not_there_is_false_and_not_null(description):
    assert description(f"{GRACE}gpu 0 licensed=0\n")["vgpu_licensed"] is False


def test_the_other_gpus_are_told_of_with_what_is_common_and_how_they_are_reached(description):
    found = description(
        "gpu 1 uuid=GPU-b\ngpu 2 uuid=GPU-c\n"
        "topology gpu=0 peer=1 level=20 read=0 write=0 nvlink=0\ntopology gpu=0 peer=2 level=50 read=1 write=4 nvlink=9\n"
    )
    assert found["attributes"]["nearest_common"] == {
        "GPU-b": {"nearest": "several_pcie_switches", "p2p_read": "ok", "p2p_write": "ok", "p2p_nvlink": "ok"},
        "GPU-c": {
            "nearest": "system",
            "p2p_read": "chipset_not_supported",
            "p2p_write": "disabled",
            "p2p_nvlink": "unknown",
        },
    }


def test_a_driver_that_does_not_tell_how_a_gpu_is_reached_still_tells_what_is_common(description):
    found = description("gpu 1 uuid=GPU-b\nfail nvmlDeviceGetP2PStatus 3\n")
    assert found["attributes"]["nearest_common"] == {"GPU-b": {"nearest": "system"}}
