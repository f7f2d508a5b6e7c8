"""What every way in has in common: a body in, events and what was wrong with the others out."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from store.events import Event

BODY_BYTES_MAX = 8 * 2**20  # an SDK's batch of 512 spans has a tenth of it
EVENTS_MAX = 20_000  # of one body
PROBLEMS_MAX = 20  # that are told; all are counted
OLDEST_S = 400 * 86_400.0  # each day of events becomes a file: years beyond number would become as many
AHEAD_S = 3600.0  # a sender whose clock is fast

_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Refusal(Exception):  # noqa: N818 - an answer, as `starlette.exceptions.HTTPException` is
    """A body of which nothing is taken.

    Args:
        status: HTTP status code.
        sentence: What is wrong, and what to do.
        retry_after_s: When it is worth another try; None where it never is.
    """

    def __init__(self, status: int, sentence: str, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a reader has to know besides the body.

    Args:
        now_us: When it came, microseconds since the epoch.
        ledger_id: Of the ledger that it goes into.
    """

    now_us: int
    ledger_id: str


@dataclass(frozen=True, slots=True)
class Read:
    """What a body held.

    Args:
        events: The good ones.
        rejected: How many were not.
        problems: What was wrong with the first of those, and where.
    """

    events: Sequence[Event]
    rejected: int = 0
    problems: Sequence[str] = ()


Reader = Callable[[bytes, str, Arrival], Read]
"""Reads a body of a content type. Raises `Refusal` where it cannot be read at all."""


def unpacked(body: bytes, encoding: str) -> bytes:
    """The body without its compression, which may not unpack to more than is allowed.

    Raises:
        Refusal: Another compression, damaged, or too large.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refusal(415, f"The content encoding {encoding[:40]!r} is not known: send gzip, or none")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, told by its header
    try:
        plain = inflater.decompress(body, BODY_BYTES_MAX + 1)
    except zlib.error as error:
        raise Refusal(400, f"The body is no {encoding} ({error}): send it again") from None
    if len(plain) > BODY_BYTES_MAX:
        raise too_large()
    if not inflater.eof:
        raise Refusal(400, f"The body ends before its {encoding} does: send it again")
    return plain


def too_large() -> Refusal:
    return Refusal(413, f"The body has more than {BODY_BYTES_MAX // 2**20} MiB: send fewer events at once")


def too_many() -> Refusal:
    return Refusal(413, f"The body holds more than {EVENTS_MAX:,} events: send fewer at once")


def items(body: bytes) -> tuple[str, Sequence[Any]]:
    """The items of a JSON array, or the lines of NDJSON; first what one of them is called.

    Raises:
        Refusal: No JSON array though it begins as one, or too many items.
    """
    name = "event"
    if body[:64].lstrip()[:1] == b"[":
        if body.count(b"{") > EVENTS_MAX * 50:  # before it is taken apart: an item has few objects in it
            raise too_many()
        try:
            found: Sequence[Any] = _decode_array(body)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Refusal(400, f"The body is no JSON array ({plain_words(error)})") from None
    else:
        if body.count(b"\n") > EVENTS_MAX:
            raise too_many()
        name, found = "line", body.rstrip().split(b"\n")
    if len(found) > EVENTS_MAX:
        raise too_many()
    return name, found


def read_each(body: bytes, event_of: Callable[[Any], Event]) -> Read:
    """The events of a JSON array or of NDJSON, one item at a time: a bad one costs itself alone."""
    name, found = items(body)
    events: list[Event] = []
    problems: list[str] = []
    rejected = 0
    for number, item in enumerate(found, start=1):
        if not item.strip() if isinstance(item, bytes) else False:
            continue
        try:
            events.append(event_of(item))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            rejected += 1
            if rejected <= PROBLEMS_MAX:
                problems.append(f"{name} {number}: {plain_words(error)}")
    return Read(events, rejected, problems)


def plain_words(error: Exception) -> str:
    """An error's words as part of a sentence, without the marks of the library that found it."""
    words = str(error).replace("`", "").replace(" - at $.", " in ").replace(" - at $", "")
    return words[:300] if words[:2].isupper() else words[:1].lower() + words[1:300]


def check_time(time_us: int, arrival: Arrival) -> int:
    """The time, where it may be an event's.

    Raises:
        ValueError: It lies too far back or ahead.
    """
    age_s = (arrival.now_us - time_us) / 1e6
    if age_s > OLDEST_S:
        raise ValueError(f"the event is older than {OLDEST_S / 86_400:.0f} days")
    if age_s < -AHEAD_S:
        raise ValueError("the event lies more than an hour in the future: see to the sender's clock")
    return time_us
