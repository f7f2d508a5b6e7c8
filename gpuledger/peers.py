"""What other recorders keep of an NVIDIA machine, metric by metric, and which columns of ours hold the same.

Facts read in their sources on `READ_ON`; the reference page is made from this table and from the declarations of
our columns. A row names our columns by pattern (`kind.column`, of gpu_sample where no kind is given); a row
without columns says why. Which column of ours nobody else has needs no row: the page finds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

READ_ON = "2026-11-23"

YES = "●"
OPTIONAL = "◐"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another recorder, in the version that was read.

    Args:
        key: How rows name it.
        name: What it is called.
        version: The version or state that was read.
        read: What was read of it.
        optional: What its `◐` stands for.
    """

    key: str
    name: str
    version: str
    read: str
    optional: str


PEERS = (
    Peer(
        "dcgm",
        "dcgm-exporter",
        "4.5.3-4.8.2",
        "both lists of counters in `etc/`",
        "in the list, but commented out; any other field of DCGM can be added by hand",
    ),
    Peer(
        "smi",
        "nvidia_gpu_exporter",
        "1.14.0",
        "`docs/METRICS.md`, the catalogue of its NVML backend, its captured scrapes",
        "only with the NVML backend, or with a flag",
    ),
    Peer("nvitop", "nvitop-exporter", "1.7.0", "exporter and API", "shown by nvitop, not exported"),
    Peer("allsmi", "all-smi", "0.25.0", "`API.md` and the NVIDIA readers", "only of MIG instances"),
    Peer("gpud", "gpud", "0.13.0-alpha.4", "the components under `accelerator/nvidia`", "a state, not a metric"),
    Peer(
        "netdata",
        "Netdata",
        "2.11.0",
        "the collectors nvidia_smi and dcgm",
        "only by way of dcgm-exporter with Netdata's own list",
    ),
    Peer("datadog", "Datadog Agent", "main, mid 2026", "`spec/gpu_metrics.yaml` and the NVML collectors", "mean only"),
    Peer("telegraf", "Telegraf", "master, 2026-08-21", "the input nvidia_smi, schema v13", "only of MIG instances"),
)


@dataclass(frozen=True)
class Metric:
    """One row: what is recorded, by which of our columns, and by whom else.

    Args:
        what: What the reading says.
        ours: Patterns of our columns, in `kind.column` or `column` form, separated by spaces; `:key` behind one that
            holds JSON.
        peers: Keys of the peers that record it, one with `?` where it is optional there.
        why_not: Why none of our columns holds it.
    """

    what: str
    ours: str
    peers: str
    why_not: str = ""

    @cached_property
    def marks(self) -> Mapping[str, str]:
        """Peer key to the sign that its column shows."""
        return {word.rstrip("?"): OPTIONAL if word.endswith("?") else YES for word in self.peers.split()}


_ALL = " ".join(peer.key for peer in PEERS)

METRICS: Mapping[str, Sequence[Metric]] = {
    "How busy": (
        Metric("time any kernel ran", "utilization_percent", _ALL),
        Metric(
            "time memory was read or written", "memory_utilization_percent", _ALL.replace("allsmi", "allsmi?")
        ),
        Metric("driver's own samples between two readings", "utilization_*_percent utilization_sample_count", "datadog?"),
        Metric("video encoder, decoder", "encoder_utilization_percent decoder_utilization_percent", "dcgm smi nvitop netdata datadog telegraf"),
        Metric("JPEG engine, optical flow", "jpeg_utilization_percent ofa_utilization_percent", "smi telegraf"),
        Metric("encoder sessions, frame rate, latency", "encoder_sessions_count encoder_frame_rate_hertz encoder_latency_seconds", "smi telegraf"),
        Metric("screen capture sessions, frame rate, latency", "capture_*", "telegraf"),
    ),
    "What the multiprocessors did": (
        Metric("any engine active", "graphics_active_ratio", "dcgm smi? netdata? datadog"),
        Metric("multiprocessors active", "sm_active_ratio", "dcgm? smi? netdata? datadog"),
        Metric("multiprocessors' occupancy", "sm_occupancy_ratio", "dcgm? smi? allsmi gpud netdata? datadog"),
        Metric("tensor pipes", "tensor_active_ratio", "dcgm smi? gpud netdata? datadog"),
        Metric("tensor pipes, one by one", "tensor_?fma_active_ratio tensor_?mma_active_ratio", "gpud netdata?"),
        Metric("integer pipe", "integer_active_ratio", "gpud netdata? datadog"),
        Metric("FP64, FP32, FP16 pipes", "fp*_active_ratio", "dcgm? gpud netdata? datadog"),
        Metric("bandwidth of device memory", "dram_active_ratio", "dcgm allsmi netdata?"),
        Metric(
            "cache hits and misses of host and peer memory",
            "",
            "netdata?",
            "GPM has numbers for them, and no published unit",
        ),
    ),
    "Memory": (
        Metric("used, free, total", "memory_used_bytes memory_free_bytes memory_total_bytes", _ALL),
        Metric("reserved by driver and firmware", "memory_reserved_bytes", "dcgm smi gpud netdata datadog telegraf"),
        Metric("BAR1", "bar1_*", "nvitop? netdata datadog telegraf?"),
        Metric("memory shared with the host", "memory_kind memory_available_bytes memory_process_bytes", "allsmi"),
        Metric("memory protected by confidential computing", "protected_memory_*", "smi"),
    ),
    "Temperature": (
        Metric("GPU", "temperature_celsius", _ALL),
        Metric("device memory", "memory_temperature_celsius", "dcgm smi gpud netdata? datadog telegraf"),
        Metric("distance to the nearest slowdown", "thermal_margin_celsius", "smi gpud netdata? telegraf"),
        Metric("limits: slowdown, shutdown", "slowdown_temperature_celsius shutdown_temperature_celsius", "allsmi gpud netdata? telegraf"),
        Metric("limits: highest of operation, GPU and memory", "maximum_temperature_celsius memory_maximum_temperature_celsius", "allsmi gpud netdata? telegraf"),
        Metric("limits: target, its bounds", "target_*temperature_celsius", "allsmi telegraf"),
        Metric("limits on the margin's scale", "*_margin_celsius", "telegraf"),
    ),
    "Power": (
        Metric("mean of a second", "power_watts", _ALL),
        Metric("at this instant", "power_instant_watts", "smi netdata? telegraf"),
        Metric("limit in force", "power_limit_watts", "smi nvitop allsmi gpud netdata? datadog telegraf"),
        Metric("limit asked for, default, least, greatest", "power_limit_requested_watts inventory.power_limit_*", "smi allsmi netdata? telegraf"),
        Metric("energy", "energy_joules", "dcgm smi? netdata? datadog"),
        Metric("module with its CPU (Grace)", "module_power_*", "telegraf"),
        Metric("multiplier of peak power", "power_edpp_multiplier_percent", "smi"),
        Metric("voltage", "", "netdata", "NVML has no documented call for it; nvidia-smi prints N/A on recent GPUs"),
    ),
    "Clocks, and what holds them down": (
        Metric("SM and graphics", "clock_sm_hertz clock_graphics_hertz", _ALL),
        Metric("memory", "clock_memory_hertz", "dcgm smi nvitop gpud netdata datadog telegraf"),
        Metric("video", "clock_video_hertz", "smi nvitop netdata datadog telegraf"),
        Metric("greatest", "inventory.clock_*_maximum_hertz", "smi nvitop? allsmi netdata? datadog"),
        Metric("application clocks", "inventory.clock_application_*", "smi netdata?"),
        Metric("performance state", "performance_state", "smi nvitop? allsmi netdata datadog telegraf"),
        Metric("reasons at this instant", "clock_event_reasons_bitmask", "dcgm? smi gpud netdata? datadog telegraf"),
        Metric("reasons that the GPU can give", "inventory.clock_event_reasons_supported_bitmask", "smi"),
        Metric("time lost to power cap, sync boost, heat, power brake", "throttle_sw_* throttle_hw_* throttle_sync_*", "dcgm? smi netdata? telegraf"),
        Metric("time lost to heat, as older drivers count it", "throttle_thermal_seconds", "dcgm? netdata? datadog"),
        Metric("time lost to board limit, low utilization, reliability", "throttle_board_* throttle_low_* throttle_reliability_*", "dcgm?"),
    ),
    "Health": (
        Metric("ECC errors", "ecc_*corrected_volatile_count ecc_*corrected_aggregate_count", "dcgm? smi nvitop? gpud netdata? datadog telegraf"),
        Metric("ECC errors by place: DRAM, SRAM", "ecc_*_dram_count ecc_*_sram_count", "smi netdata? datadog telegraf"),
        Metric("ECC errors by place before Ampere: caches, registers", "", "smi netdata?", "only Volta and older tell them; the totals are recorded there"),
        Metric("uncorrected SRAM errors by kind and unit", "ecc_sram_*_count", "smi datadog telegraf"),
        Metric("SRAM errors beyond their threshold", "ecc_sram_threshold_exceeded", "smi netdata? datadog telegraf"),
        Metric("remapped rows, pending, failed", "remapped_rows_*corrected_count row_remap_*", "dcgm smi gpud netdata? datadog telegraf"),
        Metric("remapped rows not in force yet", "remapped_rows_*inactive*", "smi"),
        Metric("spare rows left, by bank", "remap_banks_*", "smi"),
        Metric("retired pages, pending", "retired_pages_*", "dcgm? smi netdata? telegraf"),
        Metric("repair of channel or TPC pending", "channel_repair_pending tpc_repair_pending", "datadog telegraf"),
        Metric("memory that cannot be repaired", "memory_unrepairable", "telegraf"),
        Metric("what the driver asks for: reset, reboot, drain", "recovery_action", "smi"),
        Metric("Xids", "gpu_event.xid", "dcgm smi? gpud netdata? datadog"),
        Metric("GPU lost", "up gpu_event.event", "gpud datadog"),
        Metric("verdict of DCGM's health checks", "", "dcgm?", "DCGM's own judgement; what it judges by is recorded here"),
    ),
    "PCIe": (
        Metric("traffic", "pcie_tx_bytes pcie_rx_bytes pcie_*_per_second", "dcgm smi? nvitop netdata datadog telegraf"),
        Metric("packets sent again", "pcie_replay_count", "dcgm netdata? datadog"),
        Metric("link now", "pcie_link_generation pcie_link_width_lanes", "smi allsmi netdata? datadog telegraf"),
        Metric("link at best", "inventory.pcie_link_*maximum_*", "smi allsmi datadog"),
        Metric("generation at best of the slot alone", "", "smi", "nvidia-smi prints it, NVML has no call for it"),
    ),
    "NVLink, C2C and fabric": (
        Metric("payload, all links", "nvlink_tx_bytes nvlink_rx_bytes nvlink_*_per_second", "dcgm nvitop netdata? datadog"),
        Metric("payload and headers, all links", "nvlink_raw_*_bytes", "dcgm datadog"),
        Metric("errors: CRC, replay, recovery, ECC", "nvlink_sample.*_error_count", "dcgm? gpud netdata? datadog"),
        Metric("links in use, present, to a switch", "nvlink_sample.active nvlink_sample.remote_kind", "gpud datadog"),
        Metric("each link: traffic", "nvlink_sample.*tx_bytes nvlink_sample.*rx_bytes", "nvitop datadog"),
        Metric("each link: state, speed, version, far end", "nvlink_sample.active nvlink_sample.version nvlink_sample.remote* nvlink_sample.speed*", "allsmi gpud? datadog"),
        Metric("each link: errors", "nvlink_sample.*_error_count", "datadog"),
        Metric("each link of NVLink 5: packets, bit errors, recoveries, FEC", "nvlink_sample.*packets_count nvlink_sample.*overruns_count nvlink_sample.*_errors_count nvlink_sample.*discards_count nvlink_sample.*recoveries_count nvlink_sample.*_ratio nvlink_sample.fec_histogram", "datadog"),
        Metric("each link of NVLink 5: retransmission below the packets (PLR)", "", "datadog", "a register read for which the recorder would have to be root"),
        Metric("C2C errors", "c2c_*", "datadog"),
        Metric("C2C mode", "inventory.c2c_*", "smi"),
        Metric("fabric: state, health", "fabric_*", "smi gpud netdata?"),
        Metric("fabric: clique, cluster", "inventory.fabric_*", "smi gpud?"),
        Metric("what lies between two GPUs", "inventory.attributes:nearest_common", "dcgm? gpud?"),
        Metric("NVSwitch", "", "netdata?", "not in NVML: DCGM reads it from the switch's own library"),
        Metric("InfiniBand", "", "gpud", "not in NVML; counters of the network are the host's"),
        Metric("log of the fabric manager, NCCL, peer memory module", "", "gpud", "not in NVML; texts of other programs"),
    ),
    "Fan": (
        Metric("intended speed", "fan_speed_percent", "smi nvitop netdata datadog telegraf"),
    ),
    "Processes": (
        Metric("memory and kind of each", "process_sample.memory_used_bytes process_sample.process_type", "smi? nvitop allsmi datadog telegraf"),
        Metric("multiprocessors, memory, encoder, decoder of each", "process_sample.sm_* process_sample.memory_utilization_percent process_sample.*coder_*", "nvitop allsmi datadog"),
        Metric("how many", "process_count", "smi? gpud"),
        Metric("name, command, user, host memory, CPU", "process_sample.name process_sample.command process_sample.user process_sample.host_memory_bytes process_sample.cpu_seconds", "nvitop allsmi datadog telegraf"),
        Metric("container, pod", "process_sample.container_id process_sample.pod_uid", "dcgm datadog"),
        Metric("Slurm job", "process_sample.slurm_job_id", "dcgm datadog"),
        Metric("cores of each", "", "datadog", "not in NVML: Datadog watches CUDA calls with eBPF"),
    ),
    "MIG and vGPU": (
        Metric("instances: identity", "mig_gpu_instance_id mig_compute_instance_id", "dcgm smi? nvitop? allsmi netdata datadog telegraf"),
        Metric("instances: profile, slices, engines", "inventory.name inventory.attributes:multiprocessor_count inventory.attributes:gpu_instance_slice_count", "dcgm smi?"),
        Metric("instances: memory", "memory_used_bytes memory_total_bytes", "dcgm smi? allsmi netdata datadog telegraf"),
        Metric("instances: activity", "sm_active_ratio tensor_active_ratio", "dcgm smi? allsmi datadog"),
        Metric("MIG mode", "inventory.mig_enabled", "smi allsmi netdata"),
        Metric("virtualization mode", "inventory.virtualization_mode", "allsmi netdata?"),
        Metric("vGPU licence", "inventory.vgpu_licensed", "dcgm netdata?"),
        Metric("each vGPU on a hypervisor", "", "allsmi netdata?", "no hypervisor with vGPU, and no stand-in for one, to try it on"),
    ),
    "What the GPU is": (
        Metric("name, UUID, serial, PCI address", "inventory.name inventory.gpu_uuid inventory.serial inventory.pci_bus_id", _ALL),
        Metric("driver, CUDA, VBIOS", "inventory.driver_version inventory.cuda_version inventory.vbios_version inventory.nvml_version", _ALL),
        Metric("architecture, compute capability", "inventory.architecture inventory.compute_capability", "smi nvitop? allsmi telegraf"),
        Metric("brand", "inventory.brand", "dcgm? allsmi netdata?"),
        Metric("ECC, MIG now and after the next reset", "inventory.ecc_* inventory.mig_*enabled", "smi allsmi netdata? telegraf"),
        Metric("persistence mode", "inventory.persistence_enabled", "smi nvitop? gpud? netdata?"),
        Metric("compute mode", "inventory.compute_mode", "smi nvitop? allsmi netdata? telegraf"),
        Metric("accounting", "inventory.accounting_*", "smi"),
        Metric("display", "inventory.display_*", "smi nvitop? telegraf"),
        Metric("GSP firmware", "inventory.gsp_*", "smi allsmi gpud?"),
        Metric("InfoROM versions", "inventory.inforom_*", "dcgm? smi"),
        Metric("PCI device and subsystem", "inventory.pci_device_id inventory.pci_subsystem_id", "smi"),
        Metric("module, slot, tray, chassis", "inventory.module_id inventory.attributes:platform", "smi"),
        Metric("NUMA node, CPUs nearby", "inventory.attributes:numa_node inventory.attributes:cpu_affinity", "allsmi"),
        Metric("cores", "inventory.attributes:cores_count", "datadog"),
        Metric("addressing mode", "inventory.addressing_mode", "smi"),
        Metric("DRAM encryption", "inventory.dram_encryption_enabled", "smi"),
        Metric("GPU operation mode", "", "smi", "a switch of Kepler boards"),
        Metric("driver model", "", "smi nvitop?", "a notion of Windows"),
        Metric("version of the kernel module", "", "smi", "nvidia-smi's own; `driver_version` is the same on Linux"),
        Metric("deep learning accelerator of Jetson", "", "allsmi", "not in NVML"),
    ),
}  # fmt: skip
