"""What `gpuledger doctor` says of the driver and the GPUs, from what was found of them; nothing is asked here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pynvml

from collector.gpu.driver_files import LIBRARY_NAME, Confinement, DriverFiles
from collector.gpu.kernel_log import KernelXid
from collector.gpu.self_test import GpuAnswers, SelfTest
from gpuledger.doctor.findings import Check, State
from store.events import GPU_SAMPLE, AbsenceReason
from store.xid import advice_for

NAMES_MAX = 8  # of the calls of one status; all of them stand in `inventory.capabilities`

_INTO_THE_SANDBOX: Mapping[str, str] = {
    "docker": "start it with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=utility",
    "podman": "start it with --device nvidia.com/gpu=all (after 'nvidia-ctk cdi generate')",
    "kubernetes": "give the pod runtimeClassName: nvidia and NVIDIA_DRIVER_CAPABILITIES=utility",
    "snap": "install gpuledger outside of the snap: a strict snap does not see the driver",
    "flatpak": "install gpuledger outside of the flatpak: it does not see the driver",
    "wsl": "install NVIDIA's driver in Windows, none in Linux, then 'wsl --shutdown'",
}
_RELOAD = (
    "sudo modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia, or reboot; "
    "a collector that runs goes on by itself then"
)
_STUCK = (
    "'sudo dmesg | grep NVRM' may say why; end what uses the GPU, reset it with 'nvidia-smi --gpu-reset', or reboot; "
    "the collector records the rest of the machine meanwhile"
)
_LOST = "'sudo dmesg | grep Xid' may say why; 'nvidia-smi -q' names what it needs, mostly a reset or a reboot"
_WHAT_IS_NULL = "'gpuledger status' shows which columns that leaves NULL"
_TOLD_ELSEWHERE = (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
_STATUS_WORDS: Mapping[str, str] = {
    "missing_symbol": "not in a driver of this age",
    "no_permission": "refused to this user",
    "not_supported": "not supported",
}
_BY_NATURE = frozenset({"not_supported", "missing_symbol"})
_GPM_COLUMN = "sm_active_ratio"
_CONSUMER = ("GeForce", "RTX", "Quadro", "TITAN")


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """All that the checks of this file judge by.

    Args:
        files: What the machine says of the driver.
        test: What the driver answered.
        xids: What the kernel's log holds of this boot.
        kernel_log_refusal: Why it could not be read; empty where it could.
        visible_pids: Processes on the GPUs that /proc shows.
        own: What this process may not see.
        refused_calls: UUID of each GPU to the calls that are refused to the running collector.
        collector: What the running collector may not see; None where none runs.
    """

    files: DriverFiles
    test: SelfTest
    xids: Sequence[KernelXid] = ()
    kernel_log_refusal: str = ""
    visible_pids: frozenset[int] = frozenset()
    own: Confinement = field(default_factory=Confinement)
    refused_calls: Mapping[str, frozenset[str]] = field(default_factory=dict)
    collector: Confinement | None = None


def gpu_checks(facts: GpuFacts) -> list[Check]:
    """Every check of the driver and the GPUs that there is something to say of, in the order of their causes."""
    return [
        *_library(facts),
        *_kernel_driver(facts),
        *_device_nodes(facts),
        *_answer(facts),
        *_together([one for gpu in facts.test.gpus for one in _gpu(gpu)]),
        *_lost(facts.test),
        *_profiling(facts),
        *_persistence(facts.test),
        *_processes(facts),
        *_confined(facts),
        *_rights(facts),
        *_kernel_log(facts),
    ]


# --- the driver


def _has_hardware(files: DriverFiles) -> bool:
    return bool(files.pci_addresses or files.kernel_version or files.nodes)


def _library(facts: GpuFacts) -> Iterator[Check]:
    files, test = facts.files, facts.test
    if test.library:
        version = test.versions.get("nvml_version")
        yield Check("library", State.OK, f"{test.library}{f', NVML {version}' if version else ''}")
    elif files.libraries:
        folder = files.libraries[0].rpartition("/")[0]
        yield Check(
            "library",
            State.PROBLEM,
            f"{files.libraries[0]} is there, but the loader does not look there",
            f"echo {folder} | sudo tee /etc/ld.so.conf.d/nvidia.conf && sudo ldconfig",
        )
    elif test.library_error:
        yield _no_library(files, test.library_error)


def _no_library(files: DriverFiles, error: str) -> Check:
    if "cannot open shared object file" not in error:
        return Check("library", State.PROBLEM, error, "install the driver anew: its library does not fit this system")
    where = f"in this {files.sandbox} sandbox" if files.sandbox in ("snap", "flatpak") else "here"
    if files.sandbox and _has_hardware(files):
        finding = f"there is an NVIDIA GPU, and no {LIBRARY_NAME} {where}"
        return Check("library", State.PROBLEM, finding, _INTO_THE_SANDBOX[files.sandbox])
    if _has_hardware(files):
        finding = f"there is an NVIDIA GPU ({_listed(files.pci_addresses)}), and no driver is installed for it"
        return Check("library", State.PROBLEM, finding, "install NVIDIA's driver from your distribution's packages")
    inside = f"; if the machine has one, {_INTO_THE_SANDBOX[files.sandbox]}" if files.sandbox else ""
    finding = f"no NVIDIA GPU and no {LIBRARY_NAME} {where}"
    return Check("library", State.WARNING, finding, f"the host and requests are recorded without{inside}")


def _kernel_driver(facts: GpuFacts) -> Iterator[Check]:
    files, test = facts.files, facts.test
    library_version = _version_of(test.library)
    if test.init_code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        library = f"library {library_version}" if library_version else "the library"
        kernel = f"kernel driver {files.kernel_version}" if files.kernel_version else "the kernel driver"
        yield Check("kernel driver", State.PROBLEM, f"{library} and {kernel} are of different versions", _RELOAD)
    elif files.kernel_version:
        yield Check("kernel driver", State.OK, files.kernel_version)
    elif version := test.versions.get("driver_version"):
        yield Check("kernel driver", State.OK, f"{version}, as NVML tells")
    elif files.has_nouveau and _has_hardware(files):
        hint = "echo blacklist nouveau | sudo tee /etc/modprobe.d/no-nouveau.conf, install NVIDIA's driver, reboot"
        yield Check("kernel driver", State.PROBLEM, "nouveau has the GPU", hint)
    elif test.init_code == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        hint = (
            "sudo modprobe nvidia; if that fails, 'dmesg | grep -i nvrm' says why: mostly a module that was not built "
            "for this kernel ('sudo dkms autoinstall'), or Secure Boot ('mokutil --sb-state')"
        )
        yield Check("kernel driver", State.PROBLEM, "it is installed and not loaded", hint)


def _version_of(library: str) -> str:
    return library.partition(".so.")[2] if library.count(".") > 2 else ""


def _device_nodes(facts: GpuFacts) -> Iterator[Check]:
    files = facts.files
    unusable = [node for node in files.nodes if not node.is_usable]
    if unusable:
        finding = f"{unusable[0].path} may not be opened by this user ({unusable[0].permissions})"
        hint = (
            "sudo usermod -aG video,render $USER and log in again; in a systemd unit SupplementaryGroups=video render"
        )
        yield Check("device nodes", State.PROBLEM, finding, hint)
    elif files.nodes:
        yield Check("device nodes", State.OK, _listed(node.path for node in files.nodes))
    elif files.kernel_version and facts.test.init_code:
        hint = _INTO_THE_SANDBOX.get(
            files.sandbox, "sudo nvidia-modprobe -c 0; in a systemd unit, leave PrivateDevices= out"
        )
        yield Check("device nodes", State.PROBLEM, "the driver is loaded, and there is no /dev/nvidia* here", hint)


def _answer(facts: GpuFacts) -> Iterator[Check]:
    test = facts.test
    if test.has_hung or test.ended_by:
        how = "did not come back" if test.has_hung else f"ended the process ({test.ended_by})"
        yield Check("answers", State.PROBLEM, f"{test.last_step}: the driver {how}", _STUCK)
    elif test.own_error:
        hint = "report it with what 'gpuledger doctor --bundle FILE.tar.gz' writes"
        yield Check("answers", State.PROBLEM, f"{test.last_step}: internal error: {test.own_error}", hint)
    elif test.init_code:
        yield from _refused(facts, test.init_code)
    elif test.is_done:
        yield _what_is_listed(facts)
    elif test.init_code == 0:
        yield Check("answers", State.PROBLEM, f"{test.last_step}: the driver went away", _RELOAD)


def _refused(facts: GpuFacts, code: int) -> Iterator[Check]:
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        hint = "see the device nodes" if facts.files.nodes else "'ls -l /dev/nvidia*' says who may use the GPU"
        yield Check("answers", State.PROBLEM, "this user may not talk to the driver", hint)
    elif code not in _TOLD_ELSEWHERE:
        finding = f"NVML cannot be initialised ({_words(code)})"
        yield Check("answers", State.PROBLEM, finding, "'nvidia-smi' and 'sudo dmesg | grep NVRM' may say more")


def _what_is_listed(facts: GpuFacts) -> Check:
    mig = [gpu for gpu in facts.test.gpus if gpu.parent_uuid]
    count = len(facts.test.gpus) - len(mig) + len(facts.test.lost)
    if not count:
        hint = _INTO_THE_SANDBOX.get(
            facts.files.sandbox, "'nvidia-smi -L' and 'lspci | grep -i nvidia' list what is there"
        )
        return Check("answers", State.PROBLEM, "the driver lists no GPU", hint)
    instances = f", {_counted(len(mig), 'MIG device')}" if mig else ""
    return Check("answers", State.OK, f"{_counted(count, 'GPU')}{instances}")


# --- each GPU


def _gpu(gpu: GpuAnswers) -> Iterator[Check]:
    name = f"GPU {gpu.index}{' MIG' if gpu.parent_uuid else ''}"
    if not gpu.values and AbsenceReason.LOST in gpu.absent.values():
        yield Check(name, State.PROBLEM, "it was lost while it was asked", _LOST)
        return
    calls: dict[str, list[str]] = {}
    for call, status in gpu.calls.items():
        calls.setdefault(status, []).append(_spoken(call))
    answered = len(calls.pop("ok", ()))
    is_refused = any(status not in _BY_NATURE for status in calls)
    shared = ", shares the host's memory" if gpu.values.get("memory_kind") == "unified" else ""
    yield Check(
        name,
        State.WARNING if is_refused else State.OK,
        f"{gpu.description.get('name', gpu.uuid)}{shared}: {answered} of {len(gpu.calls)} calls answered",
        _WHAT_IS_NULL if is_refused else "",
        tuple(f"{_STATUS_WORDS.get(status, status)}: {_shortened(names)}" for status, names in sorted(calls.items())),
    )


def _together(checks: Sequence[Check]) -> list[Check]:
    """The checks of several GPUs, those that say the same as one: eight equal GPUs are one line and not a screen."""
    groups: dict[Check, list[str]] = {}
    for check in checks:
        groups.setdefault(replace(check, name=""), []).append(check.name)
    return [replace(check, name=_names(names)) for check, names in groups.items()]


def _names(names: Sequence[str]) -> str:
    """`GPU 0 to 7` for eight in a row, else the first and how many more."""
    if len(names) == 1:
        return names[0]
    indexes = [name.split()[1] for name in names]
    if indexes == [str(int(indexes[0]) + place) for place in range(len(indexes))] and "MIG" not in names[0]:
        return f"{names[0]} to {indexes[-1]}"
    return f"{names[0]} and {len(names) - 1} more"


def _spoken(call: str) -> str:
    """A field by the column that it fills; its number says nothing to a person."""
    columns = [column.name for column in GPU_SAMPLE.fields if column.source.partition(" or ")[0] == call]
    return f"{columns[0]} ({call})" if call.startswith("field ") and columns else call


def _lost(test: SelfTest) -> Iterator[Check]:
    for index, code in test.lost.items():
        yield Check(f"GPU {index}", State.PROBLEM, f"it is listed and does not answer ({_words(code)})", _LOST)


def _profiling(facts: GpuFacts) -> Iterator[Check]:
    told = [gpu.absent.get(_GPM_COLUMN, "") for gpu in facts.test.gpus]
    if "no_permission" in told:
        because = " (RmProfilingAdminOnly is 1)" if facts.files.profiling_is_for_root else ""
        hint = (
            "echo options nvidia NVreg_RestrictProfilingToAdminUsers=0 | sudo tee /etc/modprobe.d/nvidia-gpm.conf, "
            "then reboot; or give the collector AmbientCapabilities=CAP_SYS_ADMIN"
        )
        finding = f"what the multiprocessors do is told to root alone{because}"
        yield Check("profiling", State.WARNING, finding, hint)
    elif told and set(told) == {"not_supported"}:
        yield Check("profiling", State.OK, "not supported: it begins with Hopper")
    elif told:
        yield Check("profiling", State.OK, "permitted")


def _persistence(test: SelfTest) -> Iterator[Check]:
    servers = [gpu for gpu in test.gpus if not gpu.parent_uuid and "persistence_enabled" in gpu.description]
    off = [gpu for gpu in servers if gpu.description["persistence_enabled"] is False]
    if not servers:
        return
    if any(not any(word in str(gpu.description.get("name")) for word in _CONSUMER) for gpu in off):
        which = _listed(f"GPU {gpu.index}" for gpu in off)
        finding = f"off on {which}: when nothing uses a GPU, the driver lets it go, and its counters begin anew"
        yield Check("persistence", State.WARNING, finding, "sudo systemctl enable --now nvidia-persistenced")
    else:
        yield Check("persistence", State.OK, "off, as is usual outside of servers" if off else "on")


# --- around them


def _processes(facts: GpuFacts) -> Iterator[Check]:
    pids = {pid for gpu in facts.test.gpus for pid in gpu.pids}
    hidden = pids - facts.visible_pids
    if hidden:
        hint = (
            "start the container with --pid=host (Kubernetes: hostPID: true)"
            if facts.files.sandbox
            else "run the collector as root, or mount /proc without hidepid"
        )
        of = _counted(len(pids), "process")
        finding = f"{len(hidden)} of {of} on the GPUs cannot be seen in /proc: name and owner stay NULL"
        yield Check("processes", State.WARNING, finding, hint)
    elif pids:
        yield Check("processes", State.OK, f"{_counted(len(pids), 'process')} on the GPUs, all visible in /proc")


def _confined(facts: GpuFacts) -> Iterator[Check]:
    collector = facts.collector
    if collector is None:
        return
    if collector.has_private_dev and not facts.own.has_private_dev:
        finding = "the collector has a /dev of its own, without the GPUs"
        yield Check("collector's view", State.PROBLEM, finding, "leave PrivateDevices= out of its systemd unit")
    if collector.has_partial_proc and not facts.own.has_partial_proc:
        finding = "the collector does not see other users' processes"
        yield Check(
            "collector's view", State.WARNING, finding, "leave ProtectProc= and ProcSubset= out of its systemd unit"
        )


def _rights(facts: GpuFacts) -> Iterator[Check]:
    for gpu in facts.test.gpus:
        refused = facts.refused_calls.get(gpu.uuid, frozenset())
        if better := sorted(call for call in refused if gpu.calls.get(call) == "ok"):
            finding = f"on GPU {gpu.index} it is refused what this user is answered: {_listed(map(_spoken, better))}"
            hint = "run it as this user, or give its systemd unit the right by AmbientCapabilities="
            yield Check("collector's view", State.WARNING, finding, hint)


def _kernel_log(facts: GpuFacts) -> Iterator[Check]:
    if facts.kernel_log_refusal:
        hint = (
            "start it with --device /dev/kmsg --cap-add SYSLOG: some Xids are told there alone"
            if facts.files.sandbox
            else "in a systemd unit AmbientCapabilities=CAP_SYSLOG, or sudo sysctl kernel.dmesg_restrict=0: some Xids "
            "are told there alone"
        )
        yield Check("kernel log", State.WARNING, facts.kernel_log_refusal, hint)
        return
    counts: dict[tuple[str, int], int] = {}
    for xid in facts.xids:
        key = xid.message.pci_bus_id, xid.message.xid
        counts[key] = counts.get(key, 0) + 1
    if not counts:
        yield Check("kernel log", State.OK, "readable, no Xid since boot")
    for (address, code), count in counts.items():
        advice = advice_for(code)
        times = f" ({count} times)" if count > 1 else ""
        state = State.OK if advice.severity == "info" else State.WARNING
        yield Check("kernel log", state, f"Xid {code} on {address}{times}: {advice.name}", advice.what_to_do)


def _words(code: int) -> str:
    return str(pynvml.NVMLError(code)).lower()


def _counted(count: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count} {what if count == 1 else plural}"


def _shortened(words: Sequence[str]) -> str:
    rest = len(words) - NAMES_MAX
    return _listed(words) if rest <= 0 else f"{_listed(words[:NAMES_MAX])} and {rest} more"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
