"""The sampler: its schedule, what it tells of missed time, and what a failing probe or ledger costs."""

import logging
import threading

import pytest

from collector import sampler as sampler_module
from collector.probe import Condition
from collector.sampler import Latest, Sampler, XidCount
from store.events import Event

VERSION, PID = "1.2.3", 4711


@pytest.fixture
def make_sampler(ledger):
    def make(clock, *probes, interval_s=1.0):
        return Sampler(ledger=ledger, probes=probes, clock=clock, interval_s=interval_s, version=VERSION, pid=PID)

    return make


@pytest.fixture
def sampler(make_sampler, clock, probe):
    return make_sampler(clock, probe)


def life(events, *names):
    """The ledger events with one of these names; all of them where none is given."""
    return [
        event.values for event in events if event.kind == "ledger_event" and event.values["event"] in (names or ALL)
    ]


ALL = ("start", "stop", "gap", "suspend", "clock_step", "probe_status", "probe_failed", "paused")


def texts(events):
    return [event.values["text"] for event in events if event.kind == "annotation"]


def life_event(name, message, **more):
    return {"event": name, "message": message, "gpuledger_version": VERSION, "pid": PID, **more}


# --- the schedule


def test_a_recording_is_a_tick_at_once_then_one_each_interval_between_start_and_stop(
    make_sampler, clock_until, probe, ledger
):
    clock = clock_until(end_s=2.5)
    begin = clock.now()
    make_sampler(clock, probe).run(threading.Event())
    assert [now.monotonic_s - begin.monotonic_s for now in probe.reads] == [0.0, 1.0, 2.0]
    times_us = [begin.wall_us + seconds for seconds in (0, 1_000_000, 2_000_000, 2_500_000)]
    assert ledger.batches == [
        [Event("ledger_event", times_us[0], life_event("start", "recording began"))],
        [
            Event("annotation", times_us[0], {"text": "one 1"}),
            Event("ledger_event", times_us[0], life_event("probe_status", "watching one", probe="one")),
        ],
        [Event("annotation", times_us[1], {"text": "one 2"})],
        [Event("annotation", times_us[2], {"text": "one 3"})],
        [Event("ledger_event", times_us[3], life_event("stop", "recording ended"))],
    ]
    assert probe.is_closed


def test_a_slow_probe_does_not_shift_the_ticks_after_it(make_sampler, clock_until, probe, ledger):
    clock = clock_until(end_s=3.5)
    probe.trouble = lambda: clock.advance(0.75)
    make_sampler(clock, probe).run(threading.Event())
    assert [now.monotonic_s for now in probe.reads] == [1000.0, 1001.0, 1002.0, 1003.0]
    assert life(ledger.events, "gap") == []


def test_an_interval_that_no_float_holds_exactly_does_not_drift(make_sampler, clock_until, probe):
    clock = clock_until(end_s=864.05)
    make_sampler(clock, probe, interval_s=0.1).run(threading.Event())
    assert len(probe.reads) == 8_641
    assert probe.reads[-1].monotonic_s == pytest.approx(1000.0 + 864.0, abs=1e-6)


def test_missed_ticks_are_one_gap_with_their_count_and_span_and_are_not_made_up(
    make_sampler, clock_until, probe, ledger
):
    clock = clock_until(end_s=8.0)
    begin = clock.now()
    probe.trouble = lambda: clock.advance(4.25 if len(probe.reads) == 3 else 0.0)
    sampler = make_sampler(clock, probe)
    sampler.run(threading.Event())
    assert [now.monotonic_s - begin.monotonic_s for now in probe.reads] == [0.0, 1.0, 2.0, 6.25, 7.0, 8.0]
    gap = life_event(
        "gap",
        "3 ticks were missed",
        missed_ticks_count=3,
        started_at=begin.wall_us + 2_000_000,
        ended_at=begin.wall_us + 6_250_000,
        duration_seconds=4.25,
    )
    assert life(ledger.events, "gap", "suspend", "clock_step") == [gap]
    assert (sampler.latest.ticks, sampler.latest.missed_ticks) == (6, 3)


def test_a_late_tick_that_misses_none_is_no_gap(make_sampler, clock_until, probe, ledger):
    clock = clock_until(end_s=3.5)
    probe.trouble = lambda: clock.advance(1.5 if len(probe.reads) == 2 else 0.0)
    sampler = make_sampler(clock, probe)
    sampler.run(threading.Event())
    assert [now.monotonic_s for now in probe.reads] == [1000.0, 1001.0, 1002.5, 1003.0]
    assert life(ledger.events, "gap") == []
    assert sampler.latest.missed_ticks == 0


def test_told_to_stop_before_it_began_it_records_that_it_ran(make_sampler, clock, probe, ledger):
    stop = threading.Event()
    stop.set()
    make_sampler(clock, probe).run(stop)
    assert [values["event"] for values in life(ledger.events)] == ["start", "stop"]
    assert probe.is_closed


def test_what_waits_for_the_end_of_a_tick_is_called_with_its_time(ledger, clock_until, probe):
    clock = clock_until(end_s=1.5)
    ends = []
    Sampler(
        ledger=ledger, probes=[probe], clock=clock, interval_s=1.0, version=VERSION, pid=PID, after_tick=ends.append
    ).run(threading.Event())
    assert ends == probe.reads


# --- what the clocks tell


def test_a_suspend_is_a_suspend_and_neither_a_gap_nor_a_clock_step(sampler, clock, ledger):
    before = clock.now()
    sampler.tick(before)
    clock.suspend(3600.0)
    now = clock.advance(1.0)
    sampler.tick(now)
    suspend = life_event(
        "suspend",
        "the machine was suspended for 3600.0 s",
        started_at=before.wall_us,
        ended_at=now.wall_us,
        duration_seconds=3600.0,
    )
    assert life(ledger.events, "gap", "suspend", "clock_step") == [suspend]
    assert sampler.latest.missed_ticks == 0


@pytest.mark.parametrize(("step_s", "words"), [(90.0, "+90.000 s"), (-3600.5, "-3600.500 s"), (-0.6, "-0.600 s")])
def test_a_stepped_clock_is_a_clock_step_with_its_sign_and_never_a_gap(sampler, clock, ledger, step_s, words):
    before = clock.now()
    sampler.tick(before)
    clock.step(step_s)
    now = clock.advance(1.0)
    sampler.tick(now)
    step = life_event(
        "clock_step",
        f"the clock was stepped by {words}",
        started_at=before.wall_us,
        ended_at=now.wall_us,
        duration_seconds=pytest.approx(step_s),
    )
    assert life(ledger.events, "gap", "suspend", "clock_step") == [step]


def test_a_clock_that_is_slewed_is_no_step(sampler, clock, ledger):
    for _ in range(5):
        sampler.tick(clock.now())
        clock.step(0.4)
        clock.advance(1.0)
    assert life(ledger.events, "gap", "suspend", "clock_step") == []


def test_a_suspend_with_a_stepped_clock_is_both(sampler, clock, ledger):
    sampler.tick(clock.now())
    clock.suspend(100.0)
    clock.step(-7.0)
    sampler.tick(clock.advance(1.0))
    told = [(values["event"], values["duration_seconds"]) for values in life(ledger.events, "suspend", "clock_step")]
    assert told == [("suspend", pytest.approx(100.0)), ("clock_step", pytest.approx(-7.0))]


# --- probes


def test_a_probe_that_raises_costs_only_its_own_events(make_sampler, clock, probe, other_probe, ledger, caplog):
    def fail():
        raise RuntimeError("no more wires")

    probe.trouble = fail
    sampler = make_sampler(clock, probe, other_probe)
    for _ in range(3):
        sampler.tick(clock.advance(1.0))
    assert texts(ledger.events) == ["two 1", "two 2", "two 3"]
    failed = life_event("probe_failed", "the one probe failed: RuntimeError('no more wires')", probe="one")
    assert life(ledger.events, "probe_failed") == [failed]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_probe_that_works_again_is_told_of_again_when_it_fails_again(make_sampler, clock, probe, ledger, caplog):
    def fail_but_at_the_third():
        if len(probe.reads) != 3:
            raise OSError(5, "Input/output error")

    probe.trouble = fail_but_at_the_third
    sampler = make_sampler(clock, probe)
    for _ in range(5):
        sampler.tick(clock.advance(1.0))
    assert texts(ledger.events) == ["one 3"]
    told = [values["event"] for values in life(ledger.events)]
    assert told == ["probe_failed", "probe_status", "probe_failed"]


def test_a_probe_that_cannot_say_what_it_watches_costs_only_its_own_events(
    make_sampler, clock, probe, other_probe, ledger, caplog
):
    probe.status = lambda: 1 / 0
    make_sampler(clock, probe, other_probe).tick(clock.now())
    assert texts(ledger.events) == ["two 1"]
    assert [values["probe"] for values in life(ledger.events, "probe_failed")] == ["one"]


def test_a_probes_status_is_written_when_it_changes(sampler, clock, probe, ledger):
    for words in ("no GPU", "no GPU", "1 GPU", "1 GPU", "no GPU"):
        probe.words = words
        sampler.tick(clock.advance(1.0))
    told = [(values["message"], values["probe"]) for values in life(ledger.events, "probe_status")]
    assert told == [("no GPU", "one"), ("1 GPU", "one"), ("no GPU", "one")]


# --- a ledger that takes no events


def test_events_of_failed_appends_are_kept_in_order_and_appended_later(sampler, clock, ledger, caplog):
    sampler.tick(clock.advance(1.0))
    ledger.problem = "The ledger took no events (disk full)"
    sampler.tick(clock.advance(1.0))
    sampler.tick(clock.advance(1.0))
    assert texts(ledger.events) == ["one 1"]
    assert sampler.latest.problem == "The ledger took no events (disk full)"
    assert sampler.latest.append_failures == 2
    ledger.problem = None
    sampler.tick(clock.advance(1.0))
    sampler.tick(clock.advance(1.0))
    assert [texts(batch) for batch in ledger.batches] == [["one 1"], ["one 2", "one 3", "one 4"], ["one 5"]]
    assert (sampler.latest.problem, sampler.latest.append_failures, sampler.latest.dropped_events) == (None, 2, 0)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["The ledger took no events (disk full)", "the ledger takes events again"]


def test_the_start_event_outlives_a_ledger_that_cannot_take_it(make_sampler, clock_until, probe, ledger, caplog):
    ledger.problem = "disk full"
    probe.trouble = lambda: setattr(ledger, "problem", None if len(probe.reads) > 2 else "disk full")
    make_sampler(clock_until(end_s=2.5), probe).run(threading.Event())
    assert [len(batch) for batch in ledger.batches] == [5, 1]
    assert [values["event"] for values in life(ledger.events)] == ["start", "probe_status", "stop"]
    assert texts(ledger.events) == ["one 1", "one 2", "one 3"]


def test_when_nothing_is_taken_for_too_long_the_oldest_events_are_dropped_and_counted(
    make_sampler, clock, probe, ledger, monkeypatch, caplog
):
    monkeypatch.setattr(sampler_module, "PENDING_EVENTS_MAX", 4)
    sampler = make_sampler(clock, probe)
    ledger.problem = "disk full"
    for _ in range(6):
        sampler.tick(clock.advance(1.0))
    assert sampler.latest.dropped_events == 3  # six events and one probe_status, four of them kept
    ledger.problem = None
    sampler.tick(clock.advance(1.0))
    assert [texts(batch) for batch in ledger.batches] == [["one 4", "one 5", "one 6", "one 7"]]
    assert sampler.latest.dropped_events == 4


# --- the state that other threads read


def test_the_latest_state_is_that_of_the_newest_tick_as_a_whole(sampler, clock, probe):
    assert sampler.latest == Latest()
    first = clock.advance(1.0)
    sampler.tick(first)
    before = sampler.latest
    second = clock.advance(1.0)
    sampler.tick(second, missed=2)
    status = Event("ledger_event", first.wall_us, life_event("probe_status", "watching one", probe="one"))
    answers = {"one": Condition.ANSWERS}
    assert before == Latest(
        now=first,
        events=[Event("annotation", first.wall_us, {"text": "one 1"}), status],
        ticks=1,
        conditions=answers,
    )
    assert sampler.latest == Latest(
        now=second,
        events=[Event("annotation", second.wall_us, {"text": "one 2"})],
        ticks=2,
        missed_ticks=2,
        conditions=answers,
    )


def test_xids_are_counted_by_gpu_and_code_with_the_time_of_the_last(make_sampler, clock, probe):
    of_gpu = {"event": "xid", "gpu_index": 0, "gpu_uuid": "GPU-a", "xid": 13}
    throttled = {"event": "throttle_begin", "gpu_index": 0, "gpu_uuid": "GPU-a"}
    told = iter([[of_gpu, of_gpu], [of_gpu, {"event": "xid", "xid": 79}], [throttled]])
    probe.read = lambda now: [Event("gpu_event", now.wall_us, values) for values in next(told)]
    sampler = make_sampler(clock, probe)
    ticks = [clock.advance(1.0) for _ in range(3)]
    for now in ticks:
        sampler.tick(now)
    last_us = ticks[1].wall_us
    assert sampler.latest.xids == {("0", "GPU-a", "13"): XidCount(3, last_us), ("", "", "79"): XidCount(1, last_us)}


def test_the_condition_of_each_probe_is_that_of_the_newest_tick(make_sampler, clock, probe, other_probe, caplog):
    sampler = make_sampler(clock, probe, other_probe)
    probe.trouble = lambda: 1 / 0
    other_probe.condition = Condition.PAUSED
    sampler.tick(clock.advance(1.0))
    assert sampler.latest.conditions == {"one": Condition.FAILED, "two": Condition.PAUSED}
    probe.trouble = lambda: None
    sampler.tick(clock.advance(1.0))
    assert sampler.latest.conditions["one"] == Condition.ANSWERS


def test_what_a_probe_tells_of_the_recorders_life_bears_the_recorders_identity(sampler, clock, probe, ledger):
    probe.read = lambda now: [Event("ledger_event", now.wall_us, {"event": "paused", "message": "m", "probe": "one"})]
    sampler.tick(clock.advance(1.0))
    assert life(ledger.events, "paused") == [life_event("paused", "m", probe="one")]


def test_the_inventory_is_the_newest_description_of_each_thing(make_sampler, clock, probe):
    descriptions = iter(
        [
            [{"subject": "host", "name": "box"}, {"gpu_uuid": "GPU-1", "gpu_index": 0}],
            [],
            [{"gpu_uuid": "GPU-1", "gpu_index": 1}, {"gpu_uuid": "GPU-2", "gpu_index": 0}],
        ]
    )
    probe.read = lambda now: [Event("inventory", now.wall_us, values) for values in next(descriptions)]
    sampler = make_sampler(clock, probe)
    for _ in range(3):
        sampler.tick(clock.advance(1.0))
    assert sampler.latest.inventory == {
        "": {"subject": "host", "name": "box"},
        "GPU-1": {"gpu_uuid": "GPU-1", "gpu_index": 1},
        "GPU-2": {"gpu_uuid": "GPU-2", "gpu_index": 0},
    }


# --- what is served between two readings of the devices


class DevicesNow:
    """Gives the rows that it is told to."""

    name = "devices"
    condition = Condition.ANSWERS

    def __init__(self):
        self.names = []

    def read(self, now):
        rows = ({"device_type": "disk", "device": name, "interval_seconds": 5.0} for name in self.names)
        return [Event("device_sample", now.wall_us, row) for row in rows]

    def status(self):
        return "devices"

    def close(self):
        pass


def test_the_newest_rows_of_devices_stand_until_the_next_and_no_longer_than_three_times_their_interval(
    make_sampler, clock, probe
):
    devices = DevicesNow()
    sampler = make_sampler(clock, probe, devices)
    seen = []
    for names, after_s in ((["a", "b"], 1), ([], 4), (["b"], 5), ([], 15), ([], 1), (["a"], 1)):
        devices.names = names
        sampler.tick(clock.advance(after_s))
        seen.append([row.values["device"] for row in sampler.latest.devices])
    assert seen == [["a", "b"], ["a", "b"], ["b"], ["b"], [], ["a"]]
