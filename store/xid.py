"""Xids: what the numbers mean under which NVIDIA's driver reports faults, and what to do about each.

Which code belongs to which first step follows NVIDIA's catalogue for Ampere and newer (its edition of October 2025);
the words are ours. A code has its class's words unless something more is to be said of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Severity = Literal["info", "warning", "critical"]
"""info: nothing is lost. warning: a program failed, or the GPU should be seen to. critical: the GPU is not usable."""
Resolution = Literal[
    "restart_app",
    "restart_vm",
    "reset_gpu",
    "reboot",
    "check_hardware",
    "check_uvm",
    "update_software",
    "contact_support",
    "see_ecc",
    "see_nvlink",
    "see_other_xid",
    "see_recovery_action",
    "look_up",
    "none",
]
"""The first step to take."""


@dataclass(frozen=True, slots=True)
class XidAdvice:
    """What one Xid means and what to do about it, for a person and for an agent."""

    code: int
    name: str
    severity: Severity
    resolution: Resolution
    meaning: str
    what_to_do: str


@dataclass(frozen=True, slots=True)
class _Class:
    """Codes that ask for the same first step, and what is said of one that has no words of its own."""

    resolution: Resolution
    severity: Severity
    codes: tuple[int, ...]
    meaning: str
    what_to_do: str


@dataclass(frozen=True, slots=True)
class _Words:
    """What is said of one code in place of its class's words."""

    meaning: str
    what_to_do: str


_COPY_ENGINES = (39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136))
_VIDEO_DECODERS = (68, 83, 84, 88, 89, 96, 97, 98)
_JPEG_DECODERS = (82, *range(99, 106))
_OPTICAL_FLOW = (86, 139)
"""The codes of each engine of a kind, in the order of the engines."""

_CLASSES = (
    _Class(
        "restart_app",
        "warning",
        (8, 11, 13, 25, 31, 32, *_COPY_ENGINES, 60, *_VIDEO_DECODERS, 69, 80, *_JPEG_DECODERS, *_OPTICAL_FLOW, 94),
        "One program's work on the GPU failed and was stopped. The GPU goes on, and so do other programs on it.",
        "Restart the program. Look for the cause in it and in the CUDA libraries it uses; suspect the GPU when the "
        "code follows the GPU from program to program.",
    ),
    _Class(
        "reset_gpu",
        "critical",
        (46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158),
        "A part of the GPU is in a state that it does not leave by itself.",
        "Take the work off the GPU and reset it with `nvidia-smi --gpu-reset`, or reboot where a reset is refused. If "
        "the code returns, collect `nvidia-bug-report.sh` and contact the vendor.",
    ),
    _Class(
        "reboot",
        "critical",
        (79,),
        "The GPU cannot be reached, so it cannot be reset either.",
        "Take the work off the machine and reboot it, or switch it off and on.",
    ),
    _Class(
        "restart_vm",
        "critical",
        (151,),
        "The protected session between the virtual machine and the GPU is broken: its keys could not be renewed.",
        "Shut the virtual machine down and start it again; from inside it nothing helps. Contact the vendor if the "
        "code returns.",
    ),
    _Class(
        "check_hardware",
        "critical",
        (54,),
        "The board does not get the power that it needs: an auxiliary power connector is loose or missing.",
        "Switch the machine off, seat the board's power cables, and check that the power supply can feed them.",
    ),
    _Class(
        "update_software",
        "warning",
        (78,),
        "A virtual GPU could not be started, mostly because the drivers of host and guest do not belong together.",
        "Bring the vGPU software of host and guest to versions that support each other.",
    ),
    _Class(
        "check_uvm",
        "warning",
        (159,),
        "An access over the coherent link between processor and GPU was answered with an error.",
        "Read what the unified-memory driver (UVM) logged at the same time, and restart the program that it names. "
        "Alone and repeated, it is a matter for the vendor.",
    ),
    _Class(
        "see_ecc",
        "critical",
        (48, 171, 172),
        "Memory of the GPU gave back data with more wrong bits than ECC can repair.",
        "Do what 48 asks for; 94, 95, 63 and 64 that come with it say how far it went.",
    ),
    _Class(
        "see_nvlink",
        "warning",
        (74, *range(144, 151)),
        "A link between GPUs, or from a GPU to a switch, reported an error. The message says which link, and whether "
        "the error was fatal.",
        "Not fatal and rare: watch it. Fatal: programs that communicate over the link have failed; do what "
        "`recovery_action` asks for, which is mostly a reset, and restart them.",
    ),
    _Class(
        "see_other_xid",
        "warning",
        (45,),
        "Work was taken off the GPU as a consequence of something else.",
        "Follow the Xid that came just before it on the same GPU.",
    ),
    _Class(
        "see_recovery_action",
        "warning",
        (154,),
        "The driver changed its mind about what the GPU needs.",
        "Do what `recovery_action` asks for, and look for the cause in the Xid before it.",
    ),
    _Class(
        "contact_support",
        "warning",
        (61, 142),
        "An error that should not occur in operation.",
        "Restart the program that was hit, if one was. If the code returns, collect `nvidia-bug-report.sh` and "
        "contact the vendor.",
    ),
    _Class(
        "look_up",
        "warning",
        (*range(162, 171), 999),
        "A recent code, for which no first step was published when this table was written.",
        "Read the driver's message, look the code up in NVIDIA's list, and do what `recovery_action` asks for.",
    ),
    _Class(
        "none",
        "info",
        (37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 121, 137, 141, 152, 153, 157, 160, 161),
        "The driver noted something that needs no action by itself.",
        "Nothing, unless it comes often or together with another Xid; then follow that one.",
    ),
)

_SEVERITIES: Mapping[int, Severity] = {
    43: "warning",  # a program has ended
    63: "warning",
    74: "critical",  # before NVLink 5 it was written for fatal errors alone
    92: "warning",
    156: "warning",
    157: "warning",
    161: "warning",
    162: "info",
    163: "info",
    167: "critical",
    169: "critical",
}
"""Where a code is worse or better than its class."""

_NAMES: Mapping[int, str] = {
    8: "channel made no progress",
    11: "commands not understood",
    13: "exception in code on the GPU",
    25: "commands not allowed",
    31: "memory page fault",
    32: "commands corrupted",
    37: "firmware lacks a method",
    38: "firmware watchdog ran out",
    43: "channel stopped",
    44: "fault while switching programs",
    45: "work taken off the GPU",
    46: "GPU does not respond",
    48: "uncorrectable memory error",
    54: "auxiliary power missing",
    60: "security engine fault",
    61: "power controller breakpoint",
    62: "power controller halted",
    63: "faulty memory set aside",
    64: "faulty memory not set aside",
    66: "firmware refused a register access",
    67: "firmware found an access violation",
    69: "engine given the wrong object",
    74: "NVLink error",
    78: "virtual GPU not started",
    79: "GPU fell off the bus",
    80: "commands damaged in transfer",
    92: "many corrected memory errors",
    93: "InfoROM written too often",
    94: "memory error, contained",
    95: "memory error, not contained",
    106: "management bus test",
    107: "management bus test, silent",
    109: "switching programs timed out",
    110: "security fault",
    119: "GSP does not answer",
    120: "GSP failed",
    121: "chip-to-chip link error",
    136: "NVLink training failed",
    137: "NVLink access refused",
    140: "uncorrectable error out of containment",
    141: "CUDA fast path error",
    142: "video encoder 3 fault",
    143: "GPU not initialised",
    144: "NVLink 5 error in unit SAW",
    145: "NVLink 5 error in unit RLW",
    146: "NVLink 5 error in unit TLW",
    147: "NVLink 5 error in unit TREX",
    148: "NVLink 5 error in unit NVLPW",
    149: "NVLink 5 error in unit NETIR",
    150: "NVLink 5 error in unit MSE",
    151: "key rotation failed",
    152: "deep learning accelerator fault",
    153: "deep learning accelerator timed out",
    154: "recovery action changed",
    155: "NVLink error found by software",
    156: "faulty resource set aside",
    157: "faulty resource not set aside",
    158: "fatal timeout in the GPU",
    159: "coherent link error",
    160: "channel set aside",
    161: "channel not set aside",
    162: "power smoothing engaged again",
    163: "power smoothing disengaged",
    164: "power smoothing nearly worn out",
    165: "power smoothing worn out",
    166: "NVLink traffic before encryption was set up",
    167: "fatal PCIe timeout",
    168: "memory capacity reduced",
    169: "security controller halted",
    170: "NVLink security interrupt",
    171: "uncorrectable error in device memory",
    172: "uncorrectable error in on-chip memory",
    999: "code not told",
    **{code: f"copy engine {number} fault" for number, code in enumerate(_COPY_ENGINES)},
    **{code: f"video decoder {number} fault" for number, code in enumerate(_VIDEO_DECODERS)},
    **{code: f"JPEG decoder {number} fault" for number, code in enumerate(_JPEG_DECODERS)},
    **{code: f"optical flow engine {number} fault" for number, code in enumerate(_OPTICAL_FLOW)},
}

_WORDS: Mapping[int, _Words] = {
    13: _Words(
        "Code that ran on the GPU did what the hardware refuses: it reached beyond an array, used a misaligned "
        "address or an illegal instruction.",
        "Restart the program, and run it under compute-sanitizer to find the place. Compare the versions of CUDA, of "
        "its libraries and of the driver with a machine where it works. Test the GPU when sound programs fail on it "
        "alone.",
    ),
    31: _Words(
        "A program on the GPU touched an address that is not mapped for it: a stray pointer, freed memory, or an "
        "index out of range.",
        "Restart the program, and run it under compute-sanitizer to find the access. Test the GPU when sound programs "
        "fail on it alone.",
    ),
    43: _Words(
        "The driver stopped a program's work after a fault of that program. The GPU is fit for use.",
        "Look for the Xid or the CUDA error just before it, and restart the program.",
    ),
    45: _Words(
        "Work was taken off the GPU, because another error struck it or because its program was ended in the middle.",
        "Follow the Xid that came just before it on the same GPU. Alone, after a program was interrupted, it is "
        "harmless; alone and often on a machine with NVSwitches, restart the fabric manager.",
    ),
    48: _Words(
        "Memory of the GPU gave back data with more wrong bits than ECC can repair. Newer drivers add 171 where it "
        "was device memory, 172 where it was memory on the chip.",
        "Decide by what comes with it: 94 says that one program was hit, 95 that all were, 63 that the place was set "
        "aside, 64 that it could not be. Reset the GPU where `row_remap_pending` or `retired_pages_pending` is set; "
        "where `row_remap_failed` is set, have it replaced.",
    ),
    61: _Words(
        "The controller that looks after power and clocks stopped at a check of its own. Known from older GPUs.",
        "If clocks or power look wrong afterwards, reset the GPU. Update driver and VBIOS; contact the vendor when "
        "the code returns.",
    ),
    62: _Words(
        "The controller that looks after power and clocks has halted. The GPU's readings and clocks are not to be "
        "trusted any more.",
        "Take the work off the GPU and reset it, or reboot. Update the driver; contact the vendor when the code "
        "returns.",
    ),
    63: _Words(
        "The driver noted a faulty place in memory for repair: a row that a spare one replaces on Ampere and newer, a "
        "page that is avoided on older GPUs.",
        "Let running work end, then reset the GPU: until then `row_remap_pending` or `retired_pages_pending` is set. "
        "Watch `remapped_rows_uncorrected_count`: a number that goes on growing is a reason to have the GPU replaced.",
    ),
    64: _Words(
        "A faulty place in memory could not be set aside: no spare row was left, or it could not be noted.",
        "Take the work off the GPU and reset it. Have it replaced when the code returns or `row_remap_failed` is set.",
    ),
    68: _Words(
        "The video decoder stopped at something in its work, most often a damaged or unsupported stream.",
        "Restart the program and try other input. Where sound input fails too, update the driver.",
    ),
    69: _Words(
        "A program asked an engine of the GPU for something that this engine does not have.",
        "Restart the program. Look for a library built for another generation of GPUs, or for another driver.",
    ),
    74: _Words(
        "A link between GPUs, or from a GPU to a switch, failed or made more errors than it can repair by itself.",
        "Programs that communicate over it have failed. Reset the GPUs at both ends, or reboot, and restart them. "
        "`nvlink_tx_bytes` and `nvlink_rx_bytes` show a GPU that is left out. When it returns on the same link, have "
        "the seat, bridge or cable checked, then the board.",
    ),
    79: _Words(
        "The driver cannot reach the GPU over PCIe any more. Behind it is power, heat, a bad contact in slot or "
        "riser, or the GPU itself. NVML has nothing more to say of it, and other GPUs of the machine may stall.",
        "What it was computing is lost. Take the work off the machine and reboot, or better switch it off and on. "
        "When it returns: look at temperature, power and `pcie_replay_count` before the event, seat the board, check "
        "its power, try another slot. Have the GPU replaced when the fault moves with it.",
    ),
    92: _Words(
        "Single wrong bits, which ECC repairs, come unusually often. Results are right.",
        "Watch `ecc_corrected_volatile_count`. If the rate stays high, have the GPU tested when the work allows it.",
    ),
    94: _Words(
        "A memory error that ECC could not repair reached one program and was confined to it.",
        "Restart that program; others were not touched. Reset the GPU when the work allows it, to put the repair into "
        "effect that `row_remap_pending` tells of.",
    ),
    95: _Words(
        "A memory error that ECC could not repair could not be confined: any program on the GPU may have wrong data.",
        "Stop all programs on the GPU, distrust what they computed since, and reset it before the next one starts. "
        "Have it tested when the code returns.",
    ),
    119: _Words(
        "The GPU's own processor for management (GSP), which does much of the driver's work, did not answer in time.",
        "Reset the GPU, and reboot when the reset hangs. Update the driver: many causes were repaired there. With the "
        "proprietary kernel modules, a run without GSP (`NVreg_EnableGpuFirmware=0`) shows whether it is the cause.",
    ),
    120: _Words(
        "The GPU's own processor for management (GSP), which does much of the driver's work, failed.",
        "Reset the GPU, and reboot when the reset hangs. Update the driver, and contact the vendor when the code "
        "returns.",
    ),
    140: _Words(
        "An uncorrectable error was found in a place where the GPU cannot confine it to the program that is hit.",
        "Stop all programs on the GPU and reset it. Have it replaced when the code returns.",
    ),
    143: _Words(
        "The GPU did not come up: it, or its firmware, failed while the driver initialised it.",
        "Reset the GPU or reboot; if that does not help, switch the machine off and on. Then suspect a driver that "
        "does not fit the firmware, and after that the board.",
    ),
    154: _Words(
        "The driver changed its mind about what the GPU needs. It is the consequence of another Xid and no fault "
        "itself.",
        "Do what it asks for: the message says it, and so does `recovery_action` (1 reset, 2 reboot, 3 drain the "
        "peers, 4 drain and reset). The Xid before it tells the cause.",
    ),
    156: _Words(
        "A faulty part of the chip was set aside, from the next reset on.",
        "Let running work end, then reset the GPU.",
    ),
    157: _Words(
        "A faulty part of the chip could not be set aside.",
        "Nothing at once. Contact the vendor when the code returns.",
    ),
    167: _Words(
        "A transfer over PCIe was not answered in time, and the driver gave it up as fatal.",
        "Do what `recovery_action` asks for, and treat it as a sign of what leads to 79: look at `pcie_replay_count`, "
        "at the seat of the board and at its power.",
    ),
    171: _Words(
        "Says of a 48 that the wrong bits were in device memory, which has spare rows.",
        "Follow the 48 that came with it.",
    ),
    172: _Words(
        "Says of a 48 that the wrong bits were in memory on the chip, which has no spare rows.",
        "Follow the 48 that came with it. When it returns, have the GPU replaced.",
    ),
    999: _Words(
        "NVML reported an Xid and could not say which.",
        "The kernel's log of that moment has it: look for `NVRM: Xid`.",
    ),
}


_CLASS_OF = {code: one for one in _CLASSES for code in one.codes}


def _advice(of: _Class, code: int) -> XidAdvice:
    words = _WORDS.get(code) or _Words(of.meaning, of.what_to_do)
    severity = _SEVERITIES.get(code, of.severity)
    return XidAdvice(code, _NAMES[code], severity, of.resolution, words.meaning, words.what_to_do)


XIDS: Mapping[int, XidAdvice] = MappingProxyType({code: _advice(one, code) for code, one in sorted(_CLASS_OF.items())})
"""All codes that something is known of, in order."""


def advice_for(code: int) -> XidAdvice:
    """What is known of a code; of one that nothing is known of, where to ask."""
    return XIDS.get(code) or XidAdvice(
        code,
        f"Xid {code}",
        "warning",
        "look_up",
        "This version of gpuledger has no entry for this code.",
        "Read the driver's message, and look the code up in NVIDIA's list. `recovery_action` says what the driver "
        "asks for.",
    )


def xid_page() -> str:
    """`docs/reference/xid.md`."""
    lines = [
        "# Xids",
        "",
        "Generated from `store/xid.py` by `gpuledger docs`; do not edit.",
        "",
        "An Xid is the number under which NVIDIA's driver reports a fault. Each one that is told, by NVML or in the",
        "kernel's log, is a row of [`gpu_event`](events.md#gpu_event) with `event = 'xid'`. The words here are ours;",
        "[NVIDIA's list](https://docs.nvidia.com/deploy/xid-errors/) is what counts where they differ.",
        "",
        "Severity: `info`, nothing is lost; `warning`, a program failed or the GPU should be seen to; `critical`, the",
        "GPU is not usable until something is done.",
        "",
        "| Xid | name | severity | first step |",
        "|---|---|---|---|",
        *(f"| {one.code} | {one.name} | {one.severity} | `{one.resolution}` |" for one in XIDS.values()),
        "",
        "## First steps",
        "",
        "| first step | what it means | what to do |",
        "|---|---|---|",
        *(f"| `{one.resolution}` | {one.meaning} | {one.what_to_do} |" for one in _CLASSES),
        "",
        "## Codes of which more is to be said",
    ]
    for code in sorted(_WORDS):
        one = XIDS[code]
        lines += ["", f"### Xid {code}: {one.name}", "", one.meaning, "", f"What to do: {one.what_to_do}"]
    return "\n".join([*lines, ""])
