"""What an outbox does when the collector is there, busy, hanging, gone; and when the application forks or ends."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from gpuledger.outbox import Counts, Limits, Outbox
from store.errors import UsageError

WAIT_S = 30.0
QUICK = Limits(linger_s=0.0, wait_s=0.001, wait_s_max=0.002, close_time_limit_s=WAIT_S)


def event(number):
    return {"kind": "request", "source": "python", "source_event_id": f"a-{number}"}


@pytest.fixture
def outbox_to():
    made = []

    def make(url, limits=QUICK, token=""):
        made.append(Outbox(url, token, limits))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def nobody():
    """Return an address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_requests_are_posted_as_lines_with_a_key_and_the_token(listening, outbox_to):
    outbox = outbox_to(listening.url, replace(QUICK, linger_s=WAIT_S), token="s3cret")
    for number in range(3):
        outbox.put(event(number))
    assert outbox.flush(WAIT_S)
    ((path, headers, events),) = listening.posts
    assert (path, events) == ("/ingest/events", [event(0), event(1), event(2)])
    assert headers["Idempotency-Key"] == "a-0+3"
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["Content-Type"] == "application/x-ndjson"
    assert outbox.counts == Counts(sent=3, dropped=0, waiting=0)


def test_a_busy_collector_gets_the_same_batch_again_under_the_same_key(listening, outbox_to):
    listening.replies = [(429, {"Retry-After": "0"}), (503, {}), (500, {})]
    outbox = outbox_to(listening.url)
    outbox.put(event(1))
    assert outbox.flush(WAIT_S)
    assert [(headers["Idempotency-Key"], events) for _, headers, events in listening.posts] == [
        ("a-1+1", [event(1)])
    ] * 4
    assert outbox.counts == Counts(sent=1, dropped=0, waiting=0)


def test_what_the_collector_refuses_is_dropped_told_and_not_sent_again(listening, outbox_to, caplog):
    listening.replies = [(401, {})]
    outbox = outbox_to(listening.url)
    outbox.put(event(1))
    assert outbox.flush(WAIT_S)
    outbox.put(event(2))
    assert outbox.flush(WAIT_S)
    assert listening.events == [event(1), event(2)]
    assert outbox.counts == Counts(sent=1, dropped=1, waiting=0)
    assert caplog.messages == [f"the collector at {listening.url} refused 1 of 1 requests (401)"]


def test_a_collector_that_is_absent_costs_what_does_not_fit_and_one_line(nobody, outbox_to, caplog):
    outbox = outbox_to(nobody, replace(QUICK, events_max=10, batch_events_max=4))
    for number in range(1000):
        outbox.put(event(number))
    outbox.close()
    assert outbox.counts == Counts(sent=0, dropped=1000, waiting=0)
    assert [line.partition(" (")[0] for line in caplog.messages] == [f"the collector at {nobody} does not answer"]


def test_a_collector_that_hangs_holds_up_nobody_and_gets_the_batch_again_once_it_answers(listening, outbox_to):
    listening.may_answer.clear()
    outbox = outbox_to(listening.url, replace(QUICK, post_time_limit_s=0.05, events_max=5))
    outbox.put(event(0))
    assert listening.came.acquire(timeout=WAIT_S)
    for number in range(1, 11):
        outbox.put(event(number))
    assert outbox.counts == Counts(sent=0, dropped=5, waiting=5)
    assert listening.came.acquire(timeout=WAIT_S)  # it is asked again, on another connection
    listening.may_answer.set()
    assert outbox.flush(WAIT_S)
    assert outbox.counts == Counts(sent=6, dropped=5, waiting=0)
    assert {headers["Idempotency-Key"] for _, headers, events in listening.posts if events[0] == event(0)} == {"a-0+1"}


def test_an_outbox_that_is_closed_drops_and_counts(listening, outbox_to):
    outbox = outbox_to(listening.url)
    outbox.put(event(1))
    outbox.close()
    outbox.put(event(2))
    assert listening.events == [event(1)]
    assert outbox.counts == Counts(sent=1, dropped=1, waiting=0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of the listening server's own threads
def test_a_forked_child_sends_its_own_requests_and_none_of_its_parents(listening, outbox_to):
    outbox = outbox_to(listening.url, replace(QUICK, linger_s=WAIT_S))
    outbox.put(event("parent"))
    pid = os.fork()
    if pid == 0:
        outbox.put(event("child"))
        os._exit(0 if outbox.flush(WAIT_S) and outbox.counts == Counts(1, 0, 0) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert listening.events == [event("child")]
    assert outbox.flush(WAIT_S)
    assert listening.events == [event("child"), event("parent")]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of the listening server's own threads
def test_no_thread_of_an_outbox_is_there_at_a_fork_and_what_it_had_in_hand_goes_on(listening, outbox_to):
    listening.may_answer.clear()
    outbox = outbox_to(listening.url)
    outbox.put(event(1))
    assert listening.came.acquire(timeout=WAIT_S)  # it hangs in a post
    outbox.put(event(2))
    posting = outbox._thread
    pid = os.fork()
    if pid == 0:
        os._exit(0 if outbox.counts == Counts(0, 0, 0) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert (posting.is_alive(), outbox._thread.is_alive()) == (False, True)
    listening.may_answer.set()
    assert outbox.flush(WAIT_S)
    assert outbox.counts == Counts(sent=2, dropped=0, waiting=0)
    assert {headers["Idempotency-Key"] for _, headers, events in listening.posts if event(1) in events} == {"a-1+1"}
    assert event(2) in listening.events


FORKING = """
import os, sys, threading, warnings
warnings.simplefilter("error")
import gpuledger
gpuledger.send_to(sys.argv[1])
for number in range(20):
    with gpuledger.request(f"parent {number}"):
        pass
    pid = os.fork()
    if pid == 0:
        with gpuledger.request(f"child {number}"):
            pass
        os._exit(0 if gpuledger.flush(30) and threading.active_count() == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
assert gpuledger.flush(30)
print(gpuledger.request_counts())
"""


def test_an_application_that_forks_between_its_requests_is_not_warned_and_loses_none(listening):
    """Python 3.12 and newer warn of threads at a fork, and in there warnings are errors."""
    command = [sys.executable, "-P", "-c", FORKING, listening.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.stderr, done.stdout) == ("", "Counts(sent=20, dropped=0, waiting=0)\n")
    told = {(one["operation"], one["pid"]) for one in listening.events}
    assert {operation for operation, _ in told} == {f"{who} {n}" for who in ("parent", "child") for n in range(20)}
    assert len({pid for _, pid in told}) == 21


@pytest.mark.parametrize("url", ["", "localhost:9465", "ftp://host", "http://", "http://host:x", "http://host/ingest"])
def test_what_is_no_address_is_one_sentence(url):
    with pytest.raises(UsageError) as raised:
        Outbox(url)
    assert str(raised.value) == f"{url!r} is no address of a collector: write it as http://127.0.0.1:9465"


APPLICATION = """
import sys, gpuledger
gpuledger.send_to(sys.argv[1])
with gpuledger.request("generate"):
    pass
print("done", flush=True)
"""


def run_application(url):
    return subprocess.run(
        [sys.executable, "-P", "-c", APPLICATION, url], capture_output=True, text=True, timeout=WAIT_S, check=True
    )


def test_an_application_that_ends_at_once_has_sent_its_requests(listening):
    assert run_application(listening.url).stdout == "done\n"
    assert [one["operation"] for one in listening.events] == ["generate"]


def test_a_hanging_collector_does_not_keep_an_application_from_ending(listening):
    listening.may_answer.clear()
    done = run_application(listening.url)  # a time limit of its own is what would fail this
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_an_application_that_is_killed_is_not_held_up(listening):
    listening.may_answer.clear()
    code = APPLICATION + "sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-P", "-c", code, listening.url], stdin=-1, stdout=-1) as application:
        assert application.stdout.readline() == b"done\n"
        application.terminate()
        assert application.wait(WAIT_S) == -signal.SIGTERM
