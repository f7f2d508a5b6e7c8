"""The routes that take events in over HTTP, and who may use them.

A program on this machine may send; one elsewhere must show the token of `ingest.token` in the ledger's folder. A web
page may not, wherever it is shown: what a browser sends for one bears an Origin.
"""

import asyncio
import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import ip_address

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from collector.ingest import litellm, otlp, wire
from collector.ingest.intake import Delivery, Intake, Outcome, Room
from collector.ingest.reading import BODY_BYTES_MAX, Reader, Refusal, too_large
from collector.ingest.tally import NewestServers, Tally

TOKEN_NAME = "ingest.token"  # noqa: S105 - the name of the file that holds one
BODY_TIME_LIMIT_S = 30.0
DRAIN_TIME_LIMIT_S = 2.0
KEY_CHARACTERS_MAX = 255


@dataclass(frozen=True, slots=True)
class Way:
    """A way in.

    Args:
        path: Of its route.
        reader: Reads a body.
        answer: What is told of what became of a body, given its content type.
        refusal: What is told where nothing of it was taken.
        is_known_by_body: A body that bears no key is known by what it is: its events have no ids of their own.
    """

    path: str
    reader: Reader
    answer: Callable[[Outcome, str], Response]
    refusal: Callable[[Refusal, str], Response]
    is_known_by_body: bool = False


@dataclass(frozen=True, slots=True)
class Door:
    """What all ways in share.

    Args:
        intake: Where bodies go.
        token: What senders from elsewhere must show; None where nobody can come from elsewhere.
        tally: Counts what comes.
        servers: Gets the samples of inference servers that came.
        room: How much may wait.
    """

    intake: Intake
    token: str | None
    tally: Tally = field(default_factory=Tally)
    servers: NewestServers = field(default_factory=NewestServers)
    room: Room = field(default_factory=Room)


def ingest_routes(door: Door) -> list[Route]:
    return [Route(way.path, _endpoint(way, door), methods=["POST"]) for way in _ways()]


def _ways() -> Sequence[Way]:
    return [
        Way("/ingest/events", wire.read_events, _counts, _sentence),
        Way("/ingest/litellm", litellm.read_litellm, _counts, _sentence),
        Way("/v1/traces", otlp.read_traces, otlp.answer_traces, otlp.refuse),
        Way("/v1/metrics", otlp.MetricsReader().read, otlp.answer_metrics, otlp.refuse, is_known_by_body=True),
    ]


def is_here(address: str | None) -> bool:
    """Whether only this machine has that address."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return address in (None, "localhost")
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _endpoint(way: Way, door: Door) -> Callable[[Request], object]:
    async def take(request: Request) -> Response:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            _check_sender(request, door.token)
            outcome = await _taken(request, content_type, way, door)
        except Refusal as refusal:
            door.tally.refusals[way.path, str(refusal.status)] += 1
            await _let_it_end(request)
            response = way.refusal(refusal, content_type)
            if refusal.retry_after_s is not None:
                response.headers["retry-after"] = str(refusal.retry_after_s)
            if refusal.status == 401:
                response.headers["www-authenticate"] = "Bearer"
            return response
        _count(outcome, way.path, door)
        return way.answer(outcome, content_type)

    return take


def _count(outcome: Outcome, path: str, door: Door) -> None:
    read, receipt = outcome.read, outcome.receipt
    counts = {"accepted": receipt.stored, "repeated": receipt.repeated, "refused": read.rejected}
    for became, count in counts.items():
        if count:
            door.tally.events[path, became] += count
    door.servers.note(read.events)


def _check_sender(request: Request, token: str | None) -> None:
    if "origin" in request.headers:
        raise Refusal(403, "A web page may not send events: send them from a program")
    if is_here(request.client.host if request.client else None):
        return
    shown = request.headers.get("authorization", "").encode()
    if token is None or not hmac.compare_digest(shown, f"Bearer {token}".encode()):
        raise Refusal(
            401, f"A token is required: 'Authorization: Bearer <content of {TOKEN_NAME} in the ledger folder>'"
        )


async def _taken(request: Request, content_type: str, way: Way, door: Door) -> Outcome:
    """Read the body, hand it over, and wait until what it holds is on disk."""
    held = bytearray()
    door.room.take(0, bodies=1)
    try:
        await _read_into(held, request, door.room)
        body = bytes(held)
        encoding = request.headers.get("content-encoding", "").strip().lower()
        key = _key(request, body if way.is_known_by_body else None)
        delivery = Delivery(body, encoding, content_type, way.reader, key)
        door.intake.submit(delivery)
        return await asyncio.wrap_future(delivery.done)
    finally:
        door.tally.body_bytes[way.path] += len(held)
        door.room.give_back(len(held), bodies=1)


async def _read_into(held: bytearray, request: Request, room: Room) -> None:
    try:
        async with asyncio.timeout(BODY_TIME_LIMIT_S):
            async for chunk in request.stream():
                room.take(len(chunk))
                held += chunk
                if len(held) > BODY_BYTES_MAX:
                    raise too_large()
    except TimeoutError:
        raise Refusal(408, f"The body took longer than {BODY_TIME_LIMIT_S:.0f} s: send it again") from None
    except ClientDisconnect:
        raise Refusal(400, "The sender left before the end of the body") from None


async def _let_it_end(request: Request) -> None:
    """Read on for a while and throw it away: who is still sending would see a broken connection, and no answer."""
    left_bytes = BODY_BYTES_MAX
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # the last says that it has ended already
        async with asyncio.timeout(DRAIN_TIME_LIMIT_S):
            async for chunk in request.stream():
                left_bytes -= len(chunk)
                if left_bytes < 0:
                    return


def _key(request: Request, body: bytes | None) -> str | None:
    key = request.headers.get("idempotency-key", "").strip()
    if len(key) > KEY_CHARACTERS_MAX:
        raise Refusal(400, f"The Idempotency-Key has more than {KEY_CHARACTERS_MAX} characters: send a shorter one")
    if not key and body is not None:
        key = blake2b(body, digest_size=16).hexdigest()
    return f"http {request.url.path} {key}" if key else None


def _counts(outcome: Outcome, _: str) -> Response:
    read, receipt = outcome.read, outcome.receipt
    body = {
        "stored": receipt.stored,
        "repeated": receipt.repeated,
        "rejected": read.rejected,
        "errors": list(read.problems),
    }
    return JSONResponse(body, 400 if read.rejected and not read.events else 200)


def _sentence(refusal: Refusal, _: str) -> Response:
    return JSONResponse({"error": refusal.sentence}, refusal.status)
