"""A pure ASGI middleware that records the requests of an application, such as one of Starlette or FastAPI.

    app.add_middleware(gpuledger.asgi.RequestRecorder, service="chat")

It looks at when messages pass and of what type they are; bodies, headers and raw paths it does not read. The endpoint
is the template of the route (`/v1/users/{id}`), which the router notes in the scope; where there is none, as for a path
that leads nowhere, it is left out.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gpuledger.measuring import Recorder, Request, status_of_http

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "gpuledger.request"


class RequestRecorder:
    """Records each HTTP request when it has ended; what the application raises goes on as it came.

    Args:
        app: The application.
        service: Which service answers, for the column `service`.
        operation: What its requests do, where all do the same; the application may say it for one with `request_of`.
        recorder: Begins and sends the requests.
    """

    def __init__(
        self,
        app: Application,
        *,
        service: str | None = None,
        operation: str | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._app = app
        self._known = {"service": service, "operation": operation}
        self._recorder = recorder or Recorder("asgi")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = self._recorder.begin(method=scope["method"], **self._known)
        scope[SCOPE_KEY] = request
        exchange = _Exchange(request, scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        exchange.end()


class _Exchange:
    """The messages of one request, as far as they tell how it went."""

    def __init__(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        self._request = request
        self._scope = scope
        self._receive = receive
        self._send = send
        self._outer_path = scope.get("root_path", "")
        self._http_status: int | None = None
        self._is_complete = False
        self._client_left = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._is_complete:
            self._client_left = True
        return message

    async def send(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # how a server says that nobody listens any more
            self._client_left = True
            raise
        if message["type"] == "http.response.start":
            self._http_status = message["status"]
        elif message["type"] == "http.response.body":
            self._note_body(has_some=bool(message.get("body")), has_more=message.get("more_body", False))

    def _note_body(self, *, has_some: bool, has_more: bool) -> None:
        if has_some:
            self._request.first_byte()
        if has_more:
            self._request.put(stream=True)
        else:
            self._is_complete = True
            self.end()  # here and not when the application returns: Starlette's background tasks come before that

    def end(self, error: BaseException | None = None) -> None:
        if error is not None and self._http_status is None:
            self._http_status = 500  # what the server answers for an application that raised before it did
        if self._client_left and not self._is_complete:
            self._request.put(status="cancelled")
            error = None
        elif self._http_status is not None and self._http_status >= 400:
            self._request.fail(str(self._http_status), status=status_of_http(self._http_status))
        self._request.put(endpoint=_template(self._scope, self._outer_path), http_status=self._http_status)
        self._request.end(error)


def request_of(scope: Scope) -> Request:
    """The request that is being recorded, to tell it tokens and the model: `request_of(request.scope).tokens(...)`.

    Raises:
        LookupError: The application is not wrapped in `RequestRecorder`.
    """
    if SCOPE_KEY not in scope:
        raise LookupError("This request is not recorded: wrap the application in gpuledger.asgi.RequestRecorder")
    found: Request = scope[SCOPE_KEY]
    return found


def _template(scope: Scope, outer_path: str) -> str | None:
    """The route's template, after those of what it is mounted in."""
    path = getattr(scope.get("route"), "path", None)
    if path is None:
        return None
    names = {str(value): name for name, value in scope.get("path_params", {}).items()}
    mounted = scope.get("root_path", "").removeprefix(outer_path).split("/")
    prefix = "/".join(f"{{{names[part]}}}" if part in names else part for part in mounted)
    return prefix if hasattr(scope["route"], "routes") else f"{prefix}{path}"
