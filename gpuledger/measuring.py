"""Requests measured inside the application that answers them.

    with gpuledger.request("generate", model="llama-3-8b") as r:
        for token in generate(prompt):
            r.first_token()
            ...
        r.tokens(input=812, output=96)

    @gpuledger.request("embed")
    async def embed(texts): ...

What is sent is when, how long, how it ended and the counts that the application tells. Neither arguments nor results
are looked at, and of an exception only its class is told: its message may quote a prompt.
"""

import asyncio
import functools
import inspect
import itertools
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast
from weakref import WeakSet

from gpuledger.outbox import Counts, Outbox
from store.errors import UsageError

logger = logging.getLogger("gpuledger")

DEFAULT_URL = "http://127.0.0.1:9465"
URL_VARIABLE = "GPULEDGER_SEND_TO"
TOKEN_VARIABLE = "GPULEDGER_SEND_TOKEN"  # noqa: S105 - the name of a variable
TEXT_CHARACTERS_MAX = 200
TEXTS_MAX = 64

P = ParamSpec("P")
R = TypeVar("R")


class Clock:
    """Microseconds since the epoch, and seconds that only grow."""

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()


class Recorder:
    """Begins requests and sends them when they have ended.

    Args:
        source: How these requests come in, for the column `source`.
        outbox: Gives what they are sent through; None where they are not sent.
        clock: What time it is.
    """

    def __init__(
        self, source: str, outbox: Callable[[], Outbox | None] | None = None, clock: Clock | None = None
    ) -> None:
        self._source = source
        self._outbox = outbox or default_outbox
        self._clock = clock or Clock()
        self._in_progress = 0
        self._lock = threading.Lock()
        _RECORDERS.add(self)

    def begin(self, **values: Any) -> "Request":
        """Begin a request with these columns; those that are None are left out."""
        with self._lock:
            others = self._in_progress
            self._in_progress += 1
        known = {**values, "service": values.get("service") or _here.service}
        told = {name: _cut(value) for name, value in known.items() if value is not None}
        return Request(self._end, self._clock, {**told, "concurrency_at_start_count": others})

    def forget_those_in_progress(self) -> None:
        """In a forked child: they go on in its parent."""
        self._lock = threading.Lock()
        self._in_progress = 0

    def _end(self, ended_us: int, values: dict[str, Any]) -> None:
        with self._lock:
            self._in_progress = max(self._in_progress - 1, 0)
        if (outbox := self._outbox()) is not None:
            identity = {"source": self._source, "source_event_id": _here.next_request_id(), "pid": os.getpid()}
            outbox.put({"kind": "request", "observed_at": ended_us, **identity, **values})


class Request:
    """One request in progress."""

    def __init__(self, end: Callable[[int, dict[str, Any]], None], clock: Clock, values: dict[str, Any]) -> None:
        self._end = end
        self._clock = clock
        self._values = values
        self._started_us = clock.wall_us()
        self._started_s = clock.monotonic_s()
        self._has_ended = False

    @property
    def model(self) -> str | None:
        """The model that answered."""
        return cast("str | None", self._values.get("response_model"))

    @model.setter
    def model(self, name: str) -> None:
        self._values["response_model"] = _cut(name)

    def tokens(
        self,
        *,
        input: int | None = None,  # noqa: A002 - reads as r.tokens(input=812, output=96)
        output: int | None = None,
        cached_input: int | None = None,
        reasoning: int | None = None,
    ) -> None:
        """Say how many tokens went in and came out; what is left out stays as it was told before."""
        told = {
            "input_tokens": input,
            "output_tokens": output,
            "cached_input_tokens": cached_input,
            "reasoning_tokens": reasoning,
        }
        self._values |= {name: int(count) for name, count in told.items() if count is not None}

    def first_token(self) -> None:
        """Say that the first token is there; further calls change nothing, so it can stand in the loop."""
        self._values.setdefault("time_to_first_token_seconds", self._clock.monotonic_s() - self._started_s)

    def first_byte(self) -> None:
        """Say that the first byte of the answer was sent; further calls change nothing."""
        self._values.setdefault("time_to_first_byte_seconds", self._clock.monotonic_s() - self._started_s)

    def fail(self, error_type: str, message: str | None = None, *, status: str = "error") -> None:
        """Say that it failed, where no exception does; the message must quote nobody's prompt."""
        self._values |= {"status": status, "error_type": _cut(error_type)}
        if message is not None:
            self._values["error_message"] = _cut(message)

    def put(self, **columns: Any) -> None:
        """Say what else of the request's columns is known, such as `queue_seconds`, `tenant` or `finish_reason`."""
        self._values |= {name: _cut(value) for name, value in columns.items() if value is not None}

    def end(self, error: BaseException | None = None) -> None:
        """It has ended, with this exception if there was one; what comes after counts no more."""
        if self._has_ended:
            return
        self._has_ended = True
        duration_s = self._clock.monotonic_s() - self._started_s
        if error is not None:
            self.fail(_class_name(error), status=_status_of(error))
        # From one reading of the wall clock, so that a step of it in between does not tear the three apart.
        ended_us = self._started_us + round(duration_s * 1e6)
        times = {"started_at": self._started_us, "ended_at": ended_us, "duration_seconds": duration_s}
        self._end(ended_us, {"status": "ok", **self._values, **times, **self._time_per_token(duration_s)})

    def _time_per_token(self, duration_s: float) -> dict[str, float]:
        first_s, tokens = (self._values.get(name) for name in ("time_to_first_token_seconds", "output_tokens"))
        if first_s is None or tokens is None or tokens < 2:
            return {}
        return {"time_per_output_token_seconds": (duration_s - first_s) / (tokens - 1)}


class MeasuredRequest:
    """What `gpuledger.request` gives: for `with` and `async with` once, as a decorator for every call."""

    def __init__(self, recorder: Recorder, columns: dict[str, Any]) -> None:
        self._recorder = recorder
        self._columns = columns
        self._request: Request | None = None

    def __enter__(self) -> Request:
        self._request = self._recorder.begin(**self._columns)
        return self._request

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._request:
            self._request.end(error)

    async def __aenter__(self) -> Request:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _anew(self) -> Self:
        return type(self)(self._recorder, self._columns)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure every call of `function`; of a generator until it is exhausted, its first item as first token."""
        called = cast("Callable[..., Any]", function)

        if inspect.isasyncgenfunction(function):

            async def measured_stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                with self._anew() as request:
                    async for item in called(*args, **kwargs):
                        request.first_token()
                        yield item

            wrapper: Any = measured_stream
        elif inspect.iscoroutinefunction(function):

            async def measured_coroutine(*args: Any, **kwargs: Any) -> Any:
                with self._anew():
                    return await called(*args, **kwargs)

            wrapper = measured_coroutine
        elif inspect.isgeneratorfunction(function):

            def measured_generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
                with self._anew() as request:
                    for item in called(*args, **kwargs):
                        request.first_token()
                        yield item

            wrapper = measured_generator
        else:

            def measured(*args: Any, **kwargs: Any) -> Any:
                with self._anew():
                    return called(*args, **kwargs)

            wrapper = measured
        return cast("Callable[P, R]", functools.wraps(function)(wrapper))


def request(operation: str, *, model: str | None = None, service: str | None = None, **columns: Any) -> MeasuredRequest:
    """Measure a request: `with`, `async with`, or as a decorator.

    Args:
        operation: What is done: chat, completion, embedding and the like.
        model: The model that answers.
        service: Which service answers; what `send_to` was told where left out.
        columns: Further columns of `request` that are known before.
    """
    known = {"operation": operation, "response_model": model, "service": service, **columns}
    return MeasuredRequest(_recorder, known)


def send_to(url: str = DEFAULT_URL, *, token: str = "", service: str | None = None) -> None:
    """Say where requests of this process are sent, and what the service is called.

    Without it they go where GPULEDGER_SEND_TO says, with the token of GPULEDGER_SEND_TOKEN, by default to
    the collector of this machine. What still waits for another place has two seconds to go there.

    Raises:
        UsageError: The address is none.
    """
    before, _here.outbox, _here.service = _here.outbox, Outbox(url, token), service
    if before:
        before.close()


def flush(time_limit_s: float = 2.0) -> bool:
    """Wait until what has ended so far was sent or dropped; whether it was, within the time."""
    return _here.outbox is None or _here.outbox.flush(time_limit_s)


def request_counts() -> Counts:
    """How many requests of this process were sent, dropped, and wait."""
    return _here.outbox.counts if _here.outbox else Counts(0, 0, 0)


def default_outbox() -> Outbox | None:
    """Where requests of this process go; made at the first of them."""
    if _here.outbox is None and not _here.is_unusable:
        with _here.lock:
            if _here.outbox is None and not _here.is_unusable:
                _here.outbox = _of_environment()
                _here.is_unusable = _here.outbox is None
    return _here.outbox


def _of_environment() -> Outbox | None:
    try:
        return Outbox(os.environ.get(URL_VARIABLE) or DEFAULT_URL, os.environ.get(TOKEN_VARIABLE, ""))
    except UsageError as error:  # the application goes on, as it would without a collector
        logger.warning("%s; requests are not recorded", error)
        return None


def status_of_http(code: int) -> str:
    """The status of a request that was answered with this HTTP status."""
    return {408: "timeout", 429: "rejected", 499: "cancelled", 503: "rejected", 504: "timeout"}.get(
        code, "ok" if code < 400 else "error"
    )


def _status_of(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt):
        return "cancelled"
    return "timeout" if isinstance(error, TimeoutError) else "error"


def _class_name(error: BaseException) -> str:
    name = type(error)
    return name.__qualname__ if name.__module__ == "builtins" else f"{name.__module__}.{name.__qualname__}"


def _cut(value: Any) -> Any:
    """What may wait in the buffer: bounded, so that 10,000 of them are."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value[:TEXTS_MAX]]
    if isinstance(value, dict):
        return {_plain(name): _plain(one) for name, one in itertools.islice(value.items(), TEXTS_MAX)}
    return _plain(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float) else str(value)[:TEXT_CHARACTERS_MAX]


class _Process:
    """What this process knows of where its requests go."""

    def __init__(self) -> None:
        self.outbox: Outbox | None = None
        self.is_unusable = False
        self.service: str | None = None
        self.begin()

    def begin(self) -> None:
        """Be a process of its own, at first and in a forked child."""
        self.id = os.urandom(8).hex()
        self.lock = threading.Lock()

    def next_request_id(self) -> str:
        return f"{self.id}-{next(_NUMBERS)}"


def _begin_anew_in_child() -> None:
    _here.begin()
    for recorder in list(_RECORDERS):
        recorder.forget_those_in_progress()


_NUMBERS = itertools.count(1)
_RECORDERS: WeakSet[Recorder] = WeakSet()
_here = _Process()
_recorder = Recorder("python")
os.register_at_fork(after_in_child=_begin_anew_in_child)
