"""Pausing: the driver is let go, the pause has an end, and what was known before is known after."""

import json

import pytest

from collector.pausing import PausableProbe, Pause, PauseFile, ask_for_pause, asked_pause, end_pause
from collector.probe import Condition
from store.errors import LedgerUnusableError
from store.events import Event
from store.ledger import Ledger

MINUTE_US = 60_000_000


@pytest.fixture
def ask(tmp_path, clock):
    """Ask for a pause from now on."""

    def ask(minutes=10.0, by="alice", why="driver upgrade"):
        now_us = clock.now().wall_us
        pause = Pause(asked_at_us=now_us, until_us=now_us + round(minutes * MINUTE_US), by=by, why=why)
        ask_for_pause(tmp_path, pause)
        return pause

    return ask


@pytest.fixture
def pausable(tmp_path, probe):
    return PausableProbe(probe, tmp_path)


def texts(events):
    return [event.values["text"] for event in events if event.kind == "annotation"]


def told(events):
    return [event.values for event in events if event.kind == "ledger_event"]


# --- the file


def test_a_pause_that_was_asked_for_holds_until_its_time_is_over(tmp_path, clock, ask):
    file = PauseFile(tmp_path)
    assert file.look(clock.now()) is None
    pause = ask(minutes=10)
    assert file.look(clock.now()) == pause
    assert file.look(clock.advance(599.9)) == pause
    assert file.look(clock.advance(0.1)) is None
    assert asked_pause(tmp_path) == pause  # the file stays: whoever deletes it may delete the next one


def test_a_pause_outlives_whoever_looks_and_ends_at_the_same_time(tmp_path, clock, ask):
    pause = ask(minutes=10)
    assert PauseFile(tmp_path).look(clock.advance(300)) == pause
    later = PauseFile(tmp_path)
    assert later.look(clock.now()) == pause
    assert later.look(clock.advance(300)) is None


def test_a_pause_is_taken_back_or_replaced_by_a_longer_one(tmp_path, clock, ask):
    file = PauseFile(tmp_path)
    ask(minutes=10)
    file.look(clock.now())
    longer = ask(minutes=60, by="bob")
    assert file.look(clock.advance(1800)) == longer
    assert (end_pause(tmp_path), end_pause(tmp_path)) == (True, False)
    assert file.look(clock.now()) is None


@pytest.mark.parametrize("step_s", [-86_400.0, -600.0])
def test_a_clock_that_is_stepped_back_does_not_prolong_a_pause(tmp_path, clock, ask, step_s):
    pause = ask(minutes=10)
    file = PauseFile(tmp_path)
    assert file.look(clock.now()) == pause
    clock.step(step_s)
    assert file.look(clock.advance(600)) is None
    again = PauseFile(tmp_path)  # a collector that begins then has only the file to go by
    assert again.look(clock.now()) == pause
    assert again.look(clock.advance(600)) is None


def test_a_pause_goes_on_while_the_machine_is_suspended(tmp_path, clock, ask):
    ask(minutes=10)
    file = PauseFile(tmp_path)
    file.look(clock.now())
    assert file.look(clock.suspend(600)) is None


def test_no_file_pauses_for_longer_than_a_day(tmp_path, clock, ask):
    ask(minutes=60 * 24 * 365)
    file = PauseFile(tmp_path)
    assert file.look(clock.now()) is not None
    assert file.look(clock.advance(24 * 3600)) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"until_us": 1}',
        '{"asked_at_us": 1, "until_us": 99999999999999999, "by": ""}',
        '{"asked_at_us": "x", "until_us": 1, "by": ""}',
    ],
)
def test_a_file_that_is_no_pause_pauses_nothing(tmp_path, clock, content):
    (tmp_path / "pause.json").write_text(content)
    assert PauseFile(tmp_path).look(clock.now()) is None
    assert asked_pause(tmp_path) is None


def test_a_folder_with_nothing_but_a_pause_becomes_a_ledger(tmp_path, ask):
    ask()
    Ledger(tmp_path).close()
    assert (tmp_path / "head.sqlite").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, clock):
    (tmp_path / "file").write_text("")
    pause = Pause(asked_at_us=0, until_us=1, by="alice")
    with pytest.raises(LedgerUnusableError, match=r"folder .*/file cannot be written \(.*\): run as the user"):
        ask_for_pause(tmp_path / "file", pause)
    with pytest.raises(LedgerUnusableError, match=r"folder .*/file cannot be written \(not a directory\)"):
        end_pause(tmp_path / "file")


def test_words_play_no_tricks_on_a_terminal(clock):
    pause = Pause(asked_at_us=0, until_us=0, by="mal\x1b[2J", why="a\n\u202eb" + "c" * 300)
    assert pause.words == "paused until 1970-01-01 00:00:00 UTC by mal [2J: a  b" + "c" * 196


# --- the probe


def test_while_paused_the_probe_lets_go_once_and_gives_what_comes_by_itself(pausable, probe, clock, ask):
    assert texts(pausable.read(clock.advance(1))) == ["one 1"]
    pause = ask(minutes=10)
    xid = Event("gpu_event", 5, {"event": "xid"})
    probe.came.append(xid)
    now = clock.advance(1)
    words = "paused until 2026-11-23 12:10:01 UTC by alice: driver upgrade"
    details = {"asked_at_us": pause.asked_at_us, "until_us": pause.until_us, "by": "alice", "why": "driver upgrade"}
    assert pausable.read(now) == [
        Event(
            "ledger_event",
            now.wall_us,
            {
                "event": "paused",
                "probe": "one",
                "message": f"the one probe is {words}; the driver is let go",
                "details": details,
            },
        ),
        xid,
    ]
    assert [pausable.read(clock.advance(1)) for _ in range(5)] == [[]] * 5
    assert (len(probe.reads), probe.rests) == (1, 1)
    assert (pausable.status(), pausable.condition) == (words, Condition.PAUSED)


@pytest.mark.parametrize(("after_s", "how"), [(600.0, "its time was over"), (30.0, "it was told to go on")])
def test_after_the_pause_it_goes_on_and_says_how_long_it_was(pausable, tmp_path, clock, ask, after_s, how):
    ask(minutes=10)
    begin = clock.now()
    pausable.read(begin)
    now = clock.advance(after_s)
    if after_s < 600:
        end_pause(tmp_path)
    events = pausable.read(now)
    assert texts(events) == ["one 1"]
    assert told(events) == [
        {
            "event": "resumed",
            "probe": "one",
            "message": f"the one probe goes on: {how}",
            "started_at": begin.wall_us,
            "ended_at": now.wall_us,
            "duration_seconds": after_s,
        }
    ]
    assert (pausable.status(), pausable.condition) == ("watching one", Condition.ANSWERS)
    assert told(pausable.read(clock.advance(1))) == []


def test_as_long_as_something_is_held_it_is_not_paused_and_tries_again(pausable, probe, clock, ask):
    probe.held = ["/dev/nvidia0", "/usr/lib/libnvidia-ml.so.1"]
    ask()
    assert pausable.read(clock.advance(1)) == []
    assert pausable.status() == "is to be paused, and still holds /dev/nvidia0, /usr/lib/libnvidia-ml.so.1"
    assert pausable.condition == Condition.ANSWERS
    probe.held = []
    assert [values["event"] for values in told(pausable.read(clock.advance(1)))] == ["paused"]
    assert (probe.rests, len(probe.reads)) == (2, 0)


def test_a_pause_that_is_asked_for_again_is_answered_again_and_counted_as_one(pausable, tmp_path, clock, ask):
    ask(minutes=10)
    begin = clock.now()
    pausable.read(begin)
    clock.advance(60)
    ask(minutes=20, by="bob")
    (again,) = told(pausable.read(clock.advance(1)))
    assert (again["event"], again["details"]["by"]) == ("paused", "bob")
    end_pause(tmp_path)
    (resumed,) = told(pausable.read(clock.advance(1)))
    assert resumed["started_at"] == begin.wall_us


def test_a_collector_that_begins_in_a_pause_looks_at_nothing(tmp_path, probe, clock, ask):
    ask()
    assert [values["event"] for values in told(PausableProbe(probe, tmp_path).read(clock.now()))] == ["paused"]
    assert probe.reads == []


# --- the GPU probe, with the stand-in


GPUS = """
driver {driver}
gpu 0 uuid=GPU-a util=11 energy_mj={energy}
gpu 1 uuid=GPU-b util=22 energy_mj={energy}
"""
BEFORE = GPUS.format(driver="570.12.34", energy=5_000_000)
COUNT_SHUTDOWNS = """
pynvml.shutdowns, pynvml.real_shutdown = [], pynvml.nvmlShutdown
def nvmlShutdown():
    pynvml.shutdowns.append(1)
    pynvml.real_shutdown()
pynvml.nvmlShutdown = nvmlShutdown
"""


@pytest.fixture
def machine(gpu_machine, fake_nvml, tmp_path):
    fake_nvml.write(BEFORE)
    return gpu_machine(fake_nvml, kernel_log=str(tmp_path / "no-kmsg"))


def epochs(seen):
    return {row["gpu_uuid"]: row["counter_epoch"] for row in seen.whole_rows}


def test_a_probe_that_rests_has_ended_its_session_and_holds_nothing_of_the_driver(machine):
    machine.run(COUNT_SHUTDOWNS)
    machine.read()
    assert machine.rest() == {"held": [], "mapped": []}
    machine.run("assert pynvml.shutdowns == [1]")
    machine.run("assert pynvml.nvmlLib is None")
    assert machine.rest() == {"held": [], "mapped": []}  # nothing to let go of
    machine.run("assert pynvml.shutdowns == [1]")


def test_across_a_rest_no_gpu_is_lost_and_counters_that_went_on_are_of_one_epoch(machine):
    before = machine.read()
    machine.rest()
    machine.becomes(GPUS.format(driver="570.12.34", energy=6_000_000))
    after = machine.read(after_s=600.0)
    assert (after.told, after.status) == ([], "2 GPUs")
    assert epochs(after) == epochs(before)
    assert [row["energy_joules"] for row in after.whole_rows] == [6000.0, 6000.0]
    assert machine.read().told == []


def test_counters_that_restarted_in_a_rest_begin_an_epoch_and_the_new_driver_is_described(machine):
    before = machine.read()
    machine.rest()
    machine.becomes(GPUS.format(driver="580.95.05", energy=7))
    after = machine.read(after_s=600.0)
    assert after.told == [
        "the NVIDIA driver is now 580.95.05, it was 570.12.34",
        "GPU 0 reset: its counters began anew: it was reset, or its driver reloaded",
        "GPU 1 reset: its counters began anew: it was reset, or its driver reloaded",
    ]
    assert all(epochs(after)[uuid] > epochs(before)[uuid] for uuid in ("GPU-a", "GPU-b"))
    assert [one["driver_version"] for one in after.of("inventory")] == ["580.95.05"] * 2


def test_a_gpu_that_is_not_there_after_a_rest_is_lost_and_one_that_joined_appears(machine):
    machine.read()
    machine.rest()
    machine.becomes("driver 570.12.34\ngpu 0 uuid=GPU-a energy_mj=5000000\ngpu 1 uuid=GPU-c\n")
    assert sorted(machine.read(after_s=60.0).told) == [
        "GPU 1 appeared: it was not there when recording began",
        "GPU 1 lost: it is not there after a pause",
    ]


def test_a_gpu_that_was_lost_before_a_rest_is_not_lost_again_and_recovers_after_it(machine):
    machine.read()
    machine.becomes(f"{BEFORE}gpu 0 lost_after=0\n")
    assert machine.read().told == ["GPU 0 lost: the driver says that it is lost"]
    machine.rest()
    machine.becomes(BEFORE)
    assert machine.read(after_s=60.0).told == ["GPU 0 recovered: it answers again"]


def test_a_gpu_on_which_a_call_hangs_is_left_alone_and_costs_no_other_its_rows(machine, fake_nvml):
    machine.leave_alone("GPU-a")
    machine.becomes(f"{BEFORE}hang nvmlDeviceGetUtilizationRates 600000 gpu=0\n")
    seen = machine.read()
    rows = {row["gpu_uuid"]: row for row in seen.rows}
    assert (rows["GPU-a"]["up"], rows["GPU-a"]["absence"]) == (False, {"*": "lost"})
    assert (rows["GPU-b"]["up"], rows["GPU-b"]["utilization_percent"]) == (True, 22)
    assert seen.told == ["GPU 0 lost: a call on it hangs in the driver"]
    assert seen.status == "2 GPUs, 1 left alone: a call hangs"
    machine.becomes(BEFORE)
    machine.leave_alone()
    back = machine.read(after_s=10.0)
    assert (back.told, back.status) == (["GPU 0 recovered: it answers again"], "2 GPUs")
    assert {row["gpu_uuid"]: row["utilization_percent"] for row in back.rows} == {"GPU-a": 11, "GPU-b": 22}


def test_what_is_asked_of_the_collector_is_readable_by_a_person(tmp_path, ask):
    pause = ask()
    assert json.loads((tmp_path / "pause.json").read_text()) == {
        "asked_at_us": pause.asked_at_us,
        "until_us": pause.until_us,
        "by": "alice",
        "why": "driver upgrade",
    }
