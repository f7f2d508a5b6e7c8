"""A probe that hangs: the tick goes on, the truth is told, and nothing is attributed to another time."""

import threading
import time

import pytest

from collector import guarded
from collector.guarded import GuardedProbe
from collector.probe import Condition
from store.events import Event

WAIT_S = 30.0  # for a thread to take its turn on a loaded machine


class Hanging:
    """Makes probes that give a sample and an event a read; while `hangs` is set, a read waits to be released."""

    def __init__(self, make_probe, clock):
        self._make_probe = make_probe
        self._clock = clock
        self.probes = []
        self.left_alone = []
        self.gates = []
        self.hangs = False

    def make(self, left_alone):
        probe = self._make_probe("gpu")
        number = len(self.probes)

        def read(now):
            probe.reads.append(now)
            if self.hangs:
                gate = threading.Event()
                self.gates.append(gate)
                probe.busy_with = f"GPU-{number}"
                self._clock.hanging.set()
                assert gate.wait(WAIT_S)
                probe.busy_with = None
            probe.trouble()
            text = {"text": f"probe {number} read {len(probe.reads)}"}
            return [
                Event("gpu_sample", now.wall_us, {"gpu_uuid": f"GPU-{number}"}),
                Event("annotation", now.wall_us, text),
            ]

        probe.read = read
        self.probes.append(probe)
        self.left_alone.append(left_alone)
        return probe

    def hang(self):
        self.hangs = True

    def release(self, reader):
        """Let the call that hangs return, and wait until its answer is there."""
        self.hangs = False
        self._clock.hanging.clear()
        for gate in self.gates:
            gate.set()
        assert reader.has_answered.wait(WAIT_S)


@pytest.fixture
def driver(make_probe, patient_clock):
    driver = Hanging(make_probe, patient_clock)
    yield driver
    for gate in driver.gates:
        gate.set()


@pytest.fixture
def guard(driver, patient_clock):
    guard = GuardedProbe(driver.make, clock=patient_clock, interval_s=1.0, call_of=lambda _: "nvmlDeviceGetName")
    yield guard
    driver.hangs = False
    for gate in driver.gates:
        gate.set()
    guard.close()


@pytest.fixture
def tick(guard, patient_clock):
    """Read at the next full second, as the sampler does."""
    begin = patient_clock.now()

    def tick(number):
        now = patient_clock.advance(begin.monotonic_s + number - patient_clock.now().monotonic_s)
        return now, list(guard.read(now))

    return tick


def samples(events):
    return [event.observed_at_us for event in events if event.kind == "gpu_sample"]


def texts(events):
    return [event.values["text"] for event in events if event.kind == "annotation"]


def told(events):
    return [event.values for event in events if event.kind == "ledger_event"]


def span(since, now):
    return {
        "started_at": since.wall_us,
        "ended_at": now.wall_us,
        "duration_seconds": pytest.approx(now.boottime_s - since.boottime_s),
    }


def test_a_probe_that_answers_is_as_if_it_were_not_guarded(guard, driver, tick):
    for number in range(3):
        now, events = tick(number)
        assert events == [
            Event("gpu_sample", now.wall_us, {"gpu_uuid": "GPU-0"}),
            Event("annotation", now.wall_us, {"text": f"probe 0 read {number + 1}"}),
        ]
    assert (guard.name, guard.status(), guard.condition) == ("gpu", "watching gpu", Condition.ANSWERS)


def test_a_probe_is_read_in_one_thread_of_its_own_and_closed_there(guard, driver, tick):
    threads = []
    (probe,) = driver.probes
    probe.trouble = lambda: threads.append(threading.current_thread())
    probe.close = lambda: threads.append(threading.current_thread())
    tick(0)
    tick(1)
    guard.close()
    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_a_tick_whose_probe_hangs_goes_on_within_the_time_limit_with_what_came_by_itself(
    guard, driver, tick, patient_clock
):
    tick(0)
    driver.hang()
    xid = Event("gpu_event", 5, {"event": "xid"})
    driver.probes[0].came.append(xid)
    now, events = tick(1)
    assert events == [xid]
    assert patient_clock.now().monotonic_s - now.monotonic_s == pytest.approx(0.8)
    driver.probes[0].came.append(xid)
    now, events = tick(2)
    assert events == [xid]
    assert patient_clock.now() == now  # nobody waits for it again
    assert len(driver.probes[0].reads) == 2


def test_an_answer_that_is_a_little_late_is_recorded_with_the_time_of_the_tick_that_asked(guard, driver, tick):
    tick(0)
    driver.hang()
    asked, _ = tick(1)
    assert tick(2)[1] == []
    driver.release(guard._reader)
    now, events = tick(3)
    assert samples(events) == [asked.wall_us, now.wall_us]
    assert texts(events) == ["probe 0 read 2", "probe 0 read 3"]
    assert told(events) == [
        {
            "event": "gap",
            "probe": "gpu",
            "message": "the gpu probe was slow: it answered after 2.0 s",
            "missed_ticks_count": 1,
            **span(asked, now),
        }
    ]


def test_an_answer_before_the_next_tick_is_recorded_without_ado(guard, driver, tick):
    driver.hang()
    asked, events = tick(0)
    assert events == []
    driver.release(guard._reader)
    now, events = tick(1)
    assert (samples(events), told(events)) == ([asked.wall_us, now.wall_us], [])


def test_after_three_intervals_it_is_stalled_once_in_the_call_that_hangs_until_it_answers(guard, driver, tick):
    tick(0)
    driver.hang()
    since, _ = tick(1)
    assert [told(tick(number)[1]) for number in (2, 3, 4)] == [[], [], []]
    assert (guard.status(), guard.condition) == ("watching gpu", Condition.ANSWERS)
    now, events = tick(5)
    message = "the gpu probe does not answer: nvmlDeviceGetName does not return"
    details = {"call": "nvmlDeviceGetName"}
    assert told(events) == [
        {"event": "probe_stalled", "probe": "gpu", "message": message, "details": details, **span(since, now)}
    ]
    assert guard.status() == "stalled since 2026-11-23 12:00:01 UTC in nvmlDeviceGetName"
    assert guard.condition == Condition.STALLED
    assert [tick(number)[1] for number in range(6, 20)] == [[]] * 14
    driver.release(guard._reader)
    now, events = tick(20)
    assert told(events) == [
        {
            "event": "probe_resumed",
            "probe": "gpu",
            "message": "the gpu probe answers again after 19.0 s",
            "missed_ticks_count": 19,
            **span(since, now),
        }
    ]
    assert (guard.status(), guard.condition) == ("watching gpu", Condition.ANSWERS)


def test_of_an_answer_that_is_too_late_the_samples_are_of_no_time_and_dropped(guard, driver, tick):
    tick(0)
    driver.hang()
    for number in range(1, 10):
        tick(number)
    driver.release(guard._reader)
    now, events = tick(10)
    assert samples(events) == [now.wall_us]
    assert texts(events) == ["probe 0 read 2", "probe 0 read 3"]  # no sample: what has a time of its own


def test_a_suspended_machine_is_not_a_stalled_probe(guard, driver, tick, patient_clock):
    tick(0)
    patient_clock.suspend(3600.0)
    now, events = tick(1)
    assert (samples(events), told(events)) == ([now.wall_us], [])


def test_after_thirty_seconds_it_is_left_behind_for_another_that_leaves_alone_what_it_hangs_on(guard, driver, tick):
    tick(0)
    driver.hang()
    since, _ = tick(1)
    events = [event for number in range(2, 31) for event in tick(number)[1]]
    assert [values["event"] for values in told(events)] == ["probe_stalled"]
    now, events = tick(31)
    assert told(events) == [
        {
            "event": "probe_replaced",
            "probe": "gpu",
            "message": "the gpu probe is replaced: its thread hangs in nvmlDeviceGetName and is left behind",
            "details": {"left_behind": 1, "left_alone": ["GPU-0"]},
            **span(since, now),
        }
    ]
    first, second = driver.probes
    assert (first.is_abandoned, second.is_abandoned) == (True, False)
    assert set(driver.left_alone[1]()) == {"GPU-0"}
    assert guard.condition == Condition.STALLED

    driver.hangs = False
    driver._clock.hanging.clear()
    now, events = tick(32)
    assert (samples(events), texts(events)) == ([now.wall_us], ["probe 1 read 1"])
    assert [(values["event"], values["missed_ticks_count"]) for values in told(events)] == [("probe_resumed", 30)]
    assert guard.condition == Condition.ANSWERS


def test_what_was_left_behind_is_closed_when_it_returns_and_its_answer_is_nobodys(guard, driver, tick):
    driver.hang()
    for number in range(31):
        tick(number)
    old, thread = guard._abandoned[0], guard._abandoned[0].thread
    driver.release(old)
    thread.join(WAIT_S)
    assert driver.probes[0].is_closed
    assert set(driver.left_alone[1]()) == set()
    assert texts(tick(31)[1]) == ["probe 1 read 1"]


def test_ones_that_hang_too_are_replaced_ever_later_and_never_more_than_three(guard, driver, tick):
    driver.hang()
    replaced = [
        number for number in range(600) for values in told(tick(number)[1]) if values["event"] == "probe_replaced"
    ]
    # 30 s after it was asked, then 60 and 120 s after the next one was, which is a tick later
    assert replaced == [30, 31 + 60, 92 + 120]
    assert len(driver.probes) == 4
    deadline = time.monotonic() + WAIT_S
    while set(driver.left_alone[3]()) != {"GPU-0", "GPU-1", "GPU-2"}:  # once each thread has had its turn
        assert time.monotonic() < deadline, driver.left_alone[3]()
        time.sleep(0.01)
    driver.release(guard._reader)
    now, events = tick(600)
    assert texts(events) == ["probe 3 read 1", "probe 3 read 2"]
    assert samples(events) == [now.wall_us]


def test_what_the_probe_raises_is_raised_and_the_next_tick_reads_again(guard, driver, tick):
    (probe,) = driver.probes
    probe.trouble = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        tick(0)
    probe.trouble = lambda: None
    assert texts(tick(1)[1]) == ["probe 0 read 2"]


def test_a_call_that_hangs_and_then_raises_costs_no_event_that_was_told(guard, driver, tick):
    (probe,) = driver.probes
    probe.trouble = lambda: 1 / 0
    driver.hang()
    for number in range(10):
        tick(number)
    driver.release(guard._reader)
    with pytest.raises(ZeroDivisionError):
        tick(10)
    probe.trouble = lambda: None
    now, events = tick(11)
    assert [values["event"] for values in told(events)] == ["probe_resumed"]
    assert samples(events) == [now.wall_us]


def test_it_is_closed_without_waiting_for_a_call_that_hangs(guard, driver, tick, monkeypatch, caplog):
    monkeypatch.setattr(guarded, "CLOSE_TIME_LIMIT_S", 0.01)
    driver.hang()
    tick(0)
    guard.close()
    (probe,) = driver.probes
    assert (probe.is_closed, probe.is_abandoned) == (False, True)
    assert caplog.messages == ["the gpu probe hangs in nvmlDeviceGetName and is left behind"]
    thread = guard._reader.thread
    driver.release(guard._reader)
    thread.join(WAIT_S)
    assert probe.is_closed


@pytest.mark.parametrize(("interval_s", "limit_s"), [(0.05, 0.5), (1.0, 0.8), (5.0, 4.0), (60.0, 5.0)])
def test_the_time_limit_leaves_time_to_append_and_is_no_shorter_than_a_loaded_machine_needs(interval_s, limit_s):
    assert guarded.time_limit_s(interval_s) == limit_s
