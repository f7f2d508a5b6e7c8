"""What a GPU has around it: near CPUs, its place in a chassis, the other GPUs; and how it is divided.

It stands in the `attributes` of its `inventory`: what nobody would ask for in a column of its own.
"""

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from collector.gpu.listing import Listed
from collector.gpu.nvml import Absent, Call, Handle, Nvml
from store.events import AbsenceReason

_CPU_WORD_BITS = 64
_CPU_WORDS = 16  # 1,024 CPUs
_P2P_CAPABILITIES: Mapping[int, str] = {0: "p2p_read", 1: "p2p_write", 2: "p2p_nvlink"}
_P2P_STATUS: Mapping[int, str] = {
    0: "ok",
    1: "chipset_not_supported",
    2: "gpu_not_supported",
    3: "topology_not_supported",
    4: "disabled",
    5: "not_supported",
}
_ANCESTORS: Mapping[int, str] = {
    0: "same_board",
    10: "one_pcie_switch",
    20: "several_pcie_switches",
    30: "host_bridge",
    40: "numa_node",
    50: "system",
}
"""nvmlGpuTopologyLevel_t: the nearest thing that two GPUs have in common."""


def surroundings(nvml: Nvml, device: Listed, everything: Sequence[Listed]) -> dict[str, Any]:
    """What is there of that device, each under its name.

    Args:
        nvml: The session.
        device: The device.
        everything: All that is listed: for its neighbours and its MIG devices.

    Raises:
        DriverAway: The driver is gone.
    """
    if device.parent is not None:
        return {
            "parent_gpu_uuid": device.parent.uuid,
            "mig_gpu_instance_id": device.gpu_instance_id,
            "mig_compute_instance_id": device.compute_instance_id,
            **_slices(nvml, device.handle),
        }
    parts = {
        "cores_count": _told(_cores, nvml, device.handle),
        "numa_node": _told(_numa_node, nvml, device.handle),
        "cpu_affinity": _told(_cpu_affinity, nvml, device.handle),
        "platform": _told(_platform, nvml, device.handle),
        "nearest_common": _neighbours(nvml, device, everything),
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


def _platform(_: Nvml, device: Handle) -> dict[str, Any]:
    """Where in its chassis the GPU is, as nvmlPlatformInfo_v2_t tells; an older nvidia-ml-py does not have it."""
    layout = struct.Struct("=I16s16s5B3x")
    memory = ctypes.create_string_buffer(struct.pack("=I", layout.size | 2 << 24), layout.size)
    Call("nvmlDeviceGetPlatformInfo", device, memory)()
    _, guid, chassis, slot, tray, host, peer, module = layout.unpack(memory)
    return {
        "chassis_serial": chassis.rstrip(b"\0").decode(errors="replace"),
        "slot_number": slot,
        "tray_index": tray,
        "host_id": host,
        "peer_type": peer,
        "module_id": module,
        "infiniband_guid": guid.hex(),
    }


def _neighbours(nvml: Nvml, device: Listed, everything: Sequence[Listed]) -> dict[str, dict[str, str]]:
    """What each other GPU has in common with it, and whether they reach each other's memory, by UUID."""
    near: dict[str, dict[str, str]] = {}
    for other in everything:
        if other.parent is None and other is not device:
            with suppress(Absent):
                level = nvml.ask("nvmlDeviceGetTopologyCommonAncestor", device.handle, other.handle)
                near[other.uuid] = {
                    "nearest": _ANCESTORS.get(level, str(level)),
                    **_peer_to_peer(nvml, device.handle, other.handle),
                }
    return near


def _peer_to_peer(nvml: Nvml, device: Handle, other: Handle) -> dict[str, str]:
    """Each way to the other's memory: ok, or why not."""
    told: dict[str, str] = {}
    for index, capability in _P2P_CAPABILITIES.items():
        with suppress(Absent):
            status = nvml.ask("nvmlDeviceGetP2PStatus", device, other, index)
            told[capability] = _P2P_STATUS.get(status, "unknown")
    return told


def _told(read: Callable[[Nvml, Handle], Any], nvml: Nvml, device: Handle) -> Any:
    """What `read` gives, or the `AbsenceReason` why it gives nothing."""
    try:
        return read(nvml, device)
    except Absent as absent:
        return absent.reason


def _cores(nvml: Nvml, device: Handle) -> Any:
    return nvml.ask("nvmlDeviceGetNumGpuCores", device)


def _numa_node(nvml: Nvml, device: Handle) -> Any:
    return nvml.ask("nvmlDeviceGetNumaNodeId", device)
