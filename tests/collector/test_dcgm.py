"""dcgm-exporter's families from our readings."""

import prometheus_client.parser

from collector.clock import Now
from collector.dcgm import DcgmCollector, dcgm_fields
from collector.exposition import expose
from collector.sampler import Latest
from store.events import Event

NOW = Now(monotonic_s=10.0, boottime_s=20.0, wall_us=1_795_435_200_000_000)
ROW = {
    "gpu_uuid": "GPU-a",
    "gpu_index": 3,
    "utilization_percent": 87,
    "temperature_celsius": 52.0,
    "power_watts": 612.5,
    "memory_used_bytes": 40 * 2**20,
    "clock_sm_hertz": 1_980_000_000,
    "energy_joules": 5000.125,
    "throttle_sw_power_cap_seconds": 1.5,
    "tensor_active_ratio": 0.25,
    "pcie_replay_count": 4,
    "nvlink_tx_bytes": 1000,
    "nvlink_raw_tx_bytes": 7,
    "row_remap_pending": False,
}
INVENTORY = {"GPU-a": {"name": "NVIDIA H200", "pci_bus_id": "00000000:1B:00.0", "driver_version": "580.95.05"}}
LABELS = {
    "gpu": "3",
    "UUID": "GPU-a",
    "pci_bus_id": "00000000:1B:00.0",
    "device": "nvidia3",
    "modelName": "NVIDIA H200",
    "Hostname": "box",
    "DCGM_FI_DRIVER_VERSION": "580.95.05",
}


def scraped(latest, *, is_fresh=True):
    body, _ = expose(DcgmCollector(lambda: latest, lambda: is_fresh, "box"), accept="")
    families = prometheus_client.parser.text_string_to_metric_families(body.decode())
    return [(family, sample) for family in families for sample in family.samples]


def test_the_families_have_the_names_labels_and_units_of_dcgm():
    found = scraped(Latest(now=NOW, events=[Event("gpu_sample", NOW.wall_us, ROW)], inventory=INVENTORY))
    assert {sample.name: sample.value for _, sample in found} == {
        "DCGM_FI_DEV_GPU_UTIL": 87,
        "DCGM_FI_DEV_GPU_TEMP": 52,
        "DCGM_FI_DEV_POWER_USAGE": 612.5,
        "DCGM_FI_DEV_FB_USED": 40,
        "DCGM_FI_DEV_SM_CLOCK": 1980,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 5_000_125,
        "DCGM_FI_DEV_POWER_VIOLATION": 1.5e9,
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.25,
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 4,
        "DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES": 1000,
        "DCGM_FI_DEV_ROW_REMAP_PENDING": 0,
    }
    assert all(sample.labels == LABELS for _, sample in found)


def test_a_counter_keeps_dcgms_name_and_is_of_no_type():
    found = scraped(Latest(now=NOW, events=[Event("gpu_sample", NOW.wall_us, ROW)], inventory=INVENTORY))
    types = {family.name: family.type for family, _ in found}
    assert types["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] == types["DCGM_FI_DEV_PCIE_REPLAY_COUNTER"] == "unknown"
    assert types["DCGM_FI_DEV_GPU_UTIL"] == "gauge"


def test_all_that_grafanas_dashboard_12239_asks_for_is_there():
    asked = ("GPU_TEMP", "POWER_USAGE", "SM_CLOCK", "GPU_UTIL", "FB_USED")
    wanted = {*(f"DCGM_FI_DEV_{name}" for name in asked), "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"}
    assert wanted <= {column.dcgm for column in dcgm_fields()}


def test_a_mig_instance_has_its_id_and_what_is_not_known_of_it_is_left_out():
    row = {"gpu_uuid": "MIG-a", "gpu_index": 0, "mig_gpu_instance_id": 7, "memory_used_bytes": 2**20}
    ((_, sample),) = scraped(Latest(now=NOW, events=[Event("gpu_sample", NOW.wall_us, row)]))
    assert sample.labels == {"gpu": "0", "UUID": "MIG-a", "device": "nvidia0", "Hostname": "box", "GPU_I_ID": "7"}


def test_when_sampling_has_stopped_there_is_none():
    assert scraped(Latest(now=NOW, events=[Event("gpu_sample", NOW.wall_us, ROW)]), is_fresh=False) == []
