"""What the machine says of NVIDIA's driver without asking the driver: files, device nodes, the bus, and what is around.

Everything is read under a root that is passed in, and nothing here can hang on a driver that does.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from collector import proc

LIBRARY_NAME = "libnvidia-ml.so.1"
_VERSION = re.compile(r"\b\d{3}\.\d+(?:\.\d+)?\b")
_NODE = re.compile(r"nvidia(?:ctl|\d+)")
_NVIDIA = "0x10de"
_DISPLAY = "0x03"  # the first byte of the PCI class: VGA and 3D controllers
_UNUSUAL_FOLDERS = (
    "usr/lib/wsl/lib",
    "usr/local/nvidia/lib64",  # GKE
    "run/nvidia/driver/usr/lib/x86_64-linux-gnu",  # the GPU operator's driver container
    "run/opengl-driver/lib",  # NixOS
    "usr/lib/x86_64-linux-gnu/nvidia/current",
    "var/lib/snapd/lib/gl",
)
"""Where the library lies on machines whose loader may not look there."""


@dataclass(frozen=True, slots=True)
class Node:
    """A device node of the driver.

    Args:
        path: Where it is.
        is_usable: Whether this process may read and write it.
        permissions: As ls shows them, with owner and group.
    """

    path: str
    is_usable: bool
    permissions: str


@dataclass(frozen=True, slots=True)
class DriverFiles:
    """What was found.

    Args:
        kernel_version: Version of the loaded kernel driver; empty where none is loaded or it does not say.
        nodes: Device nodes of the control device and of the GPUs.
        pci_addresses: NVIDIA GPUs on the PCI bus.
        libraries: Copies of the library in unusual places.
        parameters: The kernel driver's parameters.
        has_nouveau: Whether nouveau, which keeps NVIDIA's driver away, is loaded.
        sandbox: docker, podman, kubernetes, snap, flatpak or wsl; empty where there is none.
    """

    kernel_version: str = ""
    nodes: tuple[Node, ...] = ()
    pci_addresses: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    parameters: Mapping[str, str] | None = None
    has_nouveau: bool = False
    sandbox: str = ""

    @property
    def profiling_is_for_root(self) -> bool:
        return (self.parameters or {}).get("RmProfilingAdminOnly") == "1"


def driver_files(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> DriverFiles:
    """Look around under `root`."""
    version = _VERSION.search(proc.text(root / "proc/driver/nvidia/version") or "")
    modules = proc.text(root / "proc/modules") or ""
    return DriverFiles(
        kernel_version=version[0] if version else "",
        nodes=tuple(_nodes(root / "dev")),
        pci_addresses=tuple(_gpus_on_the_bus(root / "sys/bus/pci/devices")),
        libraries=tuple(
            f"/{folder}/{LIBRARY_NAME}" for folder in _UNUSUAL_FOLDERS if (root / folder / LIBRARY_NAME).exists()
        ),
        parameters=_parameters(root / "proc/driver/nvidia/params"),
        has_nouveau=any(line.startswith("nouveau ") for line in modules.splitlines()),
        sandbox=_sandbox(root, environment),
    )


def _nodes(dev: Path) -> Iterator[Node]:
    if not dev.is_dir():
        return
    for path in sorted(dev.iterdir()):
        if _NODE.fullmatch(path.name):
            status = path.stat()
            permissions = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
            yield Node(f"/dev/{path.name}", os.access(path, os.R_OK | os.W_OK), permissions)


def _gpus_on_the_bus(devices: Path) -> Iterator[str]:
    if not devices.is_dir():
        return
    for folder in sorted(devices.iterdir()):
        vendor, kind = proc.text(folder / "vendor"), proc.text(folder / "class") or ""
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            yield folder.name


def _parameters(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in (proc.text(path) or "").splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _sandbox(root: Path, environment: Mapping[str, str]) -> str:
    if "microsoft" in (proc.text(root / "proc/version") or "").lower():
        return "wsl"
    if (root / ".flatpak-info").exists():
        return "flatpak"
    if environment.get("SNAP"):
        return "snap"
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    return "docker" if (root / ".dockerenv").exists() else ""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a process is kept from seeing.

    Args:
        has_private_dev: It has a /dev of its own without the driver's nodes (systemd's PrivateDevices=).
        has_partial_proc: Its /proc hides other users' processes (hidepid, systemd's ProtectProc= and ProcSubset=).
    """

    has_private_dev: bool = False
    has_partial_proc: bool = False


def confinement(process: Path) -> Confinement:
    """What the process whose folder in /proc is given may not see, as far as its mounts tell.

    Where they cannot be read, of another user's process, nothing is said.
    """
    private_dev = partial_proc = False
    for line in (proc.text(process / "mountinfo") or "").splitlines():
        mount, _, source = line.partition(" - ")
        place = mount.split()[4:5]
        words = source.split()
        if place == ["/dev"] and words[:1] == ["tmpfs"]:  # the last mount on a place is the one that counts
            private_dev = True
        elif place == ["/dev"]:
            private_dev = False
        elif place == ["/proc"]:
            options = words[2].split(",") if len(words) > 2 else []
            partial_proc = any(
                (option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off")) or option == "subset=pid"
                for option in options
            )
    return Confinement(private_dev, partial_proc)
