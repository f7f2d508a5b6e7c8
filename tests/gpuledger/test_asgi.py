"""The middleware in a real Starlette application, served by uvicorn and asked over HTTP."""

import asyncio
import http.client
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from gpuledger.asgi import RequestRecorder, request_of
from gpuledger.measuring import Recorder
from gpuledger.outbox import Limits, Outbox

WAIT_S = 30.0


class Application:
    """A Starlette application in a thread, and what its middleware told."""

    def __init__(self, outbox):
        self.gate = threading.Event()
        self.recorder = Recorder("asgi", lambda: outbox)
        middleware = Middleware(RequestRecorder, service="chat", recorder=self.recorder)
        inner = [Route("/items/{item:int}", self.item), Route("/", self.item)]
        routes = [
            Route("/users/{name}", self.user, methods=["GET", "POST"]),
            Route("/stream", self.stream),
            Route("/endless", self.endless),
            Route("/broken", self.broken),
            Route("/busy", self.busy),
            Route("/later", self.later),
            Mount("/tenants/{tenant}", routes=inner),
        ]
        self.app = Starlette(routes=routes, middleware=[middleware])

    async def user(self, request):
        body = await request.body()
        request_of(request.scope).tokens(input=7, output=len(body))
        return PlainTextResponse(request.path_params["name"])

    async def item(self, request):
        return JSONResponse(request.path_params)

    async def stream(self, request):
        async def tokens():
            for token in ("a", "b", "c"):
                request_of(request.scope).first_token()
                yield token

        return StreamingResponse(tokens())

    async def endless(self, _):
        async def tokens():
            while True:
                yield "x" * 1000
                await asyncio.sleep(0.001)

        return StreamingResponse(tokens())

    async def broken(self, _):
        raise RuntimeError("a prompt")

    async def busy(self, _):
        return PlainTextResponse("no", status_code=429)

    async def later(self, _):
        return PlainTextResponse("yes", background=BackgroundTask(self.gate.wait, WAIT_S))


@pytest.fixture
def outbox(listening):
    outbox = Outbox(listening.url, limits=Limits(linger_s=0.01, close_time_limit_s=WAIT_S))
    yield outbox
    outbox.close()


@pytest.fixture
def application(outbox):
    application = Application(outbox)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        config = uvicorn.Config(application.app, log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        application.port = listener.getsockname()[1]
        yield application
        application.gate.set()
        server.should_exit = True
        thread.join(WAIT_S)


def ask(application, path, method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", application.port, timeout=WAIT_S)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def told(listening, outbox, count):
    for _ in range(3000):
        assert outbox.flush(WAIT_S)
        if len(listening.events) >= count:
            return listening.events
        threading.Event().wait(0.01)
    raise AssertionError(listening.events)


def test_a_request_is_told_by_its_template_and_nothing_of_what_was_in_it(application, listening, outbox):
    assert ask(application, "/users/alice?q=hidden", "POST", "a prompt") == (200, "alice")
    (event,) = told(listening, outbox, 1)
    assert {name: event[name] for name in ("source", "service", "endpoint", "method", "status", "http_status")} == {
        "source": "asgi",
        "service": "chat",
        "endpoint": "/users/{name}",
        "method": "POST",
        "status": "ok",
        "http_status": 200,
    }
    assert (event["input_tokens"], event["output_tokens"]) == (7, 8)
    assert 0 < event["time_to_first_byte_seconds"] <= event["duration_seconds"]
    assert "stream" not in event
    assert not {"alice", "hidden", "a prompt"} & {word for word in event.values() if isinstance(word, str)}
    assert "alice" not in str(event)


@pytest.mark.parametrize(
    ("path", "endpoint", "status"),
    [
        ("/tenants/acme/items/42", "/tenants/{tenant}/items/{item:int}", 200),
        ("/tenants/acme/", "/tenants/{tenant}/", 200),
        ("/nowhere/acme", None, 404),
    ],
)
def test_no_path_as_it_was_asked_is_told(application, listening, outbox, path, endpoint, status):
    assert ask(application, path)[0] == status
    (event,) = told(listening, outbox, 1)
    assert event.get("endpoint") == endpoint
    assert "acme" not in str(event)


def test_a_streamed_answer_has_its_first_byte_and_its_first_token(application, listening, outbox):
    assert ask(application, "/stream") == (200, "abc")
    (event,) = told(listening, outbox, 1)
    assert event["stream"] is True
    first_s = event["time_to_first_token_seconds"]
    assert 0 < first_s <= event["time_to_first_byte_seconds"] <= event["duration_seconds"]


def test_an_application_that_raises_and_one_that_refuses_are_told_apart(application, listening, outbox):
    assert ask(application, "/broken")[0] == 500
    assert ask(application, "/busy")[0] == 429
    events = told(listening, outbox, 2)
    assert [(e["endpoint"], e["status"], e["http_status"], e["error_type"]) for e in events] == [
        ("/broken", "error", 500, "RuntimeError"),
        ("/busy", "rejected", 429, "429"),
    ]
    assert "a prompt" not in str(events)


def test_a_client_that_leaves_in_the_middle_has_cancelled(application, listening, outbox):
    with socket.create_connection(("127.0.0.1", application.port)) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100)
    (event,) = told(listening, outbox, 1)
    assert (event["endpoint"], event["status"], event["http_status"]) == ("/endless", "cancelled", 200)


def test_a_request_ends_with_its_last_byte_and_not_with_its_background_task(application, listening, outbox):
    assert ask(application, "/later") == (200, "yes")
    assert [one["endpoint"] for one in told(listening, outbox, 1)] == ["/later"]
    assert not application.gate.is_set()


def test_under_load_every_request_is_told_once_and_none_is_left_in_progress(application, listening, outbox):
    paths = ["/users/bob", "/stream", "/busy", "/tenants/t/items/1"]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: ask(application, paths[number % 4])[0], range(400)))
    assert Counter(answers) == {200: 300, 429: 100}
    events = told(listening, outbox, 400)
    assert Counter(one["endpoint"] for one in events) == {
        "/users/{name}": 100,
        "/stream": 100,
        "/busy": 100,
        "/tenants/{tenant}/items/{item:int}": 100,
    }
    assert len({one["source_event_id"] for one in events}) == 400
    ask(application, "/busy")
    assert told(listening, outbox, 401)[-1]["concurrency_at_start_count"] == 0


def test_an_application_goes_on_while_the_collector_hangs(application, listening, outbox):
    listening.may_answer.clear()
    assert [ask(application, "/users/eve")[0] for _ in range(20)] == [200] * 20
    listening.may_answer.set()
    assert len(told(listening, outbox, 20)) == 20


def test_what_is_not_http_passes_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    scope = {"type": "lifespan"}
    asyncio.run(RequestRecorder(app)(scope, "receive", "send"))
    assert seen == [(scope, "receive", "send")]


def test_a_request_that_is_not_recorded_says_so():
    with pytest.raises(LookupError, match=r"wrap the application in gpuledger\.asgi\.RequestRecorder"):
        request_of({"type": "http"})
