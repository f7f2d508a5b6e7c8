"""GPUs that sleep: a laptop's discrete GPU is powered off while nobody uses it, and asking it wakes it up.

The kernel tells without waking it. `power/control` is `auto` for a device that may be powered off, and
`power/runtime_status` says whether it is.
"""

from pathlib import Path

_NVIDIA = "0x10de"
_DISPLAY = "0x03"  # the first byte of the PCI class: VGA and 3D controllers


class RuntimePower:
    """What sysfs tells of the NVIDIA GPUs' power.

    Args:
        sys: Where /sys is.
    """

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._devices = sys / "bus/pci/devices"

    def is_asleep(self, pci_bus_id: str | None) -> bool:
        """Whether that GPU is powered off; False where nobody tells."""
        return pci_bus_id is not None and _word(self._folder(pci_bus_id), "power/runtime_status") == "suspended"

    def may_sleep(self, pci_bus_id: str | None) -> bool:
        """Whether that GPU may be powered off while nobody uses it."""
        return pci_bus_id is not None and _word(self._folder(pci_bus_id), "power/control") == "auto"

    def gpus(self) -> list[str]:
        """The PCI addresses of the NVIDIA GPUs that the kernel knows, driver or not."""
        try:
            folders = list(self._devices.iterdir())
        except OSError:
            return []
        return [
            folder.name
            for folder in folders
            if _word(folder, "vendor") == _NVIDIA and _word(folder, "class").startswith(_DISPLAY)
        ]

    def _folder(self, pci_bus_id: str) -> Path:
        domain, _, rest = pci_bus_id.lower().partition(":")  # NVML writes the domain with eight digits, sysfs with four
        return self._devices / f"{domain[-4:]}:{rest}"


def _word(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text().strip()
    except OSError:
        return ""
