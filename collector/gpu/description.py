"""What a GPU is: its `inventory`.

Read every minute and written when it differs from what was written last.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pynvml

from collector.gpu.calls import mega, milli
from collector.gpu.capabilities import word
from collector.gpu.fabric import Fabric, fabric_ways
from collector.gpu.listing import Listed
from collector.gpu.nvml import Absent, Call, Handle, Nvml
from collector.gpu.surroundings import surroundings
from store.events import INVENTORY, AbsenceReason

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
_BRANDS: Mapping[int, str] = {
    1: "Quadro",
    2: "Tesla",
    3: "NVS",
    4: "GRID",
    5: "GeForce",
    6: "Titan",
    7: "NVIDIA vApps",
    8: "NVIDIA vPC",
    9: "NVIDIA vCS",
    10: "NVIDIA vWS",
    11: "NVIDIA Cloud Gaming",
    12: "Quadro RTX",
    13: "NVIDIA RTX",
    14: "NVIDIA",
    15: "GeForce RTX",
    16: "Titan RTX",
    18: "NVIDIA vGameDev",
}
_VIRTUALIZATION: Mapping[int, str] = {0: "none", 1: "passthrough", 2: "vgpu", 3: "host_vgpu", 4: "host_vsga"}
_ADDRESSING: Mapping[int, str] = {0: "none", 1: "hmm", 2: "ats"}


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
    attributes = surroundings(nvml, device, everything)
    identity = {
        "subject": "gpu" if device.parent is None else "mig",
        "source": "nvml",
        "pci_bus_id": device.pci_bus_id,
        "attributes": attributes or None,
    }
    told = {**identity, **values, **known}
    return {column: value for column, value in told.items() if value is not None}, failed


def _asked(
    name: str | tuple[str, ...], *arguments: Any, scaled: Callable[[Any], Any] = lambda value: value
) -> Callable[..., Any]:
    return lambda nvml, device: scaled(nvml.ask(name, device, *arguments))


def _words(name: str, count: int = 1) -> Callable[[Nvml, Handle], Sequence[int]]:
    """What a call gives by so many pointers to 32-bit words; pynvml's wrapper of it differs from version to version."""

    def read(_: Nvml, device: Handle) -> Sequence[int]:
        told = [ctypes.c_uint() for _ in range(count)]
        Call(name, device, *map(ctypes.byref, told))()
        return [one.value for one in told]

    return read


def _flags(name: str, count: int = 1) -> Callable[[Nvml, Handle], Sequence[int]]:
    """The same of structures of a version, 1, and a word; an older pynvml has none of them."""

    def read(_: Nvml, device: Handle) -> Sequence[int]:
        told = [(ctypes.c_uint * 2)(8 | 1 << 24) for _ in range(count)]
        Call(name, device, *map(ctypes.byref, told))()
        return [word for _, word in told]

    return read


def _first(
    read: Callable[[Nvml, Handle], Sequence[int]], scaled: Callable[[int], Any]
) -> Callable[[Nvml, Handle], Any]:
    return lambda nvml, device: scaled(read(nvml, device)[0])


def _gsp_firmware_version(_: Nvml, device: Handle) -> str:
    text = ctypes.create_string_buffer(pynvml.NVML_GSP_FIRMWARE_VERSION_BUF_SIZE)
    Call("nvmlDeviceGetGspFirmwareVersion", device, text)()
    return text.value.decode(errors="replace")


def _pci_id(number: int) -> str:
    """Vendor and device as lspci writes them; NVML has the device in the upper half."""
    return f"{number & 0xFFFF:04x}:{number >> 16:04x}"


def _vgpu_licensed(nvml: Nvml, device: Handle) -> bool:
    """In a guest: whether one of the features that need a licence has it."""
    told = nvml.ask("nvmlDeviceGetGridLicensableFeatures_v4", device)
    if not told.isGridLicenseSupported:
        raise Absent(AbsenceReason.NOT_SUPPORTED, pynvml.NVML_ERROR_NOT_SUPPORTED)
    return any(feature.featureState for feature in told.gridLicensableFeatures[: told.licensableFeaturesCount])


def _fabric(_: Nvml, device: Handle) -> Fabric:
    *newer, oldest = (ask for _, ask in fabric_ways(device))
    for ask in newer:
        try:
            return ask()
        except Absent as absent:
            if absent.reason is not AbsenceReason.NOT_SUPPORTED:
                raise
    return oldest()


def _cuda_version(nvml: Nvml, _: Handle) -> str:
    version: int = nvml.ask("nvmlSystemGetCudaDriverVersion_v2")
    return f"{version // 1000}.{version % 1000 // 10}"


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
    "brand": _asked("nvmlDeviceGetBrand", scaled=_BRANDS.get),
    "board_part_number": _asked("nvmlDeviceGetBoardPartNumber"),
    "module_id": _first(_words("nvmlDeviceGetModuleId"), int),
    "pci_device_id": _asked("nvmlDeviceGetPciInfo", scaled=lambda pci: _pci_id(pci.pciDeviceId)),
    "pci_subsystem_id": _asked("nvmlDeviceGetPciInfo", scaled=lambda pci: _pci_id(pci.pciSubSystemId)),
    "architecture": _asked("nvmlDeviceGetArchitecture", scaled=_ARCHITECTURES.get),
    "compute_capability": _asked("nvmlDeviceGetCudaComputeCapability", scaled=lambda pair: ".".join(map(str, pair))),
    "vbios_version": _asked("nvmlDeviceGetVbiosVersion"),
    **_SYSTEM,
    "mig_enabled": _asked("nvmlDeviceGetMigMode", scaled=lambda modes: bool(modes[0])),
    "mig_pending_enabled": _asked("nvmlDeviceGetMigMode", scaled=lambda modes: bool(modes[1])),
    "ecc_enabled": _asked("nvmlDeviceGetEccMode", scaled=lambda modes: bool(modes[0])),
    "ecc_pending_enabled": _asked("nvmlDeviceGetEccMode", scaled=lambda modes: bool(modes[1])),
    "accounting_enabled": _asked("nvmlDeviceGetAccountingMode", scaled=bool),
    "display_attached": _asked("nvmlDeviceGetDisplayMode", scaled=bool),
    "display_active": _asked("nvmlDeviceGetDisplayActive", scaled=bool),
    "dram_encryption_enabled": _first(_flags("nvmlDeviceGetDramEncryptionMode", 2), bool),
    "addressing_mode": _first(_flags("nvmlDeviceGetAddressingMode"), _ADDRESSING.get),
    "c2c_enabled": _first(_words("nvmlDeviceGetC2cModeInfoV"), bool),
    "virtualization_mode": _asked("nvmlDeviceGetVirtualizationMode", scaled=_VIRTUALIZATION.get),
    "vgpu_licensed": _vgpu_licensed,
    "fabric_clique_id": lambda nvml, device: _fabric(nvml, device).clique_id,
    "fabric_cluster_uuid": lambda nvml, device: _fabric(nvml, device).cluster_uuid,
    "persistence_enabled": _asked("nvmlDeviceGetPersistenceMode", scaled=bool),
    "compute_mode": _asked("nvmlDeviceGetComputeMode", scaled=_COMPUTE_MODES.get),
    "power_limit_default_watts": _asked("nvmlDeviceGetPowerManagementDefaultLimit", scaled=milli),
    "power_limit_minimum_watts": _asked(
        "nvmlDeviceGetPowerManagementLimitConstraints", scaled=lambda limits: milli(limits[0])
    ),
    "power_limit_maximum_watts": _asked(
        "nvmlDeviceGetPowerManagementLimitConstraints", scaled=lambda limits: milli(limits[1])
    ),
    "clock_sm_maximum_hertz": _asked("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_SM, scaled=mega),
    "clock_memory_maximum_hertz": _asked("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_MEM, scaled=mega),
    "clock_graphics_maximum_hertz": _asked("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_GRAPHICS, scaled=mega),
    "clock_video_maximum_hertz": _asked("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_VIDEO, scaled=mega),
    "clock_application_graphics_hertz": _asked(
        "nvmlDeviceGetApplicationsClock", pynvml.NVML_CLOCK_GRAPHICS, scaled=mega
    ),
    "clock_application_memory_hertz": _asked("nvmlDeviceGetApplicationsClock", pynvml.NVML_CLOCK_MEM, scaled=mega),
    "clock_event_reasons_supported_bitmask": _asked(
        ("nvmlDeviceGetSupportedClocksEventReasons", "nvmlDeviceGetSupportedClocksThrottleReasons")
    ),
    "pcie_link_maximum_generation": _asked("nvmlDeviceGetMaxPcieLinkGeneration"),
    "pcie_link_maximum_width_lanes": _asked("nvmlDeviceGetMaxPcieLinkWidth"),
    "gsp_firmware_version": _gsp_firmware_version,
    "gsp_enabled": _first(_words("nvmlDeviceGetGspFirmwareMode", 2), bool),
    "inforom_version": _asked("nvmlDeviceGetInforomImageVersion"),
}
