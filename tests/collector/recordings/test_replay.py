"""How a replay answers what was not asked just so when it was recorded: of another collector, or at another pace."""

import ctypes
import threading
from itertools import pairwise
from pathlib import Path

import msgspec
import pynvml
import pytest

from collector.clock import Now
from collector.gpu.driver_library import LIBRARY, installed_library
from collector.gpu.nvml import Absent, FieldBatch, Nvml
from collector.recordings.boundary import HANDLE_BASE
from collector.recordings.recording import Answers, read_recording, write_recording
from collector.recordings.replay import Replay, ReplayProbe
from store.events import AbsenceReason

FIXTURES = Path(__file__).parents[2] / "fixtures/recordings"
PAIR = FIXTURES / "stand-in-h100-pair.recording"


@pytest.fixture
def session():
    """A session with a replayed driver, and the GPU of index 0: `session(recording)`."""
    sessions = []

    def begin(recording=None):
        replay = Replay(recording or read_recording(PAIR))
        LIBRARY.opened = replay.open
        sessions.append(Nvml())
        return replay, sessions[-1], sessions[-1].ask("nvmlDeviceGetHandleByIndex", 0)

    yield begin
    for one in sessions:
        one.close()
    LIBRARY.opened = installed_library


@pytest.fixture
def probe(clock):
    """A probe on a recording, read so and so often in so many seconds."""
    probes = []

    def begin(path=PAIR, **options):
        probes.append(ReplayProbe(path, interval_s=1.0, **options))
        return probes[-1]

    yield begin
    for one in probes:
        one.close()


def looks(probe, clock, count, every_s=1.0):
    found = []
    for _ in range(count):
        found.append(probe.read(clock.now()))
        clock.advance(every_s)
    return found


def rows(events, kind="gpu_sample"):
    return [event.values for event in events if event.kind == kind]


def raised(call):
    with pytest.raises(Absent) as absent:
        call()
    return absent.value.reason, absent.value.code


# --- what was never asked


def test_a_function_that_was_never_asked_is_missing_as_from_an_older_driver(session):
    _, driver, gpu = session()
    assert raised(lambda: driver.ask("nvmlDeviceGetBrand", gpu)) == (
        AbsenceReason.NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    )
    names = ("nvmlDeviceGetFanSpeed", "nvmlDeviceGetPersistenceMode")
    assert driver.ask(names, gpu) == 1  # and another one is asked in its place


def test_of_a_question_that_was_never_asked_nothing_is_known(session):
    _, driver, gpu = session()
    assert driver.ask("nvmlDeviceGetClockInfo", gpu, pynvml.NVML_CLOCK_SM) == 1755
    assert raised(lambda: driver.ask("nvmlDeviceGetClockInfo", gpu, 17)) == (
        AbsenceReason.NO_DATA,
        pynvml.NVML_ERROR_NO_DATA,
    )


def test_a_field_that_was_never_asked_for_costs_the_others_nothing(session):
    _, _, gpu = session()
    codes, values = FieldBatch(gpu, [(82, 0), (999, 0), (185, 0)]).read()
    assert list(codes) == [0, pynvml.NVML_ERROR_NO_DATA, 0]
    assert list(values) == [72, AbsenceReason.NO_DATA, 650_000]


# --- other ways to ask the same


def test_a_list_is_the_same_whether_it_is_asked_for_in_one_call_or_in_two(session):
    _, driver, gpu = session()
    in_two = driver.ask("nvmlDeviceGetComputeRunningProcesses_v3", gpu)
    ask = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetComputeRunningProcesses_v3")
    count, room = ctypes.c_uint(8), (pynvml.c_nvmlProcessInfo_t * 8)()
    assert ask(gpu, ctypes.byref(count), room) == pynvml.NVML_SUCCESS
    assert count.value == len(in_two) == 1
    assert (room[0].pid, room[0].usedGpuMemory) == (in_two[0].pid, 71261224960)


def test_an_array_with_too_little_room_is_left_alone_and_told_how_much_it_takes(session):
    replay, _, gpu = session()
    replay.go_to(1.0)
    ask = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetSamples")
    kind, count, room = ctypes.c_uint(), ctypes.c_uint(2), (pynvml.c_nvmlSample_t * 2)()

    def samples(array):
        code = ask(gpu, 0, ctypes.c_ulonglong(0), ctypes.byref(kind), ctypes.byref(count), array)
        return code, count.value

    assert samples(room) == (pynvml.NVML_ERROR_INSUFFICIENT_SIZE, 10)
    assert bytes(room) == bytes(ctypes.sizeof(room))
    assert samples(None) == (pynvml.NVML_SUCCESS, 10)
    room = (pynvml.c_nvmlSample_t * 10)()
    assert samples(room) == (pynvml.NVML_SUCCESS, 10)
    assert {sample.sampleValue.uiVal for sample in room} == {652_000, 655_500, 661_250, 648_000}


def test_a_reference_into_an_array_is_written_where_it_points(session):
    _, _, gpu = session()
    fields = (pynvml.c_nvmlFieldValue_t * 2)()
    fields[1].fieldId = 82
    ask = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetFieldValues")
    assert ask(gpu, 1, ctypes.byref(fields, ctypes.sizeof(pynvml.c_nvmlFieldValue_t))) == pynvml.NVML_SUCCESS
    assert (fields[0].value.uiVal, fields[1].value.uiVal) == (0, 72)


# --- pace


def test_at_four_times_the_pace_the_answers_are_repeated(probe, clock):
    found = [rows(events)[0]["utilization_percent"] for events in looks(probe(), clock, 10, every_s=0.25)]
    assert found == [93, 93, 94, 94, 94, 94, 95, 95, 95, 95]


def test_at_half_the_pace_every_other_answer_comes(probe, clock):
    found = [rows(events)[0]["utilization_percent"] for events in looks(probe(), clock, 4, every_s=2.0)]
    assert found == [93, 95, 97, 99]


def test_a_clock_that_is_a_little_off_finds_the_same_answers(probe, clock):
    watched = probe()
    found = []
    for seconds in (0.0, 1.02, 0.97, 1.3, 0.69):
        clock.advance(seconds)
        found.append(rows(watched.read(clock.now()))[0]["utilization_percent"])
    assert found == [93, 94, 95, 96, 97]


def test_what_the_driver_told_is_told_once_at_any_pace(probe, clock):
    told = [rows(events, "gpu_event") for events in looks(probe(), clock, 130, every_s=0.5)]
    assert [event["xid"] for events in told for event in events if event["source"] == "nvml"] == [31]


# --- the end


def test_a_recording_that_is_over_says_so_and_has_no_more_rows(probe, clock):
    watched = probe()
    assert "2 GPUs" in (looks(watched, clock, 61) and watched.status())
    assert looks(watched, clock, 2) == [[], []]
    assert watched.status() == (
        "replay of stand-in-h100-pair.recording (61 s of 2 × NVIDIA H100 80GB HBM3 (the stand-in of the tests, no "
        "hardware), driver 580.95.05, one at work, one idle): it is over"
    )


def test_a_recording_that_is_looped_begins_anew_with_another_epoch(probe, clock):
    found = looks(probe(is_looped=True), clock, 123)
    energy = [(rows(events)[0]["counter_epoch"], rows(events)[0]["energy_joules"]) for events in found]
    assert [bool(rows(events, "inventory")) for events in found[60:63]] == [False, True, False]
    assert len({epoch for epoch, _ in energy}) == 3
    assert all(later[1] >= earlier[1] for earlier, later in pairwise(energy) if earlier[0] == later[0])
    assert all(len(rows(events)) == 2 for events in found)


# --- a recording that somebody made up


def made_up(recording, question, content):
    """The same recording, with another answer to one question."""
    contents = [*recording.contents, content]
    answer = Answers(question=question, ticks=[0], at_us=[0], took_us=[0], content=[[-1, len(contents) - 1]])
    others = [one for one in recording.answers if one.question != question]
    return msgspec.structs.replace(recording, contents=contents, answers=[*others, answer])


def test_a_made_up_handle_is_none(session):
    recording = made_up(
        read_recording(PAIR), "nvmlDeviceGetHandleByIndex_v2(0, *)", (0x7FFF_1234_5678).to_bytes(8, "little")
    )
    assert not session(recording)[2]


def test_an_answer_that_is_too_long_is_cut_to_the_room_there_is(session):
    recording = made_up(read_recording(PAIR), "nvmlDeviceGetFanSpeed(h1, *)", b"\x11" * 4096)
    _, driver, gpu = session(recording)
    assert driver.ask("nvmlDeviceGetFanSpeed", gpu) == 0x11111111


def test_handles_are_numbers_that_no_argument_can_be_taken_for(session):
    gpu = session()[2]
    assert ctypes.cast(gpu, ctypes.c_void_p).value == HANDLE_BASE + 1


def test_a_thread_that_waits_for_events_waits_as_long_as_it_said(session):
    _, driver, _ = session()
    assert raised(lambda: driver.ask("nvmlEventSetWait_v2", driver.ask("nvmlEventSetCreate"), 1)) == (
        AbsenceReason.NO_DATA,
        pynvml.NVML_ERROR_TIMEOUT,
    )


def test_an_event_is_handed_over_before_the_tick_that_it_belongs_to_goes_on(session):
    replay, driver, _ = session()
    told = []

    def wait(events):
        while not told:
            try:
                told.append(driver.ask("nvmlEventSetWait_v2", events, 5000).eventData)
            except Absent:
                return
        with pytest.raises(Absent):
            driver.ask("nvmlEventSetWait_v2", events, 0)

    thread = threading.Thread(target=wait, args=(driver.ask("nvmlEventSetCreate"),))
    thread.start()
    replay.go_to(60.0)
    assert told == [31]
    thread.join()


def test_a_replay_leaves_the_machines_own_driver_to_the_next_session(tmp_path):
    watched = ReplayProbe(PAIR, interval_s=1.0)
    watched.read(Now(0.0, 0.0, 0))
    watched.close()
    assert pynvml.nvmlLib is None
    assert LIBRARY.opened is installed_library
    write_recording(tmp_path / "again", read_recording(PAIR))
