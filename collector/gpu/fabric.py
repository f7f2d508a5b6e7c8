"""A GPU's place in a fabric of NVSwitches, and how well that is: one call, told of in three versions."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import pynvml

from collector.gpu.nvml import Absent, Call, Handle
from store.events import AbsenceReason

_COMPLETED = 3  # NVML_GPU_FABRIC_STATE_COMPLETED


class _Info(ctypes.Structure):
    """nvmlGpuFabricInfo_v3_t; version 2 is without the last member. An older nvidia-ml-py has neither by that name."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("clusterUuid", ctypes.c_ubyte * 16),
        ("status", ctypes.c_uint),
        ("cliqueId", ctypes.c_uint),
        ("state", ctypes.c_uint),
        ("healthMask", ctypes.c_uint),
        ("healthSummary", ctypes.c_ubyte),
    )


_VERSIONS = ((3, ctypes.sizeof(_Info)), (2, _Info.healthSummary.offset))


@dataclass(frozen=True, slots=True)
class Fabric:
    """What the driver tells of the fabric.

    Args:
        state: 1 not started, 2 in progress, 3 completed.
        status: NVML's return code of the probe; only a completed one has it.
        clique_id: The GPUs of one clique and cluster reach each other; as above.
        cluster_uuid: As above, in hex.
        health_mask: Flags of two bits and more, as nvml.h has them; an older driver does not tell.
        health: 1 healthy, 2 unhealthy, 3 limited capacity; a driver before version 3 does not tell.
    """

    state: int
    status: int | None
    clique_id: int | None
    cluster_uuid: str | None
    health_mask: int | None
    health: int | None


def fabric_ways(device: Handle) -> list[tuple[str, Callable[[], Fabric]]]:
    """The calls that tell of it, newest first, as for `Ways`."""
    versioned = [_way(device, "nvmlDeviceGetGpuFabricInfoV", number, size) for number, size in _VERSIONS]
    return [*versioned, _way(device, "nvmlDeviceGetGpuFabricInfo", 0, 0)]


def _way(device: Handle, name: str, version: int, size: int) -> tuple[str, Callable[[], Fabric]]:
    info = _Info(version=size | version << 24)
    begin = 0 if version else _Info.clusterUuid.offset  # the oldest has no version
    call = Call(name, device, ctypes.byref(info, begin))

    def read() -> Fabric:
        call()
        if not info.state:
            raise Absent(AbsenceReason.NOT_SUPPORTED, pynvml.NVML_ERROR_NOT_SUPPORTED)
        is_completed = info.state == _COMPLETED
        return Fabric(
            state=info.state,
            status=info.status if is_completed else None,
            clique_id=info.cliqueId if is_completed else None,
            cluster_uuid=bytes(info.clusterUuid).hex() if is_completed else None,
            health_mask=info.healthMask if version >= 2 else None,
            health=info.healthSummary or None if version >= 3 else None,
        )

    return f"{name} {version}" if version else name, read
