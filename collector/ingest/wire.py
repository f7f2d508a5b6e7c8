"""`/ingest/events`: events as NDJSON or as a JSON array, each an object of the columns of its kind.

What may be sent is what only a sender can know: requests, samples of an inference server, notes. What the recorder sees
by itself (GPUs, the host, its own life) cannot be sent, nor a place in the ledger, a host or a boot. The types are made
of the declarations, so that a value is checked while it is decoded: a column that is not declared, a negative duration,
a text too long cost their event and are told with their place.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from collector.histograms import counted
from collector.ingest.reading import Arrival, Read, check_time, read_each
from collector.ingest.requests import completed
from collector.ingest.texts import error_text, safe_attributes
from store.events import ANNOTATION, REQUEST, SERVER_SAMPLE, AbsenceReason, Event, Field, Kind

SENDABLE = (REQUEST, SERVER_SAMPLE, ANNOTATION)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Histogram(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Counts per bucket since the row before; the last bucket, beyond all bounds, has none.

    What is `estimated` of them may be there, as in a row that was read from a ledger, and is estimated anew.
    """

    bounds: Annotated[list[float], Meta(max_length=200)]
    counts: Annotated[list[Annotated[int, Meta(ge=0, le=2**63 - 1)]], Meta(max_length=201)]
    sum: float | None = None
    count: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    estimated: dict[str, float] | None = None


_Time = Annotated[int, Meta(ge=0, le=2**53)] | Annotated[datetime, Meta(tz=True)]
_TYPES: Mapping[str, Any] = {
    "bool": bool,
    "int32": Annotated[int, Meta(ge=0, le=2**31 - 1)],
    "int64": Annotated[int, Meta(ge=0, le=2**63 - 1)],
    "float32": Annotated[float, Meta(ge=0, le=3.4e38)],
    "float64": Annotated[float, Meta(ge=0)],
    "string": Annotated[str, Meta(max_length=1024)],
    "strings": Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=64)],
    "time": _Time,
}
_SPECIAL: Mapping[str, Any] = {
    "absence": dict[str, AbsenceReason],
    "attributes": dict[str, Any],
    "error_message": str,  # cut, not refused
    "status": Literal["ok", "error", "cancelled", "timeout", "rejected"],
    "text": Annotated[str, Meta(min_length=1, max_length=2000)],
}
_REQUIRED = frozenset({"text", "server_address"})


def _type_of(column: Field) -> Any:
    plain = _SPECIAL.get(column.name) or (Histogram if _is_histogram(column) else _TYPES[column.type])
    return plain | None


def _is_histogram(column: Field) -> bool:
    return column.type == "json" and column.name not in _SPECIAL


def _shape(kind: Kind) -> type[msgspec.Struct]:
    needed = [(column.name, _type_of(column)) for column in kind.fields if _is_required(kind, column)]
    others = [(column.name, _type_of(column), None) for column in kind.fields if not _is_required(kind, column)]
    return msgspec.defstruct(
        kind.name,
        [*needed, ("observed_at", _Time | None, None), *others],
        tag_field="kind",
        tag=kind.name,
        forbid_unknown_fields=True,
        omit_defaults=True,
        kw_only=True,
    )


def _is_required(kind: Kind, column: Field) -> bool:
    return kind is not REQUEST and column.name in _REQUIRED


_decode: Callable[[Any], msgspec.Struct] = msgspec.json.Decoder(reduce(or_, map(_shape, SENDABLE))).decode
_HISTOGRAMS = {kind.name: [column.name for column in kind.fields if _is_histogram(column)] for kind in SENDABLE}
_TIMES = {kind.name: [column.name for column in kind.fields if column.type == "time"] for kind in SENDABLE}


def read_events(body: bytes, _content_type: str, arrival: Arrival) -> Read:
    """The events of a body. Raises `Refusal` where it cannot be read at all."""
    return read_each(body, lambda item: _event(item, arrival))


def _event(item: Any, arrival: Arrival) -> Event:
    values: dict[str, Any] = msgspec.to_builtins(_decode(item), builtin_types=(datetime,))
    kind = values.pop("kind")
    for name in _TIMES[kind]:
        if name in values:
            values[name] = check_time(_microseconds(values[name]), arrival)
    for name in _HISTOGRAMS[kind]:
        if name in values:
            values[name] = _histogram(name, values[name])
    sent_us = values.pop("observed_at", None)
    observed_us = values.get("ended_at", arrival.now_us) if sent_us is None else _microseconds(sent_us)
    check_time(observed_us, arrival)
    return Event(kind, observed_us, _request(values, observed_us) if kind == "request" else values)


def _histogram(name: str, sent: dict[str, Any]) -> dict[str, Any]:
    bounds, counts = sent["bounds"], sent["counts"]
    if len(counts) != len(bounds) + 1 or any(right <= left for left, right in pairwise(bounds)):
        raise ValueError(f"{name} needs bounds that rise, and one count more than there are bounds")
    return counted(bounds, counts, sent.get("sum"))


def _microseconds(time: int | datetime) -> int:
    return time if isinstance(time, int) else (time - _EPOCH) // _MICROSECOND


def _request(values: dict[str, Any], observed_us: int) -> dict[str, Any]:
    values.setdefault("source", "http")
    if "error_message" in values:
        values["error_message"] = error_text(values["error_message"])
    if "attributes" in values:
        values["attributes"] = safe_attributes(values["attributes"])
    return completed(values, observed_us)
