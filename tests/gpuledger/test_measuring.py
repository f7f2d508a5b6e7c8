"""Requests measured in an application: what is told of them, however they end."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from gpuledger.measuring import MeasuredRequest, Recorder

START_US = 1_795_435_200_000_000


class StandingClock:
    """Stands still until it is moved."""

    def __init__(self):
        self.passed_s = 0.0

    def wall_us(self):
        return START_US + round(self.passed_s * 1e6)

    def monotonic_s(self):
        return 50.0 + self.passed_s


class Collected(list):
    """Keeps what is put into it, as an outbox would."""

    put = list.append


@pytest.fixture
def time():
    return StandingClock()


@pytest.fixture
def sent():
    return Collected()


@pytest.fixture
def recorder(time, sent):
    return Recorder("python", lambda: sent, time)


@pytest.fixture
def request_for(recorder):
    return lambda operation, **columns: MeasuredRequest(recorder, {"operation": operation, **columns})


def test_a_request_says_when_how_long_and_how_many_tokens(request_for, time, sent):
    with request_for("generate", response_model="llama", service="chat") as r:
        time.passed_s = 0.5
        r.first_token()
        time.passed_s = 0.6
        r.first_token()
        r.tokens(input=812, output=11)
        r.tokens(cached_input=600)
        r.model = "llama-3-8b"
        time.passed_s = 2.5
    (event,) = sent
    assert event.pop("source_event_id")
    assert event == {
        "kind": "request",
        "observed_at": START_US + 2_500_000,
        "source": "python",
        "pid": os.getpid(),
        "status": "ok",
        "operation": "generate",
        "service": "chat",
        "response_model": "llama-3-8b",
        "concurrency_at_start_count": 0,
        "time_to_first_token_seconds": 0.5,
        "input_tokens": 812,
        "output_tokens": 11,
        "cached_input_tokens": 600,
        "started_at": START_US,
        "ended_at": START_US + 2_500_000,
        "duration_seconds": 2.5,
        "time_per_output_token_seconds": 0.2,
    }


class OutOfTokensError(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "status", "error_type"),
    [
        (ValueError("my prompt"), "error", "ValueError"),
        (TimeoutError("my prompt"), "timeout", "TimeoutError"),
        (asyncio.CancelledError(), "cancelled", "asyncio.exceptions.CancelledError"),
        (OutOfTokensError("my prompt"), "error", f"{OutOfTokensError.__module__}.OutOfTokensError"),
    ],
)
def test_an_exception_goes_on_and_its_class_alone_is_told(request_for, sent, raised, status, error_type):
    with pytest.raises(type(raised)), request_for("generate"):
        raise raised
    assert (sent[0]["status"], sent[0]["error_type"]) == (status, error_type)
    assert "my prompt" not in str(sent)


def test_a_failure_without_an_exception_is_told_in_the_applications_words_cut(request_for, sent):
    with request_for("generate") as r:
        r.fail("queue_full", "q" * 999, status="rejected")
    assert (sent[0]["status"], sent[0]["error_type"], sent[0]["error_message"]) == ("rejected", "queue_full", "q" * 200)


def test_what_waits_is_bounded_whatever_it_is_told(request_for, sent):
    with request_for("o" * 9999) as r:
        r.put(gpu_uuids=["g" * 9999] * 9999, tenant="t" * 9999, attributes=dict.fromkeys(range(99), "x" * 9999))
    assert (sent[0]["gpu_uuids"], sent[0]["tenant"]) == (["g" * 200] * 64, "t" * 200)
    assert sent[0]["attributes"] == dict.fromkeys(range(64), "x" * 200)


def test_each_request_has_an_identity_and_knows_how_many_others_were_in_progress(request_for, sent):
    with request_for("a"), request_for("b"), request_for("c"):
        pass
    with request_for("d"):
        pass
    assert [(one["operation"], one["concurrency_at_start_count"]) for one in sent] == [
        ("c", 2),
        ("b", 1),
        ("a", 0),
        ("d", 0),
    ]
    assert len({one["source_event_id"] for one in sent}) == 4


def test_the_decorator_measures_every_kind_of_function(request_for, time, sent):
    @request_for("plain")
    def plain(x):
        return x + 1

    @request_for("coroutine")
    async def coroutine(x):
        time.passed_s += 1
        await asyncio.sleep(0)
        return x + 2

    @request_for("generator")
    def generator():
        time.passed_s += 2
        yield 1
        time.passed_s += 3
        yield 2

    @request_for("stream")
    async def stream():
        time.passed_s += 4
        yield 3
        time.passed_s += 5

    async def items():
        return [item async for item in stream()]

    assert (plain(1), asyncio.run(coroutine(1)), list(generator()), asyncio.run(items())) == (2, 3, [1, 2], [3])
    told = [(one["operation"], one["duration_seconds"], one.get("time_to_first_token_seconds")) for one in sent]
    assert told == [("plain", 0, None), ("coroutine", 1, None), ("generator", 5, 2), ("stream", 9, 4)]
    assert plain.__name__ == "plain"


def test_async_with_measures_requests_that_overlap(request_for, sent):
    async def one(number, gate):
        async with request_for(f"r{number}") as r:
            await gate.wait()
            r.tokens(output=number)

    async def all_of_them():
        gate = asyncio.Event()
        tasks = [asyncio.create_task(one(number, gate)) for number in range(20)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())
    assert {(e["operation"], e["output_tokens"], e["concurrency_at_start_count"]) for e in sent} == {
        (f"r{number}", number, number) for number in range(20)
    }


def test_requests_of_many_threads_are_all_told(request_for, sent):
    def work():
        for _ in range(200):
            with request_for("x"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one["source_event_id"] for one in sent}) == 1600
    with request_for("last"):
        pass
    assert sent[-1]["concurrency_at_start_count"] == 0


APPLICATION = """
import sys, gpuledger
@gpuledger.request("early")
def early(): pass
early()
with gpuledger.request("late", model="m"): pass
gpuledger.flush(30)
print(gpuledger.request_counts())
heavy = {"duckdb", "pyarrow", "polars", "starlette", "pydantic", "msgspec", "apsw", "typer", "mcp"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def run(environment):
    command = [sys.executable, "-P", "-c", APPLICATION]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)


def test_an_application_is_told_where_to_send_by_the_environment_and_carries_nothing_heavy(listening):
    done = run({"GPULEDGER_SEND_TO": listening.url, "GPULEDGER_SEND_TOKEN": "t"})
    assert done.stdout == "Counts(sent=2, dropped=0, waiting=0)\n[]\n"
    assert [(one["operation"], one.get("response_model")) for one in listening.events] == [
        ("early", None),
        ("late", "m"),
    ]
    assert listening.posts[0][1]["Authorization"] == "Bearer t"


def test_an_address_that_is_none_does_not_break_the_application():
    done = run({"GPULEDGER_SEND_TO": "nonsense"})
    assert done.stdout == "Counts(sent=0, dropped=0, waiting=0)\n[]\n"
    assert done.stderr == (
        "'nonsense' is no address of a collector: write it as http://127.0.0.1:9465; requests are not recorded\n"
    )
