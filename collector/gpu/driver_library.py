"""The driver's library in this process: who is in it, what of the driver is held, when it may be unmapped.

The library belongs to the process and not to a session: a session that is begun anew while a call of the last one
hangs shares the image with it, and unmapping it then would pull the code away under that call.
"""

import _ctypes
import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pynvml

LIBRARY_WORD = "libnvidia-ml"
DEVICE_PREFIX = "/dev/nvidia"


def installed_library() -> ctypes.CDLL:
    """The library of the driver that is installed, from which nvidia-ml-py takes its function pointers."""
    return ctypes.CDLL("libnvidia-ml.so.1")


def close_library(library: Any) -> None:
    """Unmap it, so that the next one is the one that is installed then; one that stands in its place is closed."""
    if not isinstance(library, ctypes.CDLL):
        library.close()
        return
    with suppress(OSError):
        _ctypes.dlclose(library._handle)  # noqa: SLF001 - ctypes has no call for it


class DriverLibrary:
    """Opens the library, counts sessions, and knows which call each thread is in.

    Whoever calls the driver enters the function into `calls` before, by the thread's id, and takes it out after.

    Args:
        opened: Gives the library. A recorder and a replay take its place (`collector.recordings.boundary`): they see
            what is passed as ctypes objects, so a call that passes an address as a bare number cannot be recorded.
    """

    def __init__(self, opened: Callable[[], Any] = installed_library) -> None:
        self.opened = opened
        self.calls: dict[int, Callable[..., Any]] = {}
        self._lock = threading.Lock()
        self._session_count = 0

    def call_of(self, thread: int) -> str | None:
        """The name of the function of the driver that this thread is in now."""
        function = self.calls.get(thread)
        return function.__name__ if function else None

    @property
    def is_in_use(self) -> bool:
        return bool(self.calls)

    def begin(self) -> None:
        """Begin a session.

        Raises:
            pynvml.NVMLError: The driver refuses.
        """
        with self._lock:  # from here on nobody unmaps what nvmlInit is about to find mapped
            self.calls[threading.get_ident()] = pynvml.nvmlInit
        try:
            pynvml.nvmlLib = pynvml.nvmlLib or self.opened()  # before nvidia-ml-py loads it in its own way
        except OSError:
            self.calls.pop(threading.get_ident())
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND) from None
        self._call(pynvml.nvmlInit)
        with self._lock:
            self._session_count += 1

    def end(self) -> None:
        """End a session; the last one unmaps the library."""
        with suppress(pynvml.NVMLError):
            self._call(pynvml.nvmlShutdown)
        with self._lock:
            self._session_count -= 1
        self.unmap()

    def _call(self, function: Callable[[], None]) -> None:
        thread = threading.get_ident()
        self.calls[thread] = function
        try:
            function()
        finally:
            del self.calls[thread]

    def unmap(self) -> None:
        """Unmap the library if nobody uses it, so that the next session loads the one that is installed then."""
        with self._lock:
            library = pynvml.nvmlLib
            if library is None or self._session_count or self.calls:
                return
            pynvml.nvmlLib = None
            pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - pynvml has no call for it
            close_library(library)


LIBRARY = DriverLibrary()


def held_files(process: Path = Path("/proc/self")) -> list[str]:
    """What this process holds of the driver: files of its library that are mapped, devices that are open."""
    return sorted({*_mapped(process), *_open_devices(process)})


def mapped_files(process: Path = Path("/proc/self")) -> list[str]:
    """The files of the driver's library that are mapped, by path; one that was replaced ends in `(deleted)`."""
    return sorted(set(_mapped(process)))


def _mapped(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="replace").splitlines():
            if LIBRARY_WORD in line:
                yield line.split(maxsplit=5)[5]


def _open_devices(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in list((process / "fd").iterdir()):
            with suppress(OSError):  # closed since it was listed
                if (path := str(descriptor.readlink())).startswith(DEVICE_PREFIX):
                    yield path
