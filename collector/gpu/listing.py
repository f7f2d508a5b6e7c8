"""The GPUs and MIG devices that the driver lists."""

from contextlib import suppress
from dataclasses import dataclass

import pynvml

from collector.gpu.nvml import Absent, Handle, Nvml


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
