"""What Landlock does not take away from the process that runs other people's SQL: UDP, Unix sockets, others' memory.

A filter over system calls (seccomp, Linux 3.5) refuses those that make a socket, those that make one behind the
filter's back (io_uring), and those that reach into other processes. As Landlock, it binds the thread that asks for it
and those that it starts; this module imports nothing that starts one.
"""

import ctypes
import errno
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_FILTER = 2
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4  # in what the filter is given
_OTHER_NUMBERING = 0x4000_0000  # from here on x86_64 has the same calls once more (x32)
_ALLOW, _REFUSE = 0x7FFF_0000, 0x0005_0000 | errno.EPERM


@dataclass(frozen=True, slots=True)
class _Machine:
    """What the kernel calls a processor, and how it numbers the calls that are refused."""

    name: int
    refused: Mapping[str, int]


_MACHINES = {
    "x86_64": _Machine(
        0xC000_003E,
        {
            "socket": 41,
            "socketpair": 53,
            "ptrace": 101,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "io_uring_setup": 425,
            "pidfd_getfd": 438,
        },
    ),
    "aarch64": _Machine(
        0xC000_00B7,
        {
            "socket": 198,
            "socketpair": 199,
            "ptrace": 117,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "io_uring_setup": 425,
            "pidfd_getfd": 438,
        },
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("skip_if", ctypes.c_uint8),
        ("skip_else", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def can_refuse_sockets() -> bool:
    """Whether this kernel filters system calls, and we know how this processor numbers them."""
    if platform.machine() not in _MACHINES:
        return False
    _libc().prctl(_PR_SET_SECCOMP, _FILTER, None, 0, 0)
    return ctypes.get_errno() == errno.EFAULT  # it would have read the filter, and there was none


def refuse_sockets() -> bool:
    """Refuse this thread, and those it starts, every new socket and other processes' memory; for good.

    Returns:
        Whether that holds: False where it cannot be had.

    Raises:
        OSError: The kernel filters, and refused to.
    """
    if not can_refuse_sockets():
        return False
    program = [_Instruction(*one) for one in _program(_MACHINES[platform.machine()])]
    filtered = _Program(len(program), (_Instruction * len(program))(*program))
    libc = _libc()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _FILTER, ctypes.byref(filtered), 0, 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"the filter over system calls was refused: {os.strerror(number)}")
    return True


def _program(machine: _Machine) -> Sequence[tuple[int, int, int, int]]:
    """Refuse what is in the list, and whatever is numbered otherwise; allow the rest."""
    numbers = list(machine.refused.values())
    count = len(numbers)
    return [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_IF_EQUAL, 0, count + 3, machine.name),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_IF_AT_LEAST, count + 1, 0, _OTHER_NUMBERING),
        *((_IF_EQUAL, count - at, 0, number) for at, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
