"""What the recorder makes of calls, with a library in Python that answers as the driver does in C."""

import ctypes
import re

import pynvml
import pytest

from collector.clock import Now
from collector.gpu import nvml
from collector.gpu.driver_library import LIBRARY, installed_library
from collector.recordings.pseudonyms import FIRST_PID, Pseudonyms
from collector.recordings.recorder import Recorder, RecordingProbe
from collector.recordings.recording import Label
from store.errors import NoDataError

UUID = "GPU-6e2f8a10-52d1-7c3b-9f04-1d2c3b4a5968"
TEXTS = {"nvmlDeviceGetUUID": UUID, "nvmlDeviceGetName": "NVIDIA H100", "nvmlSystemGetProcessName": "whisperer"}
LABEL = Label(
    machine="stand-in",
    gpus=[],
    driver_version="1",
    nvml_version="1",
    pynvml_version="1",
    gpuledger_version="1",
    architecture="x86_64",
    recorded_at="2026-11-23T12:00:00+00:00",
    duration_s=1.0,
    interval_s=1.0,
    load="",
    identities="replaced",
)


class Library:
    """One GPU at an address, with functions of its own beside those that every test needs."""

    device = 0x7F00_DEAD_BE00

    def __init__(self, **functions):
        self.__dict__.update(functions)
        self.nvmlInitWithFlags = lambda flags: 0
        self.nvmlShutdown = lambda: 0

    def __getattr__(self, name):
        if name == "nvmlDeviceGetHandleByIndex_v2":
            return self.give_handle
        if name not in TEXTS:
            raise AttributeError(name)
        return lambda *arguments: self.write(arguments[-2], TEXTS[name])

    def give_handle(self, index, device):
        ctypes.c_void_p.from_address(ctypes.addressof(device._obj)).value = self.device
        return 0

    @staticmethod
    def write(buffer, text):
        buffer.value = text.encode()
        return 0

    def close(self):
        pass


@pytest.fixture
def recorded(tmp_path):
    """Ask a library through the recorder; the answers that were kept, by question."""

    def record(library, ask, *, keep_identities=False):
        recorder = Recorder(None if keep_identities else Pseudonyms(), lambda: library, tmp_path)
        LIBRARY.opened = recorder.open
        with recorder.tick(Now(5.0, 5.0, 0)):
            session = nvml.Nvml()
            ask(session, session.ask("nvmlDeviceGetHandleByIndex", 0))
        recording = recorder.recording(LABEL)
        session.close()
        return {
            answers.question: (
                [answers.code(number) for number in range(len(answers.content))],
                [[recording.contents[number] for number in one if number >= 0] for one in answers.content],
            )
            for answers in recording.answers
        }

    yield record
    LIBRARY.opened = installed_library


def text_of(answer):
    (((content,),)) = answer[1]
    return content.rstrip(b"\0").decode()


def test_a_handle_is_a_number_of_ours_and_no_address_is_kept(recorded):
    kept = recorded(Library(), lambda session, gpu: session.ask("nvmlDeviceGetName", gpu))
    assert list(kept) == ["nvmlDeviceGetHandleByIndex_v2(0, *)", "nvmlDeviceGetName(h1, *, 96)", "nvmlInitWithFlags(0)"]
    assert text_of(kept["nvmlDeviceGetName(h1, *, 96)"]) == "NVIDIA H100"
    assert Library.device.to_bytes(8, "little") not in b"".join(
        content for _, answers in kept.values() for one in answers for content in one
    )


def test_a_text_that_might_identify_is_replaced_and_one_that_says_what_it_is_stays(recorded):
    def ask(session, gpu):
        session.ask("nvmlDeviceGetUUID", gpu)
        session.ask("nvmlDeviceGetName", gpu)

    kept = recorded(Library(), ask)
    assert text_of(kept["nvmlDeviceGetName(h1, *, 96)"]) == "NVIDIA H100"
    replaced = text_of(kept["nvmlDeviceGetUUID(h1, *, 96)"])
    assert re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", replaced)
    assert replaced != UUID


def test_a_text_that_is_passed_is_replaced_as_the_one_that_came(recorded):
    def give(uuid, device):
        return library.give_handle(0, device)

    def ask(session, gpu):
        session.ask("nvmlDeviceGetHandleByUUID", session.ask("nvmlDeviceGetUUID", gpu))

    library = Library(nvmlDeviceGetHandleByUUID=give)
    kept = recorded(library, ask)
    assert f'nvmlDeviceGetHandleByUUID("{text_of(kept["nvmlDeviceGetUUID(h1, *, 96)"])}", *)' in kept


def test_what_tells_of_users_in_numbers_is_not_kept_at_all(recorded):
    def ask(session, _):
        assert session.ask("nvmlSystemGetProcessName", 4242) == "whisperer"

    assert not [question for question in recorded(Library(), ask) if "ProcessName" in question]
    kept = recorded(Library(), ask, keep_identities=True)
    assert text_of(kept["nvmlSystemGetProcessName(4242, *, 1024)"]) == "whisperer"


def test_entries_that_a_structure_points_to_are_kept_without_their_pids(recorded):
    def fill(device, asked):
        entries = asked._obj
        if not entries.procUtilArray:
            entries.processSamplesCount = 2
            return pynvml.NVML_ERROR_INSUFFICIENT_SIZE
        for number in range(2):
            entries.procUtilArray[number].pid, entries.procUtilArray[number].smUtil = 4242 + number, 7
        return 0

    def ask(session, gpu):
        samples = session.ask("nvmlDeviceGetProcessesUtilizationInfo", gpu, 0)
        assert [sample.pid for sample in samples] == [4242, 4243]

    kept = recorded(Library(nvmlDeviceGetProcessesUtilizationInfo=fill), ask)
    codes, _ = kept["nvmlDeviceGetProcessesUtilizationInfo(h1, *)"]
    assert codes == [pynvml.NVML_ERROR_INSUFFICIENT_SIZE]
    ((_, entries),) = kept["nvmlDeviceGetProcessesUtilizationInfo(h1, *, +)"][1]
    told = (pynvml.c_nvmlProcessUtilizationInfo_v1_t * 2).from_buffer_copy(entries)
    assert [(one.pid, one.smUtil) for one in told] == [(FIRST_PID, 7), (FIRST_PID + 1, 7)]


def test_an_error_is_kept_without_what_stood_in_memory(recorded):
    def refuse(device, buffer, size):
        buffer.value = b"left over"
        return pynvml.NVML_ERROR_NO_PERMISSION

    def ask(session, gpu):
        with pytest.raises(nvml.Absent):
            session.ask("nvmlDeviceGetSerial", gpu)

    kept = recorded(Library(nvmlDeviceGetSerial=refuse), ask, keep_identities=True)
    assert kept["nvmlDeviceGetSerial(h1, *, 30)"] == ([pynvml.NVML_ERROR_NO_PERMISSION], [[]])


def test_what_a_caller_declares_of_a_function_holds_for_the_real_one(recorded):
    def function(device, value):
        return 0

    def ask(*_):
        pynvml._nvmlGetFunctionPointer("nvmlDeviceGetIndex").argtypes = "declared"

    recorded(Library(nvmlDeviceGetIndex=function), ask)
    assert function.argtypes == "declared"


def test_a_machine_without_a_gpu_is_nothing_to_record(tmp_path, monkeypatch):
    def none():
        raise OSError

    probe = RecordingProbe(interval_s=1.0, proc=tmp_path)
    LIBRARY.opened = none
    probe.read(Now(0.0, 0.0, 0))
    probe.close()
    with pytest.raises(NoDataError, match=r"no NVIDIA driver library .* run it where 'nvidia-smi' lists GPUs"):
        probe.recording(load="", gpuledger_version="1")


# --- pseudonyms


def test_a_pseudonym_has_the_shape_of_what_it_replaces_and_is_another_each_time():
    originals = {"GPU-a1": r"GPU-[0-9a-f]{2}", "MIG-GPU-12/3/0": r"MIG-GPU-[0-9a-f]{2}/.*", "1654922006536": r"\d{13}"}
    for original, shape in originals.items():
        pseudonyms = Pseudonyms()
        replaced = pseudonyms.text("nvmlDeviceGetSerial", original)
        assert re.fullmatch(shape, replaced)
        assert replaced != original
        assert pseudonyms.text("nvmlDeviceGetUUID", original) == replaced
    assert len({Pseudonyms().text("nvmlDeviceGetUUID", UUID) for _ in range(8)}) == 8


def test_different_identities_stay_different_however_short():
    pseudonyms = Pseudonyms()
    assert len({pseudonyms.text("nvmlDeviceGetUUID", f"GPU-{letter}") for letter in "abcdefgh"}) == 8


def test_what_cannot_be_replaced_is_no_trap():
    assert [Pseudonyms().text("nvmlDeviceGetSerial", text) for text in ("", "-", "–")] == ["", "-", "–"]


def test_a_pid_becomes_one_that_linux_never_gives_and_0_stays():
    pseudonyms = Pseudonyms()
    assert [pseudonyms.pid(pid) for pid in (7, 8, 7, 0)] == [FIRST_PID, FIRST_PID + 1, FIRST_PID, 0]
    assert FIRST_PID > 2**22


def test_an_identity_in_bytes_keeps_its_length_and_none_stays_none():
    pseudonyms = Pseudonyms()
    assert pseudonyms.identity(bytes(16)) == bytes(16)
    replaced = pseudonyms.identity(bytes(range(16)))
    assert (len(replaced), replaced == pseudonyms.identity(bytes(range(16)))) == (16, True)
    assert replaced != bytes(range(16))
