"""What a GPU is: the columns of its `inventory`, and beside them its links, its neighbours and its MIG devices.

Read every minute and written when it differs from what was written last.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from collector.capabilities import word
from collector.nvml import Absent, Handle, Nvml
from store.events import INVENTORY, AbsenceReason

_MEGA = 1_000_000
_CPU_WORD_BITS = 64
_CPU_WORDS = 16  # 1,024 CPUs
_LINKS_MAX = 18
_ARCHITECTURES: Mapping[int, str] = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
_COMPUTE_MODES: Mapping[int, str] = {0: "default", 2: "prohibited", 3: "exclusive_process"}
_ANCESTORS: Mapping[int, str] = {
    0: "same_board",
    10: "one_pcie_switch",
    20: "several_pcie_switches",
    30: "host_bridge",
    40: "numa_node",
    50: "system",
}
"""nvmlGpuTopologyLevel_t: the nearest thing that two GPUs have in common."""
_REMOTE_TYPES: Mapping[int, str] = {0: "gpu", 1: "ibm_npu", 2: "nvswitch"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A GPU or MIG device as the driver lists it.

    Args:
        uuid: Its identity.
        index: NVML's index of the GPU.
        handle: What it is asked by.
        pci_bus_id: PCI address of the GPU; None where the driver does not tell.
        parent: Of a MIG device, the GPU that it is a part of.
        gpu_instance_id: Of a MIG device, which GPU instance.
        compute_instance_id: Of a MIG device, which compute instance of it.
    """

    uuid: str
    index: int
    handle: Handle
    pci_bus_id: str | None
    parent: "Listed | None" = None
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None


def listed(nvml: Nvml) -> list[Listed]:
    """Each GPU that the driver lists and that says who it is, and after it its MIG devices.

    Raises:
        Absent: The driver does not list its GPUs, with the reason.
        DriverAway: It is gone.
    """
    found: list[Listed] = []
    for index in range(nvml.ask("nvmlDeviceGetCount")):
        try:
            handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
            gpu = Listed(nvml.ask("nvmlDeviceGetUUID", handle), index, handle, _pci_bus_id(nvml, handle))
        except Absent:
            continue  # listed but lost: it counts as gone, the others go on
        found += [gpu, *_mig_devices(nvml, gpu)]
    return found


def _mig_devices(nvml: Nvml, gpu: Listed) -> list[Listed]:
    try:
        is_enabled = nvml.ask("nvmlDeviceGetMigMode", gpu.handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        count = nvml.ask("nvmlDeviceGetMaxMigDeviceCount", gpu.handle) if is_enabled else 0
    except Absent:
        return []
    found = []
    for number in range(count):
        with suppress(Absent):  # the numbers have gaps
            handle = nvml.ask("nvmlDeviceGetMigDeviceHandleByIndex", gpu.handle, number)
            instances = (
                nvml.ask("nvmlDeviceGetGpuInstanceId", handle),
                nvml.ask("nvmlDeviceGetComputeInstanceId", handle),
            )
            uuid = nvml.ask("nvmlDeviceGetUUID", handle)
            found.append(Listed(uuid, gpu.index, handle, gpu.pci_bus_id, gpu, *instances))
    return found


def _pci_bus_id(nvml: Nvml, device: Handle) -> str | None:
    try:
        bus_id: str = nvml.ask("nvmlDeviceGetPciInfo", device).busId
    except Absent:
        return None
    return bus_id.upper()


def described(
    nvml: Nvml, device: Listed, everything: Sequence[Listed], measured: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The columns of `inventory` for that device, without its identity; and how the calls went that failed.

    Args:
        nvml: The session.
        device: The device.
        everything: All that is listed: for its neighbours and its MIG devices.
        measured: Its newest row: what was read for that is not asked again.

    Raises:
        DriverAway: The driver is gone.
    """
    values: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for column, read in (_GPU if device.parent is None else _MIG).items():
        try:
            values[column] = read(nvml, device.handle)
        except Absent as absent:
            failed[INVENTORY.by_name[column].source] = word(absent.code, absent.reason)
    known = {column: measured[column] for column in _FROM_THE_ROW if column in measured}
    if known.get("memory_kind") == "unified":
        known.pop("memory_total_bytes", None)  # it is the host's
    attributes = _attributes(nvml, device, everything)
    identity = {
        "subject": "gpu" if device.parent is None else "mig",
        "source": "nvml",
        "pci_bus_id": device.pci_bus_id,
        "attributes": attributes or None,
    }
    told = {**identity, **values, **known}
    return {column: value for column, value in told.items() if value is not None}, failed


def _told(read: Callable[[Nvml, Handle], Any], nvml: Nvml, device: Handle) -> Any:
    """What `read` gives, or the `AbsenceReason` why it gives nothing."""
    try:
        return read(nvml, device)
    except Absent as absent:
        return absent.reason


def _asked(name: str, *arguments: Any, scaled: Callable[[Any], Any] = lambda value: value) -> Callable[..., Any]:
    return lambda nvml, device: scaled(nvml.ask(name, device, *arguments))


def _cuda_version(nvml: Nvml, _: Handle) -> str:
    version: int = nvml.ask("nvmlSystemGetCudaDriverVersion_v2")
    return f"{version // 1000}.{version % 1000 // 10}"


def _watts(milliwatts: float) -> float:
    return milliwatts / 1000


def _hertz(megahertz: int) -> int:
    return megahertz * _MEGA


_FROM_THE_ROW = ("memory_kind", "memory_total_bytes", "power_limit_watts")
_SYSTEM: Mapping[str, Callable[[Nvml, Handle], Any]] = {
    "driver_version": lambda nvml, _: nvml.ask("nvmlSystemGetDriverVersion"),
    "nvml_version": lambda nvml, _: nvml.ask("nvmlSystemGetNVMLVersion"),
    "cuda_version": _cuda_version,
}
_MIG: Mapping[str, Callable[[Nvml, Handle], Any]] = {"name": _asked("nvmlDeviceGetName"), **_SYSTEM}
_GPU: Mapping[str, Callable[[Nvml, Handle], Any]] = {
    "name": _asked("nvmlDeviceGetName"),
    "serial": _asked("nvmlDeviceGetSerial"),
    "architecture": _asked("nvmlDeviceGetArchitecture", scaled=_ARCHITECTURES.get),
    "compute_capability": _asked("nvmlDeviceGetCudaComputeCapability", scaled=lambda pair: ".".join(map(str, pair))),
    "vbios_version": _asked("nvmlDeviceGetVbiosVersion"),
    **_SYSTEM,
    "mig_enabled": _asked("nvmlDeviceGetMigMode", scaled=lambda modes: bool(modes[0])),
    "ecc_enabled": _asked("nvmlDeviceGetEccMode", scaled=lambda modes: bool(modes[0])),
    "persistence_enabled": _asked("nvmlDeviceGetPersistenceMode", scaled=bool),
    "compute_mode": _asked("nvmlDeviceGetComputeMode", scaled=_COMPUTE_MODES.get),
    "power_limit_default_watts": _asked("nvmlDeviceGetPowerManagementDefaultLimit", scaled=_watts),
    "power_limit_minimum_watts": _asked(
        "nvmlDeviceGetPowerManagementLimitConstraints", scaled=lambda limits: _watts(limits[0])
    ),
    "power_limit_maximum_watts": _asked(
        "nvmlDeviceGetPowerManagementLimitConstraints", scaled=lambda limits: _watts(limits[1])
    ),
    "clock_sm_maximum_hertz": _asked("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_SM, scaled=_hertz),
    "clock_memory_maximum_hertz": _asked("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_MEM, scaled=_hertz),
    "pcie_link_maximum_generation": _asked("nvmlDeviceGetMaxPcieLinkGeneration"),
    "pcie_link_maximum_width_lanes": _asked("nvmlDeviceGetMaxPcieLinkWidth"),
    "gsp_firmware_version": _asked("nvmlDeviceGetGspFirmwareVersion"),
    "inforom_version": _asked("nvmlDeviceGetInforomImageVersion"),
}


def _attributes(nvml: Nvml, device: Listed, everything: Sequence[Listed]) -> dict[str, Any]:
    if device.parent is not None:
        return {
            "parent_gpu_uuid": device.parent.uuid,
            "mig_gpu_instance_id": device.gpu_instance_id,
            "mig_compute_instance_id": device.compute_instance_id,
            **_slices(nvml, device.handle),
        }
    parts = {
        "cores_count": _told(_asked("nvmlDeviceGetNumGpuCores"), nvml, device.handle),
        "numa_node": _told(_asked("nvmlDeviceGetNumaNodeId"), nvml, device.handle),
        "cpu_affinity": _told(_cpu_affinity, nvml, device.handle),
        "nearest_common": _neighbours(nvml, device, everything),
        "nvlinks": _links(nvml, device.handle),
        "mig_devices": [one.uuid for one in everything if one.parent is device],
    }
    return {name: part for name, part in parts.items() if part not in ({}, []) and not isinstance(part, AbsenceReason)}


def _slices(nvml: Nvml, device: Handle) -> dict[str, int]:
    try:
        told = nvml.ask("nvmlDeviceGetAttributes_v2", device)
    except Absent:
        return {}
    return {
        "multiprocessor_count": told.multiprocessorCount,
        "gpu_instance_slice_count": told.gpuInstanceSliceCount,
        "compute_instance_slice_count": told.computeInstanceSliceCount,
        "copy_engine_count": told.sharedCopyEngineCount,
        "decoder_count": told.sharedDecoderCount,
        "encoder_count": told.sharedEncoderCount,
    }


def _cpu_affinity(nvml: Nvml, device: Handle) -> str | AbsenceReason:
    """The CPUs that are near, as Linux writes a list of them: 0-15,64-79."""
    words = nvml.ask("nvmlDeviceGetCpuAffinity", device, _CPU_WORDS)
    cpus = [
        number * _CPU_WORD_BITS + bit
        for number, word in enumerate(words)
        for bit in range(_CPU_WORD_BITS)
        if word >> bit & 1
    ]
    return _ranges(cpus) or AbsenceReason.NO_DATA


def _ranges(numbers: Sequence[int]) -> str:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ",".join("-".join(map(str, one)) for one in ranges)


def _neighbours(nvml: Nvml, device: Listed, everything: Sequence[Listed]) -> dict[str, str]:
    """What each other GPU has in common with it, by UUID."""
    near: dict[str, str] = {}
    for other in everything:
        if other.parent is None and other is not device:
            with suppress(Absent):
                level = nvml.ask("nvmlDeviceGetTopologyCommonAncestor", device.handle, other.handle)
                near[other.uuid] = _ANCESTORS.get(level, str(level))
    return near


def _links(nvml: Nvml, device: Handle) -> list[dict[str, Any]]:
    """Number, state, version and far end of each NVLink."""
    links = []
    for number in range(_LINKS_MAX):
        try:
            is_active = nvml.ask("nvmlDeviceGetNvLinkState", device, number) == pynvml.NVML_FEATURE_ENABLED
        except Absent as absent:
            if absent.code != pynvml.NVML_ERROR_INVALID_ARGUMENT:
                break  # no NVLink at all
            continue
        link = {"link": number, "is_active": is_active, **(_far_end(nvml, device, number) if is_active else {})}
        links.append(link)
    return links


def _far_end(nvml: Nvml, device: Handle, link: int) -> dict[str, Any]:
    told = {
        "version": _told(_asked("nvmlDeviceGetNvLinkVersion", link), nvml, device),
        "remote_pci_bus_id": _told(
            _asked("nvmlDeviceGetNvLinkRemotePciInfo", link, scaled=lambda pci: pci.busId), nvml, device
        ),
        "remote_type": _told(
            _asked("nvmlDeviceGetNvLinkRemoteDeviceType", link, scaled=lambda kind: _REMOTE_TYPES.get(kind, "other")),
            nvml,
            device,
        ),
    }
    return {name: value for name, value in told.items() if not isinstance(value, AbsenceReason)}
